"""Predict where runs end, with several models (rivals) that are weighted by their evidence.

A dozen runs do not show how noisy a run is, or how steep the hump in the learning rate is. So nothing is
fitted: every result is an average over samples from the posterior of these parameters (`monte_carlo`), and
over the rivals, weighted by the probability that each gave to the observed runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from scipy.special import nbdtr, ndtr, ndtri

from autotuner.search.memory import Memory, digest_of
from autotuner.search.monte_carlo import Draws, sample
from autotuner.search.rivals import Features, Frame, Hump, Plain, Rival
from autotuner.search.space import Space
from autotuner.study.curve import Array

SAID_ALIKE: Final = 4.0
"""Nats added to the evidence of each rival that knows earlier studies: the user has named them as similar."""
_SAME_TRAINING: Final = 1
"""Task of all runs of earlier studies, for a rival that does not distinguish studies."""
DRAWS: Final = 64
"""Samples of each rival's parameters."""
FEWEST_DRAWS: Final = 16
WORK: Final = 2000
"""Maximum samples times runs: with many runs the parameters are better known, and a sample costs more."""
JITTER: Final = 1e-6
_JOINT: Final = 16
"""Joint samples of many places, for each sample of the parameters."""
NEGLIGIBLE: Final = 0.01
"""A rival with less weight is left out of the predictions."""
_LEVELS: Final = ndtri((np.arange(24) + 0.5) / 24)
"""Normal quantiles at which a setting's noise-free end is evaluated."""


@dataclass(frozen=True, eq=False)
class Ends:
    """Where n runs ended, or are predicted to end.

    Attributes:
        place: Coordinates of the settings, (n, d).
        margin: The best margin over the target, (n,).
        variance: Its variance, (n,); 0 for an end that was measured.
        task: 0 for the study's own runs, and 1, 2, ... for those of earlier studies, (n,).
    """

    place: Array
    margin: Array
    variance: Array
    task: np.ndarray

    @classmethod
    def own(cls, place: Array, margin: Array, variance: Array) -> Ends:
        """Return ends of the study's own runs."""
        return cls(place, margin, variance, np.zeros(len(margin), dtype=int))

    def __len__(self) -> int:
        return len(self.margin)

    def scaled(self, unit: float, task: int | None = None) -> Ends:
        """Return the ends in another unit, and with another task if one is given."""
        tasks = self.task if task is None else np.full(len(self), task)
        return Ends(self.place, self.margin / unit, self.variance / unit**2, tasks)

    def joined(self, more: Ends) -> Ends:
        """Return these ends and more."""
        return Ends(
            np.concatenate([self.place, more.place]),
            np.concatenate([self.margin, more.margin]),
            np.concatenate([self.variance, more.variance]),
            np.concatenate([self.task, more.task]),
        )


def unit(ends: Ends) -> float:
    """Return the usual size of a margin: the median of the observed ones."""
    return float(np.median(np.abs(ends.margin))) or 1.0


class _Fit:
    """A rival at samples of its parameters, conditioned on runs."""

    def __init__(self, rival: Rival, values: Array, ends: Ends) -> None:
        self.rival, self.p = rival, rival.read(values)
        self.x = rival.frame.features(ends.place, ends.task)
        self.noise = np.exp(self.p["noise"][:, 0])
        covariance, residual, _ = _system(rival, self.p, self.x, ends)
        self.inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        self.white = (self.inverse @ residual[:, :, None])[:, :, 0]

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


def _system(rival: Rival, p: Mapping[str, Array], x: Features, ends: Ends) -> tuple[Array, Array, Array]:
    level, variance, steep = _levels(ends.margin, ends.variance, np.exp(p["scale"]))
    covariance = rival.covariance(p, x, x)
    index = np.arange(len(ends))
    covariance[:, index, index] += np.exp(2 * p["noise"]) + variance + JITTER
    return covariance, level - rival.mean(p, x), -0.5 * np.log(steep).sum(axis=1)


