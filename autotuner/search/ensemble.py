"""Predict where runs end by rival priors, each at many draws of its parameters, weighed by their evidence.

With a dozen runs nobody knows how noisy a run is, or how steep the hump in the learning rate is. So nothing is fitted:
every answer is an average over draws from the posterior of these parameters (`monte_carlo`), and over the rivals of
`shape`, by the probability that each gave to the runs that were seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import nbdtr, ndtr, ndtri

from autotuner.search.curve import Array
from autotuner.search.monte_carlo import sample
from autotuner.search.shape import Features, Frame, Hump, Plain, Rival
from autotuner.search.space import Space

DRAWS: Final = 64
"""Draws of each rival's parameters."""
JITTER: Final = 1e-6
NEGLIGIBLE: Final = 0.01
"""A rival of less weight is left out of the predictions."""
_LEVELS: Final = ndtri((np.arange(24) + 0.5) / 24)
"""Normal quantiles by which a setting's noise-free end is drawn."""


@dataclass(frozen=True, eq=False)
class Ends:
    """Where runs ended, or would have: of setting `place[i]`, the best margin and its variance."""

    place: Array
    margin: Array
    variance: Array

    def __len__(self) -> int:
        return len(self.margin)

    def joined(self, more: Ends) -> Ends:
        """Return these and more."""
        return Ends(
            np.concatenate([self.place, more.place]),
            np.concatenate([self.margin, more.margin]),
            np.concatenate([self.variance, more.variance]),
        )


def unit(ends: Ends) -> float:
    """Return the size of a margin that counts as usual: the median of what was seen."""
    return float(np.median(np.abs(ends.margin))) or 1.0


class _Fit:
    """A rival at draws of its parameters, conditioned on runs."""

    def __init__(self, rival: Rival, values: Array, size: float, ends: Ends) -> None:
        self.rival, self.values, self.size = rival, values, size
        self.p = rival.read(values)
        self.x = rival.frame.features(ends.place)
        self.noise = np.exp(self.p["noise"][:, 0])
        covariance, residual, jacobian = _system(rival, self.p, size, self.x, ends)
        factor = np.linalg.cholesky(covariance)
        self.inverse = np.linalg.inv(factor)
        self.white = (self.inverse @ residual[:, :, None])[:, :, 0]
        self.log_likelihood = (
            jacobian
            - 0.5 * (self.white**2).sum(axis=1)
            - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
            - 0.5 * len(ends) * math.log(2 * math.pi)
        )

    def marginals(self, x: Features) -> tuple[Array, Array]:
        """Return means and variances of noise-free ends, (draws, m)."""
        solved = self.inverse @ self.rival.covariance(self.p, self.x, x)
        mean = self.rival.mean(self.p, x) + (self.white[:, None] @ solved)[:, 0]
        return mean, np.maximum(self.rival.variance(self.p, x) - (solved**2).sum(axis=1), 1e-8)

    def joint(self, x: Features) -> tuple[Array, Array]:
        """Return means (draws, m) and covariances (draws, m, m) of noise-free ends."""
        solved = self.inverse @ self.rival.covariance(self.p, self.x, x)
        mean = self.rival.mean(self.p, x) + (self.white[:, None] @ solved)[:, 0]
        return mean, self.rival.covariance(self.p, x, x) - solved.transpose(0, 2, 1) @ solved


def _system(rival: Rival, p, size: float, x: Features, ends: Ends) -> tuple[Array, Array, Array]:  # type: ignore[no-untyped-def]
    scale = size * np.exp(p["scale"])
    steep = scale**2 + ends.margin**2
    level = np.arcsinh(ends.margin / scale)
    covariance = rival.covariance(p, x, x)
    index = np.arange(len(ends))
    covariance[:, index, index] += np.exp(2 * p["noise"]) + ends.variance / steep + JITTER
    return covariance, level - rival.mean(p, x), -0.5 * np.log(steep).sum(axis=1)


def _log_likelihood(rival: Rival, size: float, x: Features, ends: Ends, values: Array) -> Array:
    p = rival.read(values)
    covariance, residual, jacobian = _system(rival, p, size, x, ends)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return np.array([_alone(rival, size, x, ends, one[None]) for one in values])
    white = np.linalg.solve(factor, residual[:, :, None])[:, :, 0]
    log = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    return jacobian - 0.5 * (white**2).sum(axis=1) - log - 0.5 * len(ends) * math.log(2 * math.pi)


