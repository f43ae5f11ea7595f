"""The data of the model: each run's curve as about a dozen points, in coordinates and in log-shortfall.

A curve is reduced to the means of short windows, which are denser at the start, where curves change fast. Raw
values are used, not the best so far: a run that is stopped at its first value above the target was partly
lucky, and only the likelihood of all its values can say how much.

Values (for a loss, its logarithm) are transformed: with the margin `d` over the target and a headroom `h`
above it, `y = -log(1 - d / h)`, linear for `d > h / 2`. The target lies at 0. Learning curves are power laws
of the error, so they become nearly straight in log step, and a miss by far has little weight compared with
the differences near the target. The model learns `h`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from autotuner.search.space import Space
from autotuner.spec import Target
from autotuner.study.curve import Array, Curve
from autotuner.study.setting import Setting

WINDOW_ENDS: Final = np.array([0.02, 0.04, 0.06, 0.1, 0.16, 0.24, 0.33, 0.45, 0.58, 0.73, 0.87, 1.0])
"""Fractions of the run at which a curve is read."""
WINDOW: Final = 0.04
"""Width of a window, as a fraction of the run. A window counts as one measurement, however often the script
has evaluated in it: the weights change little meanwhile, and the validation set is the same, so the values
have most of their noise in common."""
STEEP: Final = 0.15
"""Maximum width as a fraction of the run so far: early, a curve rises too steeply to be averaged."""
MAX_POINTS: Final = 420
"""Maximum points of all runs together; above it, the runs furthest from the target get fewer points."""
FEWEST_POINTS: Final = 3
SMALLEST_LOSS: Final = 1e-3
"""A loss counts as at least this fraction of the target."""


@dataclass(frozen=True, eq=False)
class Points:
    """Windows of curves: of run `run[i]`, at fraction `time[i]`, the mean margin of its values.

    Attributes:
        place: Coordinates of the runs' settings, (runs, d).
        run: Row of `place` that each point belongs to, (points,).
        time: Fraction of the run, in 0..1, (points,).
        margin: In the metric's unit, or in e-folds of a loss; positive if the target is met, (points,).
    """

    place: Array
    run: np.ndarray
    time: Array
    margin: Array

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True)
class Seen:
    """The data of a trial for the model: its setting, its curve, and whether it diverged.

    `length` is the last step of a whole run at its batch size; None if all runs have the same length.
    """

    setting: Setting
    curve: Curve
    has_diverged: bool = False
    length: float | None = None


def points(
    space: Space, target: Target, length: float, runs: Sequence[Seen], *, worst: float | None = None
) -> Points:
    """Return the points of runs; a whole run has `length` steps.

    A diverged run, or one without a value, gets the `worst` margin at its end (if None, as far below the
    target as any of these runs was from it).
    """
    read: list[tuple[Array, Array, Array, bool]] = []
    for seen in runs:
        time, value = windows(seen.curve, seen.length or length)
        read.append((space.coordinates(seen.setting), time, margin_over(target, value), seen.has_diverged))
    if worst is None:
        worst = -max((float(np.abs(margin).max()) for _, _, margin, _ in read if len(margin)), default=0.0)
    best = [float(margin.max(initial=-np.inf)) for _, _, margin, _ in read]
    allowed = _allowances([len(time) for _, time, _, _ in read], best)
    place, run, times, margins = [], [], [], []
    for number, (coordinates, time, margin, diverged) in enumerate(read):
        kept = np.unique(np.linspace(len(time) - 1, 0, allowed[number]).round().astype(int))
        end = [1.0] if not len(time) or (diverged and time[-1] < 1) else []
        place.append(coordinates)
        run.append(np.full(len(kept) + len(end), number))
        times.append(np.append(time[kept], end))
        margins.append(np.append(margin[kept], [worst] * len(end)))
    if not read:
        empty = np.empty(0)
        return Points(np.empty((0, space.size)), np.empty(0, dtype=int), empty, empty)
    return Points(np.array(place), np.concatenate(run), np.concatenate(times), np.concatenate(margins))


def margin_over(target: Target, value: Array) -> Array:
    """Return the margins of values over the target: of logarithms for a loss, of values for other metrics.

    A loss falls by a factor of a hundred and more in a run, and the last few percent decide.
    """
    if target.sign < 0 < target.threshold:
        return np.asarray(np.log(target.threshold / np.maximum(value, SMALLEST_LOSS * target.threshold)))
    return np.asarray(target.sign * (value - target.threshold))


def shift(old: Target, new: Target) -> float | None:
    """Return what margins over one target need added to be those over another; None if the metrics differ."""
    if (old.metric, old.comparison, old.threshold > 0) != (new.metric, new.comparison, new.threshold > 0):
        return None
    return float(margin_over(new, np.array(old.threshold)))


@lru_cache(maxsize=4096)
def windows(seen: Curve, length: float) -> tuple[Array, Array]:
    """Return the windows of a curve, (w,) each: fraction of the run, mean value. An empty curve has none."""
    if not len(seen):
        return seen.steps, seen.values
    fraction = np.minimum(seen.steps / length, 1.0)
    last = fraction[-1]
    ends = np.append(WINDOW_ENDS[last - WINDOW / 2 > WINDOW_ENDS], last)
    stops = np.searchsorted(fraction, ends + 1e-9)
    starts = np.searchsorted(fraction, np.maximum(ends - WINDOW, ends * (1 - STEEP)) + 1e-9)
    starts = np.minimum(starts, np.maximum(stops - 1, 0))
    # A window without a value of its own would repeat the one before it, and is dropped.
    used = (stops > 0) & np.append([True], np.diff(stops) > 0)
    starts, stops = starts[used], stops[used]
    total = np.concatenate([[0.0], np.cumsum(seen.values - seen.values[0])])
    times = np.concatenate([[0.0], np.cumsum(fraction)])
    count = stops - starts
    value = (total[stops] - total[starts]) / count + seen.values[0]
    return (times[stops] - times[starts]) / count, value


def _allowances(lengths: Sequence[int], best: Sequence[float]) -> list[int]:
    """Return the number of points that each run may keep, so that the total stays near `MAX_POINTS`."""
    allowed = list(lengths)
    excess = sum(lengths) - MAX_POINTS
    for index in sorted(range(len(lengths)), key=lambda i: (best[i], i)):
        if excess <= 0:
            break
        fewer = min(max(lengths[index] - FEWEST_POINTS, 0), excess)
        allowed[index] -= fewer
        excess -= fewer
    return allowed
