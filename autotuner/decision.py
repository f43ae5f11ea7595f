"""What `decide` says: frozen values that the reconcile loop carries out and `status` publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autotuner.trial import Outcome, ParameterValue, Suggestion, Trial


class Phase(StrEnum):
    """Where a tuning stands; the value of the status annotation `phase`."""

    WAITING = "Waiting"
    SEARCHING = "Searching"
    CONFIRMING = "Confirming"
    DONE = "Done"
    PAUSED = "Paused"
    INVALID = "Invalid"
    FAILED = "Failed"


class Ended(StrEnum):
    """Why a search ended."""

    LARGER_UNLIKELY = "a larger batch is unlikely"
    NOT_WORTH = "another trial is expected to gain too little"
    LARGEST_ALLOWED = "the largest batch size allowed is confirmed"
    TRIALS_SPENT = "max-trials is spent"
    GPU_HOURS_SPENT = "max-gpu-hours is spent"
    BASELINE_MISSES = "the baseline misses the target"
    NOTHING_FEASIBLE = "no batch size meets the target"
    PROGRAM_FAILS = "the program fails"


@dataclass(frozen=True, slots=True)
class Stop:
    """A running trial to end now, with the outcome to record and the reason in words."""

    number: int
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The largest batch size, its hyperparameters, and the evidence for them.

    `confirmed` of `confirmations` wanted fresh-seed runs have reached the target, and `missed` others have
    not. `metric` is the median over all of these runs of their best value, None before the first.
    `probability_larger` is the posterior probability that a batch half a doubling larger is feasible, None
    while no model says so. `gpu_hours` is the cost of the whole tuning. `ended` is None while the search
    goes on.
    """

    batch_size: int
    parameters: Mapping[str, ParameterValue]
    confirmed: int
    confirmations: int
    metric: float | None = None
    probability_larger: float | None = None
    gpu_hours: float = 0.0
    ended: Ended | None = None
    missed: int = 0

    @property
    def tally(self) -> str:
        """The confirmation runs in words: "3 of 3", or "3 of 4" where one that missed took a fourth."""
        return f"{self.confirmed} of {self.confirmations + self.missed}"

    @property
    def is_confirmed(self) -> bool:
        """Whether every confirmation run that was wanted has reached the target."""
        return self.confirmed >= self.confirmations

    def realised_by(self, trials: Sequence[Trial]) -> Suggestion | None:
        """Return what the newest trial of the answer's setting ran, its layout included; None without any.

        What ran out of memory is passed over: its micro-batch is the one that does not fit.
        """
        for trial in sorted(trials, key=lambda trial: -trial.number):
            tried = trial.suggestion
            is_same = (tried.batch_size, tried.parameters) == (self.batch_size, self.parameters)
            if is_same and trial.outcome is not Outcome.OUT_OF_MEMORY:
                return tried
        return None

    @classmethod
    def from_text(cls, text: str) -> Answer | None:
        """Read the status annotation; None where it is no answer, for anybody can edit an annotation."""
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, RecursionError):
            return None

    @classmethod
    def from_json(cls, fields: object) -> Answer | None:
        """Read what `as_json` wrote; None where it is no answer."""
        if not isinstance(fields, dict):
            return None
        try:
            ended = fields["ended"]
            return cls(
                batch_size=max(1, int(fields["batch_size"])),
                parameters={str(name): _value(value) for name, value in fields["parameters"].items()},
                confirmed=int(fields["confirmed"]),
                confirmations=int(fields["confirmations"]),
                metric=_number(fields["metric"]),
                probability_larger=_number(fields["probability_larger"]),
                gpu_hours=float(fields["gpu_hours"]),
                ended=None if ended is None else Ended(ended),
                missed=int(fields.get("missed", 0)),
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            return None

    def as_json(self) -> dict[str, Any]:
        """Return the answer in the form that the status annotation and `--json` share."""
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
            "ended": None if self.ended is None else str(self.ended),
        }


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _value(value: object) -> ParameterValue:
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"{value!r} is no hyperparameter")
    return value


@dataclass(frozen=True, slots=True)
class Decision:
    """What to start, what to stop, and what to tell the user.

    `ended` says why, once `is_final`, also where there is no answer. Trials that still run when a decision
    is final stand in `stop`.
    """

    phase: Phase
    message: str
    start: Sequence[Suggestion] = ()
    stop: Sequence[Stop] = ()
    answer: Answer | None = None
    is_final: bool = False
    ended: Ended | None = None
