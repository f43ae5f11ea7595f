"""Count the processes that a job runs, from its manifest alone.

A batch is divided among processes, and a manifest states their number in many places. If the places disagree,
or the command is opaque, the number is unknown, and `Processes.problem` says why. That is a mistake only in
a job whose annotations need the number; `mistakes` decides. `autotuner.job.pod_processes` reads one pod.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.lookup import mapping, pod_count, section, sequence
from autotuner.job.pod_processes import Evidence, Pod, PodProcesses, Sizes, read_pod
from autotuner.job.warnings import OWN_RANK
from autotuner.spec.values import Shape

PROCESSES: Final = keys.PREFIX + "processes-per-replica"
"""The annotation with the number of processes of a pod, for manifests that do not show it."""

_NEEDING: Final = (keys.PREFIX + "micro-batch-size", keys.PREFIX + "workers")
_KINDS: Final = ("Master", "Worker")
_CONTAINER: Final = "pytorch"
JOINED: Final = "--nnodes=$(PET_NNODES)"
"""How torchrun's option follows the job's pods."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a job's pods.

    Args:
        master: Processes of the Master's pod; None without a Master, or if unknown.
        worker: Processes of each Worker's pod; None without Workers, or if unknown.
        problem: Why the count is unknown, or empty.
        guess: The largest number found, at least 1; used in place of an unknown number where little
            depends on it.
        evidence: All statements of the manifest about processes.
        pinned: Fixed numbers of nodes, or of all processes, that do not follow a trial's workers, and ranks.
        is_certain: Whether a launcher states the number; a plain Python program may start more processes.
        assumption: What was assumed of a program that the manifest does not show, or empty.
        sizes: The sizes of batches in the commands; in the manifest of a trial, with its values.
        apart: Why the pods may not be one process group, or empty.
    """

    master: int | None
    worker: int | None
    problem: str
    guess: int
    evidence: tuple[Evidence, ...]
    pinned: tuple[Evidence, ...]
    is_certain: bool
    assumption: str = ""
    sizes: tuple[Sizes, ...] = ()
    apart: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the number of processes is known."""
        return not self.problem

    @property
    def replica(self) -> int:
        """Processes of a Worker's pod, or of the Master's if there are no Workers."""
        found = self.worker if self.worker is not None else self.master
        return self.guess if found is None or not self.is_known else found


def read_processes(manifest: Mapping[str, Any]) -> Processes:
    """Return the processes of a validated PyTorchJob."""
    spec = section(manifest, "spec")
    replicas = section(spec, "pytorchReplicaSpecs")
    pods = {kind: pod_count(replicas[kind]) for kind in _KINDS if isinstance(replicas.get(kind), dict)}
    readings = [
        reading
        for kind in pods
        if (reading := _read_replica(kind, section(replicas, kind), manifest, sum(pods.values()))) is not None
    ]
    return combined(readings)


def _read_replica(
    kind: str, replica: Mapping[str, Any], manifest: Mapping[str, Any], pods: int
) -> PodProcesses | None:
    """Return the processes of a pod of one kind of replica; None if it has no container `pytorch`."""
    spec = section(manifest, "spec")
    container = _container(replica)
    if container is None:
        return None
    declared, elastic = _text(spec.get("nprocPerNode")), spec.get("elasticPolicy")
    elastically = _text(section(spec, "elasticPolicy").get("nProcPerNode"))
    replicas = section(spec, "pytorchReplicaSpecs")
    return read_pod(
        Pod(
            kind,
            f"{kind} container {_CONTAINER}",
            container,
            pods,
            per_node=declared or elastically or "auto",
            field="spec.elasticPolicy.nProcPerNode" if elastically and not declared else "spec.nprocPerNode",
            is_stated=bool(declared or elastically),
            has_world_size="Master" in replicas,
            is_elastic=isinstance(elastic, dict),
            is_mixed=isinstance(elastic, dict) and len(replicas) > 1,
            is_trial=is_trial(manifest),
        )
    )


