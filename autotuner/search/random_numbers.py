"""Deterministic random numbers: the same at every call, and in every process."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from scipy.stats import qmc

from autotuner.study.curve import Array


@lru_cache(maxsize=32)
def uniform(count: int, size: int, seed: int = 0) -> Array:
    """Return scrambled Sobol points in 0..1, (count, size)."""
    drawn = qmc.Sobol(size, rng=np.random.default_rng(seed)).random(count)
    return np.clip(drawn, 1e-6, 1 - 1e-6)


def generator(seed: int, number: int) -> np.random.Generator:
    """Return the random generator of one trial."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
