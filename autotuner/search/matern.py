"""Matern kernels (Rasmussen & Williams 2006, eq. 4.17), and the two dimensions of progress."""

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


def matern52(squared: Array) -> Array:
    """Return the Matern 5/2 kernel of squared distances."""
    scaled = np.sqrt(5 * squared)
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def matern52_slope(squared: Array) -> Array:
    """Return the derivative of `matern52` by the squared distances."""
    scaled = np.sqrt(5 * squared)
    return np.asarray(-5 / 6 * (1 + scaled) * np.exp(-scaled))


def matern32(squared: Array) -> Array:
    """Return the Matern 3/2 kernel of squared distances."""
    scaled = np.sqrt(3 * squared)
    return np.asarray((1 + scaled) * np.exp(-scaled))


def matern32_slope(squared: Array) -> Array:
    """Return the derivative of `matern32` by the squared distances."""
    return np.asarray(-1.5 * np.exp(-np.sqrt(3 * squared)))
