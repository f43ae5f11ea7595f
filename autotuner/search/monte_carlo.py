"""Sample parameters from a posterior by sequential Monte Carlo, and compute the evidence.

The likelihood is tempered (Del Moral, Doucet and Jasra 2006, section 2.3.1): at each step the samples are
weighted, resampled, and moved by elliptical slice sampling (Murray, Adams and MacKay 2010), which needs a
standard normal prior and has no tuning parameters. The same arguments give the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from autotuner.study.curve import Array

KEPT: Final = 0.5
"""Fraction of the samples that stays effective in a step."""
MOVES: Final = 4
"""Slice-sampling moves after each step."""
SHRINKS: Final = 12
"""Number of shrinks of the bracket after which a sample is not moved."""

LogLikelihood = Callable[[Array], Array]
"""Returns the log likelihoods of parameters (draws, size), (draws,)."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Equally weighted samples (count, size) of standardised parameters, and the log evidence."""

    values: Array
    log_evidence: float


def sample(log_likelihood: LogLikelihood, count: int, size: int, rng: np.random.Generator) -> Draws:
    """Return samples from the posterior of parameters with a standard normal prior.

    Args:
        log_likelihood: Log likelihoods (count,) of parameters (count, size).
        count: Number of samples.
        size: Number of parameters.
        rng: The source of randomness.
    """
    values = rng.normal(size=(count, size))
    log = log_likelihood(values)
    reached, evidence = 0.0, 0.0
    while reached < 1:
        step = _step(log, 1 - reached)
        weight = step * log
        top = float(weight.max())
        weight = np.exp(weight - top)
        evidence += top + math.log(float(weight.mean()))
        reached = 1.0 if step >= 1 - reached else reached + step
        kept = _resampled(weight, float(rng.random()))
        values, log = values[kept], log[kept]
        for _ in range(MOVES):
            values, log = _moved(log_likelihood, values, log, reached, rng)
    return Draws(values, evidence)


def _step(log: Array, most: float) -> float:
    """Return the next increase of the likelihood's power, at most `most`."""

    def effective(step: float) -> float:
        weight = np.exp(step * (log - log.max()))
        return float(weight.sum() ** 2 / (weight**2).sum() / len(weight))

    if effective(most) >= KEPT:
        return most
    low, high = 0.0, most
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= KEPT else (low, middle)
    return max(low, 1e-4 * most)


def _resampled(weight: Array, offset: float) -> np.ndarray:
    """Return the indices of the resampled samples, by systematic resampling."""
    edges = np.cumsum(weight) / weight.sum()
    at = (np.arange(len(weight)) + offset) / len(weight)
    return np.minimum(np.searchsorted(edges, at), len(weight) - 1)


def _moved(
    log_likelihood: LogLikelihood, values: Array, log: Array, power: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return all samples after one move of elliptical slice sampling."""
    count = len(values)
    other = rng.normal(size=values.shape)
    floor = power * log + np.log(rng.random(count))
    angle = rng.uniform(0, 2 * math.pi, count)
    low, high = angle - 2 * math.pi, angle.copy()
    values, log = values.copy(), log.copy()
    start, open_ = values.copy(), np.arange(count)
    for _ in range(SHRINKS):
        tried = start[open_] * np.cos(angle[open_])[:, None] + other[open_] * np.sin(angle[open_])[:, None]
        found = log_likelihood(tried)
        done = power * found > floor[open_]
        values[open_[done]], log[open_[done]] = tried[done], found[done]
        open_ = open_[~done]
        if not len(open_):
            break
        below = angle[open_] < 0
        low[open_] = np.where(below, angle[open_], low[open_])
        high[open_] = np.where(below, high[open_], angle[open_])
        angle[open_] = rng.uniform(low[open_], high[open_])
    return values, log
