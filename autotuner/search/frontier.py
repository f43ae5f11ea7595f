"""The feasible frontier, given the ended trials: which settings meet the target, and which larger ones may.

A setting is judged by where its runs end, noise aside. Candidates for larger batches are searched in the
whole space and around the best settings so far, and refined. They are used for the next trial (largest
expected gain in doublings) and for the end of the search (probability that any is feasible), because an end
rule with fewer candidates than the acquisition would end too soon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import numpy as np

from autotuner.search.ensemble import Ensemble
from autotuner.search.random_numbers import generator
from autotuner.search.space import SCALING_EXPONENT, Space
from autotuner.study.curve import Array
from autotuner.study.setting import Setting

HALF_A_DOUBLING: Final = 0.5
BEST: Final = 96
THINNED: Final = 15
"""Candidates that are sampled jointly: the best ones, and every fifteenth of the others."""
HELD: Final = 0.35
"""Probability of passing the confirmation from which on a setting counts as meeting the target.

A confirmation that fails costs one or two runs, and they are data."""
BOLD: Final = 0.5
"""The same for a setting that has had no run yet, and is confirmed in place of a smaller one that has."""
SPARE: Final = 4
"""Number of such settings that are kept: the layouts nearest to the first may be those of a rejected one."""
TOLERATED_MISSES: Final = 1
"""Number of confirmation runs that may miss the target, in addition to the required number that reach it."""
WORTHY: Final = 0.05
"""Minimum probability of meeting the target for a trial."""
FURTHEST: Final = 1.0
NEAREST: Final = HALF_A_DOUBLING
"""Maximum and minimum of the doublings up to which a gain counts. With smaller steps it would never become
clear whether a batch half a doubling larger is feasible."""
MISSES: Final = 2
"""Number of missed proposals in a row that halve the gain that counts, as an engineer halves the step."""
MARGIN: Final = 0.5
"""Standard deviations of a run's noise by which a proposed setting should exceed the target."""

STEPS: Final = (0.0, 0.25, 0.5, 1.0)
"""Doublings above the smallest batch of interest that an engineer would try,"""
POWERS: Final = (0.0, 0.5, 1.0)
"""with the learning rate unchanged, by the square-root rule or by the linear rule,"""
FACTORS: Final = (0.71, 1.0, 1.41)
"""and times these."""


