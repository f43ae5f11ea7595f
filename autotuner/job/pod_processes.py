"""Count the processes that one pod of a PyTorchJob starts.

The number depends on the launcher, and on where it takes the number from:

- torchrun takes `--nproc-per-node`, or else PET_NPROC_PER_NODE (torch/distributed/argparse_util.py). The
  operator sets that after the container's own variables, so its value wins: `nprocPerNode`, else
  `elasticPolicy.nProcPerNode`, else `auto` (training-operator v1.9, pkg/controller.v1/pytorch/envvar.go and
  pkg/apis/kubeflow.org/v1/pytorch_defaults.go). `auto` is one process per GPU or, without GPUs, one per
  CPU of the node, which no manifest states.
- A plain `python train.py` is one process per pod, whatever its GPUs.
- accelerate and mpirun take the number of processes on all nodes together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from autotuner.job.accelerators import Accelerators, accelerators
from autotuner.job.launchers import Launch, Program, read_command_line
from autotuner.job.lookup import section
from autotuner.job.shell import GPUS, Variables

_CONTAINER: Final = "pytorch"
_PODS: Final = "\0PET_NNODES\0"
_WORLD: Final = "\0WORLD_SIZE\0"
_REFERENCE: Final = re.compile(r"\$\$|\$\(([^()\s$]+)\)")
_PRODUCT: Final = re.compile(r"[0-9]{1,6}(?:\s*[*/]\s*[0-9]{1,6}){0,8}")
_RANGE: Final = re.compile(r"([0-9]{1,6}):([0-9]{1,6})")
_MOST: Final = 100_000
"""Maximum number of processes of a pod; a larger number counts as unknown."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A statement of a manifest about processes: its place and its text."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} is {self.what!r}"


@dataclass(frozen=True, slots=True)
class PodProcesses:
    """The processes of one pod: their number, or the problem with it. Fields as in `Processes`."""

    kind: str
    count: int | None
    problem: str
    guess: int
    evidence: tuple[Evidence, ...]
    pinned: tuple[Evidence, ...]
    is_certain: bool
    is_remote: bool


def read_pod(
    kind: str, replica: Mapping[str, Any], spec: Mapping[str, Any], pods: int
) -> PodProcesses | None:
    """Return the processes of a pod of one kind of replica; None if it has no container `pytorch`.

    Args:
        kind: Master or Worker.
        replica: The replica of this kind in the job's spec.
        spec: The job's spec.
        pods: Pods of all kinds together.
    """
    container = _container(replica)
    return None if container is None else _Reader(kind, container, spec, pods).reading()


