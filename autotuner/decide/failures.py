"""Whose fault a failed trial is, and which trials have to be run again.

The program's fault: it fails, reports nothing, or does not fit into memory at the job's own batch size; three
in a row end the tuning. The cluster's: a trial is lost, and is run again with its own seed, a bounded number
of times, at no cost to the budget. Running out of memory elsewhere is nobody's: a smaller micro-batch, where
one is left, or a bound that the search observes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autotuner.decide.layout_bounds import can_shrink
from autotuner.study.history import History
from autotuner.trial import Outcome, Trial

FAILURES_IN_A_ROW: Final = 3
RERUNS: Final = 3


class Fault(StrEnum):
    """Whose fault it is that a study cannot go on."""

    PROGRAM = "program"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a study cannot go on: the last trial that failed, and how many times in a row."""

    fault: Fault
    trial: Trial
    count: int


def failure(history: History) -> Failure | None:
    """Return why the study cannot go on; None while it can."""
    ended = [t for t in history.trials if t.outcome not in {None, Outcome.LOST}]
    last = ended[-FAILURES_IN_A_ROW:]
    if len(last) == FAILURES_IN_A_ROW and all(is_programs_fault(history, t) for t in last):
        return Failure(Fault.PROGRAM, last[-1], FAILURES_IN_A_ROW)
    for trial in history.trials:
        if trial.outcome is Outcome.LOST and (attempts := _attempts(history, trial)) > RERUNS:
            return Failure(Fault.CLUSTER, trial, attempts)
    return None


def is_programs_fault(history: History, trial: Trial) -> bool:
    """Return whether the user's program is at fault, and not what the search chose."""
    if trial.outcome is Outcome.OUT_OF_MEMORY:
        own = trial.suggestion.batch_size <= history.spec.baseline_batch_size
        return own and not can_shrink(history, trial) and not _has_stand_in(history, trial)
    if trial.outcome is Outcome.FAILED:
        return True
    return trial.outcome is Outcome.MISSED and not trial.measurements


def to_run_again(history: History) -> list[Trial]:
    """Return the trials for which another has to stand in, and none does yet.

    Those that were lost, and those that ran out of memory where a smaller micro-batch is left.
    """
    return [
        t
        for t in history.trials
        if (t.outcome is Outcome.LOST or (t.outcome is Outcome.OUT_OF_MEMORY and can_shrink(history, t)))
        and not _has_stand_in(history, t)
    ]


def _has_stand_in(history: History, trial: Trial) -> bool:
    return any(other.suggestion.rerun_of == trial.number for other in history.trials)


def _attempts(history: History, trial: Trial) -> int:
    """Return how many trials of this one's chain of reruns there are, itself the last."""
    numbers = {t.number: t for t in history.trials}
    count, before = 1, trial.suggestion.rerun_of
    while before is not None and before in numbers and before < trial.number:
        trial = numbers[before]
        count, before = count + 1, trial.suggestion.rerun_of
    return count
