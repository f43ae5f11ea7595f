"""The rules that stop a running trial, in order: the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from autotuner.decide.decision import Facts, Stop, StopReason
from autotuner.decide.standing import Standing
from autotuner.study.finding import Reason
from autotuner.study.history import History, curve
from autotuner.trial import Outcome, Purpose, Trial

HOPELESS: Final = 0.05
"""A run is stopped when its probability of reaching the target falls below this."""
PROMISING: Final = 0.9
"""A run of the search is stopped when its probability of reaching the target exceeds this."""
FEWEST_SEEN: Final = 0.15
"""Fraction of a run that must be observed before it counts as promising, or a confirmation or a leap as
hopeless: a prediction is not evidence."""
LEAP: Final = 2
"""A trial is a leap if its batch size is more than this many times the largest one run so far."""

NAN_AT_FIRST: Final = 3
"""Number of non-finite measurements after which a run without any finite one has diverged."""

StopRule = Callable[[Standing, Trial], Stop | None]


def next_stop(standing: Standing) -> Stop | None:
    """Return the running trial with the lowest number that must stop now."""
    for trial in standing.history.running:
        for rule in STOP_RULES:
            stop = rule(standing, trial)
            if stop is not None:
                return stop
    return None


def timed_out(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has run longer than `trial-timeout`; waiting for its pods does not count."""
    timeout = standing.spec.trial_timeout
    if timeout is None or trial.started_at is None or standing.now - trial.started_at < timeout:
        return None
    if standing.history.has_reached(trial):
        return Stop(trial.number, Outcome.REACHED, StopReason.REACHED)
    if not len(curve(trial)):
        return Stop(trial.number, Outcome.FAILED, StopReason.TIMEOUT_WITHOUT_METRIC)
    return Stop(trial.number, Outcome.MISSED, StopReason.TIMEOUT)


def reached(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has met the target, unless its run length is still needed."""
    history = standing.history
    is_needed_whole = trial.suggestion.purpose is Purpose.BASELINE and not history.is_length_known
    if not history.has_reached(trial) or is_needed_whole:
        return None
    return Stop(trial.number, Outcome.REACHED, StopReason.REACHED)


def resumed(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that continues another trial's training: its measurements do not count."""
    found = (f for f in standing.findings if f.reason is Reason.RESUMED and trial.number in f.trials)
    finding = next(found, None)
    if finding is None:
        return None
    facts = Facts(number=finding.continues, detail=finding.message)
    return Stop(trial.number, Outcome.FAILED, StopReason.RESUMED, facts)


def holds_all_data(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial whose batch holds the whole data set: it would not count."""
    found = (f for f in standing.findings if f.reason is Reason.LARGER_THAN_DATA and trial.number in f.trials)
    finding = next(found, None)
    if finding is None:
        return None
    facts = Facts(batch_size=trial.suggestion.batch_size, detail=finding.message)
    return Stop(trial.number, Outcome.DOMINATED, StopReason.LARGER_THAN_DATA, facts)


def diverged(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial whose metric has become NaN or infinite.

    Some scripts print NaN before their first evaluation, so a run without a finite value so far is allowed
    `NAN_AT_FIRST` measurements.
    """
    del standing
    values = [m.is_finite for m in trial.measurements]
    if not values or values[-1] or not (any(values) or len(values) >= NAN_AT_FIRST):
        return None
    return Stop(
        trial.number, Outcome.DIVERGED, StopReason.DIVERGED, Facts(value=trial.measurements[-1].value)
    )


def dominated(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that can no longer change the answer, because a batch at least as large is confirmed."""
    confirmed = standing.confirmed
    if confirmed is None or trial.suggestion.batch_size > confirmed.batch_size:
        return None
    facts = Facts(batch_size=confirmed.batch_size)
    return Stop(trial.number, Outcome.DOMINATED, StopReason.LARGER_CONFIRMED, facts)


def ran_whole_length(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has run for the length of a whole run and missed the target."""
    length, last = standing.history.run_length or 0.0, curve(trial).last_step
    if not _is_judged(standing.history, trial) or last < length:
        return None
    return Stop(trial.number, Outcome.MISSED, StopReason.WHOLE_LENGTH, Facts(value=length))


def hopeless(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that is unlikely to reach the target."""
    if not _is_judged(standing.history, trial):
        return None
    chance = standing.beliefs.chance(trial)
    must_begin = trial.suggestion.purpose is Purpose.CONFIRM or _leaps(standing.history, trial)
    if chance >= HOPELESS or (must_begin and not _has_begun(standing.history, trial)):
        return None
    return Stop(trial.number, Outcome.HOPELESS, StopReason.HOPELESS, Facts(value=chance))


def promising(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial of the search that will almost surely reach the target; a confirmation runs on."""
    if not _is_judged(standing.history, trial) or trial.suggestion.purpose is Purpose.CONFIRM:
        return None
    if not _has_begun(standing.history, trial) or standing.beliefs.chance(trial) <= PROMISING:
        return None
    if not standing.beliefs.is_held(trial):
        return None
    return Stop(trial.number, Outcome.PROMISING, StopReason.PROMISING)


STOP_RULES: Final[tuple[StopRule, ...]] = (
    resumed,
    holds_all_data,
    timed_out,
    reached,
    diverged,
    dominated,
    ran_whole_length,
    hopeless,
    promising,
)


def _is_judged(history: History, trial: Trial) -> bool:
    """Return whether the model can judge the run: known length, has measurements, not a baseline."""
    is_baseline = trial.suggestion.purpose is Purpose.BASELINE
    return history.is_length_known and not is_baseline and len(curve(trial)) > 0


def _has_begun(history: History, trial: Trial) -> bool:
    return curve(trial).last_step >= FEWEST_SEEN * (history.run_length or 0.0)


def _leaps(history: History, trial: Trial) -> bool:
    """Return whether the trial's batch is far larger than all others, where the model only extrapolates."""
    others = (t.suggestion.batch_size for t in history.trials if t.number != trial.number and len(curve(t)))
    return trial.suggestion.batch_size > LEAP * max(others, default=0)
