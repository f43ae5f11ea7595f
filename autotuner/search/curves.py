"""Predict where stopped and running runs would have ended, from the curves of all runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from scipy.special import ndtri

from autotuner.search.data import Seen, over, points
from autotuner.search.ensemble import Ends
from autotuner.search.fitting import fit
from autotuner.search.memory import Memory, digest_of
from autotuner.search.model import Posterior
from autotuner.search.quasi import square_root, uniform
from autotuner.search.shortfall import margin_of
from autotuner.search.space import Space
from autotuner.spec import Target
from autotuner.study.curve import Array

AHEAD: Final = 9
"""Maximum number of the measurements still to come at which the rest of a curve is sampled."""
DRAWS: Final = 512


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
    return Posterior(curves.space, _fitted(curves.first(refit_count(len(curves.runs)))), data)


def still_to_come(found: Posterior, run: Seen, length: float, column: int) -> Array:
    """Return samples (draws,) of the best log-shortfall among a run's measurements still to come.

    They are assumed to be as far apart as those so far. Of many only some are sampled, and the largest of the
    k measurements that each stands for decides: their noise e has its largest at e * ndtri(u ** (1 / k)).
    A run at its end has none: minus infinity.
    """
    seen = run.curve
    last = seen.last_step / length
    if last >= 1:
        return np.full(DRAWS, -np.inf)
    step = last / len(seen)
    count = min(max(round((1 - last) / step), 1), AHEAD)
    # The next one, and then evenly spaced ones: some curves peak immediately, and fall.
    ahead = np.linspace(min(last + step, 1.0), 1.0, count)
    each = np.maximum(np.diff(ahead, prepend=last) / step, 1.0)
    mean, covariance = found.curves(found.data.place[[column]], ahead, [column])
    drawn = uniform(DRAWS, 2 * count)
    paths = mean[0] + ndtri(drawn[:, :count]) @ square_root(covariance[0]).T
    paths += found.kernel.value_noise * ndtri(drawn[:, count:] ** (1 / each))
    return np.asarray(paths.max(axis=1))


def predicted(found: Posterior, curves: Curves, runs: Sequence[Seen], columns: Sequence[int]) -> Ends:
    """Return the predicted ends, the best values, of the posterior's runs with the numbers `columns`."""
    margins = []
    for run, column in zip(runs, columns, strict=True):
        rest = still_to_come(found, run, run.length or curves.length, column)
        best = float(over(curves.target, run.curve.values).max())
        margins.append(np.maximum(margin_of(rest, found.kernel.headroom), best))
    margin = np.array(margins)
    return Ends.own(found.data.place[list(columns)], np.median(margin, axis=1), margin.var(axis=1))
