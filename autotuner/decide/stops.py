"""The rules by which a running trial is stopped, in their order: the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from autotuner.decide.decision import Facts, Stop, StopReason
from autotuner.decide.standing import Standing
from autotuner.study.history import History, curve
from autotuner.trial import Outcome, Purpose, Trial

HOPELESS: Final = 0.05
"""A run is stopped when its chance to reach the target is smaller."""
PROMISING: Final = 0.9
"""A run of the search is stopped when its chance to reach the target is larger."""
FEWEST_SEEN: Final = 0.15
"""Fraction of a run that must have been seen before it counts as promising, or a confirmation or a leap as
hopeless: a prediction is no evidence."""
LEAP: Final = 2
"""Times the largest batch size run so far beyond which a trial is a leap."""

StopRule = Callable[[Standing, Trial], Stop | None]


def next_stop(standing: Standing) -> Stop | None:
    """Return the running trial of the lowest number that is to end now."""
    for trial in standing.history.running:
        for rule in STOP_RULES:
            stop = rule(standing, trial)
            if stop is not None:
                return stop
    return None


def timed_out(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has run longer than `trial-timeout`; the wait for its pods does not count."""
    timeout = standing.spec.trial_timeout
    if timeout is None or trial.started_at is None or standing.now - trial.started_at < timeout:
        return None
    if standing.history.has_reached(trial):
        return Stop(trial.number, Outcome.REACHED, StopReason.REACHED)
    if not len(curve(trial)):
        return Stop(trial.number, Outcome.FAILED, StopReason.TIMEOUT_WITHOUT_METRIC)
    return Stop(trial.number, Outcome.MISSED, StopReason.TIMEOUT)


def reached(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has met the target, unless it has to show how long a run is."""
    history = standing.history
    is_needed_whole = trial.suggestion.purpose is Purpose.BASELINE and not history.is_length_known
    if not history.has_reached(trial) or is_needed_whole:
        return None
    return Stop(trial.number, Outcome.REACHED, StopReason.REACHED)


def dominated(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that can no longer change the answer: a batch as large as its own is confirmed."""
    confirmed = standing.confirmed
    if confirmed is None or trial.suggestion.batch_size > confirmed.batch_size:
        return None
    facts = Facts(batch_size=confirmed.batch_size)
    return Stop(trial.number, Outcome.DOMINATED, StopReason.LARGER_CONFIRMED, facts)


def ran_whole_length(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that has run as long as a whole run and missed the target."""
    history = standing.history
    length, last = history.run_length or 0.0, curve(trial).last_step
    if not _is_judged(trial) or not history.is_length_known or last < length:
        return None
    return Stop(trial.number, Outcome.MISSED, StopReason.WHOLE_LENGTH, Facts(value=length))


def hopeless(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial that will hardly reach the target."""
    if not _is_judged(trial):
        return None
    chance = standing.beliefs.chance(trial)
    must_begin = trial.suggestion.purpose is Purpose.CONFIRM or _leaps(standing.history, trial)
    if chance >= HOPELESS or (must_begin and not _has_begun(standing.history, trial)):
        return None
    return Stop(trial.number, Outcome.HOPELESS, StopReason.HOPELESS, Facts(value=chance))


def promising(standing: Standing, trial: Trial) -> Stop | None:
    """Stop a trial of the search that will almost surely reach the target; a confirmation must reach it."""
    if not _is_judged(trial) or trial.suggestion.purpose is Purpose.CONFIRM:
        return None
    if not _has_begun(standing.history, trial) or standing.beliefs.chance(trial) <= PROMISING:
        return None
    if not standing.beliefs.is_held(trial):
        return None
    return Stop(trial.number, Outcome.PROMISING, StopReason.PROMISING)


STOP_RULES: Final[tuple[StopRule, ...]] = (
    timed_out,
    reached,
    dominated,
    ran_whole_length,
    hopeless,
    promising,
)


def _is_judged(trial: Trial) -> bool:
    """Return whether the model judges the run: one that has measured something, and no baseline."""
    return trial.suggestion.purpose is not Purpose.BASELINE and len(curve(trial)) > 0


def _has_begun(history: History, trial: Trial) -> bool:
    return curve(trial).last_step >= FEWEST_SEEN * (history.run_length or 0.0)


def _leaps(history: History, trial: Trial) -> bool:
    """Return whether the trial has gone far beyond all others, to where the model only extrapolates."""
    others = (t.suggestion.batch_size for t in history.trials if t.number != trial.number and len(curve(t)))
    return trial.suggestion.batch_size > LEAP * max(others, default=0)
