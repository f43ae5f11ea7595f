"""Check that a script trains its batch: repeat a run with a smaller one and nothing else changed.

A script may train a smaller batch than its variable says: it has a maximum, rounds to a power of two, has
less data, or tries again with half the batch when memory runs out. Runs at larger batch sizes then meet the
target although the script has never trained at them. Other hyperparameters change from trial to trial, so
only a run with the same seed and hyperparameters shows it: its curve is the same to the last digit. Where the
batch has an effect (or the training is not deterministic, so that nothing can be learnt), the first values
differ, and the run is stopped there.

Half the batch finds a retry that halves it, and `NEAR` of it a maximum or a rounding between the two.

One more check repeats the run with `NEAR` of its learning rate: where a script has a maximum for it, or takes
it from elsewhere, the answer would name a rate that was never trained.

Where the first value comes in the second half of a run, the first losses of the training are compared before
(`autotuner.study.logs.losses`): if they differ by more than those of a repetition, the check is over. If not,
it goes on to that value.

On GPUs trainings are seldom deterministic, and a retry with nine tenths of the batch does not end at the same
batch from everywhere. Then the digits differ all the same. So a check whose losses are close, and one with
half the batch, goes on for up to `FEWEST_NEAR` values while they are nearly those of the original. In 50 real
trainings (tests/benchmarks/generated) half the batch always changed one of the first three by more than
`NEARLY` of the curve's extent; in 49 of them, an error of 1e-6 in each gradient did not. That is so for
epochs, of which half the batch has twice the updates; after a fixed number of steps, two batches may be
nearly as good.

Where only values show that half the batch is nearly the same, the batch may also have little effect. So a
control repeats the run once more, with nothing changed. If its digits differ, too, the training is not
deterministic, and nothing shows that the batch has an effect.

A script that does not use its seed is different in every run. So a control is also due where other seeds
change the first values by as much as half the batch does.

`autotuner.study.findings.proof` judges how many equal digits are enough.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.study.finding import Point, points_of
from autotuner.study.history import EPOCH
from autotuner.study.logs import losses
from autotuner.study.setting import Setting, setting
from autotuner.trial import CUT_SHORT, Purpose, Suggestion, Trial

NEAR: Final = 2**-0.25
SHARES: Final = (0.5, NEAR)
"""The batch sizes of the checks, as shares of the one that is checked."""
CLOSE: Final = 1.12
"""Ratio up to which a possible batch size is the one of a share."""
HALF: Final = 1.8
"""Minimum ratio of two batch sizes that make a difference in the first values of any training."""
NEARLY: Final = 0.02
"""Maximum difference of the values of two runs that seem to train one batch, in extents of the curve."""
FEWEST_NEAR: Final = 3
"""Number of values that must be nearly the same, if the original has as many."""
MOVED: Final = 0.1
"""Minimum extent of these values, in extents of the curve: before a model learns, all batches are alike."""
FEWEST_SEEDS: Final = 3
"""Minimum number of runs that show how much the seed changes a value."""
IN_NOISE: Final = 1.5
"""Maximum effect that may be chance, in ranges of the values of a few runs: three standard deviations."""
FAR_MORE: Final = 3.0
"""Minimum ratio of an effect to the difference between two runs of the same."""
EARLY: Final = 0.5
"""Maximum share of a run until its first value for which a check is worth its cost."""


@dataclass(frozen=True, slots=True)
class BatchCheck:
    """A check, and the run that it repeats with a smaller batch, with another learning rate, or unchanged."""

    trial: Trial
    original: Trial

    @property
    def numbers(self) -> tuple[int, int]:
        """The numbers of the two trials."""
        return self.original.number, self.trial.number

    @property
    def is_of_rate(self) -> bool:
        """Whether it changes the learning rate."""
        return _changes_rate(self.original.suggestion, self.trial.suggestion)

    @property
    def is_of_batch(self) -> bool:
        """Whether it changes the batch."""
        return _changes_batch(self.original.suggestion, self.trial.suggestion)

    @property
    def is_control(self) -> bool:
        """Whether it changes nothing."""
        return not (self.is_of_batch or self.is_of_rate)

    @property
    def is_half(self) -> bool:
        """Whether it has about half the batch or less, so that its first values differ in any training."""
        return self.original.suggestion.batch_size >= HALF * self.trial.suggestion.batch_size

    @property
    def common(self) -> tuple[Point, ...]:
        """The values of the check up to the first that differs from the original's."""
        known = dict(points_of(self.original))
        found: list[Point] = []
        for step, value in points_of(self.trial):
            if known.get(step) != value:
                break
            found.append((step, value))
        return tuple(found)

    @property
    def has_same_losses(self) -> bool:
        """Whether the first losses of the training show no effect."""
        one, other = self.original.losses, self.trial.losses
        return losses.are_comparable(one, other) and not losses.differ(one, other)

    @property
    def differs(self) -> bool:
        """Whether the batch has an effect, as far as can be seen."""
        points = points_of(self.trial)
        has_other_losses = losses.differ(self.original.losses, self.trial.losses)
        if has_telling_losses(self.original) and has_other_losses and not self.has_close_losses:
            return True
        known = dict(points_of(self.original))
        # The curve of an ended run is thinned, so a step of the check may be missing; the first is kept.
        return any(known.get(step, value) != value for step, value in points) or (
            bool(points) and points[0][0] not in known
        )

    @property
    def has_close_losses(self) -> bool:
        """Whether the first losses are those of one training that is repeated.

        The losses of micro-batches hardly depend on the batch at first, and with another rate the first
        batches are the same.
        """
        one, other = self.original, self.trial
        has_steps = any((t.suggestion.accumulation_steps or 1) > 1 for t in (one, other))
        return self.is_of_batch and not has_steps and losses.are_close(one.losses, other.losses)

    @property
    def seems_same(self) -> bool:
        """Whether the digits differ, and the runs are so near each other that one batch may be trained."""
        has_enough = self.has_close_losses or len(points_of(self.original)) >= FEWEST_NEAR
        return self.differs and self._is_near and self._is_long and has_enough

    @property
    def shows_effect(self) -> bool:
        """Whether the batch clearly has an effect. A run that was stopped early may be too short to tell."""
        return self.differs and not self._is_near

    @property
    def _is_long(self) -> bool:
        """Whether the values so far would show an effect: the original has begun to learn."""
        one, other = points_of(self.original), points_of(self.trial)
        begun = [before for before, _ in self._pairs]
        has_moved = len(begun) >= FEWEST_NEAR and max(begun) - min(begun) >= MOVED * _extent(one)
        return bool(other) and (has_moved or other[-1][0] >= one[-1][0])

    @property
    def _pairs(self) -> list[tuple[float, float]]:
        """The values of both at common steps; the curve of an ended run is thinned, but keeps its first."""
        known = dict(points_of(self.original))
        return [(known[step], value) for step, value in points_of(self.trial) if step in known]

    @property
    def _is_near(self) -> bool:
        """Whether the values so far are nearly the original's, and nothing else shows an effect."""
        one, other = points_of(self.original), points_of(self.trial)
        if not self.has_close_losses:
            is_of_epochs = all(map(_counts_epochs, (self.original, self.trial)))
            is_apart = losses.are_apart(self.original.losses, self.trial.losses)
            if is_apart or not self.is_half or not is_of_epochs:
                return False
        elif len(one) == 1:
            return True  # a value at the end is nearly the same at most batch sizes that meet the target
        is_aligned = not other or other[0][0] in dict(one)
        nearly = NEARLY * _extent(one)
        return is_aligned and all(abs(before - after) <= nearly for before, after in self._pairs)

    def is_within(self, noise: Mapping[float, float]) -> bool:
        """Return whether half the batch changes the first value by little more than other seeds do.

        `noise` are the ranges of the values by step, see `noise_of_seeds`.
        """
        step, change = self.first_change
        return self.is_half and self.differs and change <= IN_NOISE * noise.get(step, -math.inf)

    def exceeds(self, control: BatchCheck) -> bool:
        """Return whether its first value differs by far more from the original's than that of a control."""
        return self.first_change[1] > FAR_MORE * control.first_change[1]

    @property
    def first_change(self) -> tuple[float, float]:
        """The first step at which both have a value, and by how much these differ; (NaN, 0) without one.

        Later steps depend on how fast the log was read.
        """
        known = dict(points_of(self.original))
        common = ((step, abs(value - known[step])) for step, value in points_of(self.trial) if step in known)
        return next(common, (math.nan, 0.0))

    @property
    def is_over(self) -> bool:
        """Whether more of the check shows nothing new: it differs clearly, or is as long as the original."""
        if not self.trial.is_running:
            return True
        if self.differs:
            return not self._is_near or self._is_long
        if self.is_control and self._is_long:
            return True
        if self.is_of_rate and has_telling_losses(self.original) and len(self.trial.losses) >= losses.KEPT:
            # Nothing is shown: in a warm-up from zero the rate has little effect. A whole run costs too much.
            return True
        ends = [points[-1][0] for t in (self.trial, self.original) if (points := points_of(t))]
        return len(ends) > 1 and ends[0] >= ends[1]


