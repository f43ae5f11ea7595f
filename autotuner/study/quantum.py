"""The distance between neighbouring values of a metric, as its values show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from autotuner.spec.values import SINGLE_PRECISION

_LARGEST_LATTICE: Final = 100_000
"""Samples of a validation set up to which values are recognised as its fractions."""
_MOST_DECIMALS: Final = 12


def quantum_of(values: Sequence[float]) -> float:
    """Return the distance between two neighbouring values of the metric.

    This is one unit of the last decimal, or one sample of the validation set if all values are fractions of
    it.
    """
    distinct = np.array(sorted(set(values))[:50])
    written = written_to(distinct)
    # A fraction is printed as such or in percent.
    scale = 100.0 if distinct.max() > 1.5 else 1.0  # noqa: PLR2004
    return max(written, _lattice(distinct / scale, written / scale) * scale)


def written_to(values: Iterable[float]) -> float:
    """Return one unit of the last decimal of values."""
    return float(10.0 ** -max(_decimals(float(value)) for value in values))


def _decimals(value: float) -> int:
    """Return the number of decimals of a value, ignoring the rounding of its last operation."""
    slack = 1e-12 * max(1.0, abs(value))
    written = (n for n in range(_MOST_DECIMALS) if abs(value - round(value, n)) <= slack)
    return next(written, _MOST_DECIMALS)


def _lattice(values: np.ndarray[tuple[int], np.dtype[np.float64]], written: float) -> float:
    sizes = np.arange(1, min(_LARGEST_LATTICE, int(min(1 / written, 1e9)) + 1) + 1, dtype=np.float64)
    tolerance = sizes * max(0.51 * written, SINGLE_PRECISION)
    fits = np.ones(len(sizes), dtype=np.bool_)
    with np.errstate(all="ignore"):
        for value in values:
            fits &= np.abs(value * sizes - np.round(value * sizes)) <= tolerance
    first = int(np.argmax(fits))
    return float(1 / sizes[first]) if fits[first] else 0.0
