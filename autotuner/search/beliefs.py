"""What the search believes, given the trials: the model's answers to the questions that `decide` asks.

Will this running trial reach the target? Which setting stands as the answer? Is a larger batch feasible?
What should be tried next? The hyperparameters of the model are fitted to the trials that have ended, at
counts that grow by about a fifth, so that a fit is not repeated at every trial; everything else follows
from all trials, running ones included.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, cast

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from autotuner.search.curve import Array
from autotuner.search.data import points
from autotuner.search.history import History, Setting, curve, setting
from autotuner.search.model import ALPHA, Cache, Posterior, fitted, slope
from autotuner.search.space import Space
from autotuner.trial import Outcome, Trial

LATE: Final = np.array([0.1, 0.35, 0.6, 0.85, 1.0])
"""Fractions of a run at which a curve is sought above the target."""
AHEAD: Final = 8
"""Steps at which the rest of a running trial's curve is drawn."""
DRAWS: Final = 512
SILENT: Final = frozenset({Outcome.LOST, Outcome.FAILED, Outcome.OUT_OF_MEMORY})
"""Ends that say nothing about accuracy beyond what was measured before."""
HALF_A_DOUBLING: Final = 0.5
HELD: Final = 0.5
"""A setting is held to meet the target from this probability on that its confirmation passes."""
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

    def __init__(
        self,
        space: Space,
        posterior: Posterior,
        tried: Sequence[Setting],
        limits: tuple[int, int],
        seed: int,
        confirmations: int,
    ) -> None:
        self.space, self.posterior, self.limits, self.seed = space, posterior, limits, seed
        self.tried = tuple(tried)
        places = np.array([space.coordinates(s) for s in tried])
        self.chances = confirmable(posterior, places, confirmations)
        self._larger: dict[int, float] = {}

    def incumbent(self, rejected: Collection[Setting]) -> Setting | None:
        """Return the setting with the largest batch that is held to meet the target."""
        low, high = self.limits
        held = [
            s
            for s, p in zip(self.tried, self.chances, strict=True)
            if p >= HELD and s not in rejected and low <= s.batch_size <= high
        ]
        return held[-1] if held else None

    def probability_larger(self, batch_size: int) -> float:
        """Return the probability that some setting half a doubling larger is feasible.

        The most promising candidates are drawn together from the posterior: it is the share of draws in
        which any of them meets the target.
        """
        if batch_size not in self._larger:
            self._larger[batch_size] = self._probability_larger(batch_size)
        return self._larger[batch_size]

    def _probability_larger(self, batch_size: int) -> float:
        _, high = self.limits
        if batch_size >= high:
            return 0.0
        smallest = min(batch_size * 2**HALF_A_DOUBLING, high)
        places = candidates(self, self.posterior, lambda octaves, chance: chance, smallest, 0)[:128]
        mean, covariance = self.posterior.joint_ends(places)
        normal = ndtri(uniform(DRAWS, len(places)))
        ends = mean + normal @ _root(covariance).T
        any_end = float((ends.max(axis=1) >= 0).mean())
        return max(any_end, float(feasible(self.posterior, places[:16]).max()))


_frontiers = Cache(8)


@dataclass(frozen=True)
class Beliefs:
    """The beliefs that a history leads to. A pure function of it; answers are kept once computed."""

    history: History
    space: Space

    @cached_property
    def _ended(self) -> tuple[Trial, ...]:
        return tuple(t for t in self.history.trials if not t.is_running and len(curve(t)))

    @cached_property
    def _running(self) -> tuple[Trial, ...]:
        return tuple(t for t in self.history.running if len(curve(t)))

    @cached_property
    def frontier(self) -> Frontier | None:
        """What the ended trials say; None before the first has ended."""
        data = points(self.history, self.space, self._ended)
        if not len(data):
            return None
        tried = sorted(
            {setting(t) for t in self._ended if t.outcome not in SILENT}, key=lambda s: (s.batch_size, s.key)
        )
        if not tried:
            return None
        learnt = points(self.history, self.space, self._ended[: _refit_count(len(self._ended))])
        theta = fitted(self.space, learnt)
        seed, wanted = self.history.spec.seed, self.history.spec.confirmations
        key = (self.space, theta.tobytes(), data.key, tuple(tried), self._limits, seed, wanted)
        found = _frontiers.get(key)
        if found is None:
            found = Frontier(
                self.space, Posterior(self.space, theta, data), tried, self._limits, seed, wanted
            )
            _frontiers.put(key, found)
        return cast(Frontier, found)

    @cached_property
    def posterior(self) -> Posterior | None:
        """What all trials say, running ones included; None before the first has ended."""
        if self.frontier is None or not self._running:
            return self.frontier and self.frontier.posterior
        settled = self.frontier.posterior
        worst = float(settled.data.margin.min())
        return settled.joined(points(self.history, self.space, self._running, worst=worst))

    @property
    def _limits(self) -> tuple[int, int]:
        """The smallest batch size, and the largest that memory holds."""
        low, high = self.space.batch_sizes
        if self.history.spec.micro_batch_size is None:
            burst = [
                t.suggestion.batch_size for t in self.history.trials if t.outcome is Outcome.OUT_OF_MEMORY
            ]
            high = min([high, *(size - 1 for size in burst)])
        return low, max(high, low)

    def chance(self, trial: Trial) -> float:
        """Return the probability that a running trial meets the target at some step that is still to come.

        The rest of its own curve is drawn from the posterior. Of the measurements ahead the luckiest
        decides: of k measurements with noise e, the largest lies at e * ndtri(u ** (1 / k)).
        """
        posterior, length = self.posterior, self.history.run_length
        seen = curve(trial)
        if posterior is None or length is None or not len(seen):
            return 0.5
        last = seen.last_step / length
        if last >= 1:
            return 0.0
        ahead = last + (1 - last) * np.arange(1, AHEAD + 1) / AHEAD
        index = len(posterior.data.place) - len(self._running) + self._running.index(trial)
        place = self.space.coordinates(setting(trial))[None]
        mean, covariance = posterior.curves(place, ahead, [index])
        drawn = uniform(DRAWS, 2 * AHEAD)
        kernel = posterior.kernel
        each = max(len(seen) / last * (1 - last) / AHEAD, 1.0)
        noise = kernel.epoch_noise * float(slope(np.zeros(1), kernel.headroom)[0])
        paths = mean[0] + ndtri(drawn[:, :AHEAD]) @ _root(covariance[0]).T
        paths += noise * ndtri(drawn[:, AHEAD:] ** (1 / each))
        return float((paths.max(axis=1) >= 0).mean())

    def incumbent(self, rejected: Collection[Setting]) -> Setting | None:
        """Return the setting that stands as the answer, confirmed or not."""
        return self.frontier and self.frontier.incumbent(rejected)

    def probability_larger(self, batch_size: int) -> float | None:
        """Return the probability that a batch half a doubling larger is feasible; None without a model."""
        return None if self.frontier is None else self.frontier.probability_larger(batch_size)

    def propose(self, number: int, incumbent: Setting | None) -> Setting:
        """Return the setting to try next: the largest expected gain in doublings over the incumbent."""
        if self.frontier is None or self.posterior is None:
            rng = _generator(self.history.spec.seed, number)
            return self.space.setting(self.space.scattered(rng.random((1, self.space.size)))[0])
        low, _ = self.frontier.limits
        start = math.log2(incumbent.batch_size) if incumbent is not None else math.log2(low) - 1

        def gain(octaves: Array, chance: Array) -> Array:
            return np.asarray(np.maximum(octaves - start, 0.0) * chance)

        smallest = low if incumbent is None else incumbent.batch_size + 1
        return self.space.setting(candidates(self.frontier, self.posterior, gain, smallest, number)[0])