def _levels(margin: Array, variance: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Return asinh(margin / scale), its variance, and the inverse square of its slope."""
    steep = scale**2 + margin**2
    return np.arcsinh(margin / scale), variance / steep, steep


def _log_likelihood(rival: Rival, x: Features, ends: Ends, values: Array) -> Array:
    p = rival.read(values)
    covariance, residual, jacobian = _system(rival, p, x, ends)
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        if len(values) == 1:
            return np.array([-1e10])
        return np.concatenate([_log_likelihood(rival, x, ends, one[None]) for one in values])
    white = np.linalg.solve(factor, residual[:, :, None])[:, :, 0]
    log = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    return np.asarray(jacobian - 0.5 * (white**2).sum(axis=1) - log - 0.5 * len(ends) * math.log(2 * math.pi))


RIVALS: Final[tuple[type[Rival], ...]] = (Hump, Plain)


@dataclass(frozen=True, eq=False)
class Earlier:
    """Where the runs of an earlier study ended, relative to its own target.

    `shift` makes its margins relative to this study's target; None if the two have different metrics.
    """

    ends: Ends
    shift: float | None

    @property
    def shifted(self) -> Ends:
        """The ends relative to this study's target."""
        return replace(self.ends, margin=self.ends.margin + (self.shift or 0.0))


def rivals(space: Space, ends: Ends, earlier: Sequence[Earlier] = ()) -> tuple[list[OfEnds], list[float]]:
    """Return the rivals given the ends of runs, and the log of each one's evidence.

    Args:
        space: The search space.
        ends: Where the study's own runs ended.
        earlier: Where runs of earlier studies ended. They are given to one additional rival, which learns how
            similar the studies are, and to one which assumes that they are of the same training.
    """
    frame, size = Frame(space), unit(ends)
    members: list[OfEnds] = []
    evidence = []
    for kind in RIVALS:
        found = _drawn(kind(frame), ends.scaled(size))
        members.append(found[0].in_unit(size))
        evidence.append(found[1] - len(ends) * math.log(size))
    informed: list[tuple[OfEnds, float]] = []
    if earlier:
        similar = _joined(
            [one.ends.scaled(unit(one.ends), task) for task, one in enumerate(earlier, start=1)]
        )
        informed.append(_informed(Hump(frame, len(earlier)), ends, size, similar))
    comparable = [one.shifted for one in earlier if one.shift is not None]
    if comparable:
        same = _joined(comparable)
        size = unit(ends.joined(same))
        informed.append(_informed(Hump(frame), ends, size, same.scaled(size, _SAME_TRAINING)))
    members += [member for member, _ in informed]
    evidence += [log_evidence + SAID_ALIKE for _, log_evidence in informed]
    return members, evidence


def _informed(rival: Rival, ends: Ends, size: float, earlier: Ends) -> tuple[OfEnds, float]:
    """Return a rival given earlier studies too, and the log evidence of the own runs given those."""
    before = _drawn(rival, earlier)[1]
    found, both = _drawn(rival, ends.scaled(size).joined(earlier))
    return found.in_unit(size), both - before - len(ends) * math.log(size)


def _joined(parts: Sequence[Ends]) -> Ends:
    first, *rest = parts
    for more in rest:
        first = first.joined(more)
    return first


_DRAWN: Final[Memory[Draws]] = Memory(4_000)


def _drawn(rival: Rival, ends: Ends) -> tuple[OfEnds, float]:
    x = rival.frame.features(ends.place, ends.task)
    data = digest_of(*(part.tobytes() for part in (ends.place, ends.margin, ends.variance, ends.task)))
    drawn = _DRAWN.of(
        digest_of(repr((type(rival).__name__, rival.earlier, rival.frame.space)).encode(), data),
        lambda: sample(
            lambda values: _log_likelihood(rival, x, ends, values),
            int(np.clip(WORK / max(len(ends), 1), FEWEST_DRAWS, DRAWS)),
            rival.size,
            np.random.default_rng(len(ends)),
        ),
    )
    return OfEnds(rival, drawn.values, 1.0, ends), drawn.log_evidence


@dataclass(frozen=True, eq=False)
class OfEnds:
    """A rival at samples of its parameters."""

    rival: Rival
    values: Array
    unit: float
    """The unit of margins in arguments and results; internally they are divided by it."""
    ends: Ends

    @property
    def is_of_same_training(self) -> bool:
        """Whether it takes the runs of earlier studies for runs of this training."""
        return self.rival.earlier == 0 and bool((self.ends.task > 0).any())

    def in_unit(self, unit: float) -> OfEnds:
        """Return the rival with margins in another unit."""
        return OfEnds(self.rival, self.values, unit, self.ends)

    @cached_property
    def _fit(self) -> _Fit:
        return _Fit(self.rival, self.values, self.ends)

    def given(self, more: Ends) -> OfEnds:
        """Return the rival conditioned on more ends, with the same parameters."""
        return OfEnds(self.rival, self.values, self.unit, self.ends.joined(more.scaled(self.unit)))

    def on(self, ends: Ends) -> OfEnds:
        """Return the rival conditioned on other ends of the study itself, with the same parameters."""
        old, of_earlier = self.ends, self.ends.task > 0
        earlier = Ends(*(part[of_earlier] for part in (old.place, old.margin, old.variance, old.task)))
        return OfEnds(self.rival, self.values, self.unit, ends.scaled(self.unit).joined(earlier))

    def chance(self, places: Array, spare: float) -> tuple[Array, Array]:
        """See `Ensemble.chance`."""
        fit = self._fit
        mean, variance = fit.marginals(self.rival.frame.features(places))
        chance = ndtr((mean - spare * fit.noise[:, None]) / np.sqrt(variance))
        return chance.mean(axis=0), mean.mean(axis=0)

    def confirmable(self, places: Array, owed: np.ndarray) -> Array:
        """See `Ensemble.confirmable`."""
        fit = self._fit
        mean, variance = fit.marginals(self.rival.frame.features(places))
        ends = mean[:, :, None] + np.sqrt(variance)[:, :, None] * _LEVELS
        reaches = np.clip(ndtr(ends / fit.noise[:, None, None]), 1e-12, 1.0)
        return np.asarray(passes(reaches, owed[:, :, None]).mean(axis=(0, 2)))

    def reaches(self, run: Ends) -> tuple[Array, Array]:
        """Return each draw's probability that a run meets the target, and the likelihood of its curve."""
        fit = self._fit
        mean, spread = (part[:, 0] for part in fit.marginals(self.rival.frame.features(run.place)))
        scale = self.unit * np.exp(fit.p["scale"][:, 0])
        said, variance, steep = _levels(run.margin, run.variance, scale)
        doubt = variance + JITTER
        prior = spread + fit.noise**2
        posterior = prior * doubt / (prior + doubt)
        middle = posterior * (mean / prior + said / doubt)
        likelihood = np.exp(-0.5 * (said - mean) ** 2 / (prior + doubt)) / np.sqrt((prior + doubt) * steep)
        return ndtr(middle / np.sqrt(posterior)), likelihood

    def any_feasible(self, places: Array) -> float:
        """See `Ensemble.any_feasible`."""
        mean, covariance = self._fit.joint(self.rival.frame.features(places))
        index = np.arange(len(places))
        covariance[:, index, index] += 1e-5 + 1e-6 * covariance[:, index, index]
        normal = np.random.default_rng(0).normal(size=(len(places), _JOINT))
        drawn = mean[:, :, None] + np.linalg.cholesky(covariance) @ normal
        return float((drawn.max(axis=1) >= 0).mean())


def passes(reaches: Array, owed: np.ndarray) -> Array:
    """Return the probability that new runs confirm, if each reaches the target with `reaches` (..., m, k).

    For each of m, `owed` (m, 2, 1) has the number of runs that must still reach the target, and the number
    that may miss it until then: the number of misses is negative binomial.
    """
    reach, miss = owed[:, 0], owed[:, 1]
    found = nbdtr(np.maximum(miss, 0), np.maximum(reach, 1), reaches)
    return np.asarray(np.where(miss < 0, 0.0, np.where(reach <= 0, 1.0, found)))


class Ensemble:
    """Predictions of where any setting ends: the weighted average over the rivals.

    Args:
        members: The rivals.
        log_evidence: The logarithm of the evidence of each rival, in nats; it gives the weights.
        size: The usual size of a margin, see `unit`.
    """

    def __init__(self, members: Sequence[OfEnds], log_evidence: Sequence[float], size: float) -> None:
        evidence = np.array(log_evidence)
        share = np.exp(evidence - evidence.max())
        share = np.where(share < NEGLIGIBLE * share.sum(), 0.0, share)
        self.shares = share / share.sum()
        self.log_evidence, self.size = tuple(log_evidence), size
        self._members = tuple(members)

    @property
    def _weighed(self) -> list[tuple[OfEnds, float]]:
        return [(m, float(w)) for m, w in zip(self._members, self.shares, strict=True) if w > 0]

    def given(self, more: Ends) -> Ensemble:
        """Return the ensemble conditioned on more ends, with the same parameters and weights."""
        return Ensemble([m.given(more) for m in self._members], self.log_evidence, self.size)

    @property
    def same_training(self) -> float:
        """The probability that the earlier studies are of this training, according to the runs so far."""
        return sum(weight for member, weight in self._weighed if member.is_of_same_training)

    def on(self, ends: Ends) -> Ensemble:
        """Return the ensemble conditioned on other ends of the study, with the same draws and weights."""
        return Ensemble([m.on(ends) for m in self._members], self.log_evidence, self.size)

    def chance(self, places: Array, spare: float = 0.0) -> tuple[Array, Array]:
        """Return the probability that places meet the target, noise aside, and their expected levels.

        (m,) each. With `spare`, the target must be exceeded by this number of deviations of a run's noise.
        """
        chance, expected = np.zeros(len(places)), np.zeros(len(places))
        for member, weight in self._weighed:
            found = member.chance(places, spare)
            chance += weight * found[0]
            expected += weight * found[1]
        return chance, expected

    def confirmable(self, places: Array, owed: np.ndarray) -> Array:
        """Return the probability that each place (m, d) is confirmed by fresh runs.

        For each, `owed` (m, 2) has the number of runs that must still reach the target, and that may miss it.
        """
        found = sum(weight * member.confirmable(places, owed) for member, weight in self._weighed)
        # A completed confirmation has probability 1, without the rounding of the weights.
        return np.where((owed[:, 0] <= 0) & (owed[:, 1] >= 0), 1.0, found)

    def reaches(self, run: Ends) -> float:
        """Return the probability that a run meets the target, given what its curve says of its end."""
        met = whole = 0.0
        for member, weight in self._weighed:
            chance, likelihood = member.reaches(run)
            met += weight * float((chance * likelihood).mean())
            whole += weight * float(likelihood.mean())
        return met / whole if whole > 0 else 0.0

    def any_feasible(self, places: Array) -> float:
        """Return the probability that any of the places meets the target, noise aside."""
        return sum(weight * member.any_feasible(places) for member, weight in self._weighed)

    def believed(self, places: Array) -> Ends:
        """Return ends of places as expected (Kriging believer, Ginsbourger 2010)."""
        level = self.chance(places)[1]
        return Ends.own(places, self.size * np.sinh(np.clip(level, -3, 3)), np.zeros(len(places)))
