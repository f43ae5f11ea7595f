"""The interface between the reconcile loop and the place where trials run.

A backend starts and stops trials, reports their state, and keeps the ledger. It decides nothing. Every effect
may happen twice: starting an existing trial and stopping a missing one both succeed. A call that fails, and
may succeed later, raises `BackendError`; the caller retries.

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
    """The state of one job in a backend.

    `recorded` are the finished trials of the ledger. `live` are the trials whose processes or objects exist:
    running ones (outcome None), and ended ones that are classified but not yet recorded. A recorded trial
    that is not removed yet is in both. `notices` describe problems with the ledger, for the user. `held_up`
    are the trials that do not start: an image cannot be pulled, no node takes a pod, a queue does not admit
    the trial. `warnings` are problems of running the job in this backend.
    """

    recorded: Sequence[Trial]
    live: Sequence[Trial]
    notices: Sequence[str] = ()
    held_up: Sequence[HoldUp] = ()
    warnings: Sequence[str] = ()


class Backend(Protocol):
    """Runs trials and keeps the ledger."""

    def observe(self, job: Job, spec: TuningSpec) -> Observation:
        """Return the current state, with the measurements of running trials read live."""
        ...

    def start(self, job: Job, suggestion: Suggestion) -> None:
        """Start a trial; succeeds if it exists.

        Conflict is raised if another object has its name, Refused if the cluster's rules forbid it.
        """
        ...

    def record(self, job: Job, trial: Trial) -> None:
        """Write a finished trial into the ledger, durably."""
        ...

    def stop(self, job: Job, number: int) -> None:
        """End a trial's processes and remove it; succeeds if the trial is missing."""
        ...

    def publish(
        self, job: Job, status: Status, events: Sequence[Event], spec: Mapping[str, Any] | None = None
    ) -> None:
        """Write the status onto the job, then the events; write nothing if nothing changed.

        `spec` replaces the job's own in the same write, for `apply: "true"`. Refused is raised, and nothing
        is written, if the cluster's rules forbid it.
        """
        ...

    def apply(self, job: Job, answered: Mapping[str, Any]) -> None:
        """Create the job that runs the answer.

        Succeeds if the job exists and has the same answer. Conflict is raised if another object has its name,
        Refused if the cluster's rules forbid it.
        """
        ...

    def study(self, job: Job, name: str) -> Study | None:
        """Return the study of another job, by its name; None if there is none.

        The other job is in the namespace of `job`, or its folder is next to that of `job`. InvalidJob is
        raised if it cannot be read.
        """
        ...

    def existing(self, job: Job) -> Sequence[int]:
        """Return the numbers of the existing trials, ended or not; not those that are only in the ledger."""
        ...


@dataclass(frozen=True, slots=True)
class Study:
    """A job with its status and its finished trials, as `status`, `trials`, `report` and `export` read it.

    `logs` has the path of a trial's log by number, if it is kept.
    """

    job: Job
    trials: Sequence[Trial]
    problems: Sequence[str] = ()
    logs: Mapping[int, str] = field(default_factory=dict)