class _Reader:
    """Reads the processes of one kind of replica."""

    def __init__(self, kind: str, container: Mapping[str, Any], spec: Mapping[str, Any], pods: int) -> None:
        self._kind, self._container, self._spec = kind, container, spec
        self._pods = max(pods, 1)
        self._gpus: Accelerators = accelerators(container)
        elastic = section(spec, "elasticPolicy")
        self._is_elastic = isinstance(spec.get("elasticPolicy"), dict)
        self._declared = _text(spec.get("nprocPerNode"))
        self._operators = self._declared or _text(elastic.get("nProcPerNode")) or "auto"
        self._where = f"{kind} container {_CONTAINER}"
        self._evidence: list[Evidence] = []
        self._pinned: list[Evidence] = []
        self._guesses: list[int] = []
        self._problems: list[str] = []
        has_master = "Master" in section(spec, "pytorchReplicaSpecs")
        self._is_mixed = len(section(spec, "pytorchReplicaSpecs")) > 1
        self._own = _environment(container)
        self._variables: Variables = {
            **self._own,
            "PET_NPROC_PER_NODE": self._operators,
            "PET_NNODES": _PODS,
            **({"WORLD_SIZE": _WORLD} if has_master else {}),
        }
        number = _number(self._operators)
        self._world = self._pods * (number or 1)

    def reading(self) -> PodProcesses:
        """Return the count, or why it is unknown."""
        if self._declared:
            self._found("spec.nprocPerNode", self._declared)
        elif self._operators != "auto":
            self._found("spec.elasticPolicy.nProcPerNode", self._operators)
        if self._gpus.named:
            self._found(f"{self._where} resources", self._gpus.named)
        command = [_expanded(word, self._variables) for word in _words(self._container, "command")]
        args = [_expanded(word, self._variables) for word in _words(self._container, "args")]
        line = read_command_line([*command, *args], self._variables)
        counts = [count for launch in line.launches if (count := self._of_launch(launch)) is not None]
        if not line.launches:
            program = line.program
            if program is None or (not command and program.is_opaque):
                program = Program("the image's entrypoint", is_opaque=True)
            counts = [count] if (count := self._of_program(program)) is not None else []
        for launch in line.launches:
            self._found(f"{self._where} command", launch.text)
        self._guesses += counts
        if len(set(counts)) > 1:
            self._problems.append(f"its launchers start {' and '.join(map(str, counts))} processes")
        count = counts[0] if counts else None
        if count is not None:
            self._check(count)
        if self._problems:
            # One process per GPU is the likely maximum, and batches that are multiples of it are safe.
            self._guesses.append(self._gpus.devices)
        return PodProcesses(
            kind=self._kind,
            count=None if self._problems else count,
            problem="; ".join(f"{self._kind}: {problem}" for problem in dict.fromkeys(self._problems)),
            guess=max([1, *self._guesses]),
            evidence=tuple(self._evidence),
            pinned=tuple(self._pinned),
            is_certain=bool(line.launches),
            is_remote=any(launch.is_remote for launch in line.launches),
        )

    def _found(self, where: str, what: str) -> None:
        self._evidence.append(Evidence(where, what))
        number = _number(what)
        if number is not None:
            self._guesses.append(number)

    def _check(self, count: int) -> None:
        """Record other places of the manifest that state another number."""
        declared = _number(self._operators)
        if declared is not None and declared != count:
            self._problems.append(f"nprocPerNode is {declared}, but the command starts {count} processes")
        given = _number(self._own.get("NPROC_PER_NODE") or "")
        if given is not None:
            self._found(f"{self._where} env NPROC_PER_NODE", str(given))
            if given != count:
                self._problems.append(f"NPROC_PER_NODE is {given}, but the command starts {count} processes")
        if self._gpus.whole and count > self._gpus.whole:
            self._problems.append(f"the command starts {count} processes on {self._gpus.whole} GPUs")

    def _of_launch(self, launch: Launch) -> int | None:
        if launch.is_unclear:
            self._problems.append(f"the options of {launch.text!r} cannot be read")
            return None
        if not self._joins_all(launch):
            return None
        if launch.total is not None:
            return self._part_of(launch, launch.total)
        if launch.name == "torchrun":
            return self._of_torchrun(launch)
        if launch.per_node is not None:
            return self._amount(launch.per_node, launch)
        if not self._gpus.devices and launch.name == "accelerate launch":
            return 1
        if launch.name in {"accelerate launch", "deepspeed"}:
            return self._auto(f"{launch.name} starts one process per GPU")
        self._problems.append(f"{launch.text!r} does not say how many processes it starts")
        return None

    def _joins_all(self, launch: Launch) -> bool:
        """Record whether the launcher's process group is all pods of the job, which share a batch."""
        if self._is_elastic and self._is_mixed and launch.name == "torchrun":
            self._problems.append(
                "elasticPolicy counts only the Workers as nodes, but the Master's torchrun joins them too"
            )
            return False
        if launch.nodes is None:
            # torchrun takes PET_NNODES; accelerate's is 1.
            alone = launch.is_alone or (launch.name == "accelerate launch")
            if alone and self._pods > 1:
                self._problems.append(
                    f"{launch.text!r} starts a process group of one pod, but the job has {self._pods} pods"
                )
                return False
            return True
        named = "num_machines" if launch.name == "accelerate launch" else "num_nodes"
        option = f"--{'nnodes' if launch.name == 'torchrun' else named}"
        elastic = _RANGE.fullmatch(launch.nodes)
        nodes = None if elastic else self._evaluated(launch.nodes)
        if elastic is not None and elastic[1] == elastic[2]:
            nodes = int(elastic[1])
        if nodes is None and elastic is None:
            self._problems.append(f"the number of nodes in {option}={_plain(launch.nodes)} is unknown")
            return False
        if not _follows(launch.nodes):
            self._pinned.append(Evidence(f"{self._where} command", f"{option}={_plain(launch.nodes)}"))
        if nodes != self._pods:
            self._problems.append(
                f"{option}={_plain(launch.nodes)} differs from the job's {self._pods} pods, which all start"
            )
            return False
        return True

    def _of_torchrun(self, launch: Launch) -> int | None:
        if launch.per_node is not None:
            return self._amount(launch.per_node, launch)
        # The script's own exports come after the variables that the operator sets.
        text = self._variables.get("PET_NPROC_PER_NODE") or "auto"
        own = self._own.get("PET_NPROC_PER_NODE")
        count = self._amount(text, launch)
        if own is not None and text == self._operators and _number(own) != count:
            self._found(f"{self._where} env PET_NPROC_PER_NODE", own)
            self._problems.append(
                f"the operator sets PET_NPROC_PER_NODE to {text}, in place of the container's {own}:"
                " set the number in spec.nprocPerNode"
            )
            return None
        return count

    def _amount(self, text: str, launch: Launch) -> int | None:
        if text in {"auto", "gpu"}:
            return self._auto(f"torchrun starts one process per GPU ({text})")
        if text == "cpu":
            self._problems.append("torchrun starts one process per CPU of the node (cpu)")
            return None
        number = self._evaluated(text)
        if number is None:
            self._problems.append(
                f"{_plain(text)} in {launch.text!r} cannot be known"
                + (": only a shell expands it; write $(NAME)" if re.match(r"\$\w", text) else "")
            )
        return number

    def _auto(self, words: str) -> int | None:
        if self._gpus.auto is None:
            seen = self._gpus.named or "none, so one process per CPU of the node"
            self._problems.append(f"{words}, and the number is unknown ({seen})")
        return self._gpus.auto

    def _part_of(self, launch: Launch, text: str) -> int | None:
        """Return a pod's share of the processes that a launcher starts on all nodes together."""
        total = self._evaluated(text)
        option = "--num_processes" if launch.name == "accelerate launch" else "-np"
        if total is None:
            self._problems.append(f"{_plain(text)} in {launch.text!r} cannot be known")
            return None
        if not _follows(text):
            self._pinned.append(Evidence(f"{self._where} command", f"{option}={total}"))
        if total % self._pods:
            self._problems.append(f"{option}={total} is not a multiple of the job's {self._pods} pods")
            return None
        return total // self._pods

    def _of_program(self, program: Program) -> int | None:
        self._evidence.append(Evidence(f"{self._where} command", program.text))
        declared = _number(self._operators)
        if not program.is_opaque:
            return 1
        given = declared or _number(self._own.get("NPROC_PER_NODE") or "")
        if given is not None:
            return given
        if self._gpus.devices > 1:
            self._problems.append(
                f"the processes that {program.text!r} starts are unknown, and the pod has {self._gpus.named}"
            )
            return None
        return 1

    def _evaluated(self, text: str) -> int | None:
        """Return the value of an option: a literal, or a product with the operator's variables."""
        gpus = self._gpus.auto
        for marker, value in ((_PODS, self._pods), (_WORLD, self._world), (GPUS, gpus)):
            text = text.replace(marker, "?" if value is None else str(value))
        bare = text.removeprefix("$((").removesuffix("))").strip() if text.startswith("$((") else text
        if not _PRODUCT.fullmatch(bare):
            return None
        value = 1
        for operator, factor in re.findall(r"([*/]?)\s*([0-9]+)", bare):
            if operator == "/" and (not int(factor) or value % int(factor)):
                return None
            value = value // int(factor) if operator == "/" else value * int(factor)
        return value if 1 <= value <= _MOST else None


