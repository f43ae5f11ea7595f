"""Count the processes that a PyTorchJob runs, as it will run, from its manifest alone.

A batch is divided among processes, and a manifest says in many places how many there are. Where the places
disagree, or what starts cannot be seen, the count is unknown, and `Processes.problem` says what was found.
That is a mistake only in a job that asks for what needs the count; `mistakes` decides. How one pod is read
stands in `autotuner.job.pod_processes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.lookup import pod_count, section
from autotuner.job.pod_processes import Evidence, read_pod
from autotuner.spec.values import Shape

PROCESSES: Final = keys.PREFIX + "processes-per-replica"
"""Annotation: states the processes of a pod where they cannot be read from the manifest."""

_NEEDING: Final = (keys.PREFIX + "micro-batch-size", keys.PREFIX + "workers")
_KINDS: Final = ("Master", "Worker")


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a job's pods.

    Args:
        master: Processes of the Master's pod; None without a Master, or where unknown.
        worker: Processes of each Worker's pod; None without Workers, or where unknown.
        problem: Why the count is unknown, or empty.
        guess: The largest number found, at least 1: what an unknown count is taken for where little
            depends on it.
        evidence: All that was found.
        pinned: Numbers of nodes, or of all processes, that would not follow a trial's workers.
        is_certain: Whether a launcher says the count; a plain Python program may start others itself.
    """

    master: int | None
    worker: int | None
    problem: str
    guess: int
    evidence: tuple[Evidence, ...]
    pinned: tuple[Evidence, ...]
    is_certain: bool

    @property
    def is_known(self) -> bool:
        """Whether the manifest says how many processes run."""
        return not self.problem

    @property
    def replica(self) -> int:
        """Processes of a Worker's pod, or of the Master's where there are no Workers."""
        found = self.worker if self.worker is not None else self.master
        return self.guess if found is None or not self.is_known else found


def read_processes(manifest: Mapping[str, Any]) -> Processes:
    """Return the processes of a PyTorchJob that validation has let pass."""
    spec = section(manifest, "spec")
    replicas = section(spec, "pytorchReplicaSpecs")
    pods = {kind: pod_count(replicas[kind]) for kind in _KINDS if isinstance(replicas.get(kind), dict)}
    readings = [
        reading
        for kind in pods
        if (reading := read_pod(kind, section(replicas, kind), spec, sum(pods.values()))) is not None
    ]
    counts = {reading.kind: reading.count for reading in readings}
    remote = next((r for r in readings if r.is_remote), None)
    problems = [r.problem for r in readings if r.problem]
    if remote is not None:
        # It starts the processes of all pods; what the others run is there to let it in.
        counts, problems = dict.fromkeys(counts, remote.count), [remote.problem] if remote.problem else []
    return Processes(
        master=counts.get("Master"),
        worker=counts.get("Worker"),
        problem="; ".join(dict.fromkeys(problems)),
        guess=max([1, *(r.guess for r in readings)]),
        evidence=tuple(dict.fromkeys(e for r in readings for e in r.evidence)),
        pinned=tuple(dict.fromkeys(e for r in readings for e in r.pinned)),
        is_certain=bool(readings) and all(r.is_certain for r in readings),
    )


def stated(annotations: Mapping[str, str]) -> int | None:
    """Return the processes of a pod that the annotation states; None without one, or where it is wrong."""
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


def mistakes(manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> list[Mistake]:
    """Return what must change about a job's processes for it to be tuned as its annotations ask."""
    found, given = read_processes(manifest), stated(annotations)
    wrong: list[Mistake] = []
    if (
        given is not None
        and found.is_known
        and found.is_certain
        and {found.master, found.worker} - {None, given}
    ):
        seen = "; ".join(map(str, found.evidence))
        rule = (
            f"must be what the manifest runs, {found.replica} ({seen}); remove the annotation, or change that"
        )
        wrong.append(Mistake(PROCESSES, annotations[PROCESSES], rule, f'"{found.replica}"'))
    needing = next((key for key in _NEEDING if key in annotations), None)
    if needing is not None and PROCESSES not in annotations and not found.is_known:
        seen = "; ".join(map(str, found.evidence)) or "nothing"
        rule = (
            "it needs the number of processes that a pod starts, which is in doubt:"
            f" {found.problem} (found: {seen}); make them agree, set spec.nprocPerNode for torchrun, or state"
            f" the number in {PROCESSES}"
        )
        wrong.append(Mistake(needing, annotations[needing], rule, f'{PROCESSES}: "{found.guess}"'))
    if _NEEDING[1] in annotations:
        for pin in found.pinned:
            rule = (
                f"must follow each trial's workers, for {_NEEDING[1]} varies them: leave it out, or take the"
                " operator's number"
            )
            wrong.append(Mistake(pin.where, pin.what, rule, _unpinned(pin.what)))
    return wrong


def _unpinned(option: str) -> str:
    """Return how to write an option so that it follows the workers."""
    name = option.split("=", 1)[0]
    if name in {"--num_processes", "-np"}:
        return f"{name}=$((PROCESSES_OF_A_POD * PET_NNODES)) in a shell"
    return f"{name}=$(PET_NNODES), which the operator sets"
