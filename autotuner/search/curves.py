"""Predict where stopped and running runs would have ended, from the curves of all runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from scipy.special import ndtri

from autotuner.search.data import WINDOW, Seen, margin_over, points
from autotuner.search.ensemble import Ends
from autotuner.search.fitting import fit
from autotuner.search.memory import Memory, digest_of
from autotuner.search.model import Posterior
from autotuner.search.random_numbers import uniform
from autotuner.search.shortfall import level, margin_of
from autotuner.search.space import Space
from autotuner.spec import Target
from autotuner.study.curve import Array

AHEAD: Final = 9
"""Maximum number of the measurements still to come at which the rest of a curve is sampled."""
MOST_LEFT: Final = 0.95
"""Maximum fraction of the variance of an end that remains once the run's own curve is known. With all of it
the curve would say nothing, and its evidence would be infinitely wide."""
EXTREMES: Final = (-4.0, 6.0)
"""Range of the log-shortfalls of the evidence: 54 headrooms below the target, and 3 above it."""
DRAWS: Final = 512
"""Samples of the rest of a curve."""


@dataclass(frozen=True)
class Curves:
    """Curves of runs; a whole run has `length` steps. Equal if their content is equal."""

    space: Space
    target: Target
    length: float
    runs: tuple[Seen, ...]

    def first(self, count: int) -> Curves:
        """Return only the first `count` runs."""
        return Curves(self.space, self.target, self.length, self.runs[:count])

    @cached_property
    def digest(self) -> bytes:
        """A digest of all inputs of the model of curves."""
        runs = [(r.setting, r.curve.digest, r.has_diverged, r.length) for r in self.runs]
        return digest_of(repr((self.space, self.target, self.length, runs)).encode())


def refit_count(ended: int) -> int:
    """Return the largest count of the schedule 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, ... that has been reached."""
    count = 1
    while (following := count + max(1, count // 5)) <= ended:
        count = following
    return count


_FITTED: Final[Memory[Array]] = Memory(10_000)


def _fitted(curves: Curves) -> Array:
    def fitted() -> Array:
        return fit(curves.space, points(curves.space, curves.target, curves.length, curves.runs))

    return _FITTED.of(curves.digest, fitted)


@lru_cache(maxsize=16)
def model_of(curves: Curves) -> Posterior:
    """Return the model of curves; its hyperparameters are fitted at the counts of `refit_count`."""
    data = points(curves.space, curves.target, curves.length, curves.runs)
    return Posterior.of(curves.space, _fitted(curves.first(refit_count(len(curves.runs)))), data)


@lru_cache(maxsize=1)  # asked several times of the same run
def still_to_come(found: Posterior, run: Seen, length: float, column: int) -> Array:
    """Return samples (draws,) of the best log-shortfall among a run's measurements still to come.

    They are assumed to be as far apart as those so far, but no closer than a window of `points`, because
    what a script prints in between has mostly the same noise. Of many only some are sampled, and the largest
    of the k measurements that each stands for decides: their noise e has its largest at
    e * ndtri(u ** (1 / k)).
    A run at its end has none: minus infinity.
    """
    seen = run.curve
    last = seen.last_step / length
    if last >= 1:
        return np.full(DRAWS, -np.inf)
    step = max(last / len(seen), WINDOW)
    count = min(max(round((1 - last) / step), 1), AHEAD)
    # The next one, and then evenly spaced ones: some curves peak immediately, and fall.
    ahead = np.linspace(min(last + step, 1.0), 1.0, count)
    each = np.maximum(np.diff(ahead, prepend=last) / step, 1.0)
    mean, covariance = found.curves(found.data.place[[column]], ahead, [column])
    drawn = uniform(DRAWS, 2 * count)
    paths = mean[0] + ndtri(drawn[:, :count]) @ _square_root(covariance[0]).T
    paths += found.kernel.value_noise * ndtri(drawn[:, count:] ** (1 / each))
    return np.asarray(paths.max(axis=1))


def _square_root(covariance: Array) -> Array:
    """Return a square root of a covariance matrix that is positive definite except for rounding."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def evidence(found: Posterior, curves: Curves, runs: Sequence[Seen], columns: Sequence[int]) -> Ends:
    """Return what the curves of the posterior's runs `columns` say of their ends, the best values.

    A prediction of an end rests on the run's own curve and on all other runs. As evidence of where a setting
    ends only the former counts: with both, what is known of its neighbours would count once more for each run
    that was stopped. So the prediction without the run is divided out, as in the cavity distribution of
    expectation propagation (Rasmussen & Williams 2006, eq. 3.56).
    """
    margins, variances = [], []
    for run, column in zip(runs, columns, strict=True):
        best = float(margin_over(curves.target, run.curve.values).max())
        least = float(level(np.array(best), found.kernel.headroom))
        rest = np.maximum(still_to_come(found, run, run.length or curves.length, column), least)
        at, spread = float(np.median(rest)), float(rest.std())
        if spread > 0 and len(found.data.place) > 1:
            mean, variance = (
                float(part.item()) for part in found.curves(found.data.place[[column]], np.ones(1), [column])
            )
            without, wide = found.end_without(column)
            share = min(variance / wide, MOST_LEFT)
            at += share / (1 - share) * (mean - without)
            spread /= math.sqrt(1 - share)
        levels = np.clip(np.array([at - spread, at, at + spread]), *EXTREMES)
        low, middle, high = margin_of(levels, found.kernel.headroom)
        margins.append(max(float(middle), best))
        variances.append(float((high - low) / 2) ** 2)
    return Ends.own(found.data.place[list(columns)], np.array(margins), np.array(variances))
