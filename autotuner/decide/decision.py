"""The result of `decide`: frozen values that `reconcile` carries out and `status` publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from autotuner.trial import Judged, Outcome, ParameterValue, Suggestion, Trial


class Phase(StrEnum):
    """The state of a study: the value of the status annotation `phase`."""

    WAITING = "Waiting"
    SEARCHING = "Searching"
    CONFIRMING = "Confirming"
    DONE = "Done"
    PAUSED = "Paused"
    INVALID = "Invalid"
    FAILED = "Failed"


class Reason(StrEnum):
    """What ended or holds a study: the value of the status annotation `reason`. Stable, for programs."""

    NO_LAYOUT = "NoLayout"
    PROGRAM_FAILS = "ProgramFails"
    METRIC_NOT_FOUND = "MetricNotFound"
    METRIC_IN_DOUBT = "MetricInDoubt"
    RUN_LENGTH_TOO_SHORT = "RunLengthTooShort"
    NOT_WIRED = "NotWired"
    ANSWER_IN_DOUBT = "AnswerInDoubt"
    CLUSTER_LOSES_TRIALS = "ClusterLosesTrials"
    INVALID_CONFIGURATION = "InvalidConfiguration"
    PAUSED = "Paused"
    INTERRUPTED = "Interrupted"
    """No tuner runs: only the reader of a local study's folder can tell, so no decision has it."""
    BASELINE_RUNNING = "BaselineRunning"
    CHECKING_PROGRAM = "CheckingProgram"
    CHECKING_BATCH = "CheckingBatch"
    BASELINE_MISSES = "BaselineMissesTarget"
    RETRYING = "RetryingTrial"
    CLIMBING = "Climbing"
    SEARCHING = "Searching"
    CONFIRMING = "Confirming"
    WAITING_FOR_TRIALS = "WaitingForTrials"
    NOTHING_FEASIBLE = "NothingFeasible"
    LARGER_UNLIKELY = "LargerUnlikely"
    GAIN_TOO_SMALL = "GainTooSmall"
    LARGEST_ALLOWED = "LargestAllowedConfirmed"
    TRIALS_SPENT = "MaxTrialsReached"
    GPU_HOURS_SPENT = "MaxGpuHoursReached"

    @classmethod
    def parse(cls, text: str) -> Reason:
        """Parse a reason. Answers that version 0.1 wrote carry a sentence instead of a name.

        Raises:
            ValueError: If it is neither.
        """
        return cls(_SENTENCES.get(text, text))


_SENTENCES: Final[Mapping[str, Reason]] = {
    "a larger batch is unlikely": Reason.LARGER_UNLIKELY,
    "another trial is expected to gain too little": Reason.GAIN_TOO_SMALL,
    "the largest batch size allowed is confirmed": Reason.LARGEST_ALLOWED,
    "max-trials is spent": Reason.TRIALS_SPENT,
    "max-gpu-hours is spent": Reason.GPU_HOURS_SPENT,
    "the baseline misses the target": Reason.BASELINE_MISSES,
    "no batch size meets the target": Reason.NOTHING_FEASIBLE,
    "the program fails": Reason.PROGRAM_FAILS,
}


class StopReason(StrEnum):
    """Why a running trial is stopped."""

    REACHED = "reached"
    DIVERGED = "diverged"
    RESUMED = "resumed"
    EVALUATES_NOTHING = "evaluates_nothing"
    LARGER_THAN_DATA = "larger_than_data"
    BATCH_CHECKED = "batch_checked"
    TIMEOUT = "timeout"
    TIMEOUT_WITHOUT_METRIC = "timeout_without_metric"
    LARGER_CONFIRMED = "larger_confirmed"
    WHOLE_LENGTH = "whole_length"
    HOPELESS = "hopeless"
    PROMISING = "promising"
    STUDY_ENDED = "study_ended"


@dataclass(frozen=True, slots=True)
class Facts:
    """The data, in addition to the spec, for a message about a decision; see `autotuner.wording`."""

    number: int | None = None
    outcome: Outcome | None = None
    batch_size: int | None = None
    count: int = 0
    value: float | None = None
    detail: str = ""


