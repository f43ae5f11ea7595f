"""Classify failed trials, and find the trials to retry.

The program is at fault if it fails, or runs out of memory at the job's own batch size. Three such trials in a
row end the study, unless it fails only with settings that the search chose: a batch for which the data set is
too small, an optimizer that the image lacks. Runs of settings that worked before show which it is. A run that
ends well without printing the metric ends the study at once, if none has printed it so far, except at a batch
so large that the run ends before its first report is due. The cluster is at fault if a trial is lost; the
trial is retried unchanged, a bounded number of times in a window of time, at no cost to the budget. Running
out of memory at another batch size is not a fault: the trial is retried with a smaller micro-batch, if one is
left; otherwise the search treats it as a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from autotuner.study.findings.failing_sizes import failing_sizes, to_tell_apart
from autotuner.study.findings.unreported import ended_unreported, is_silent
from autotuner.study.history import History
from autotuner.study.layout_bounds import can_shrink
from autotuner.study.setting import Setting, setting
from autotuner.trial import Outcome, Purpose, Trial

FAILURES_IN_A_ROW: Final = 3
FAILURES_TO_CHECK: Final = 2
"""Failures in a row with settings that have never worked, after which the unchanged job runs again."""
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
    row = in_a_row(history)
    if len(row) >= FAILURES_IN_A_ROW and to_check(history) is None:
        return Failure(Fault.PROGRAM, row[-1], len(row))
    for trial in history.trials:
        if trial.outcome is Outcome.LOST and history.is_current(trial):
            losses = [t for t in _chain(history, trial) if history.is_current(t)]
            recent = [t for t in losses if t.ended_at is None or now - t.ended_at <= LOSS_WINDOW]
            if len(recent) > LOSSES or len(losses) > LOSSES_EVER:
                return Failure(Fault.CLUSTER, trial, len(losses))
    return None


def in_a_row(history: History) -> list[Trial]:
    """Return the last ended trials, as far back as all failed by the program's fault.

    Runs of the unchanged job that worked are left out: they say nothing of other settings.
    """
    row: list[Trial] = []
    for trial in reversed(history.trials):
        if trial.outcome in {None, Outcome.LOST} or not history.is_current(trial):
            continue
        if is_programs_fault(history, trial):
            row.append(trial)
        elif trial.suggestion.purpose is not Purpose.BASELINE:
            break
    return row[::-1]


def to_check(history: History) -> Setting | None:
    """Return the setting whose run would show who is at fault for failures in a row; None if nothing is open.

    First the job's own: if that fails as well, the program is at fault. If it works, settings that have never
    worked are, and the next run tells whether it is their batch size
    (`autotuner.study.findings.failing_sizes`).
    """
    row = in_a_row(history)
    if len(row) < FAILURES_TO_CHECK:
        return to_tell_apart(history, ())
    if any(is_known_to_work(history, t) for t in row):
        return None
    own, first = history.own_setting, row[0].number
    later = (t for t in history.trials if t.number > first and setting(t) == own and not t.is_running)
    if all(t.outcome is Outcome.LOST for t in later):
        return own
    return to_tell_apart(history, row)


def is_known_to_work(history: History, trial: Trial) -> bool:
    """Return whether a trial's setting is the job's own, or one with which another run has not failed."""
    tried = setting(trial)
    return tried == history.own_setting or tried in history.working


def is_programs_fault(history: History, trial: Trial) -> bool:
    """Return whether the user's program is at fault, rather than the setting that the search chose."""
    if trial.outcome is Outcome.OUT_OF_MEMORY:
        own = trial.suggestion.batch_size <= history.spec.baseline_batch_size
        return own and not can_shrink(history, trial) and not _has_retry(history, trial)
    if trial.outcome is not Outcome.FAILED and (trial.outcome is not Outcome.MISSED or trial.measurements):
        return False
    if any(trial.number in found.trials for found in ended_unreported(history)):
        return False
    return all(trial.number != found.number for found in failing_sizes(history).trials)


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
