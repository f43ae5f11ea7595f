"""Classify failed trials, and find the trials to retry.

The program is at fault if it fails, or runs out of memory at the job's own batch size; three such trials in a
row end the study. A run that ends well without printing the metric ends it at once, if none has printed it
so far; it is no fault if its batch is so large that it ends before its first report. The cluster is at fault
if a trial is lost; the trial is retried unchanged, a bounded number of times in a window of time, at no cost
to the budget. Running out of memory at another batch size is not a fault: the trial is retried with a smaller
micro-batch, if one is left; otherwise the search treats it as a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from autotuner.study.history import History
from autotuner.study.layout_bounds import can_shrink
from autotuner.study.unreported import ended_unreported, is_silent
from autotuner.trial import Outcome, Trial

FAILURES_IN_A_ROW: Final = 3
LOSSES: Final = 3
"""Maximum number of losses of one trial within `LOSS_WINDOW`; after one more the study ends."""
LOSS_WINDOW: Final = timedelta(hours=6)
LOSSES_EVER: Final = 10
"""Maximum number of losses of one trial in total: on spot nodes, losses far apart are normal."""


class Fault(StrEnum):
    """Why a study cannot continue."""

    PROGRAM = "program"
    """Several trials in a row failed."""
    NO_METRIC = "no_metric"
    """A run ended well without printing the metric: another run would not print it either."""
    CLUSTER = "cluster"
    """The cluster lost one trial too often."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a study cannot continue: the last failed trial, and the number of failures."""

    fault: Fault
    trial: Trial
    count: int


def failure(history: History, now: datetime) -> Failure | None:
    """Return why the study cannot continue; None if it can.

    A failure counts only for the template that it happened with, and until the user asks for a retry.
    """
    ended = [t for t in history.trials if t.outcome not in {None, Outcome.LOST} and history.is_current(t)]
    silent = next((t for t in ended if is_silent(t)), None)
    if silent is not None and not any(t.measurements for t in ended):
        return Failure(Fault.NO_METRIC, silent, 1)
    last = ended[-FAILURES_IN_A_ROW:]
    if len(last) == FAILURES_IN_A_ROW and all(is_programs_fault(history, t) for t in last):
        return Failure(Fault.PROGRAM, last[-1], FAILURES_IN_A_ROW)
    for trial in history.trials:
        if trial.outcome is Outcome.LOST and history.is_current(trial):
            losses = [t for t in _chain(history, trial) if history.is_current(t)]
            recent = [t for t in losses if t.ended_at is None or now - t.ended_at <= LOSS_WINDOW]
            if len(recent) > LOSSES or len(losses) > LOSSES_EVER:
                return Failure(Fault.CLUSTER, trial, len(losses))
    return None


def is_programs_fault(history: History, trial: Trial) -> bool:
    """Return whether the user's program is at fault, rather than the setting that the search chose."""
    if trial.outcome is Outcome.OUT_OF_MEMORY:
        own = trial.suggestion.batch_size <= history.spec.baseline_batch_size
        return own and not can_shrink(history, trial) and not _has_retry(history, trial)
    if any(trial.number in found.trials for found in ended_unreported(history)):
        return False
    return trial.outcome is Outcome.FAILED or (trial.outcome is Outcome.MISSED and not trial.measurements)


def to_retry(history: History) -> list[Trial]:
    """Return the trials that must be retried and have no retry yet.

    These are lost trials, and trials that ran out of memory where a smaller micro-batch is left.
    """
    return [
        t
        for t in history.trials
        if (t.outcome is Outcome.LOST or (t.outcome is Outcome.OUT_OF_MEMORY and can_shrink(history, t)))
        and not _has_retry(history, t)
    ]


def _has_retry(history: History, trial: Trial) -> bool:
    return any(other.suggestion.rerun_of == trial.number for other in history.trials)


def _chain(history: History, trial: Trial) -> list[Trial]:
    """Return a trial and the trials that it retries, the newest first."""
    numbers = {t.number: t for t in history.trials}
    chain, before = [trial], trial.suggestion.rerun_of
    while before is not None and before in numbers and before < chain[-1].number:
        chain.append(numbers[before])
        before = chain[-1].suggestion.rerun_of
    return chain