def _counts_epochs(trial: Trial) -> bool:
    """Return whether a run has a value an epoch, as most logs have that name neither epochs nor steps."""
    return trial.unit == EPOCH or (not trial.unit and bool(trial.reads))


def _extent(points: Sequence[Point]) -> float:
    values = [value for _, value in points]
    return max(values) - min(values)


def has_telling_losses(trial: Trial) -> bool:
    """Return whether a run is compared by the losses of its training, too: its first value comes late."""
    steps = [step for step, _ in points_of(trial)]
    is_late = len(steps) == 1 or (len(steps) > 1 and steps[0] > EARLY * steps[-1])
    return is_late and losses.are_comparable(trial.losses, trial.losses)


def noise_of_seeds(trials: Iterable[Trial]) -> dict[float, float]:
    """Return by step how far the values of runs of one setting lie apart; empty if it has fewer than three.

    The setting is the one with most runs: in general the answer.
    """
    curves: defaultdict[Setting, list[dict[float, float]]] = defaultdict(list)
    for trial in trials:
        if trial.suggestion.purpose is not Purpose.CHECK and (points := points_of(trial)):
            curves[setting(trial)].append(dict(points))
    most = max(curves.values(), key=len, default=[])
    by_step = {step: [curve[step] for curve in most if step in curve] for curve in most for step in curve}
    return {step: max(v) - min(v) for step, v in by_step.items() if len(v) >= FEWEST_SEEDS}


