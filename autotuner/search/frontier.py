"""The feasible frontier, as the ended trials show it: which settings hold, and what larger ones promise.

A setting is judged by draws of its noise-free curve. Candidates for larger batches are sought over the whole
space and around the best settings tried, and refined; the same search serves the next trial (largest expected
gain in doublings) and the end of the tuning (probability that any is feasible), for an end rule that looks at
fewer candidates than the acquisition ends too soon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import numpy as np

from autotuner.search.ensemble import Ensemble
from autotuner.search.quasi import generator
from autotuner.search.space import Space
from autotuner.study.curve import Array
from autotuner.study.setting import Setting

HALF_A_DOUBLING: Final = 0.5
BEST: Final = 96
THINNED: Final = 15
"""Candidates that are drawn together: the best, and of the others one of so many."""
HELD: Final = 0.5
"""A setting is held to meet the target from this probability on that its confirmation passes."""
TOLERATED_MISSES: Final = 1
"""Confirmation runs that may miss the target; as many as are wanted must reach it all the same."""
WORTHY: Final = 0.05
"""A setting is not worth a trial below this probability."""
FURTHEST: Final = 1.0
NEAREST: Final = HALF_A_DOUBLING
"""Doublings beyond which a gain counts no more: at most, and at least. Smaller steps would never settle
whether a batch half a doubling larger is feasible."""
MISSES: Final = 2
"""Proposals in a row that miss before a gain counts half as far: who doubles by hand halves the step then."""
MARGIN: Final = 0.5
"""How far above the target, in standard deviations of a run's noise, a proposed setting should come."""


POWER: Final = 0.5
"""Of the batch, by which the learning rate is carried along where candidates are drawn: the square root."""
STEPS: Final = (0.0, 0.25, 0.5, 1.0)
"""Doublings beyond the smallest batch wanted that an engineer tries,"""
POWERS: Final = (0.0, 0.5, 1.0)
"""with the learning rate unchanged, by the square-root rule or by the linear rule,"""
FACTORS: Final = (0.71, 1.0, 1.41)
"""and times these."""


class Frontier:
    """What the ended trials say of settings: which meet the target, and whether larger batches may.

    A function of the ensemble and the settings tried; each answer is computed once.
    """

    def __init__(  # noqa: PLR0913 (all that it is a function of)
        self,
        *,
        space: Space,
        ensemble: Ensemble,
        tried: Sequence[Setting],
        limits: tuple[int, int],
        seed: int,
        owed: Sequence[tuple[int, int]],
    ) -> None:
        self.space, self.ensemble, self.limits, self.seed = space, ensemble, limits, seed
        self.tried = tuple(tried)
        places = np.array([space.coordinates(s) for s in tried])
        self.chances = ensemble.confirmable(places, np.array(owed).reshape(-1, 2))
        self._larger: dict[int, float] = {}

    def incumbent(self, rejected: Collection[Setting]) -> Setting | None:
        """Return the setting with the largest batch that is held to pass its confirmation.

        Of several settings with this batch size it is the likeliest.
        """
        low, high = self.limits
        held = [
            (s.batch_size, float(p), s.key, s)
            for s, p in zip(self.tried, self.chances, strict=True)
            if p >= HELD and s not in rejected and low <= s.batch_size <= high
        ]
        return max(held)[-1] if held else None

    def probability_larger(self, batch_size: int) -> float:
        """Return the probability that some setting half a doubling larger is feasible; any, larger than 0.

        The most promising candidates are drawn together from the ensemble: it is the share of draws in
        which any of them meets the target.
        """
        if batch_size not in self._larger:
            self._larger[batch_size] = self._probability_larger(batch_size)
        return self._larger[batch_size]

    def _probability_larger(self, batch_size: int) -> float:
        low, high = self.limits
        if batch_size >= high:
            return 0.0
        smallest = min(max(batch_size * 2**HALF_A_DOUBLING, low), high)
        places = candidates(self, self.ensemble, chance_alone, smallest, 0)[0]
        # The best alone lie close together, and are good or bad together; the others tell whether there may
        # be something elsewhere.
        places = np.concatenate([places[:BEST], places[BEST::THINNED]])
        return self.ensemble.any_feasible(places)


Worth = Callable[[Array, Array, Array], Array]
"""What places are worth, by log2 of their batch sizes, chances, and expected log-shortfalls, (n,) each."""


def chance_alone(_octaves: Array, chance: Array, _expected: Array) -> Array:
    """Return the chances of places."""
    return chance


def expectation_alone(_octaves: Array, _chance: Array, expected: Array) -> Array:
    """Return what is expected of places: far from all others, chances are best where least is known."""
    return expected


def reach(met: Iterable[bool]) -> float:
    """Return up to how many doublings a gain counts, after proposals that met the target or missed it.

    The largest batches are where the model knows least, so its errors look like hope there.
    """
    furthest, misses = FURTHEST, 0
    for one in met:
        misses = 0 if one else misses + 1
        if one:
            furthest = min(2 * furthest, FURTHEST)
        elif misses == MISSES:
            furthest, misses = max(furthest / 2, NEAREST), 0
    return furthest


def gain_over(octaves: float, furthest: float = FURTHEST) -> Worth:
    """Return the expected gain over a batch size of 2 ** octaves, in doublings and at most `furthest`."""

    def gain(reached: Array, chance: Array, _expected: Array) -> Array:
        # A run that would be stopped as hopeless at once teaches nothing; it only breaks ties.
        worthy = np.where(chance >= WORTHY, chance, 1e-3 * chance)
        return np.asarray(np.clip(reached - octaves, 0.0, furthest) * worthy)

    return gain


def candidates(
    frontier: Frontier,
    ensemble: Ensemble,
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

    def score(places: Array) -> Array:
        # What only just meets the target does not pass its confirmation.
        chance, expected = ensemble.chance(places, MARGIN)
        return worth(space.octaves(places), chance, expected)

    wide = space.scattered(rng.random((256, size)))
    wide[:, 0] = low + (high - low) * wide[:, 0]
    best = np.argsort(-frontier.chances, kind="stable")[:16]
    anchors = np.array([space.coordinates(frontier.tried[i]) for i in best])
    anchors = anchors[rng.integers(len(anchors), size=256)]
    batch = low + (high - low) * rng.random(len(anchors)) ** 2
    anchors = space.carried(space.clipped(anchors), batch, POWER)
    scale = np.exp(rng.uniform(math.log(0.02), math.log(0.3), len(anchors)))[:, None] * np.ones(size)
    scale[:, 0] = 0.0
    near = space.perturbed(anchors, scale, rng.normal(size=anchors.shape), rng.random(anchors.shape))
    places = np.concatenate([wide, near, moves(frontier, low, high)])
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


def moves(frontier: Frontier, low: float, high: float) -> Array:
    """Return what an engineer tries by hand, (n, d): larger batches at learning rates scaled with them."""
    space = frontier.space
    best = np.argsort(-frontier.chances, kind="stable")[:4]
    anchors = space.clipped(np.array([space.coordinates(frontier.tried[i]) for i in best]))
    octave = space.batch_coordinate(2 * space.batch_sizes[0])
    batches = np.unique(np.clip([*(low + octave * np.array(STEPS)), *(anchors[:, 0] + octave)], low, high))
    found = [
        space.carried(anchors, np.full(len(anchors), batch), power) for batch in batches for power in POWERS
    ]
    return np.concatenate([space.shifted(places, factor) for places in found for factor in FACTORS])
