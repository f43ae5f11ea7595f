"""The rules by which a running trial is stopped.

First what a run itself shows: it resumed another's training, ran too long, diverged. Then the verdicts of the
search, at fixed points of the curve (`autotuner.search.replay`): reached, ran its length, hopeless,
promising. Then what no longer matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from autotuner.decide.decision import Facts, Stop, StopReason
from autotuner.decide.standing import Standing
from autotuner.search.replay import Verdict
from autotuner.study.finding import Reason
from autotuner.study.history import curve
from autotuner.trial import Judged, Outcome, Purpose, Trial

NAN_AT_FIRST: Final = 3
"""Number of measurements that may always be non-finite before the first finite one."""

_BY_FINDING: Final[Mapping[Reason, tuple[Outcome, StopReason]]] = {
    Reason.RESUMED: (Outcome.FAILED, StopReason.RESUMED),
    Reason.EVALUATES_NOTHING: (Outcome.FAILED, StopReason.EVALUATES_NOTHING),
    Reason.LARGER_THAN_DATA: (Outcome.DOMINATED, StopReason.LARGER_THAN_DATA),
}
"""How a trial is stopped of which no measurement counts."""

StopRule = Callable[[Standing, Trial], Stop | None]


def next_stop(standing: Standing, rules: tuple[StopRule, ...]) -> Stop | None:
    """Return the running trial of the lowest number that ends now by one of the rules."""
    for trial in standing.history.running:
        for rule in rules:
            stop = rule(standing, trial)
            if stop is not None:
                return stop
    return None


def timed_out(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has run longer than `trial-timeout`; waiting for its pods does not count."""
    timeout = standing.spec.trial_timeout
    if timeout is None or trial.started_at is None:
        return None
    if (trial.ended_at or standing.now) - trial.started_at < timeout:
        return None
    if standing.history.has_reached(trial):
        return Stop(trial.number, Outcome.REACHED, StopReason.REACHED)
    if not len(curve(trial)):
        return Stop(trial.number, Outcome.FAILED, StopReason.TIMEOUT_WITHOUT_METRIC)
    return Stop(trial.number, Outcome.MISSED, StopReason.TIMEOUT)


def does_not_count(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that resumed another's training, is evaluated on nothing, or has a batch of all data."""
    for finding in standing.findings:
        if finding.reason in _BY_FINDING and trial.number in finding.trials:
            return Stop(trial.number, *_BY_FINDING[finding.reason], Facts(detail=finding.message))
    return None


def batch_checked(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a check of the batch once more of its curve would show nothing new."""
    for check in standing.checks:
        if check.trial.number == trial.number and check.is_over:
            verdict = "differs from" if check.differs else "is the same as"
            verdict = "is nearly" if check.seems_same else verdict
            detail = f"has been compared: its curve {verdict} that of trial {check.original.number}"
            return Stop(trial.number, Outcome.DOMINATED, StopReason.BATCH_CHECKED, Facts(detail=detail))
    return None


def diverged(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial whose metric has become NaN or infinite, or has been so for longer than in other runs.

    Some scripts print NaN or infinity until their first evaluation. The unchanged job shows how long that
    takes, so it is not stopped before.
    """
    values = [m.is_finite for m in trial.measurements]
    if not values or values[-1]:
        return None
    if not any(values) and _may_be_evaluated_later(standing, trial):
        return None
    return Stop(
        trial.number, Outcome.DIVERGED, StopReason.DIVERGED, Facts(value=trial.measurements[-1].value)
    )


def _may_be_evaluated_later(standing: Standing, trial: Trial) -> bool:
    if trial.suggestion.purpose is Purpose.BASELINE or len(trial.measurements) < NAN_AT_FIRST:
        return True
    size, last = trial.suggestion.batch_size, trial.measurements[-1].step
    # An epoch has more optimizer steps at a smaller batch size.
    return any(
        last <= curve(other).steps[0] * max(1.0, other.suggestion.batch_size / size)
        for other in standing.history.trials
        if len(curve(other))
    )


def dominated(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that can no longer change the answer, because a batch at least as large is confirmed.

    A run of the unchanged job continues: it shows whether the program still works. A check of the batch
    continues: it shows whether what is confirmed is true.
    """
    confirmed = standing.confirmed
    if trial.suggestion.purpose in {Purpose.BASELINE, Purpose.CHECK} or confirmed is None:
        return None
    if trial.suggestion.batch_size > confirmed.batch_size:
        return None
    facts = Facts(batch_size=confirmed.batch_size)
    return Stop(trial.number, Outcome.DOMINATED, StopReason.LARGER_CONFIRMED, facts)


def verdict_stop(number: int, verdict: Verdict, study: str) -> Stop:
    """Return the stop that a verdict of the search on a run of the study amounts to."""
    facts, judged = Facts(value=verdict.value), Judged(verdict.step, study)
    return Stop(number, verdict.outcome, _REASONS[verdict.outcome], facts, judged)


_REASONS: Final[Mapping[Outcome, StopReason]] = {
    Outcome.REACHED: StopReason.REACHED,
    Outcome.MISSED: StopReason.WHOLE_LENGTH,
    Outcome.HOPELESS: StopReason.HOPELESS,
    Outcome.PROMISING: StopReason.PROMISING,
}

AS_SEEN: Final[tuple[StopRule, ...]] = (does_not_count, batch_checked, timed_out, diverged)
"""Rules on what has been seen of a run so far. The search then judges the runs: `autotuner.search.replay`."""
AS_JUDGED: Final[tuple[StopRule, ...]] = (dominated,)
"""Rules that follow from the judged runs."""