def is_trial(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest is that of a trial, or of an answer."""
    annotations = section(section(manifest, "metadata"), "annotations")
    # The job of an answer may be tuned again.
    return keys.SUGGESTION in annotations and keys.TARGET not in annotations


def _container(replica: Mapping[str, Any]) -> Mapping[str, Any] | None:
    pod = section(section(replica, "template"), "spec")
    return next((c for c in sequence(pod.get("containers")) if mapping(c).get("name") == _CONTAINER), None)


def _text(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def combined(readings: Sequence[PodProcesses]) -> Processes:
    """Return the processes of a job from those of its pods. All nodes of a TrainJob count as Workers."""
    counts = {reading.kind: reading.count for reading in readings}
    remote = next((r for r in readings if r.is_remote), None)
    problems = [r.problem for r in readings if r.problem]
    if remote is not None:
        # It starts the processes of all pods; the other pods run only a server for it, such as sshd.
        counts, problems = dict.fromkeys(counts, remote.count), [remote.problem] if remote.problem else []
    return Processes(
        master=counts.get("Master"),
        worker=counts.get("Worker", counts.get("node")),
        problem="; ".join(dict.fromkeys(problems)),
        guess=max([1, *(r.guess for r in readings)]),
        evidence=tuple(dict.fromkeys(e for r in readings for e in r.evidence)),
        pinned=tuple(dict.fromkeys(e for r in readings for e in r.pinned)),
        is_certain=bool(readings) and all(r.is_certain for r in readings),
        assumption="; ".join(dict.fromkeys(r.assumption for r in readings if r.assumption)),
        sizes=tuple(sizes for r in readings for sizes in r.sizes),
        apart="" if remote is not None else "; ".join(dict.fromkeys(r.apart for r in readings if r.apart)),
    )


def stated(annotations: Mapping[str, str]) -> int | None:
    """Return the number of processes in the annotation; None without one, or if it is invalid."""
    text = str(annotations.get(PROCESSES, "")).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) > 0 else None


def shape(manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> Shape:
    """Return the shape of a PyTorchJob: its pods, and the processes of each."""
    replicas = section(section(manifest, "spec"), "pytorchReplicaSpecs")
    found, given = read_processes(manifest), stated(annotations)
    is_uneven = (
        given is None and found.is_known and found.master is not None and found.master != found.replica
    )
    return Shape(
        masters=pod_count(replicas.get("Master")) if "Master" in replicas else 0,
        workers=pod_count(replicas.get("Worker")) if "Worker" in replicas else 0,
        processes_per_replica=given or found.replica,
        processes_per_master=found.master if is_uneven else None,
        can_grow="Worker" in replicas,
    )


def mistakes(
    found: Processes, annotations: Mapping[str, str], field: str = "spec.nprocPerNode"
) -> list[Mistake]:
    """Return what must change about a job's processes for it to be tuned as its annotations ask.

    `field` is the field of the job that states the number for torchrun.
    """
    given = stated(annotations)
    wrong: list[Mistake] = []
    if (
        given is not None
        and found.is_known
        and found.is_certain
        and {found.master, found.worker} - {None, given}
    ):
        seen = "; ".join(map(str, found.evidence))
        rule = (
            f"must be the number in the manifest, {found.replica} ({seen}); remove it, or change the manifest"
        )
        wrong.append(Mistake(PROCESSES, annotations[PROCESSES], rule, f'"{found.replica}"'))
    needing = next((key for key in _NEEDING if key in annotations), None)
    if needing is not None and PROCESSES not in annotations and not found.is_known:
        seen = "; ".join(map(str, found.evidence)) or "nothing"
        rule = (
            "it needs the number of processes of a pod, which is uncertain:"
            f" {found.problem} (found: {seen}); {_remedy(found, field)} {PROCESSES}"
        )
        example = JOINED if found.apart else f'{PROCESSES}: "{found.guess}"'
        wrong.append(Mistake(needing, annotations[needing], rule, example))
    if _NEEDING[1] in annotations:
        for pin in found.pinned:
            rule = (
                f"must follow each trial's workers, as {_NEEDING[1]} varies them: leave it out, or take the"
                " operator's number"
            )
            wrong.append(Mistake(pin.where, pin.what, rule, _unpinned(pin.what)))
    return wrong


def _remedy(found: Processes, field: str) -> str:
    """Return what to do about an unknown number, up to the name of the annotation."""
    if found.apart:
        return "let all pods join one process group; if they do, state the number in"
    return f"make them agree, set {field} for torchrun, or state the number in"


def assumed(found: Processes, annotations: Mapping[str, str]) -> Mistake | None:
    """Return a warning if the layout of trials depends on an assumption about a program, or its group."""
    needing = next((key for key in _NEEDING if key in annotations), None)
    if needing is not None and stated(annotations) and found.apart:
        rule = (
            f"{found.apart}: if the pods do not train together, each has only its part of a trial's batch;"
            f" {PROCESSES} states the processes of a pod, and does not join the pods"
        )
        return Mistake(needing, annotations[needing], rule, JOINED)
    if needing is None or PROCESSES in annotations or not (found.is_known and found.assumption):
        return None
    rule = f"{found.assumption}: if it starts another number, state that in {PROCESSES}"
    return Mistake(needing, annotations[needing], rule, f'{PROCESSES}: "8"')


def shown_elsewhere(whole: Processes, own: Processes, annotations: Mapping[str, str]) -> Mistake | None:
    """Return a warning if scripts outside of a job show other processes than the job itself.

    `whole` are its processes with those scripts, and `own` those that decide: a cluster reads only the job.
    """
    given = stated(annotations)
    value = annotations.get(PROCESSES, "")
    if given is None and not any(key in annotations for key in _NEEDING):
        return None
    if whole.apart:
        return Mistake(PROCESSES, value, f"{whole.apart}, as scripts in ConfigMaps of this file show", JOINED)
    if not whole.is_known:
        # What neither shows is a mistake already, or is stated.
        rule = f"must be given: {whole.problem}, as scripts in ConfigMaps of this file show"
        is_open = given is None and own.is_known
        return Mistake(PROCESSES, value, rule, f'{PROCESSES}: "{whole.guess}"') if is_open else None
    found, shown = ({each.master, each.worker} - {None} for each in (whole, own))
    if found == ({given} if given is not None else shown if own.is_known else set()):
        return None
    rule = (
        f"must be the number that scripts in ConfigMaps of this file start, {whole.replica}: on a cluster"
        " only the job itself is read"
    )
    return Mistake(PROCESSES, value, rule, f'{PROCESSES}: "{whole.replica}"')


def _unpinned(option: str) -> str:
    """Return how to write an option so that it follows the workers."""
    name = option.split("=", 1)[0]
    if name in {"--num_processes", "--world_size", "-np"}:
        return f"{name}=$((PROCESSES_OF_A_POD * PET_NNODES)) in a shell"
    if name.endswith("_rank"):
        return f"{name}={OWN_RANK}, which the operator sets"
    return f"{name}=$(PET_NNODES), which the operator sets"
