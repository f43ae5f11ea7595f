"""What the search believes, given the trials: the model's answers to the questions that `decide` asks.

Will this running trial reach the target? Which setting stands as the answer? Is a larger batch feasible?
What should be tried next? The hyperparameters of the model are fitted to the trials that have ended, at
counts that grow by about a fifth, so that a fit is not repeated at every trial; everything else follows
from all trials, running ones included.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from autotuner.search.curve import Array
from autotuner.search.data import Points, points
from autotuner.search.history import History, Setting, curve, setting
from autotuner.search.model import Posterior, conditioned, fitted, slope
from autotuner.search.space import Space
from autotuner.trial import Outcome, Purpose, Trial

LATE: Final = np.array([0.1, 0.35, 0.6, 0.85, 1.0])
"""Fractions of a run at which a curve is sought above the target."""
AHEAD: Final = 8
"""Steps at which the rest of a running trial's curve is drawn."""
DRAWS: Final = 512
SILENT: Final = frozenset({Outcome.LOST, Outcome.FAILED, Outcome.OUT_OF_MEMORY})
"""Ends that say nothing about accuracy beyond what was measured before."""
HALF_A_DOUBLING: Final = 0.5


@lru_cache(maxsize=32)
def uniform(count: int, size: int, seed: int = 0) -> Array:
    """Return scrambled Sobol points in 0..1, (count, size): the same at every call."""
    drawn = qmc.Sobol(size, rng=np.random.default_rng(seed)).random(count)
    return np.clip(drawn, 1e-6, 1 - 1e-6)


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
    def _settled(self) -> Posterior | None:
        """What the ended trials say."""
        data = points(self.history, self.space, self._ended)
        if not len(data):
            return None
        learnt = points(self.history, self.space, self._ended[: _refit_count(len(self._ended))])
        return conditioned(self.space, fitted(self.space, learnt), data)

    @cached_property
    def posterior(self) -> Posterior | None:
        """What all trials say, running ones included; None before the first has ended."""
        settled = self._settled
        if settled is None or not self._running:
            return settled
        worst = float(settled.data.margin.min())
        return settled.joined(points(self.history, self.space, self._running, worst=worst))

    # --- running trials ----------------------------------------------------------------------------------

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
        index = len(self._ended) + self._running.index(trial)
        place = self.space.coordinates(setting(trial))[None]
        mean, covariance = posterior.curves(place, ahead, [index])
        drawn = uniform(DRAWS, 2 * AHEAD)
        root = _root(covariance[0])
        kernel = posterior.kernel
        each = max(len(seen) / last * (1 - last) / AHEAD, 1.0)
        noise = kernel.epoch_noise * float(slope(np.zeros(1), kernel.headroom)[0])
        paths = mean[0] + ndtri(drawn[:, :AHEAD]) @ root.T + noise * ndtri(drawn[:, AHEAD:] ** (1 / each))
        return float((paths.max(axis=1) >= 0).mean())

    # --- settings ------------------------------------------------------------------------------------------

    def feasible(self, places: Array) -> Array:
        """Return the probability that the noise-free best of each place meets the target."""
        if self.posterior is None:
            return np.full(len(places), 0.5)
        mean, covariance = self.posterior.curves(places, LATE)
        normal = ndtri(uniform(DRAWS, len(LATE)))
        paths = mean[:, None] + normal[None] @ _root(covariance).transpose(0, 2, 1)
        return np.asarray((paths.max(axis=2) >= 0).mean(axis=1))

    @cached_property
    def _tried(self) -> tuple[tuple[Setting, ...], Array]:
        """Settings that have been tried, and the probabilities that they are feasible."""
        tried = sorted(
            {setting(t) for t in self.history.trials if t.outcome not in SILENT and len(curve(t))},
            key=lambda s: (s.batch_size, s.key),
        )
        if not tried:
            return (), np.empty(0)
        return tuple(tried), self.feasible(np.array([self.space.coordinates(s) for s in tried]))

    def incumbent(self, rejected: Collection[Setting]) -> Setting | None:
        """Return the setting with the largest batch that is held to meet the target."""
        allowed = range(*self._batch_limits)
        held = [
            s
            for s, p in zip(*self._tried, strict=True)
            if p >= 0.5 and s not in rejected and s.batch_size in allowed
        ]
        return held[-1] if held else None

    @property
    def _batch_limits(self) -> tuple[int, int]:
        """The smallest batch size, and one more than the largest that memory holds."""
        low, high = self.space.batch_sizes
        if self.history.spec.micro_batch_size is None:
            burst = [
                t.suggestion.batch_size
                for t in self.history.trials
                if t.outcome is Outcome.OUT_OF_MEMORY
            ]
            high = min([high, *(size - 1 for size in burst)])
        return low, high + 1

    # --- the frontier --------------------------------------------------------------------------------------

    def probability_larger(self, batch_size: int) -> float | None:
        """Return the probability that some setting half a doubling larger is feasible.

        The most promising candidates are drawn together from the posterior: it is the share of draws in
        which any of them meets the target.
        """
        if self.posterior is None:
            return None
        low, high = self._batch_limits
        smallest = batch_size * 2**HALF_A_DOUBLING
        if smallest > high - 1:
            smallest = high - 1
            if batch_size >= smallest:
                return 0.0
        places, _ = self._search(lambda octaves, chance: chance, smallest, 0)
        places = places[:128]
        mean, covariance = self.posterior.joint_ends(places)
        normal = ndtri(uniform(DRAWS, len(places)))
        ends = mean + normal @ _root(covariance).T
        any_end = float((ends.max(axis=1) >= 0).mean())
        return max(any_end, float(self.feasible(places[:16]).max()))

    def propose(self, number: int, incumbent: Setting | None) -> Setting:
        """Return the setting to try next: the largest expected gain in doublings over the incumbent."""
        low, _ = self._batch_limits
        start = math.log2(incumbent.batch_size) if incumbent is not None else math.log2(low) - 1

        def gain(octaves: Array, chance: Array) -> Array:
            return np.maximum(octaves - start, 0.0) * chance

        smallest = low if incumbent is None else incumbent.batch_size + 1
        places, _ = self._search(gain, smallest, number)
        return self.space.setting(places[0])

    def _search(self, worth, smallest: float, number: int) -> tuple[Array, Array]:
        """Return places from `smallest` on, best first by `worth(octaves, chance)`."""
        space, posterior = self.space, self.posterior
        _, end = self._batch_limits
        low, high = space.batch_coordinate(smallest), space.batch_coordinate(end - 1)
        low = min(low, high)
        digest = hashlib.sha256(f"{self.history.spec.seed}/{number}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        size = space.size

        def within(places: Array) -> Array:
            places[:, 0] = low + (high - low) * places[:, 0]
            return space.clipped(places)

        def score(places: Array) -> Array:
            if posterior is None:
                return np.asarray(rng.random(len(places)))
            mean, covariance = posterior.curves(places, LATE)
            deviation = np.sqrt(np.maximum(np.einsum("ijj->ij", covariance), 1e-12))
            chance = ndtr((mean / deviation).max(axis=1))
            return np.asarray(worth(space.octaves(places), chance))

        tried, chances = self._tried
        best = [i for i in np.argsort(-chances, kind="stable")[:16]]
        wide = within(space.scattered(rng.random((384, size))))
        pools = [wide]
        if best:
            anchors = np.array([space.coordinates(tried[i]) for i in best])
            anchors = anchors[rng.integers(len(anchors), size=384)]
            batch = low + (high - low) * rng.random(len(anchors)) ** 2
            alpha = 0.8 if posterior is None else float(posterior.kernel.theta[1])
            anchors = space.carried(space.clipped(anchors), batch, alpha)
            scale = np.exp(rng.uniform(math.log(0.02), math.log(0.3), len(anchors)))[:, None] * np.ones(size)
            scale[:, 0] = 0.0
            pools.append(
                space.perturbed(anchors, scale, rng.normal(size=anchors.shape), rng.random(anchors.shape))
            )
        places = np.concatenate(pools)
        scores = score(places)
        for width in (0.12, 0.06, 0.03, 0.015):
            top = places[np.argsort(-scores, kind="stable")[:24]]
            near = np.repeat(top, 8, axis=0)
            scale = np.full(near.shape, width)
            near = space.perturbed(near, scale, rng.normal(size=near.shape), rng.random(near.shape))
            near[:, 0] = np.clip(near[:, 0], low, high)
            places, scores = np.concatenate([places, near]), np.concatenate([scores, score(near)])
        order = np.argsort(-scores, kind="stable")
        return places[order], scores[order]


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
