"""Count the processes that one pod of a PyTorchJob or a TrainJob starts.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from autotuner.job.accelerators import Accelerators, accelerators
from autotuner.job.command_line import read_command_line
from autotuner.job.expansion import environment, expanded, words_in, words_of
from autotuner.job.gpu_counts import VISIBLE
from autotuner.job.launchers import Launch, shown
from autotuner.job.pod_numbers import MOST, PODS, WORLD, PodNumbers, follows, plain, visible, whole_number
from autotuner.job.program_options import NODES, PER_NODE
from autotuner.job.programs import Program, entrypoint
from autotuner.job.shell import Branches
from autotuner.job.shell_words import OTHERS, Variables

_RANGE: Final = re.compile(r"([0-9]{1,6}):([0-9]{1,6})")
_SEVERAL: Final = re.compile(r"[$\0]|0*[1-9]|auto")
"""A number of processes, or what may stand for one."""
_OF_ALL_PODS: Final = NODES | {"nprocs", "world_size"}
"""Options that are no number of processes of one pod, or are a preparation's."""
_TORCHRUN: Final = frozenset({"torchrun", "tune run"})
_NODES: Final = {
    "accelerate launch": "--num_machines",
    "ipexrun": "--nnodes",
    "torchrun": "--nnodes",
    "tune run": "--nnodes",
}
_TOTALS: Final = {"accelerate launch": "--num_processes", "composer": "--world_size"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """A statement of a manifest about processes: its place and its text."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} is {self.what!r}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The options of a command that have a part in the size of its batch.

    `values` are by name with underscores; None for one that is unknown.
    """

    where: str
    values: Mapping[str, int | None]


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
    assumption: str
    sizes: tuple[Sizes, ...] = ()
    apart: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a job, with what its operator sets in it.

    Args:
        kind: Master, Worker, or node of a TrainJob.
        where: The place of its container, for people.
        container: Its training container.
        pods: Pods of the job, of all kinds.
        per_node: PET_NPROC_PER_NODE; None if the operator sets no variables of torchrun.
        field: The field of the job that states this number.
        is_stated: Whether the job states it there.
        has_world_size: Whether the operator sets WORLD_SIZE.
        is_elastic: Whether the operator sets a rendezvous that gives the pods their ranks.
        is_mixed: Whether torchrun of the Master joins workers that do not count it.
        is_for_torchrun: Whether its image starts torchrun if the container has no command.
        has_recipe: Whether its image runs a recipe of torchtune.
        is_trial: Whether the variables of a trial have the values in its environment.
    """

    kind: str
    where: str
    container: Mapping[str, Any]
    pods: int
    per_node: str | None = "auto"
    field: str = "spec.nprocPerNode"
    is_stated: bool = False
    has_world_size: bool = False
    is_elastic: bool = False
    is_mixed: bool = False
    is_for_torchrun: bool = False
    has_recipe: bool = False
    is_trial: bool = False


def read_pod(pod: Pod) -> PodProcesses:
    """Return the processes of a pod, or why their number is unknown."""
    return _Reader(pod).reading()


class _Reader:
    """Reads the processes of one kind of pod."""

    def __init__(self, pod: Pod) -> None:
        self._pod, self._kind, self._container, self._where = pod, pod.kind, pod.container, pod.where
        self._pods = max(pod.pods, 1)
        self._gpus: Accelerators = accelerators(pod.container)
        self._declared = whole_number(pod.per_node or "") if pod.is_stated else None
        self._evidence: list[Evidence] = []
        self._pinned: list[Evidence] = []
        self._guesses: list[int] = []
        self._problems: list[str] = []
        self._apart = ""
        self._assumption = ""
        self._own = environment(pod.container, is_trial=pod.is_trial)
        self._variables: Variables = {
            **self._own,
            **({} if pod.per_node is None else {"PET_NPROC_PER_NODE": pod.per_node, "PET_NNODES": PODS}),
            **({"WORLD_SIZE": WORLD} if pod.has_world_size else {}),
            **({OTHERS: None} if pod.container.get("envFrom") else {}),
        }
        world = self._pods * (whole_number(pod.per_node or "") or 1)
        self._numbers = PodNumbers(self._pods, world, self._gpus)
        # What conditions of scripts compare.
        self._variables |= self._numbers.known

    def reading(self) -> PodProcesses:
        """Return the count, or why it is unknown."""
        if self._pod.is_stated:
            self._found(self._pod.field, self._pod.per_node or "")
        if self._gpus.named:
            self._found(f"{self._where} resources", self._gpus.named)
        command = [expanded(word, self._variables) for word in words_in(self._container, "command")]
        args = [expanded(word, self._variables) for word in words_in(self._container, "args")]
        line = read_command_line([*command, *args], self._variables)
        counts = [count for launch in line.launches if (count := self._of_launch(launch)) is not None]
        splits = [(launch.text, launch.splits) for launch in line.launches]
        sizes = [launch.sizes for launch in line.launches]
        if not line.launches:
            program = self._program(line.programs)
            if program is None or (not command and program.is_opaque):
                # Of a command that only prepares something, or waits, nothing is known either.
                text = shown([*command, *args]) if command else ""
                program = entrypoint([*command, *args], has_recipe=self._pod.has_recipe)
                program = replace(program, text=text or program.text)
            count = self._of_program(program, has_command=bool(command))
            splits, sizes = [(program.text, program.splits)], [program.sizes]
            counts = [] if count is None else [count]
        named = {name for _, options in splits for name in options}
        written = {name: text for name, text in line.splits.items() if name not in named}
        splits.append(("a file that the script writes", written))
        for launch in line.launches:
            self._found(f"{self._where} command", launch.text)
        self._guesses += counts
        if len(set(counts)) > 1:
            self._problems.append(f"its launchers start {' and '.join(map(str, counts))} processes")
        self._beside(line.launches, line.programs, max([1, *counts]))
        count = counts[0] if counts else None
        if count is not None:
            self._check(count)
        shared = self._shared_by(splits)
        if self._problems:
            # One process per GPU is the likely maximum, and batches that are multiples of it are safe.
            self._guesses.append(self._gpus.devices)
        return PodProcesses(
            kind=self._kind,
            count=None if self._problems else count,
            problem="; ".join(f"{self._kind}: {problem}" for problem in dict.fromkeys(self._problems)),
            guess=max(max([1, *self._guesses]) // shared, 1),
            evidence=tuple(self._evidence),
            pinned=tuple(self._pinned),
            is_certain=bool(line.launches),
            is_remote=any(launch.is_remote for launch in line.launches),
            assumption="" if self._problems else self._assumption,
            apart=self._apart,
            sizes=tuple(
                Sizes(
                    f"{self._where} command", {name: self._numbers.size(text) for name, text in each.items()}
                )
                for own in sizes
                # Options of the command line come later, and hold.
                if (each := {**line.sizes, **own})
            ),
        )

    def _program(self, programs: Sequence[Program]) -> Program | None:
        """Return the program that trains: the last one, if none names a launcher."""
        programs = [each for each in programs if each.names_launcher] or programs
        if not self._gpus.devices and any(each.is_script for each in programs):
            # A script after the training, or before it, is not what trains.
            programs = [each for each in programs if not each.is_opaque] or [
                each for each in programs if each.is_script
            ]
        return programs[-1] if programs else None

    def _beside(self, launches: Sequence[Launch], programs: Sequence[Program], count: int) -> None:
        """Record a program that may train in place of a launcher: on a condition, or as it starts more."""
        for program in programs if launches else ():
            for name, text in program.numbers.items():
                number = None if name in _OF_ALL_PODS else self._numbers.evaluated(text)
                if program.trains and number is not None and number > count:
                    self._problems.append(
                        f"{program.text!r} may start {number} processes ({name}), and a launcher {count}"
                    )
        for launch in launches if count > 1 else ():
            for program in programs:
                if program.trains and _are_alternatives(launch.branches, program.branches):
                    self._problems.append(
                        f"{launch.text!r} or {program.text!r} runs, by a condition that is unknown"
                    )
                    return

    def _note_apart(self, problem: str) -> None:
        """Record that the pods may be several process groups, which no number of processes makes one."""
        self._problems.append(problem)
        self._apart = f"{self._kind}: {problem}"

    def _found(self, where: str, what: str) -> None:
        self._evidence.append(Evidence(where, what))
        found = whole_number(what)
        if found is not None:
            self._guesses.append(found)

    def _check(self, count: int) -> None:
        """Record other places of the manifest that state another number."""
        if self._declared is not None and self._declared != count:
            self._problems.append(
                f"{self._pod.field.rsplit('.', 1)[-1]} is {self._declared}, but the command starts {count}"
                " processes"
            )
        given = whole_number(self._own.get("NPROC_PER_NODE") or "")
        if given is not None:
            self._found(f"{self._where} env NPROC_PER_NODE", str(given))
            if given != count:
                self._problems.append(f"NPROC_PER_NODE is {given}, but the command starts {count} processes")
        if self._gpus.whole and count > self._gpus.whole:
            self._problems.append(f"the command starts {count} processes on {self._gpus.whole} GPUs")

    def _shared_by(self, splits: Sequence[tuple[str, Mapping[str, str]]]) -> int:
        """Record options that split the model over processes; return how many share a part of the batch."""
        shared = 1
        for program, options in splits:
            for name, text in options.items():
                number = self._numbers.evaluated(text)
                if number == 1 or not _SEVERAL.match(text):
                    continue
                shared *= number or 1
                self._problems.append(
                    f"{name}={plain(text)} of {program!r} splits the model: processes that share a part of"
                    " the batch count as one"
                )
        return min(shared, MOST)

    def _of_launch(self, launch: Launch) -> int | None:
        if launch.is_unclear:
            self._problems.append(f"the options of {launch.text!r} cannot be read")
            return None
        if not self._joins_all(launch):
            return None
        is_several = "," in (launch.environment.get("CUDA_VISIBLE_DEVICES") or "")
        if launch.total is not None:
            count = self._part_of(launch, launch.total)
            if launch.needs_gpus and (count or 0) > 1 and self._gpus.devices <= 1 and not is_several:
                self._alone(launch, count)
            if (
                count is not None
                and launch.per_node is not None
                and self._numbers.evaluated(launch.per_node) != count
            ):
                self._problems.append(f"the numbers in {launch.text!r} differ on {self._pods} pods")
            return count
        if launch.name == "torchrun":
            return self._of_torchrun(launch)
        if launch.per_node is not None:
            return self._amount(launch.per_node, launch)
        if not self._gpus.devices and not is_several and launch.name in {"accelerate launch", "composer"}:
            return 1
        if launch.name in {"accelerate launch", "composer", "deepspeed"}:
            return self._auto(f"{launch.name} starts one process per GPU", launch)
        self._problems.append(f"{launch.text!r} does not say how many processes it starts")
        return None

    def _alone(self, launch: Launch, count: int | None) -> None:
        """Record that a launcher starts one process where it sees no several GPUs."""
        text = f"{launch.text!r} starts one process only, unless it sees several GPUs or is given --multi_gpu"
        if self._container.get("resources"):
            self._problems.append(f"{text}, and the pod has {self._gpus.named or 'none'}")
        else:
            self._assumption = f"{text}; it counts as {count}"

    def _joins_all(self, launch: Launch) -> bool:
        """Record whether the launcher's process group is all pods of the job, which share a batch."""
        if self._pod.is_mixed and launch.name == "torchrun" and PODS in (launch.nodes or PODS):
            self._note_apart(
                "elasticPolicy counts only the Workers as nodes, but the Master's torchrun joins them too"
            )
            return False
        # accelerate's number of nodes is 1 unless it is given; with --cpu the operator's variables hold.
        is_one = launch.name == "accelerate launch" and launch.per_node is None and launch.nodes is None
        is_alone = launch.is_alone or is_one
        if is_alone and self._pods > 1:
            self._note_apart(
                f"{launch.text!r} starts a process group of one pod, but the job has {self._pods} pods"
            )
            return False
        given = launch.nodes
        if given is None and launch.name in _TORCHRUN and not is_alone:
            given = launch.environment.get("PET_NNODES", "1")
            given = "$PET_NNODES" if given is None else given or "1"
        if given is None:
            return True
        option = _NODES.get(launch.name, "--num_nodes")
        least, _, most = given.partition(":")
        given = least if least == most else given
        is_range = _RANGE.fullmatch(given) is not None
        nodes = None if is_range else self._numbers.evaluated(given)
        if nodes is None and not is_range:
            self._problems.append(f"the number of nodes in {option}={plain(given)} is unknown")
            return False
        if not follows(given):
            self._pinned.append(Evidence(f"{self._where} command", f"{option}={plain(given)}"))
        if nodes != self._pods:
            self._note_apart(
                f"{option}={plain(given)} differs from the job's {self._pods} pods, which all start"
            )
            return False
        self._pin_rank(launch)
        return True

    def _pin_rank(self, launch: Launch) -> None:
        """Record a fixed rank, which further pods of this kind would have, too."""
        is_own = self._kind == "Master" or self._pod.is_elastic
        if launch.rank is not None and launch.rank.isdecimal() and not is_own and not launch.branches:
            option = "--machine_rank" if launch.name == "accelerate launch" else "--node_rank"
            self._pinned.append(Evidence(f"{self._where} command", f"{option}={launch.rank}"))

    def _of_torchrun(self, launch: Launch) -> int | None:
        if launch.per_node is not None:
            return self._amount(launch.per_node, launch)
        # The script's own exports come after the variables that the operator sets.
        text = launch.environment.get("PET_NPROC_PER_NODE", "1")
        text = "$PET_NPROC_PER_NODE" if text is None else text or "1"
        own = self._own.get("PET_NPROC_PER_NODE")
        count = self._amount(text, launch)
        if own is not None and text == self._pod.per_node and whole_number(own) != count:
            self._found(f"{self._where} env PET_NPROC_PER_NODE", own)
            self._problems.append(
                f"the operator sets PET_NPROC_PER_NODE to {text}, in place of the container's {own}:"
                f" set the number in {self._pod.field}"
            )
            return None
        return count

    def _amount(self, text: str, launch: Launch) -> int | None:
        if text in {"auto", "gpu"}:
            return self._auto(f"{launch.name} starts one process per GPU ({text})", launch)
        if text == "cpu":
            self._problems.append("torchrun starts one process per CPU of the node (cpu)")
            return None
        number = self._numbers.evaluated(text)
        if number is None:
            self._problems.append(
                f"{plain(text)} in {launch.text!r} cannot be known"
                + (": only a shell expands it; write $(NAME)" if self._is_bare(text) else "")
            )
        return number

    def _is_bare(self, text: str) -> bool:
        """Return whether a variable is in a word that no shell reads."""
        words = words_of(self._container)
        return re.match(r"\$\w", text) is not None and any(
            text in word and not re.search(r"\s", word) for word in words
        )

    def _auto(self, words: str, launch: Launch) -> int | None:
        """Return the number of GPUs that a launcher sees."""
        if launch.name == "accelerate launch" and self._pods > 1:
            # Its number of processes is that of all machines, also if it is the number of GPUs (launch.py).
            self._problems.append(
                f"{launch.text!r} has no --num_processes, so the {self._pods} pods start as many together"
                " as one of them has GPUs"
            )
            return None
        count = self._gpus.auto
        if count is None:
            seen = self._gpus.named or "none, so one process per CPU of the node"
            self._problems.append(f"{words}, and the number is unknown ({seen})")
            return None
        hiding = [name for name in VISIBLE if name in launch.environment]
        for name in hiding:
            count = visible(launch.environment[name] or "", count)
        if count <= launch.excluded:
            shown = [f"{name} is {plain(launch.environment[name] or 'unknown')}" for name in hiding]
            self._problems.append(f"{words}, and the GPUs that it sees are unknown ({', '.join(shown)})")
            return None
        return count - launch.excluded

    def _part_of(self, launch: Launch, text: str) -> int | None:
        """Return a pod's share of the processes that a launcher starts on all nodes together."""
        total = self._numbers.evaluated(text)
        option = _TOTALS.get(launch.name, "-np")
        if total is None:
            self._problems.append(f"{plain(text)} in {launch.text!r} cannot be known")
            return None
        if not follows(text):
            self._pinned.append(Evidence(f"{self._where} command", f"{option}={total}"))
        if total % self._pods:
            self._problems.append(f"{option}={total} is not a multiple of the job's {self._pods} pods")
            return None
        return total // self._pods

    def _of_program(self, program: Program, *, has_command: bool) -> int | None:
        if self._pod.is_for_torchrun and not has_command and program.is_opaque:
            # The image's entrypoint is expected to start torchrun, which takes the operator's number.
            return self._of_torchrun(Launch("torchrun", program.text, environment=self._variables))
        self._evidence.append(Evidence(f"{self._where} command", program.text))
        given = self._declared or self._given_to(program)
        gpus = self._gpus.devices
        is_whole_job = self._is_of_all_pods(program)
        shows_number = is_whole_job and not program.is_script
        for name, text in program.numbers.items():
            if name in NODES:
                continue
            number = 1 if text == "0" or self._is_of_job(name, text) else self._numbers.evaluated(text)
            if number == 1 or (number is None and gpus <= 1):
                continue
            is_shown = shows_number and name in PER_NODE and number == gpus
            if number is not None and (number == given or is_shown):
                return number
            self._guesses.append(number or 1)
            option = f"{name}={plain(text)}" if text else name
            self._problems.append(f"{program.text!r} may start several processes ({option})")
            return None
        if not program.is_opaque:
            self._check_group(program)
            if gpus > 1 and given is None:
                self._assumption = (
                    f"{program.text!r} counts as one process, and the pod has {self._gpus.named}"
                )
            return 1
        if given is not None:
            return given
        if gpus > 1 or (program.is_script and not gpus):
            has = f"has {self._gpus.named}" if gpus else "has no GPUs"
            self._problems.append(
                f"the processes that {program.text!r} starts are unknown, and the pod {has}"
            )
            return None
        return 1

    def _is_of_all_pods(self, program: Program) -> bool:
        """Return whether a program does not name another number of pods; record that it has fewer."""
        named = {
            name: self._numbers.evaluated(text) for name, text in program.numbers.items() if name in NODES
        }
        for name, number in named.items():
            # A graph has nodes, too.
            if number is not None and (number < self._pods or (name == "nnodes" and number != self._pods)):
                self._note_apart(
                    f"{name}={number} of {program.text!r} differs from the job's {self._pods} pods, which all"
                    " start"
                )
        nodes = None if program.nodes is None else self._numbers.evaluated(program.nodes)
        if program.is_group and self._pods > 1 and nodes != self._pods and not named:
            self._note_apart(
                f"{program.text!r} starts a process group of one pod, but the job has {self._pods} pods"
            )
        return all(number == self._pods for number in named.values())

    def _given_to(self, program: Program) -> int | None:
        """Return NPROC_PER_NODE as a program sees it, if its process group may be the job."""
        own = self._own.get("NPROC_PER_NODE")
        text = own if program.per_node is None else program.per_node
        # With a variable of the container alone, the program may take the number of nodes from anywhere.
        is_job = text == own or self._pods == 1 or self._numbers.evaluated(program.nodes or "") == self._pods
        if not text or not is_job:
            return None
        if program.is_opaque and program.nodes and not follows(program.nodes):
            self._pinned.append(Evidence(f"{self._where} command", f"NNODES={program.nodes}"))
        return self._numbers.evaluated(text)

    def _check_group(self, program: Program) -> None:
        """Record that a program that no launcher starts may not train together with those of other pods."""
        size = program.world_size
        number = None if size is None or size == WORLD else self._numbers.evaluated(size)
        if number is not None and number != self._pods:
            self._note_apart(f"WORLD_SIZE of {program.text!r} is {number}, but the job has {self._pods} pods")
        elif self._pods > 1 and size is None:
            self._note_apart(
                f"no launcher starts {program.text!r}, and the operator sets no WORLD_SIZE here, so that the"
                f" {self._pods} pods may each train alone"
            )

    def _is_of_job(self, name: str, text: str) -> bool:
        """Return whether an option is the size of the job with one process in each pod.

        A world size of -1 stands for the operator's number.
        """
        return name == "world_size" and (text == "-1" or self._numbers.evaluated(text) == self._pods)


def _are_alternatives(one: Branches, other: Branches) -> bool:
    """Return whether two commands are in different branches of the same block."""
    return any(block is place and branch != another for block, branch in one for place, another in other)
