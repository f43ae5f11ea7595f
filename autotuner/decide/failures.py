"""Whose fault a failed trial is, and which trials have to be run again.

The program's fault: it fails, or does not fit into memory at the job's own batch size; three in a row end
the study. A run that ends well and prints no metric ends it at once. The cluster's fault: a trial is lost,
and is run again just as it was, a bounded number of times in a window of time, at no cost to the budget.
Running out of memory elsewhere is nobody's fault: a smaller micro-batch, where one is left, or a bound that
the search observes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from autotuner.study.history import History
from autotuner.study.layout_bounds import can_shrink
from autotuner.trial import Outcome, Trial

FAILURES_IN_A_ROW: Final = 3
LOSSES: Final = 3
"""Times that one trial may be lost within `LOSS_WINDOW` and is still run again."""
LOSS_WINDOW: Final = timedelta(hours=6)
LOSSES_EVER: Final = 10
"""Times that one trial may be lost altogether: on spot nodes, losses far apart are nobody's fault."""


class Fault(StrEnum):
    """Why a study cannot go on."""

    PROGRAM = "program"
    """Trials fail in a row."""
    NO_METRIC = "no_metric"
    """A run that ended well has printed no metric: another would print none either."""
    CLUSTER = "cluster"
    """The cluster loses one trial again and again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a study cannot go on: the last trial that failed, and how many times in a row."""

    fault: Fault
    trial: Trial
    count: int


def failure(history: History, now: datetime) -> Failure | None:
    """Return why the study cannot go on; None while it can.

    A failure counts for the template that it happened with, and until the user asks for a retry.
    """
    ended = [t for t in history.trials if t.outcome not in {None, Outcome.LOST} and _counts(history, t)]
    silent = next((t for t in ended if _is_silent(t)), None)
    if silent is not None and not any(t.measurements for t in ended):
        return Failure(Fault.NO_METRIC, silent, 1)
    last = ended[-FAILURES_IN_A_ROW:]
    if len(last) == FAILURES_IN_A_ROW and all(is_programs_fault(history, t) for t in last):
        return Failure(Fault.PROGRAM, last[-1], FAILURES_IN_A_ROW)
    for trial in history.trials:
        if trial.outcome is Outcome.LOST and _counts(history, trial):
            losses = [t for t in _chain(history, trial) if _counts(history, t)]
            recent = [t for t in losses if t.ended_at is None or now - t.ended_at <= LOSS_WINDOW]
            if len(recent) > LOSSES or len(losses) > LOSSES_EVER:
                return Failure(Fault.CLUSTER, trial, len(losses))
    return None


def _counts(history: History, trial: Trial) -> bool:
    """Return whether a failure still says something: of today's template, and since the last retry."""
    spec = history.spec
    today = spec.attempt(spec.template)
    if trial.template and today and trial.template != today:
        return False
    return spec.retried_at is None or trial.ended_at is None or trial.ended_at > spec.retried_at


def _is_silent(trial: Trial) -> bool:
    """Return whether the run went to its own end without a single measurement."""
    ended_well = trial.outcome is Outcome.MISSED or trial.is_complete is True
    return ended_well and not trial.measurements


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


def _chain(history: History, trial: Trial) -> list[Trial]:
    """Return a trial and those that it stands in for, the newest first."""
    numbers = {t.number: t for t in history.trials}
    chain, before = [trial], trial.suggestion.rerun_of
    while before is not None and before in numbers and before < chain[-1].number:
        chain.append(numbers[before])
        before = chain[-1].suggestion.rerun_of
    return chain