def feasible(posterior: Posterior, places: Array) -> Array:
    """Return the probability that the noise-free best of each place (n, d) meets the target."""
    mean, covariance = posterior.curves(places, LATE)
    normal = ndtri(uniform(DRAWS, len(LATE)))
    paths = mean[:, None] + normal[None] @ _root(covariance).transpose(0, 2, 1)
    return np.asarray((paths.max(axis=2) >= 0).mean(axis=1))


def confirmable(posterior: Posterior, places: Array, runs: int) -> Array:
    """Return the probability that so many fresh runs of each place (n, d) all meet the target.

    Given the noise-free curve, each run is above it by an offset of its own and, at its luckiest late
    measurements, by about one standard deviation of a measurement.
    """
    mean, covariance = posterior.curves(places, LATE)
    normal = ndtri(uniform(DRAWS, len(LATE)))
    best = (mean[:, None] + normal[None] @ _root(covariance).transpose(0, 2, 1)).max(axis=2)
    kernel = posterior.kernel
    unit = float(slope(np.zeros(1), kernel.headroom)[0])
    return np.asarray((ndtr((best / unit + kernel.epoch_noise) / kernel.run_noise) ** runs).mean(axis=1))


def candidates(
    frontier: Frontier,
    posterior: Posterior,
    worth: Callable[[Array, Array], Array],
    smallest: float,
    number: int,
) -> Array:
    """Return places from batch size `smallest` on, best first by `worth(octaves, chance)`.

    They are drawn over the whole space and around the best settings tried, carried to larger batches; then
    the best are refined by ever smaller steps. `number` seeds the draws.
    """
    space = frontier.space
    low, high = space.batch_coordinate(smallest), space.batch_coordinate(frontier.limits[1])
    low = min(low, high)
    rng = _generator(frontier.seed, number)
    size = space.size

    kernel = posterior.kernel
    # What only just meets the target does not pass its confirmation.
    margin = MARGIN * kernel.run_noise * float(slope(np.zeros(1), kernel.headroom)[0])

    def score(places: Array) -> Array:
        mean, covariance = posterior.curves(places, LATE)
        deviation = np.sqrt(np.maximum(np.einsum("ijj->ij", covariance), 1e-12))
        return worth(space.octaves(places), ndtr(((mean - margin) / deviation).max(axis=1)))

    wide = space.scattered(rng.random((256, size)))
    wide[:, 0] = low + (high - low) * wide[:, 0]
    best = np.argsort(-frontier.chances, kind="stable")[:16]
    anchors = np.array([space.coordinates(frontier.tried[i]) for i in best])
    anchors = anchors[rng.integers(len(anchors), size=256)]
    batch = low + (high - low) * rng.random(len(anchors)) ** 2
    anchors = space.carried(space.clipped(anchors), batch, float(posterior.kernel.theta[ALPHA]))
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
    return np.asarray(places[np.argsort(-scores, kind="stable")])


def _generator(seed: int, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _refit_count(ended: int) -> int:
    """Return the largest count of the schedule 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, ... that has been reached."""
    count = 1
    while (following := count + max(1, count // 5)) <= ended:
        count = following
    return count


def _root(covariance: Array) -> Array:
    """Return a square root of covariance matrices that rounding may have left short of definite."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :])
