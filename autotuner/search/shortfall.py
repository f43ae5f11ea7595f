"""The log-shortfall: a scale on which learning curves are nearly straight, with the target at zero."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from autotuner.study.curve import Array

BEND: Final = 0.5
"""Distance to the headroom, in headrooms, below which a level is linear instead of `-log`."""


def level(margin: Array, headroom: float) -> Array:
    """Return the log-shortfall of a margin over the target; 0 if it is just met."""
    lack = 1 - margin / headroom
    return np.where(lack < BEND, math.log(2) + 1 - 2 * lack, -np.log(np.maximum(lack, BEND)))


def margin_of(level: Array, headroom: float) -> Array:
    """Return the margin of a log-shortfall: the inverse of `level`."""
    lack = np.where(level > math.log(2), (math.log(2) + 1 - level) / 2, np.exp(-level))
    return np.asarray(headroom * (1 - lack))


def slope(margin: Array, headroom: float) -> Array:
    """Return the derivative of `level` by the margin."""
    return 1 / np.maximum(headroom - margin, headroom / 2)
