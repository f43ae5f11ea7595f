"""Matern kernels of a squared distance, and the two dimensions of progress."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from autotuner.study.curve import Array

LOG_FRACTION: Final = math.log(50.0)
"""Scale of log step: from a fiftieth of the run to its end is one unit."""


def progress(time: Array) -> Array:
    """Return the two dimensions of progress, (n, 2): log step and fraction of the run."""
    return np.column_stack([1 + np.log(np.maximum(time, 1e-3)) / LOG_FRACTION, time])


def matern(squared: Array) -> tuple[Array, Array]:
    """Return the Matern 5/2 kernel of a squared distance, and its derivative by that."""
    scaled = np.sqrt(5 * squared)
    decay = np.exp(-scaled)
    return (1 + scaled + scaled**2 / 3) * decay, -5 / 6 * (1 + scaled) * decay


def rough(squared: Array) -> tuple[Array, Array]:
    """Return the Matern 3/2 kernel of a squared distance, and its derivative by that (eq. 4.17)."""
    scaled = np.sqrt(3 * squared)
    decay = np.exp(-scaled)
    return (1 + scaled) * decay, -1.5 * decay