NO_FACTS: Final = Facts()
"""For reasons that need no facts."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A running trial to stop now, with the outcome to record and the reason."""

    number: int
    outcome: Outcome
    reason: StopReason
    facts: Facts = NO_FACTS
    judged: Judged | None = None
    """Where the search stops it, if it does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The largest batch size, its hyperparameters, and the evidence for them.

    `confirmed` of the `confirmations` required fresh-seed runs have reached the target, and `missed` others
    have not. `metric` is the median over all of these runs of their best value, None before the first.
    `probability_larger` is the posterior probability that a batch half a doubling larger is feasible, None
    without a model, or if none is allowed. `gpu_hours` is the cost of the whole study. `reason` is None while
    the search continues.
    """

    batch_size: int
    parameters: Mapping[str, ParameterValue]
    confirmed: int
    confirmations: int
    metric: float | None = None
    probability_larger: float | None = None
    gpu_hours: float = 0.0
    reason: Reason | None = None
    missed: int = 0

    @property
    def tally(self) -> str:
        """The confirmation runs in words: "3 of 3", or "3 of 4" if one missed and a fourth was needed."""
        return f"{self.confirmed} of {self.confirmations + self.missed}"

    @property
    def is_confirmed(self) -> bool:
        """Whether the required number of confirmation runs has reached the target."""
        return self.confirmed >= self.confirmations

    def realised_by(self, trials: Sequence[Trial]) -> Suggestion | None:
        """Return the suggestion of the newest trial of the answer's setting, with its layout; or None.

        Trials that ran out of memory are skipped: their micro-batch does not fit.
        """
        for trial in sorted(trials, key=lambda trial: -trial.number):
            tried = trial.suggestion
            is_same = (tried.batch_size, tried.parameters) == (self.batch_size, self.parameters)
            if is_same and trial.outcome is not Outcome.OUT_OF_MEMORY:
                return tried
        return None

    @classmethod
    def from_text(cls, text: str) -> Answer | None:
        """Read the status annotation; None if it is not an answer, because anyone can edit an annotation."""
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, RecursionError):
            return None

    @classmethod
    def from_json(cls, fields: object) -> Answer | None:
        """Read what `as_json` wrote; None if it is not an answer."""
        if not isinstance(fields, dict):
            return None
        try:
            reason = fields["reason"] if "reason" in fields else fields["ended"]
            return cls(
                batch_size=max(1, int(fields["batch_size"])),
                parameters={str(name): _value(value) for name, value in fields["parameters"].items()},
                confirmed=int(fields["confirmed"]),
                confirmations=int(fields["confirmations"]),
                metric=_number(fields["metric"]),
                probability_larger=_number(fields["probability_larger"]),
                gpu_hours=float(fields["gpu_hours"]),
                reason=None if reason is None else Reason.parse(reason),
                missed=int(fields.get("missed", 0)),
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return the answer as JSON fields, for the status annotation and `--json`."""
        probability = self.probability_larger
        return {
            "batch_size": self.batch_size,
            "parameters": dict(self.parameters),
            "confirmed": self.confirmed,
            "confirmations": self.confirmations,
            "missed": self.missed,
            "metric": self.metric,
            "probability_larger": None if probability is None else round(probability, 4),
            "gpu_hours": round(self.gpu_hours, 4),
            "reason": None if self.reason is None else str(self.reason),
        }


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _value(value: object) -> ParameterValue:
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"{value!r} is not a hyperparameter")
    return value


@dataclass(frozen=True, slots=True)
class Decision:
    """The trials to start and to stop, and the state of the study.

    `reason` says what holds the study or, once `is_final`, what ended it. Trials that still run when a
    decision is final are in `stop`. `candidate` is a setting with a larger batch than the answer's that is
    being confirmed: a confirmed answer stays until a better one is confirmed. `warnings` are doubts, in
    words, that do not hold the study.
    """

    phase: Phase
    reason: Reason
    facts: Facts = NO_FACTS
    start: Sequence[Suggestion] = ()
    stop: Sequence[Stop] = ()
    answer: Answer | None = None
    candidate: Answer | None = None
    warnings: tuple[str, ...] = ()
    is_final: bool = False
