"""Check `run-length` against what runs of the unchanged job report.

`run-length` is in the steps of the log. A number of epochs, where the log counts optimizer steps, would end
every run at its first report; a number of optimizer steps, where the log counts epochs, would never let a run
be stopped early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from autotuner.spec import TuningSpec
from autotuner.study.finding import Finding, Reason, points_of
from autotuner.trial import Outcome, Purpose, Trial

FAR: Final = 2.0
"""Ratio from which on the steps of a run contradict `run-length`: the last report may differ a little."""

OVERDUE: Final = 10
"""A run that takes so many times as long as any other may hang: it waits for a process that has died."""
_SHORTEST: Final = timedelta(minutes=10)


def stated_length(trials: Iterable[Trial], spec: TuningSpec) -> float | None:
    """Return the length of a run that the user has set; None without one, or if a run contradicts it."""
    return None if any(_too_short(trials, spec)) else spec.run_length


def doubtful_length(trials: Iterable[Trial], spec: TuningSpec) -> list[Finding]:
    """Return at most one finding: that `run-length` is far too short, or too long, for the unchanged job."""
    trials = tuple(trials)
    return [*_too_short(trials, spec), *_too_long(trials, spec)][:1]


def overdue_runs(trials: Iterable[Trial], spec: TuningSpec, now: datetime) -> list[Finding]:
    """Return a warning for each run that may hang; none with `trial-timeout`, which ends it."""
    trials = tuple(trials)
    ended = [t.ended_at - t.started_at for t in trials if t.started_at and t.ended_at and t.measurements]
    if spec.trial_timeout is not None or not ended:
        return []
    limit = max(OVERDUE * max(ended), _SHORTEST)
    running = (t for t in trials if t.is_running and t.ended_at is None and t.started_at is not None)
    late = (t for t in running if t.started_at is not None and now - t.started_at > limit)
    said = (
        f"has run more than {OVERDUE} times as long as any other: it may hang; see its log, and set"
        " trial-timeout, which stops such a trial"
    )
    return [
        Finding(
            Reason.OVERDUE, (t.number,), f"trial {t.number} at batch size {t.suggestion.batch_size} {said}"
        )
        for t in late
    ]


def _too_short(trials: Iterable[Trial], spec: TuningSpec) -> Iterator[Finding]:
    if spec.run_length is None:
        return
    for trial in _unchanged(trials):
        first = points_of(trial)[0][0]
        if first > FAR * spec.run_length:
            message = (
                f"run-length is {spec.run_length:g}, but the first {spec.target.metric} of trial"
                f" {trial.number} is at step {first:g} of its log: set run-length to the last step that a run"
                " of the unchanged job reports, in the steps of the log, or remove it"
            )
            yield Finding(Reason.RUN_LENGTH_TOO_SHORT, (trial.number,), message)


def _too_long(trials: Iterable[Trial], spec: TuningSpec) -> Iterator[Finding]:
    if spec.run_length is None:
        return
    for trial in _unchanged(trials):
        last = points_of(trial)[-1][0]
        is_whole = trial.is_complete and trial.outcome in {Outcome.REACHED, Outcome.MISSED}
        if is_whole and FAR * last < spec.run_length:
            message = (
                f"run-length is {spec.run_length:g}, but trial {trial.number}, the unchanged job, ended at"
                f" step {last:g} of its log, so trials are stopped late or not at all: set run-length to"
                f" {last:g}, or remove it"
            )
            yield Finding(Reason.RUN_LENGTH_TOO_LONG, (trial.number,), message)


def _unchanged(trials: Iterable[Trial]) -> Iterator[Trial]:
    return (t for t in trials if t.suggestion.purpose is Purpose.BASELINE and not t.doubt and points_of(t))
