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

LATE: Final = np.array([0.04, 0.07, 0.12, 0.3, 0.6, 0.85, 1.0])
"""Fractions of a run at which a curve is compared with the target: some curves peak early and fall."""
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


def predicted(found: Posterior, curves: Curves, runs: Sequence[Seen], columns: Sequence[int]) -> Ends:
    """Return the predicted ends, the best values, of the posterior's runs with the numbers `columns`."""
    places = found.data.place[list(columns)]
    mean, covariance = found.curves(places, LATE, list(columns))
    normal = ndtri(uniform(DRAWS, len(LATE)))
    kernel = found.kernel
    paths = mean[:, None] + normal[None] @ square_root(covariance).transpose(0, 2, 1) + kernel.value_noise
    last = np.array([run.curve.last_step / (run.length or curves.length) for run in runs])
    paths = np.where(last[:, None, None] >= LATE, -np.inf, paths).max(axis=2)
    best = np.array([float(over(curves.target, run.curve.values).max()) for run in runs])
    margin = np.maximum(margin_of(paths, kernel.headroom), best[:, None])
    return Ends.own(places, np.median(margin, axis=1), margin.var(axis=1))