def batch_checks(trials: Iterable[Trial]) -> tuple[BatchCheck, ...]:
    """Return the checks among the trials, without those that were lost or have failed."""
    known = sorted(trials, key=lambda t: t.number)
    found: list[BatchCheck] = []
    for trial in known:
        original = repeated_by(trial.suggestion, known)
        if original is not None and trial.outcome not in CUT_SHORT:
            found.append(BatchCheck(trial, original))
    return tuple(found)


def repeated_by(check: Suggestion, trials: Iterable[Trial]) -> Trial | None:
    """Return the ended run that a check repeats; None if there is none, or for any other trial."""
    if check.purpose is not Purpose.CHECK:
        return None
    of_seed = [t for t in trials if t.suggestion.seed == check.seed and _is_repeatable(t)]
    for is_repeated in (_changes_batch, _changes_rate, _changes_nothing):
        if original := next((t for t in of_seed if is_repeated(t.suggestion, check)), None):
            return original
    return None


def _is_repeatable(trial: Trial) -> bool:
    return trial.suggestion.purpose is not Purpose.CHECK and not trial.is_running and bool(points_of(trial))


def _changes_batch(one: Suggestion, check: Suggestion) -> bool:
    return one.batch_size > check.batch_size and dict(one.parameters) == dict(check.parameters)


def _changes_rate(one: Suggestion, check: Suggestion) -> bool:
    changed = set(one.parameters.items()) ^ set(check.parameters.items())
    return one.batch_size == check.batch_size and len({name for name, _ in changed}) == 1


def _changes_nothing(one: Suggestion, check: Suggestion) -> bool:
    return one.batch_size == check.batch_size and dict(one.parameters) == dict(check.parameters)


def original_of(trials: Sequence[Trial], tried: Setting) -> Trial | None:
    """Return the ended run of a setting that a check would repeat, the longest; None without any."""
    ended = (t for t in trials if t.suggestion.purpose is not Purpose.CHECK and not t.is_running)
    runs = [t for t in ended if setting(t) == tried and points_of(t) and not t.doubt]
    return max(runs, key=lambda t: (len(points_of(t)), -t.number), default=None)