def _follows(text: str) -> bool:
    return _PODS in text or _WORLD in text


def _plain(text: str) -> str:
    return re.sub(r"\0(\w+)\0", r"$\1", text)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text.strip()) and 0 < int(text) <= _MOST else None


def _text(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _environment(container: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the container's own variables; None for those with `valueFrom`."""
    found: dict[str, str | None] = {}
    for entry in _entries(container, "env"):
        name, value = entry.get("name"), entry.get("value")
        if isinstance(name, str):
            found[name] = None if entry.get("valueFrom") else _expanded(str(value or ""), found)
    return found


def _expanded(text: str, variables: Mapping[str, str | None]) -> str:
    """Return a text with `$(NAME)` replaced as in Kubernetes; unknown names stay."""
    left = 1 << 18

    def replacement(match: re.Match[str]) -> str:
        nonlocal left
        value = "$" if match[0] == "$$" else variables.get(match[1])
        if value is None or len(value) > left:
            return match[0]
        left -= len(value)
        return value

    return _REFERENCE.sub(replacement, text)


def _container(replica: Mapping[str, Any]) -> Mapping[str, Any] | None:
    pod = section(section(replica, "template"), "spec")
    return next((c for c in _entries(pod, "containers") if c.get("name") == _CONTAINER), None)


def _words(container: Mapping[str, Any], key: str) -> list[str]:
    value = container.get(key)
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _entries(mapping: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    value = mapping.get(key)
    yield from (entry for entry in (value if isinstance(value, list) else ()) if isinstance(entry, dict))