class Frontier:
    """The settings that meet the target, and the probability of larger batches, given the ended trials.

    Args:
        space: The search space.
        ensemble: The predictions of where settings end.
        tried: The settings of the ended trials.
        limits: The smallest and the largest batch size to try.
        seed: The seed of the search.
        owed: For each tried setting, how many runs must still reach the target for its confirmation, and how
            many may miss it.
        rejected: Settings whose confirmation has failed.
        sizes: The batch sizes that have a layout, in order; None if all have one.
    """

    def __init__(  # noqa: PLR0913 (its inputs)
        self,
        *,
        space: Space,
        ensemble: Ensemble,
        tried: Sequence[Setting],
        limits: tuple[int, int],
        seed: int,
        owed: Sequence[tuple[int, int]],
        rejected: Collection[Setting] = (),
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.space, self.ensemble, self.limits, self.seed = space, ensemble, limits, seed
        self._sizes = None if sizes is None else np.array([space.batch_coordinate(size) for size in sizes])
        self.tried, self._rejected = tuple(tried), rejected
        places = np.array([space.coordinates(s) for s in tried])
        self.chances = ensemble.confirmable(places, np.array(owed).reshape(-1, 2))

    @property
    def incumbent(self) -> Setting | None:
        """The setting with the largest batch that is expected to pass its confirmation.

        Of several settings with this batch size it is the one with the highest probability.
        """
        low, high = self.limits
        held = [
            (s.batch_size, float(p), s.key, s)
            for s, p in zip(self.tried, self.chances, strict=True)
            if p >= HELD and s not in self._rejected and low <= s.batch_size <= high and self.space.allows(s)
        ]
        return max(held)[-1] if held else None

    def probability_larger(self, batch_size: int) -> float:
        """Return the probability that any setting half a doubling larger is feasible; for 0, any setting.

        The most promising candidates are sampled jointly from the ensemble: the result is the share of
        samples in which any of them meets the target.
        """
        low, high = self.limits
        if batch_size >= high:
            return 0.0
        smallest = min(max(batch_size * 2**HALF_A_DOUBLING, low), high)
        places = candidates(self, self.ensemble, chance_alone, (smallest, high), 0)
        # The best candidates are close together, and are good or bad together; the others cover the rest of
        # the space.
        places = np.concatenate([places[:BEST], places[BEST::THINNED]])
        is_open = np.array([self.space.setting(place) not in self._rejected for place in places])
        return self.ensemble.any_feasible(places[is_open]) if is_open.any() else 0.0

    def bolder(self, batch_size: int, confirmations: int) -> Array:
        """Return places with larger batch sizes that are likelier than not to be confirmed, (n, d).

        The largest expected gains over the batch size, in doublings, come first.
        """
        _, high = self.limits
        largest = min(math.floor(batch_size * 2**FURTHEST), high)
        octaves, size = math.log2(batch_size), (batch_size + 1, largest)
        if size[0] > size[1]:
            return np.empty((0, self.space.size))
        places = candidates(self, self.ensemble, gain_over(octaves), size, len(self.tried))
        chance = self.ensemble.confirmable(
            places, np.full((len(places), 2), (confirmations, TOLERATED_MISSES))
        )
        gain = np.where(chance >= BOLD, chance * (self.space.octaves(places) - octaves), 0.0)
        order = np.argsort(-gain, kind="stable")
        return places[order[gain[order] > 0][:SPARE]]

    def snapped(self, places: Array, low: float, high: float) -> Array:
        """Return places at the nearest batch sizes with a layout, from one coordinate to another.

        They are unchanged if there is none between them.
        """
        if self._sizes is None:
            return places
        allowed = self._sizes[(self._sizes >= low - 1e-9) & (self._sizes <= high + 1e-9)]
        if not len(allowed):
            return places
        nearest = np.searchsorted((allowed[1:] + allowed[:-1]) / 2, places[:, 0])
        return np.column_stack([allowed[nearest], places[:, 1:]])


Worth = Callable[[Array, Array, Array], Array]
"""The worth of places by log2 of their batch sizes, probabilities, and expected log-shortfalls, (n,) each."""


def chance_alone(_octaves: Array, chance: Array, _expected: Array) -> Array:
    """Return the probabilities of places."""
    return chance


def expectation_alone(_octaves: Array, _chance: Array, expected: Array) -> Array:
    """Return the expected log-shortfalls: probabilities would be highest where the model knows least."""
    return expected


def reach(met: Iterable[bool]) -> float:
    """Return the doublings up to which a gain counts, after proposals that met the target or missed it.

    The model knows least about the largest batches, so its errors are too optimistic there.
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
        # A run that would soon be stopped as hopeless gives no information; it only breaks ties.
        worthy = np.where(chance >= WORTHY, chance, 1e-3 * chance)
        return np.asarray(np.clip(reached - octaves, 0.0, furthest) * worthy)

    return gain


def candidates(
    frontier: Frontier,
    ensemble: Ensemble,
    worth: Worth,
    sizes: tuple[float, float],
    number: int,
) -> Array:
    """Return places from one batch size to another one, best first, (n, d).

    They are sampled in the whole space and around the best settings so far, scaled to larger batches; then
    the best are refined with decreasing steps. `number` is the seed.
    """
    space = frontier.space
    low, high = (space.batch_coordinate(batch_size) for batch_size in sizes)
    rng = generator(frontier.seed, number)
    size = space.size

    def score(places: Array) -> Array:
        # A setting that only just meets the target would not pass its confirmation.
        chance, expected = ensemble.chance(places, MARGIN)
        return worth(space.octaves(places), chance, expected)

    wide = space.scattered(rng.random((256, size)))
    wide[:, 0] = low + (high - low) * wide[:, 0]
    best = np.argsort(-frontier.chances, kind="stable")[:16]
    anchors = np.array([space.coordinates(frontier.tried[i]) for i in best])
    anchors = anchors[rng.integers(len(anchors), size=256)]
    batch = low + (high - low) * rng.random(len(anchors)) ** 2
    anchors = space.carried(space.clipped(anchors), batch, SCALING_EXPONENT)
    scale = np.exp(rng.uniform(math.log(0.02), math.log(0.3), len(anchors)))[:, None] * np.ones(size)
    scale[:, 0] = 0.0
    near = space.perturbed(anchors, scale, rng.normal(size=anchors.shape), rng.random(anchors.shape))
    places = frontier.snapped(np.concatenate([wide, near, moves(frontier, low, high)]), low, high)
    scores = score(places)
    for width in (0.12, 0.06, 0.03, 0.015):
        top = places[np.argsort(-scores, kind="stable")[:16]]
        near = np.repeat(top, 8, axis=0)
        scale = np.full(near.shape, width)
        near = space.perturbed(near, scale, rng.normal(size=near.shape), rng.random(near.shape))
        near[:, 0] = np.clip(near[:, 0], low, high)
        near = frontier.snapped(near, low, high)
        places, scores = np.concatenate([places, near]), np.concatenate([scores, score(near)])
    return np.asarray(places[np.argsort(-scores, kind="stable")])


def moves(frontier: Frontier, low: float, high: float) -> Array:
    """Return the settings that an engineer would try, (n, d): larger batches with scaled learning rates."""
    space = frontier.space
    best = np.argsort(-frontier.chances, kind="stable")[:4]
    anchors = space.clipped(np.array([space.coordinates(frontier.tried[i]) for i in best]))
    octave = space.batch_coordinate(2 * space.batch_sizes[0])
    batches = np.unique(np.clip([*(low + octave * np.array(STEPS)), *(anchors[:, 0] + octave)], low, high))
    found = [
        space.carried(anchors, np.full(len(anchors), batch), power) for batch in batches for power in POWERS
    ]
    return np.concatenate([space.shifted(places, factor) for places in found for factor in FACTORS])
