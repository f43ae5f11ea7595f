"""Clean the measurements of a trial: finite values in order of step.

Logs are untrusted input. A step may be reported twice (the script restarted from a checkpoint), out of
order, or with NaN; a script may report nothing at all. A script may also print its last evaluation again with
every line about the training, until the next evaluation. Users of this module see increasing steps, finite
values, and each evaluation once.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from autotuner.spec import Target
from autotuner.trial import Measurement, Trial

Array = npt.NDArray[np.float64]

ALMOST: Final = 1 / 3
"""Part of the usual number of lines that may be missing, because steps do not divide evenly."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve: `steps` increase strictly; `values` are finite and have the same length.

    Of two values at one step the last reported one counts. Curves with the same points are equal, and cheap
    to compare and to hash.
    """

    steps: Array = field(compare=False)
    values: Array = field(compare=False)
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        content = hashlib.blake2b(self.steps.tobytes(), digest_size=16)
        content.update(self.values.tobytes())
        object.__setattr__(self, "digest", content.digest())

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last_step(self) -> float:
        """The last measured step, 0 before the first."""
        return float(self.steps[-1]) if len(self.steps) else 0.0

    def best(self, target: Target) -> float | None:
        """Return the best value with respect to the target; None if nothing was measured."""
        if not len(self.values):
            return None
        return float(self.values.max() if target.sign > 0 else self.values.min())

    def met_at(self, target: Target) -> float:
        """Return the first step at which the target is met; infinity without one."""
        meets = target.sign * (self.values - target.bar) >= 0
        return float(self.steps[np.argmax(meets)]) if np.any(meets) else math.inf

    def meets(self, target: Target) -> bool:
        """Return whether the target is met at some step."""
        return self.met_at(target) < math.inf


def clean(measurements: Sequence[Measurement]) -> Curve:
    """Return the curve of the finite measurements, each evaluation at the step where it was first printed."""
    steps, values = _reported(measurements)
    new = _evaluations(values)
    return Curve(steps[new], values[new])


def reported_steps(measurements: Sequence[Measurement]) -> Array:
    """Return the increasing steps of all finite measurements, of evaluations that are printed again too."""
    return _reported(measurements)[0]


def _reported(measurements: Sequence[Measurement]) -> tuple[Array, Array]:
    """Return the increasing steps of all finite measurements, and the last value reported at each."""
    count = len(measurements)
    steps = np.fromiter((m.step for m in measurements), np.float64, count)
    values = np.fromiter((m.value for m in measurements), np.float64, count)
    usable = np.isfinite(steps) & np.isfinite(values) & (steps >= 0)
    # np.unique keeps the first of equals, so the last reported comes first.
    steps, values = steps[usable][::-1], values[usable][::-1]
    steps, kept = np.unique(steps, return_index=True)
    return steps, values[kept]


def _evaluations(values: Array) -> npt.NDArray[np.intp]:
    """Return the indices of the values that are evaluations, and not the one before printed again.

    A script that prints each evaluation several times shows no value only once, except at the end; as long
    as there is one value only, it counts as one evaluation. Taken for measurements, the repetitions would
    promise as many more chances to meet the target, each with a noise of its own. Two evaluations may have
    the same value, so one that is shown much longer than the others counts more than once. The last value is
    always kept: it shows how far the run is.
    """
    if len(values) <= 2:  # noqa: PLR2004
        return np.arange(len(values))
    starts = np.flatnonzero(np.append([True], np.diff(values) != 0))
    lengths = np.diff(np.append(starts, len(values)))
    over = lengths[:-1] if len(lengths) > 1 else lengths
    if over.min() < 2:  # noqa: PLR2004
        return np.arange(len(values))
    usual = np.sort(over)[(len(over) - 1) // 2]
    counts = np.maximum(np.floor(lengths / usual + ALMOST), 1).astype(int)
    of = np.repeat(np.arange(len(starts)), counts)
    which = np.arange(len(of)) - (np.cumsum(counts) - counts)[of]
    return np.unique(np.append(starts[of] + which * lengths[of] // counts[of], len(values) - 1))


def until(measurements: tuple[Measurement, ...], step: float) -> tuple[Measurement, ...]:
    """Return what was measured up to a step; the same tuple where that is all."""
    kept = tuple(m for m in measurements if not m.step > step)
    return measurements if len(kept) == len(measurements) else kept


class _Curves:
    """A cache of the curves of existing trials: each is computed once, and dropped with its trial.

    The cache has no size limit, so it works for any number of trials, and it does not grow when a trial is
    read repeatedly. A trial is found by its identity, because hashing its measurements would cost as much as
    reading them.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Trial], Curve]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, trial: Trial) -> Curve:
        """Return a trial's curve."""
        key = id(trial)
        known = self._known.get(key)
        if known is not None and known[0]() is trial:
            return known[1]
        drawn = clean(trial.measurements)
        # The callback runs before another trial can get the same memory, and with it the same identity.
        self._known[key] = (weakref.ref(trial, lambda _: self._known.pop(key, None)), drawn)
        return drawn


CURVES = _Curves()
"""The cache for all trials of the process."""
