"""Rules for scaling hyperparameters with the batch size.

They are a starting point for a search, not its result: the best exponent differs between tasks, from about
0.3 to 1, so the tuner learns it. Scripts use them to keep good settings when the batch size changes without a
search. In all of them, kappa is the new batch size divided by the old.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["AdamSettings", "linear_rate", "malladi", "square_root_rate"]


def linear_rate(learning_rate: float, *, batch_size: int, new_batch_size: int) -> float:
    """Return the rate for SGD at the new batch size: kappa times the old (Goyal et al. 2017, section 2.1)."""
    return learning_rate * _kappa(batch_size, new_batch_size)


def square_root_rate(learning_rate: float, *, batch_size: int, new_batch_size: int) -> float:
    """Return the rate for Adam, LAMB and similar: sqrt(kappa) times the old (as You et al. 2020 do)."""
    return learning_rate * math.sqrt(_kappa(batch_size, new_batch_size))


@dataclass(frozen=True, slots=True)
class AdamSettings:
    """Hyperparameters of Adam that depend on the batch size."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


def malladi(settings: AdamSettings, *, batch_size: int, new_batch_size: int) -> AdamSettings:
    """Return Adam's settings at the new batch size by the square root scaling rule.

    Malladi, Lyu, Panigrahi and Arora 2022 (arXiv:2205.10287, section 5): the rate grows by
    sqrt(kappa), each 1 - beta by kappa, and epsilon falls by sqrt(kappa), so that both runs approximate the
    same stochastic differential equation over the same number of samples.

    Raises:
        ValueError: A beta would not be positive: kappa is beyond the range of the approximation.
    """
    kappa = _kappa(batch_size, new_batch_size)
    beta1, beta2 = (1 - kappa * (1 - beta) for beta in (settings.beta1, settings.beta2))
    if min(beta1, beta2) <= 0:
        limit = batch_size / (1 - min(settings.beta1, settings.beta2))
        raise ValueError(
            f"the rule has no betas from batch {batch_size} to {new_batch_size}: it holds below {limit:g}"
        )
    return AdamSettings(
        learning_rate=settings.learning_rate * math.sqrt(kappa),
        beta1=beta1,
        beta2=beta2,
        epsilon=settings.epsilon / math.sqrt(kappa),
    )


def _kappa(batch_size: int, new_batch_size: int) -> float:
    if min(batch_size, new_batch_size) < 1:
        raise ValueError(f"batch sizes {batch_size} and {new_batch_size} must be at least 1")
    return new_batch_size / batch_size
