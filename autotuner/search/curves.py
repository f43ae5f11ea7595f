"""The model of curves as a member of the ensemble: it uses all measurements, not only the ends of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from autotuner.search.data import Points, Seen, over, points
from autotuner.search.ensemble import Ends, passes, unit
from autotuner.search.fitting import fit, likely
from autotuner.search.memory import Memory, digest_of
from autotuner.search.model import Posterior
from autotuner.search.quasi import square_root, uniform
from autotuner.search.shortfall import level, margin_of, slope
from autotuner.search.space import Space
from autotuner.spec import Target
from autotuner.study.curve import Array

LATE: Final = np.array([0.04, 0.07, 0.12, 0.3, 0.6, 0.85, 1.0])
"""Fractions of a run at which a curve is compared with the target: some curves peak early and fall. The
position of the best value so far is added, because a run of few steps has its peak at one of its steps."""
DRAWS: Final = 512
RIVALS: Final = 4
"""Number of other likely hyperparameters of the model over which probabilities are averaged."""
REMEMBERED: Final = 30
"""Number of the last runs whose prediction determines the weight of the model of curves."""


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
_LIKELY: Final[Memory[list[Array]]] = Memory(10_000)
_FORESEEN: Final[Memory[tuple[float, float, float]]] = Memory(200_000)


def _fitted(curves: Curves) -> Array:
    def fitted() -> Array:
        return fit(curves.space, points(curves.space, curves.target, curves.length, curves.runs))

    return _FITTED.of(curves.digest, fitted)


def _likely(curves: Curves) -> list[Array]:
    def found() -> list[Array]:
        data = points(curves.space, curves.target, curves.length, curves.runs)
        return likely(curves.space, data, _fitted(curves), RIVALS)

    return _LIKELY.of(curves.digest, found)


@lru_cache(maxsize=16)
def others_of(curves: Curves) -> tuple[Posterior, ...]:
    """Return the model of curves at other likely hyperparameters."""
    data = points(curves.space, curves.target, curves.length, curves.runs)
    found = []
    for theta in _likely(curves.first(refit_count(len(curves.runs))))[1:]:
        try:
            found.append(Posterior(curves.space, theta, data))
        except np.linalg.LinAlgError:
            continue
    return tuple(found)


@lru_cache(maxsize=16)
def model_of(curves: Curves) -> Posterior:
    """Return the model of curves; its hyperparameters are fitted at the counts of `refit_count`."""
    data = points(curves.space, curves.target, curves.length, curves.runs)
    return Posterior(curves.space, _fitted(curves.first(refit_count(len(curves.runs)))), data)


def _late(found: Posterior) -> Array:
    seen = found.data
    peak = seen.time[np.argmax(seen.margin)]
    return np.union1d(LATE, peak) if peak < LATE[-2] else LATE


def _bests(found: Posterior, places: Array) -> Array:
    """Return draws of the noise-free best level of each place, (n, draws)."""
    late = _late(found)
    mean, covariance = found.curves(places, late)
    normal = ndtri(uniform(DRAWS, len(late)))
    return np.asarray((mean[:, None] + normal[None] @ square_root(covariance).transpose(0, 2, 1)).max(axis=2))


@dataclass(frozen=True, eq=False)
class OfCurves:
    """The model of curves as a member of the ensemble."""

    posterior: Posterior
    others: tuple[Posterior, ...] = ()
    """The model at other likely hyperparameters: probabilities are averaged over them too."""

    @property
    def _all(self) -> tuple[Posterior, ...]:
        return self.posterior, *self.others

    def given(self, more: Ends) -> OfCurves:
        """Return the model conditioned on more ends."""
        count = len(more)
        ends = Points(more.place, np.arange(count), np.ones(count), more.margin, np.ones(count))
        return OfCurves(self.posterior.joined(ends), tuple(one.joined(ends) for one in self.others))

    def chance(self, places: Array, spare: float) -> tuple[Array, Array]:
        """See `Ensemble.chance`."""
        mean, covariance = self.posterior.curves(places, _late(self.posterior))
        deviation = np.sqrt(np.maximum(np.einsum("ijj->ij", covariance), 1e-12))
        margin = spare * self.posterior.kernel.run_noise
        return np.asarray(ndtr(((mean - margin) / deviation).max(axis=1))), np.asarray(mean.max(axis=1))

    def confirmable(self, places: Array, owed: np.ndarray) -> Array:
        """See `Ensemble.confirmable`.

        A run differs from the curve by its own offset and, at its best, by one deviation of a measurement.
        """
        found = []
        for posterior in self._all:
            kernel, bests = posterior.kernel, _bests(posterior, places)
            reaches = np.clip(ndtr((bests + kernel.value_noise) / kernel.run_noise), 1e-12, 1.0)
            found.append(passes(reaches, owed[:, :, None]).mean(axis=1))
        return np.asarray(np.mean(found, axis=0))

    def any_feasible(self, places: Array) -> float:
        """See `Ensemble.any_feasible`."""
        return float(np.mean([_any_feasible(posterior, places) for posterior in self._all]))


def _any_feasible(found: Posterior, places: Array) -> float:
    mean, covariance = found.joint_ends(places)
    ends = mean + ndtri(uniform(DRAWS, len(places))) @ square_root(covariance).T
    best = _bests(found, places[:16])
    return max(float((ends.max(axis=1) >= 0).mean()), float((best >= 0).mean(axis=1).max()))


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


def _foreseen(before: Curves, place: tuple[float, ...]) -> tuple[float, float, float]:
    """Return mean and variance of the best level of a new run, given earlier runs; and the headroom."""
    found = model_of(before)
    best = _bests(found, np.array([place]))[0] + found.kernel.value_noise
    return float(best.mean()), float(best.var()) + found.kernel.run_noise**2, found.kernel.headroom


def log_evidence(curves: Curves, ends: Ends, columns: Sequence[int]) -> float:
    """Return the log predictive density of runs' margins, each given the runs before it.

    Args:
        curves: All runs.
        ends: Where they ended.
        columns: The number of each end's run in `curves`.
    """
    found = []
    for i, column in enumerate(columns):
        if column == 0 or column < len(curves.runs) - REMEMBERED:
            continue
        place = tuple(map(float, curves.space.coordinates(curves.runs[column].setting)))
        before = curves.first(column)
        key = digest_of(before.digest, repr(place).encode())
        mean, variance, headroom = _FORESEEN.of(key, partial(_foreseen, before, place))
        margin = ends.margin[i : i + 1]
        steep = float(slope(margin, headroom)[0])
        variance += float(ends.variance[i]) * steep**2
        off = float(level(margin, headroom)[0]) - mean
        found.append(math.log(steep) - 0.5 * (off**2 / variance + math.log(2 * math.pi * variance)))
    first = -math.log(3 * unit(ends))  # about the density that the other members give to the first run
    return first + (len(ends) - 1) * float(np.mean(found)) if found else first
