"""Decide at fixed points of a run's curve whether to stop it, whenever its measurements arrive.

A run is judged after each fiftieth of its length, given the trials with smaller numbers, and at the first
measurement that meets the target. Measurements between two such points, or after the one that stops it, do
not count: otherwise the decision would depend on how fast logs are read. So two studies whose trials print
the same curves, one after the other, make the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from autotuner.search.beliefs import Beliefs
from autotuner.search.data import margin_over
from autotuner.search.memory import Memory, digest_of
from autotuner.search.space import Space
from autotuner.study.curve import reported_steps, until
from autotuner.study.history import History, Unit, curve
from autotuner.study.setting import setting
from autotuner.trial import Outcome, Purpose, Trial

POINTS: Final = 50
"""Number of points of a run at which it is judged."""
HOPELESS: Final = 0.05
"""Probability of reaching the target below which a run is stopped."""
PROMISING: Final = 0.9
"""Probability of reaching the target above which a run of the search is stopped."""
FEWEST_SEEN: Final = 0.15
"""Minimum fraction of a run before it counts as promising or as hopeless: a prediction is not evidence."""
JUDGED: Final = frozenset({None, Outcome.REACHED, Outcome.MISSED, Outcome.PROMISING, Outcome.HOPELESS})
"""Outcomes, and None, that depend on when the run was polled."""
_TO_THE_END: Final = frozenset({Outcome.REACHED, Outcome.MISSED})
"""Verdicts that do not cut a run off by a prediction."""
AS_FAR: Final = 1.25
"""Ratio of the distances from the target up to which a run is about as far as another one was."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a run by the rules of the search, and its step.

    `value` is the probability of reaching the target or, for a whole run, its length.
    """

    step: float
    outcome: Outcome
    value: float | None = None


@dataclass(frozen=True)
class Replayed:
    """The trials as the search uses them, and the verdicts on those that end.

    Attributes:
        history: Every run up to the last point at which it was judged.
        verdicts: The verdicts by number, on runs that the search ends or would have ended.
        study: A digest of what all runs of the study are judged by.
    """

    history: History
    verdicts: Mapping[int, Verdict]
    study: str


def replayed(history: History, earlier: tuple[History, ...] = ()) -> Replayed:
    """Return the part of each trial that counts, judged given the ended trials with smaller numbers."""
    space = Space.of(history.spec)
    study = _study(history, earlier, space)
    seen: list[Trial] = []
    before = _Before((), b"")
    verdicts: dict[int, Verdict] = {}
    for trial in history.trials:
        counted = trial
        if trial.outcome in JUDGED and len(curve(trial)):
            found = _recorded(trial, study.hex())
            if found is None:
                found = _verdict(_Case(history, earlier, space, before, trial, study), _judged)
            if found is not None:
                verdicts[trial.number] = found
                # A run that ended before its stop was decided counts as one that was stopped there.
                whole = trial.is_complete if found.outcome in _TO_THE_END else False
                counted = replace(_cut(trial, found.step), outcome=found.outcome, is_complete=whole)
            elif trial.is_running and history.run_length and not _is_needed_whole(history, trial):
                counted = _cut(trial, max(_points(trial, history.whole_length(trial)), default=0.0))
        is_changed = trial.is_running and not counted.is_running
        seen.append(replace(counted, outcome=None) if is_changed else counted)
        if not counted.is_running:
            before = before.and_then(counted)
    return Replayed(history.cut(seen), verdicts, study.hex())


def _recorded(trial: Trial, study: str) -> Verdict | None:
    """Return the recorded verdict that has ended a run; so a restart need not judge every run again."""
    judged, outcome = trial.judged, trial.outcome
    if judged is None or outcome is None or judged.study != study:
        return None
    return Verdict(judged.step, outcome)


def _cut(trial: Trial, step: float) -> Trial:
    kept = until(trial.measurements, step)
    return trial if kept is trial.measurements else replace(trial, measurements=kept)


def _is_needed_whole(history: History, trial: Trial) -> bool:
    """Return whether the run must continue to its own end, because the length of a run is unknown."""
    return trial.suggestion.purpose is Purpose.BASELINE and not history.is_length_known


def _points(trial: Trial, length: float) -> list[float]:
    """Return the steps at which a run is judged.

    They include values that are printed again: which values are new evaluations may change with later ones.
    """
    steps = reported_steps(trial.measurements)
    passed = np.floor(np.minimum(steps / length, 1.0) * POINTS + 1e-9)
    return [float(step) for step in steps[np.diff(passed, prepend=0.0) > 0]]


_VERDICTS: Final[Memory[Verdict | None]] = Memory(400_000)


def _verdict(case: _Case, judge: Callable[[_Case], Verdict | None]) -> Verdict | None:
    """Return the verdict of a case, computed once."""
    return _VERDICTS.of(digest_of(case.digest, judge.__name__.encode()), lambda: judge(case))


@dataclass(frozen=True)
class _Before:
    """The ended runs, as far as they count, and their digest."""

    trials: tuple[Trial, ...]
    digest: bytes

    def and_then(self, trial: Trial) -> _Before:
        """Return these runs and another one."""
        ended = str(trial.outcome).encode()
        return _Before((*self.trials, trial), digest_of(self.digest, _identity(trial), ended))


@dataclass(frozen=True)
class _Case:
    """A run and the ended runs before it; cases with equal digests have equal verdicts."""

    history: History
    earlier: tuple[History, ...]
    space: Space
    before: _Before
    trial: Trial
    study: bytes

    @cached_property
    def digest(self) -> bytes:
        """A digest of everything that a verdict depends on."""
        runs = b"running" if self.trial.is_running else b"ended"
        return digest_of(self.study, self.before.digest, runs, _identity(self.trial))

    def at(self, step: float) -> _Case:
        """Return the case at an earlier step of the run."""
        return replace(self, trial=replace(_cut(self.trial, step), outcome=None))


def _study(history: History, earlier: tuple[History, ...], space: Space) -> bytes:
    """Return a digest of everything that the verdicts on all runs of a study depend on."""
    earlier_trials = b"".join(_identity(t) for h in earlier for t in h.trials)
    spec = history.spec
    length = (history.run_length, history.is_length_known, history.is_length_stated, history.unit)
    common = (length, spec.target, spec.confirmations)
    others = [(h.spec.target, h.run_length, Space.of(h.spec)) for h in earlier]
    return digest_of(earlier_trials, repr((common, space, spec.baseline_batch_size, others)).encode())


def _identity(trial: Trial) -> bytes:
    outcome = None if trial.outcome in JUDGED else trial.outcome
    said = (trial.number, setting(trial).key, str(trial.suggestion.purpose), str(outcome))
    return digest_of(repr(said).encode(), curve(trial).digest)


def _judged(case: _Case) -> Verdict | None:
    """Return the first verdict on a run, at one of its points."""
    history, trial, seen = case.history, case.trial, curve(case.trial)
    length, met = history.whole_length(trial), seen.met_at(history.spec.target)
    if _is_needed_whole(history, trial):
        return None
    for step in (*_points(trial, length), math.inf):
        if met <= step:
            return None if met == math.inf else Verdict(met, Outcome.REACHED)
        if not history.is_length_known:
            continue
        # A length that a run has shown ends no other one: a script may stop early by itself, or train longer.
        is_over = history.is_length_stated and history.unit is not Unit.UNKNOWN and step >= length
        if is_over and trial.is_running:
            return Verdict(step, Outcome.MISSED, length)
        if step < length and trial.suggestion.purpose is not Purpose.BASELINE:
            stopped = _verdict(case.at(step), _stopped)
            if stopped is not None:
                return stopped
    return None


def _stopped(case: _Case) -> Verdict | None:
    """Return the verdict on a run by its predicted probability, given its measurements so far."""
    history, trial = case.history, case.trial
    step, length = curve(trial).last_step, history.whole_length(trial)
    if step < FEWEST_SEEN * length:
        return None
    beliefs = Beliefs(history.cut((*case.before.trials, trial)), case.space, case.earlier)
    # The other half of the chance is costly, and often cannot decide.
    half = beliefs.chance_by_curves(trial) / 2
    if HOPELESS <= half <= PROMISING - 0.5:
        return None
    chance = beliefs.chance(trial)
    # If the length of a run may depend on the batch size, little progress is not a reason to stop it.
    is_measured = (
        history.unit is not Unit.UNKNOWN or trial.suggestion.batch_size == history.spec.baseline_batch_size
    )
    if is_measured and chance < HOPELESS and not _is_as_far_as_one_that_met(case):
        return Verdict(step, Outcome.HOPELESS, chance)
    confirms = trial.suggestion.purpose is Purpose.CONFIRM
    if chance > PROMISING and not confirms and beliefs.is_held(trial):
        return Verdict(step, Outcome.PROMISING, chance)
    return None


def _is_as_far_as_one_that_met(case: _Case) -> bool:
    """Return whether a run is about as near to the target as one that met it was at that part of its run.

    With a learning rate that decays in steps, curves are flat until they jump. The model assumes that curves
    are smooth and expects no jump; but if one run has jumped, others will.
    """
    history, trial, target = case.history, case.trial, case.history.spec.target
    seen = curve(trial)
    part = seen.last_step / history.whole_length(trial)
    gap = -float(margin_over(target, seen.values[-1:])[0])
    for other in case.before.trials:
        shown = curve(other)
        met = shown.met_at(target)
        step = part * history.whole_length(other)
        until_then = shown.steps <= step
        if met < math.inf and step < met and until_then.any():
            before = -float(margin_over(target, shown.values[until_then][-1:])[0])
            if gap <= AS_FAR * before:
                return True
    return False
