"""The feasible frontier, as the ended trials show it: which settings hold, and what larger ones promise.

A setting is judged by draws of its noise-free curve. Candidates for larger batches are sought over the whole
space and around the best settings tried, and refined; the same search serves the next trial (largest expected
gain in doublings) and the end of the tuning (probability that any is feasible), for an end rule that looks at
fewer candidates than the acquisition ends too soon.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import nbdtr, ndtr, ndtri
from scipy.stats import qmc

from autotuner.search.model import Posterior
from autotuner.search.space import Space
from autotuner.study.curve import Array
from autotuner.study.setting import Setting

LATE: Final = np.array([0.04, 0.07, 0.12, 0.3, 0.6, 0.85, 1.0])
"""Fractions of a run at which a curve is sought above the target: some peak early and fall. Where the best
value so far was seen comes beside them: a run of few steps has its peak at one of these, not between."""
DRAWS: Final = 512
HALF_A_DOUBLING: Final = 0.5
BEST: Final = 96
THINNED: Final = 15
"""Candidates that are drawn together: the best, and of the others one of so many."""
HELD: Final = 0.5
"""A setting is held to meet the target from this probability on that its confirmation passes."""
TOLERATED_MISSES: Final = 1
"""Confirmation runs that may miss the target; as many as are wanted must reach it all the same."""
OPTIMISM: Final = -0.4
RECORD: Final = 0.4
"""By how many deviations the model is too hopeful of its proposals, a priori: mean and deviation."""
WORTHY: Final = 0.05
"""A setting is not worth a trial below this probability."""
FURTHEST: Final = 1.0
"""Doublings beyond which a gain counts no more: of proposals that leapt further (on the development problems)
one in seventeen met the target, where the model had said one in four."""
MARGIN: Final = 0.5
"""How far above the target, in standard deviations of a run's noise, a proposed setting should come."""


@lru_cache(maxsize=32)
def uniform(count: int, size: int, seed: int = 0) -> Array:
    """Return scrambled Sobol points in 0..1, (count, size): the same at every call."""
    drawn = qmc.Sobol(size, rng=np.random.default_rng(seed)).random(count)
    return np.clip(drawn, 1e-6, 1 - 1e-6)


class Frontier:
    """What the ended trials say of settings: which meet the target, and whether larger batches may.

    A function of the model's posterior and the settings tried; each answer is computed once.
    """

    def __init__(  # noqa: PLR0913 (all that it is a function of)
        self,
        *,
        space: Space,
        posterior: Posterior,
        tried: Sequence[Setting],
        limits: tuple[int, int],
        seed: int,
        owed: Sequence[tuple[int, int]],
        proposed: Sequence[int],
    ) -> None:
        self.space, self.posterior, self.limits, self.seed = space, posterior, limits, seed
        self.tried = tuple(tried)
        places = np.array([space.coordinates(s) for s in tried])
        self.chances = confirmable(posterior, places, np.array(owed).reshape(-1, 2))
        self.shift = self._record(proposed)
        self._larger: dict[int, float] = {}

    def _record(self, proposed: Sequence[int]) -> float:
        """Return by how many deviations the model has been too hopeful of what it proposed, 0 or less.

        The maximum a posteriori shift `a` of a probit, `P(feasible) = ndtr(z + a)`, over the runs that the
        model proposed, with z as it was foreseen. The proposal is the place that looks best, which is
        where a model errs upwards; without the record a search never comes to an end.
        """
        if not proposed:
            return OPTIMISM
        foreseen = self.posterior.foresight(proposed)
        came = feasible(self.posterior, self.posterior.data.place[list(proposed)])
        shifts = np.linspace(-2, 0, 81)[:, None]
        chance = np.clip(ndtr(foreseen + shifts), 1e-9, 1 - 1e-9)
        log = (came * np.log(chance) + (1 - came) * np.log1p(-chance)).sum(axis=1)
        return float(shifts[np.argmax(log - 0.5 * ((shifts[:, 0] - OPTIMISM) / RECORD) ** 2), 0])

    def incumbent(self, rejected: Collection[Setting]) -> Setting | None:
        """Return the setting with the largest batch that is held to pass its confirmation."""
        low, high = self.limits
        held = [
            s
            for s, p in zip(self.tried, self.chances, strict=True)
            if p >= HELD and s not in rejected and low <= s.batch_size <= high
        ]
        return held[-1] if held else None

    def probability_larger(self, batch_size: int) -> float:
        """Return the probability that some setting half a doubling larger is feasible; any, larger than 0.

        The most promising candidates are drawn together from the posterior: it is the share of draws in
        which any of them meets the target. The record of proposals does not enter: that one place looked
        better than it was says little of whether there is another.
        """
        if batch_size not in self._larger:
            self._larger[batch_size] = self._probability_larger(batch_size)
        return self._larger[batch_size]

    def _probability_larger(self, batch_size: int) -> float:
        low, high = self.limits
        if batch_size >= high:
            return 0.0
        smallest = min(max(batch_size * 2**HALF_A_DOUBLING, low), high)
        places = candidates(self, self.posterior, chance_alone, smallest, 0)[0]
        # The best alone lie close together, and are good or bad together; the others tell whether there may
        # be something elsewhere.
        places = np.concatenate([places[:BEST], places[BEST::THINNED]])
        mean, covariance = self.posterior.joint_ends(places)
        normal = ndtri(uniform(DRAWS, len(places)))
        ends = mean + normal @ square_root(covariance).T
        any_end = float((ends.max(axis=1) >= 0).mean())
        return max(any_end, float(feasible(self.posterior, places[:16]).max()))


