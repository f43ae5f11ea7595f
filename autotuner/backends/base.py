"""What the reconcile loop needs of the world.

A backend holds no opinion: it starts what it is told to, reports what it sees, and keeps the ledger. Every
effect may happen twice: starting a trial that exists and stopping one that does not succeed both. A call
that cannot be carried out now raises `BackendError`, and the caller comes again.

`tests/contract` is the suite that every backend passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from autotuner.job.job import Job
from autotuner.spec import TuningSpec
from autotuner.status import Event, Status
from autotuner.study.hold_up import HoldUp
from autotuner.trial import Suggestion, Trial


@dataclass(frozen=True, slots=True)
class Observation:
    """What a backend sees of one job.

    `recorded` are the finished trials of the ledger. `live` are the trials that exist beside it: running
    ones (outcome None), and ended ones whose end is classified but not yet recorded. A trial whose record
    is written and whose remains still stand appears in both. `notices` tell the user of what is wrong with
    the ledger. `held_up` are the trials that do not start: an image that cannot be pulled, a pod that no node
    takes, a queue that does not admit. `warnings` are what the job's owner should know about running it here.
    """

    recorded: Sequence[Trial]
    live: Sequence[Trial]
    notices: Sequence[str] = ()
    held_up: Sequence[HoldUp] = ()
    warnings: Sequence[str] = ()


class Backend(Protocol):
    """Runs trials and keeps the ledger."""

    def observe(self, job: Job, spec: TuningSpec) -> Observation:
        """Return what is there now, with the measurements of running trials read live."""
        ...

    def start(self, job: Job, suggestion: Suggestion) -> None:
        """Start a trial; one that exists and is ours is a success, and Conflict is raised otherwise."""
        ...

    def record(self, job: Job, trial: Trial) -> None:
        """Write a finished trial into the ledger, durably."""
        ...

    def stop(self, job: Job, number: int) -> None:
        """End a trial's processes and remove what is left of it; a missing one is a success."""
        ...

    def publish(
        self, job: Job, status: Status, events: Sequence[Event], spec: Mapping[str, Any] | None = None
    ) -> None:
        """Write the status onto the job, then the events; nothing where nothing changed.

        `spec` replaces the job's own in the same write: `apply: "true"` gives the job its answer so.
        """
        ...

    def apply(self, job: Job, answered: Mapping[str, Any]) -> None:
        """Create the job that the answer makes; Conflict is raised if its name is taken by another.

        One that was made of the same answer already is a success.
        """
        ...

    def study(self, job: Job, name: str) -> Study | None:
        """Return the study of the job of this name beside the given one; None if there is none.

        InvalidJob is raised if that job cannot be read.
        """
        ...

    def existing(self, job: Job) -> Sequence[int]:
        """Return the numbers of the trials that exist, ended or not; the ledger's own are not asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Study:
    """A job with its status and its finished trials, as `status`, `trials`, `report` and `export` read it.

    `logs` names the log of a trial, by number, where it is kept.
    """

    job: Job
    trials: Sequence[Trial]
    problems: Sequence[str] = ()
    logs: Mapping[int, str] = field(default_factory=dict)
