"""What the ended trials show: where each run ends, the frontier, and the ensemble that judges running trials.

`Ended` holds everything that these depend on, as values, so the results are cached by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from autotuner.search.curves import Curves, evidence, model_of, refit_count
from autotuner.search.data import margin_over, shift
from autotuner.search.ensemble import Earlier, Ends, Ensemble, rivals, unit
from autotuner.search.frontier import TOLERATED_MISSES, Frontier
from autotuner.search.memory import digest_of
from autotuner.study.setting import Setting

BAD: Final = 3.0
"""Usual margins by which a run without a value misses the target,"""
BAD_DEVIATION: Final = 2.0
"""and their standard deviation."""
ALWAYS_SAMPLED: Final = 30
"""Number of ended runs up to which the judge's parameters are sampled again after each of them."""
Tally = tuple[Setting, int, int]
"""A setting with confirmation runs, with the numbers that reached and missed the target."""


@dataclass(frozen=True)
class Ended:
    """The ended trials, and what else the frontier depends on."""

    curves: Curves
    is_silent: tuple[bool, ...]
    is_whole: tuple[bool, ...]
    earlier: tuple[tuple[Curves, tuple[bool, ...]], ...]
    limits: tuple[int, int]
    seed: int
    confirmations: int
    confirming: tuple[Tally, ...]
    sizes: tuple[int, ...] | None

    @cached_property
    def digest(self) -> bytes:
        """A digest of all inputs."""
        inputs = (self.is_silent, self.is_whole, self.limits, self.sizes)
        rest = (*inputs, self.seed, self.confirmations, self.confirming)
        earlier = (
            part for found, is_whole in self.earlier for part in (found.digest, repr(is_whole).encode())
        )
        return digest_of(self.curves.digest, repr(rest).encode(), *earlier)


@lru_cache(maxsize=16)  # megabytes each
def frontier_of(ended: Ended) -> Frontier:
    """Return the settings that meet the target, and the probabilities of larger ones."""
    curves, space = ended.curves, ended.curves.space
    heard = {run.setting for run, silent in zip(curves.runs, ended.is_silent, strict=True) if not silent}
    tried = sorted(heard, key=lambda s: (s.batch_size, s.key))
    tally = {s: (reached, missed) for s, reached, missed in ended.confirming}
    seen = [tally.get(s, (0, 0)) for s in tried]
    return Frontier(
        space=space,
        ensemble=_ensemble(curves, ended.is_whole, ended.earlier),
        tried=tried,
        limits=ended.limits,
        seed=ended.seed,
        rejected=rejected_of(ended.confirming),
        sizes=ended.sizes,
        owed=[(ended.confirmations - reached, TOLERATED_MISSES - missed) for reached, missed in seen],
    )


def rejected_of(confirming: Iterable[Tally]) -> frozenset[Setting]:
    """Return the settings of which too many confirmation runs have missed the target."""
    return frozenset(tried for tried, _, missed in confirming if missed > TOLERATED_MISSES)


@lru_cache(maxsize=16)
def judge_of(ended: Ended) -> Ensemble:
    """Return the ensemble that judges running trials.

    After many runs its parameters are sampled at the counts of `refit_count` only: they change little then,
    and after a restart all runs are judged again.
    """
    count = len(ended.curves.runs)
    if count <= ALWAYS_SAMPLED:
        return _ensemble(ended.curves, ended.is_whole, ended.earlier)
    count = max(refit_count(count), ALWAYS_SAMPLED)
    sampled = _ensemble(ended.curves.first(count), ended.is_whole[:count], ended.earlier)
    return sampled.on(_ends(ended.curves, ended.is_whole)[0])


@lru_cache(maxsize=16)
def _ensemble(
    curves: Curves, is_whole: tuple[bool, ...], earlier: tuple[tuple[Curves, tuple[bool, ...]], ...]
) -> Ensemble:
    """Return the ensemble given where runs ended, and where stopped runs are predicted to end."""
    ends, _ = _ends(curves, is_whole)
    others = []
    for study, ended in earlier:
        found, runs = _ends(study, ended)
        places = np.array([curves.space.coordinates(study.runs[i].setting) for i in runs])
        others.append(Earlier(replace(found, place=places), shift(study.target, curves.target)))
    members, evidence = rivals(curves.space, ends, others)
    return Ensemble(members, evidence, unit(ends))


@lru_cache(maxsize=64)
def _ends(curves: Curves, is_whole: tuple[bool, ...]) -> tuple[Ends, list[int]]:
    """Return where runs ended or are predicted to end, and the number of each end's run."""
    space, target, length = curves.space, curves.target, curves.length
    done = [
        whole or run.curve.last_step >= (run.length or length)
        for run, whole in zip(curves.runs, is_whole, strict=True)
    ]
    columns = [i for i, whole in enumerate(done) if whole]
    best = [
        float(margin_over(target, run.curve.values).max()) if len(run.curve) else None for run in curves.runs
    ]
    # A run without a value shows that it is bad there, but not how bad: a hump that had to explain a precise
    # value beyond a cliff would have its maximum too far away from it.
    usual = float(np.median([abs(margin) for margin in best if margin is not None] or [0.0]))
    margins = [-BAD * usual if (margin := best[i]) is None else margin for i in columns]
    places = np.array([space.coordinates(curves.runs[i].setting) for i in columns]).reshape(-1, space.size)
    variances = [(BAD_DEVIATION * usual) ** 2 if best[i] is None else 0.0 for i in columns]
    ends = Ends.own(places, np.array(margins), np.array(variances))
    stopped = [i for i, whole in enumerate(done) if not whole]
    if not stopped:
        return ends, columns
    more = evidence(model_of(curves), curves, [curves.runs[i] for i in stopped], stopped)
    return ends.joined(more), columns + stopped
