"""Decide at fixed points of a run's curve whether to stop it, whenever its measurements arrive.

A run is judged after each fiftieth of its length, by what the trials of smaller numbers have shown, and at
the first measurement that meets the target. What it measures between two such points, or after the one that
stops it, does not count: a slow reader of logs would know more than a quick one, and decide otherwise. So two
studies whose trials, one after the other, print the same curves decide the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

import numpy as np

from autotuner.search.beliefs import Beliefs
from autotuner.search.curve import Curve, until
from autotuner.search.history import History, Unit, curve, setting
from autotuner.search.space import Space
from autotuner.trial import Outcome, Purpose, Trial

POINTS: Final = 50
"""Points of a run at which it is judged."""
HOPELESS: Final = 0.05
"""A run is stopped when its chance to reach the target is smaller."""
PROMISING: Final = 0.9
"""A run of the search is stopped when its chance to reach the target is larger."""
FEWEST_SEEN: Final = 0.15
"""Fraction of a run that must have been seen before it counts as promising, or a confirmation or a leap as
hopeless: a prediction is no evidence."""
LEAP: Final = 2
"""Times the largest batch size run so far beyond which a trial is a leap."""
JUDGED: Final = frozenset({None, Outcome.REACHED, Outcome.MISSED, Outcome.PROMISING, Outcome.HOPELESS})
"""Ends of runs, and none yet, that depend on when the run was seen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ends by the rules of the search: at which step, and why."""

    step: float
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Replayed:
    """The trials as the search sees them, and the verdicts on those that are to end.

    Attributes:
        history: Every run up to the last point at which it was judged.
        verdicts: By number, of runs that the search ends or would have ended.
    """

    history: History
    verdicts: Mapping[int, Verdict]


def replayed(history: History, earlier: tuple[History, ...] = ()) -> Replayed:
    """Return the trials as far as they count, each judged by those of a smaller number that have ended."""
    space = Space.of(history.spec)
    seen: list[Trial] = []
    before = _Before((), None)
    verdicts: dict[int, Verdict] = {}
    for trial in history.trials:
        counted = trial
        if trial.outcome in JUDGED and len(curve(trial)) and history.run_length:
            found = _judged(_Case.of(history, earlier, space, before, trial))
            if found is not None:
                verdicts[trial.number] = found
                counted = replace(_cut(trial, found.step), outcome=found.outcome)
            elif trial.is_running and not _is_needed_whole(history, trial):
                counted = _cut(trial, max(_points(curve(trial), _length(history, trial)), default=0.0))
        seen.append(replace(counted, outcome=trial.outcome) if trial.is_running else counted)
        if not counted.is_running:
            before = before.and_then(counted)
    return Replayed(replace(history, trials=tuple(seen)), verdicts)


def _cut(trial: Trial, step: float) -> Trial:
    return replace(trial, measurements=until(trial.measurements, step))


def _is_needed_whole(history: History, trial: Trial) -> bool:
    """Return whether the run must go to its own end, for nobody has said yet how long a run is."""
    return trial.suggestion.purpose is Purpose.BASELINE and not history.is_length_known


def _length(history: History, trial: Trial) -> float:
    return history.length_of(trial.suggestion.batch_size) or math.inf


def _points(seen: Curve, length: float) -> list[float]:
    """Return the steps at which a run is judged."""
    passed = np.floor(np.minimum(seen.steps / length, 1.0) * POINTS + 1e-9)
    return [float(step) for step in seen.steps[np.diff(passed, prepend=0.0) > 0]]


class _Link:
    """A run after others: equal to itself alone, so that a long chain of runs costs no more to compare."""


@lru_cache(maxsize=4096)
def _link(_before: _Link | None, _identity: tuple[Hashable, ...]) -> _Link:
    return _Link()


@dataclass(frozen=True)
class _Before:
    """Runs that have ended, as far as they count; `link` is the same object where they are."""

    trials: tuple[Trial, ...]
    link: _Link | None

    def and_then(self, trial: Trial) -> _Before:
        """Return these runs and one more."""
        return _Before((*self.trials, trial), _link(self.link, _identity(trial)))


@dataclass(frozen=True)
class _Case:
    """A run and the ended ones before it, equal where a verdict must be."""

    key: tuple[Hashable, ...]
    history: History = field(compare=False)
    earlier: tuple[History, ...] = field(compare=False)
    space: Space = field(compare=False)
    before: _Before = field(compare=False)
    trial: Trial = field(compare=False)

    @classmethod
    def of(
        cls, history: History, earlier: tuple[History, ...], space: Space, before: _Before, trial: Trial
    ) -> _Case:
        """Return the case of a run."""
        key = (
            history.run_length,
            history.is_length_known,
            history.unit,
            tuple(map(_identity, (t for h in earlier for t in h.trials))),
            history.spec.target,
            history.spec.confirmations,
            space,
            trial.is_running,
            before.link,
            _identity(trial),
        )
        return cls(key, history, earlier, space, before, trial)

    def at(self, step: float) -> _Case:
        """Return the case as it was when the run had come to a step."""
        trial = replace(_cut(self.trial, step), outcome=None)
        return _Case.of(self.history, self.earlier, self.space, self.before, trial)


def _identity(trial: Trial) -> tuple[Hashable, ...]:
    outcome = None if trial.outcome in JUDGED else trial.outcome
    return trial.number, setting(trial), curve(trial), trial.suggestion.purpose, outcome


@lru_cache(maxsize=1024)
def _judged(case: _Case) -> Verdict | None:
    """Return the first verdict on a run, at one of its points."""
    history, trial, seen = case.history, case.trial, curve(case.trial)
    target, length = history.spec.target, _length(history, trial)
    if _is_needed_whole(history, trial):
        return None
    margins = target.sign * (seen.values - target.threshold)
    met = float(seen.steps[np.argmax(margins >= 0)]) if np.any(margins >= 0) else math.inf
    for step in (*_points(seen, length), math.inf):
        if met <= step:
            return None if met == math.inf else Verdict(met, Outcome.REACHED, f"has reached {target}")
        if (
            history.unit is not Unit.UNKNOWN
            and history.is_length_known
            and step >= length
            and trial.is_running
        ):
            reason = f"has run its {length:g} steps and misses {target}"
            return Verdict(step, Outcome.MISSED, reason)
        if step < length and trial.suggestion.purpose is not Purpose.BASELINE:
            stopped = _stopped(case.at(step))
            if stopped is not None:
                return stopped
    return None


@lru_cache(maxsize=8192)
def _stopped(case: _Case) -> Verdict | None:
    """Return the verdict on a run by what it promises as far as it has come."""
    history, trial = case.history, case.trial
    target, step = history.spec.target, curve(trial).last_step
    beliefs = Beliefs(replace(history, trials=(*case.before.trials, trial)), case.space, case.earlier)
    begun = step >= FEWEST_SEEN * _length(history, trial)
    chance = beliefs.chance(trial)
    confirms = trial.suggestion.purpose is Purpose.CONFIRM
    # Where the length of a run may go by the batch size, little progress is no ground to end it.
    is_measured = (
        history.unit is not Unit.UNKNOWN or trial.suggestion.batch_size == history.spec.baseline_batch_size
    )
    if is_measured and chance < HOPELESS and (begun or not (confirms or _leaps(case))):
        return Verdict(step, Outcome.HOPELESS, f"reaches {target} with probability {chance:.2f} only")
    if chance > PROMISING and begun and not confirms and beliefs.is_held(trial):
        return Verdict(step, Outcome.PROMISING, f"reaches {target} almost surely")
    return None


def _leaps(case: _Case) -> bool:
    """Return whether the run has gone far beyond all others, to where the model only extrapolates."""
    others = (t.suggestion.batch_size for t in case.before.trials if len(curve(t)))
    return case.trial.suggestion.batch_size > LEAP * max(others, default=0)
