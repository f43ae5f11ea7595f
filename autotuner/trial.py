"""Trials as frozen values: suggestion, measurements, outcome.

A `Suggestion` is what the search wants to run. A `Trial` is a suggestion with its measurements so far.
Whether a trial met the target follows from its measurements and the current target, never from its outcome: a
user may change the target during a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

ParameterValue = float | int | str | bool


class Purpose(StrEnum):
    """Why a trial is run."""

    BASELINE = "baseline"
    """The unchanged job: can the target be reached, and how long is a run?"""
    CLIMB = "climb"
    """A larger batch at constant scaled hyperparameters."""
    SEARCH = "search"
    """A setting that the model proposes."""
    CONFIRM = "confirm"
    """A fresh seed at the answer's batch size and hyperparameters."""
    CHECK = "check"
    """A repeated run with a smaller batch only: does the script train the batch that it is given?"""


class Outcome(StrEnum):
    """How a trial ended."""

    REACHED = "reached"
    """Met the target, and was stopped, because more training would add no information."""
    MISSED = "missed"
    """Ran to its end without meeting the target."""
    PROMISING = "promising"
    """Stopped early: would almost surely meet the target."""
    HOPELESS = "hopeless"
    """Stopped early: would almost surely miss the target."""
    DOMINATED = "dominated"
    """Stopped early: its outcome no longer matters, because a larger batch is confirmed."""
    OUT_OF_MEMORY = "out_of_memory"
    """Ran out of device or host memory: says something about the micro-batch, never about accuracy."""
    DIVERGED = "diverged"
    """The metric became NaN or infinite."""
    FAILED = "failed"
    """The user's program failed."""
    LOST = "lost"
    """Lost by the cluster or by the tuner: it is retried, and uses no budget."""


CUT_SHORT: Final = frozenset({Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.LOST})
"""Outcomes of runs that ended too early to show their accuracy."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of the target metric, at one step in the script's own unit of steps."""

    step: float
    value: float

    @property
    def is_finite(self) -> bool:
        """Whether the value is finite; a diverged run reports NaN or infinity."""
        return math.isfinite(self.value)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A run that the search proposes.

    `parameters` holds only what the trial sets: an absent hyperparameter keeps the default of the user's
    script. `workers`, `micro_batch_size` and `accumulation_steps` are the layout that realises the batch
    size; None keeps the job's own. `rerun_of` is the number of the lost (or out-of-memory) trial that this
    one retries.
    """

    number: int
    batch_size: int
    parameters: Mapping[str, ParameterValue]
    seed: int
    purpose: Purpose = Purpose.SEARCH
    workers: int | None = None
    micro_batch_size: int | None = None
    accumulation_steps: int | None = None
    rerun_of: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Where the search has stopped a run: at this step; later measurements do not count.

    `study` is a digest of what all runs of the study are judged by, such as the target. If that has changed,
    the run is judged again.
    """

    step: float
    study: str


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Trial:
    """A suggestion and its results so far.

    `outcome` is None while the trial runs. `started_at` is when all of its processes ran (None while it
    waits in a queue, which costs nothing), `ended_at` when it ended; with `ended_at` and no outcome, its
    process has ended, and its log is still to be read to its end. `devices` counts its GPUs, or its processes
    if it requests none. `message` says why it ended. `extras` holds the last value of
    other quantities that the script reports (noise scale, throughput).

    `is_complete` says whether the run reached its own end: exit code 0, no disruption, not stopped by the
    tuner. None if it was not recorded: then a run that missed is complete, and a baseline that met the
    target. `template` is the hash of what the trial was made from, empty if unknown. `doubt` is a message
    about the doubt in the reading of the log; nothing of a run in doubt counts. `reads` is the line of the
    log that the first measurement was read from, `unit` what its steps count (`epoch` or `step`; empty where
    they count the measurements), and `warnings` what the user should know about the reading. `variables` are
    what the script has read through the SDK, by name; None where it has not said. `node` is the node that a
    lost trial was lost on, if one is at fault. `judged` says where the search stopped it, if it did.
    `loops` are the lengths of the loops whose progress the log shows (`autotuner.study.logs.loops`), `losses`
    the first losses that it has (`autotuner.study.logs.losses`).
    `earlier_seconds` is how long it ran before a queue suspended it and admitted it again.
    """

    suggestion: Suggestion
    measurements: tuple[Measurement, ...] = ()
    outcome: Outcome | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    devices: int = 1
    message: str = ""
    extras: Mapping[str, float] = field(default_factory=dict)
    is_complete: bool | None = None
    template: str = ""
    doubt: str = ""
    reads: str = ""
    unit: str = ""
    warnings: tuple[str, ...] = ()
    variables: tuple[str, ...] | None = None
    node: str = ""
    judged: Judged | None = None
    loops: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    earlier_seconds: float = 0.0

    @property
    def number(self) -> int:
        """The number of the trial within its job."""
        return self.suggestion.number

    @property
    def is_running(self) -> bool:
        """Whether the trial has not ended; a trial that waits for its pods counts as running."""
        return self.outcome is None

    def gpu_hours(self, now: datetime) -> float:
        """Return the GPU-hours used until `now`, or until the trial ended, in all of its runs."""
        return self.last_run_gpu_hours(now) + self.devices * self.earlier_seconds / 3600

    def last_run_gpu_hours(self, now: datetime) -> float:
        """Return the GPU-hours of the run that counts, without those that a queue has ended."""
        if self.started_at is None:
            return 0.0
        seconds = ((self.ended_at or now) - self.started_at).total_seconds()
        return self.devices * max(seconds, 0.0) / 3600