def _alone(rival: Rival, size: float, x: Features, ends: Ends, values: Array) -> float:
    p = rival.read(values)
    covariance, residual, jacobian = _system(rival, p, size, x, ends)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return -1e10
    white = np.linalg.solve(factor, residual[:, :, None])
    return float((jacobian - 0.5 * (white**2).sum() - np.log(np.diagonal(factor[0])).sum()).item())


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws of every rival's parameters, and the log evidence of each."""

    size: float
    values: tuple[Array, ...]
    log_evidence: tuple[float, ...]


RIVALS: Final[tuple[type[Rival], ...]] = (Hump, Plain)


def draw(space: Space, ends: Ends) -> Drawn:
    """Return draws of the rivals' parameters given the runs."""
    frame, size = Frame(space), unit(ends)
    x = frame.features(ends.place)
    found = []
    for kind in RIVALS:
        rival = kind(frame)
        found.append(
            sample(
                lambda values, rival=rival: _log_likelihood(rival, size, x, ends, values),
                DRAWS,
                rival.size,
                np.random.default_rng(len(ends)),
            )
        )
    return Drawn(size, tuple(f.values for f in found), tuple(f.log_evidence for f in found))


class Ensemble:
    """What the runs say of where any setting ends, averaged over rivals and parameters."""

    def __init__(self, space: Space, drawn: Drawn, ends: Ends) -> None:
        self.space, self.drawn, self.ends = space, drawn, ends
        self.frame = Frame(space)
        evidence = np.array(drawn.log_evidence)
        share = np.exp(evidence - evidence.max())
        share /= share.sum()
        self.shares = share
        self.fits: list[_Fit] = []
        self.weights: list[Array] = []
        for kind, values, part in zip(RIVALS, drawn.values, share, strict=True):
            if part < NEGLIGIBLE:
                continue
            fit = _Fit(kind(self.frame), values, drawn.size, ends)
            self.fits.append(fit)
            self.weights.append(np.full(len(values), part / len(values)))
        total = sum(float(w.sum()) for w in self.weights)
        self.weights = [w / total for w in self.weights]

    def given(self, more: Ends) -> Ensemble:
        """Return the ensemble given further ends too, at the same parameters."""
        return self if not len(more) else Ensemble(self.space, self.drawn, self.ends.joined(more))

    def chance(self, places: Array, spare: float = 0.0) -> tuple[Array, Array]:
        """Return the probability that places' noise-free ends beat the target by `spare` deviations of the
        noise, and their expected levels, (m,) each."""
        x = self.frame.features(places)
        chance, expected = np.zeros(len(places)), np.zeros(len(places))
        for fit, weight in zip(self.fits, self.weights, strict=True):
            mean, variance = fit.marginals(x)
            chance += weight @ ndtr((mean - spare * fit.noise[:, None]) / np.sqrt(variance))
            expected += weight @ mean
        return chance, expected

    def confirmable(self, places: Array, owed: np.ndarray) -> Array:
        """Return the probability that each place is confirmed by fresh runs: see `frontier.confirmable`."""
        x = self.frame.features(places)
        reach, miss = owed[:, :1], owed[:, 1:]
        found = np.zeros(len(places))
        for fit, weight in zip(self.fits, self.weights, strict=True):
            mean, variance = fit.marginals(x)
            ends = mean[:, :, None] + np.sqrt(variance)[:, :, None] * _LEVELS
            reaches = np.clip(ndtr(ends / fit.noise[:, None, None]), 1e-12, 1.0)
            passes = nbdtr(np.maximum(miss, 0), np.maximum(reach, 1), reaches)
            found += weight @ np.where(miss < 0, 0.0, np.where(reach <= 0, 1.0, passes)).mean(axis=2)
        return found

    def believed(self, places: Array) -> Ends:
        """Return ends that say of places that they end as expected (the Kriging believer, Ginsbourger et al. 2010)."""
        level = self.chance(places)[1]
        scale = self.drawn.size
        return Ends(places, scale * np.sinh(level), np.zeros(len(places)))

    def any_feasible(self, places: Array, count: int = 16) -> float:
        """Return the probability that any of the places meets the target, noise aside."""
        x = self.frame.features(places)
        found = 0.0
        normal = np.random.default_rng(0).normal(size=(len(places), count))
        for fit, weight in zip(self.fits, self.weights, strict=True):
            mean, covariance = fit.joint(x)
            index = np.arange(len(places))
            covariance[:, index, index] += 1e-5 + 1e-6 * covariance[:, index, index]
            root = np.linalg.cholesky(covariance)
            drawn = mean[:, :, None] + root @ normal
            found += float(weight @ (drawn.max(axis=1) >= 0).mean(axis=1))
        return found


def ends_of(places: Sequence[Array], margins: Sequence[float], variances: Sequence[float]) -> Ends:
    """Return the ends of runs."""
    return Ends(np.array(places), np.array(margins), np.array(variances))