def _late(posterior: Posterior) -> Array:
    seen = posterior.data
    peak = seen.time[np.argmax(seen.margin)]
    return np.union1d(LATE, peak) if peak < LATE[-2] else LATE


def feasible(posterior: Posterior, places: Array) -> Array:
    """Return the probability that the noise-free best of each place (n, d) meets the target."""
    late = _late(posterior)
    mean, covariance = posterior.curves(places, late)
    normal = ndtri(uniform(DRAWS, len(late)))
    paths = mean[:, None] + normal[None] @ square_root(covariance).transpose(0, 2, 1)
    return np.asarray((paths.max(axis=2) >= 0).mean(axis=1))


def confirmable(posterior: Posterior, places: Array, owed: np.ndarray) -> Array:
    """Return the probability that each place (n, d) is confirmed by fresh runs.

    Of each, `owed` (n, 2) says how many more runs must reach the target, and how many may miss it until
    then: the number of misses is negative binomial. Given the noise-free curve, each run is above it by an
    offset of its own and, at its luckiest late measurements, by about one deviation of a measurement.
    """
    late = _late(posterior)
    mean, covariance = posterior.curves(places, late)
    normal = ndtri(uniform(DRAWS, len(late)))
    best = (mean[:, None] + normal[None] @ square_root(covariance).transpose(0, 2, 1)).max(axis=2)
    kernel = posterior.kernel
    reaches = np.clip(ndtr((best + kernel.value_noise) / kernel.run_noise), 1e-12, 1.0)
    reach, miss = owed[:, :1], owed[:, 1:]
    passes = nbdtr(np.maximum(miss, 0), np.maximum(reach, 1), reaches)
    return np.asarray(np.where(miss < 0, 0.0, np.where(reach <= 0, 1.0, passes)).mean(axis=1))


Worth = Callable[[Array, Array, Array], Array]
"""What places are worth, by log2 of their batch sizes, chances, and expected log-shortfalls, (n,) each."""


def chance_alone(_octaves: Array, chance: Array, _expected: Array) -> Array:
    """Return the chances of places."""
    return chance


def expectation_alone(_octaves: Array, _chance: Array, expected: Array) -> Array:
    """Return what is expected of places: far from all others, chances are best where least is known."""
    return expected


def gain_over(octaves: float) -> Worth:
    """Return the expected gain over a batch size of 2 ** octaves, in doublings and at most `FURTHEST`."""

    def gain(reached: Array, chance: Array, _expected: Array) -> Array:
        # A run that would be stopped as hopeless at once teaches nothing; it only breaks ties.
        worthy = np.where(chance >= WORTHY, chance, 1e-3 * chance)
        return np.asarray(np.clip(reached - octaves, 0.0, FURTHEST) * worthy)

    return gain


def candidates(
    frontier: Frontier,
    posterior: Posterior,
    worth: Worth,
    smallest: float,
    number: int,
) -> tuple[Array, Array]:
    """Return places from batch size `smallest` on, best first, and their worth.

    They are drawn over the whole space and around the best settings tried, carried to larger batches; then
    the best are refined by ever smaller steps. `number` seeds the draws.
    """
    space = frontier.space
    low, high = space.batch_coordinate(smallest), space.batch_coordinate(frontier.limits[1])
    low = min(low, high)
    rng = generator(frontier.seed, number)
    size = space.size

    # What only just meets the target does not pass its confirmation.
    margin = MARGIN * posterior.kernel.run_noise

    late = _late(posterior)

    def score(places: Array) -> Array:
        mean, covariance = posterior.curves(places, late)
        deviation = np.sqrt(np.maximum(np.einsum("ijj->ij", covariance), 1e-12))
        chance = ndtr(((mean - margin) / deviation).max(axis=1) + frontier.shift)
        return worth(space.octaves(places), chance, mean.max(axis=1))

    wide = space.scattered(rng.random((256, size)))
    wide[:, 0] = low + (high - low) * wide[:, 0]
    best = np.argsort(-frontier.chances, kind="stable")[:16]
    anchors = np.array([space.coordinates(frontier.tried[i]) for i in best])
    anchors = anchors[rng.integers(len(anchors), size=256)]
    batch = low + (high - low) * rng.random(len(anchors)) ** 2
    anchors = space.carried(space.clipped(anchors), batch, float(posterior.kernel.exponents[0]))
    scale = np.exp(rng.uniform(math.log(0.02), math.log(0.3), len(anchors)))[:, None] * np.ones(size)
    scale[:, 0] = 0.0
    near = space.perturbed(anchors, scale, rng.normal(size=anchors.shape), rng.random(anchors.shape))
    places = np.concatenate([wide, near])
    scores = score(places)
    for width in (0.12, 0.06, 0.03, 0.015):
        top = places[np.argsort(-scores, kind="stable")[:16]]
        near = np.repeat(top, 8, axis=0)
        scale = np.full(near.shape, width)
        near = space.perturbed(near, scale, rng.normal(size=near.shape), rng.random(near.shape))
        near[:, 0] = np.clip(near[:, 0], low, high)
        places, scores = np.concatenate([places, near]), np.concatenate([scores, score(near)])
    order = np.argsort(-scores, kind="stable")
    return places[order], scores[order]


def generator(seed: int, number: int) -> np.random.Generator:
    """Return the source of chance of one trial: the same in every process."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def square_root(covariance: Array) -> Array:
    """Return a square root of covariance matrices that rounding may have left short of definite."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])
