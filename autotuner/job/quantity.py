"""Kubernetes quantities, such as `500m` processors or `8` GPUs, as whole numbers.

The format: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

_QUANTITY: Final = re.compile(
    r"\+?(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(n|u|m|k|[KMGTPE]i?|[eE][+-]?\d{1,2})?"
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def whole(quantity: object) -> int:
    """Return a quantity, rounded up as Kubernetes' `Quantity.Value()` does.

    Raises:
        ValueError: If it is not a quantity, or is negative.
    """
    return math.ceil(exact(quantity))


def exact(quantity: object) -> Fraction:
    """Return a quantity as it is.

    Raises:
        ValueError: If it is not a quantity, or is negative.
    """
    is_written = isinstance(quantity, int | float | str) and not isinstance(quantity, bool)
    match = _QUANTITY.fullmatch(str(quantity)) if is_written else None
    if match is None:
        raise ValueError(f"{str(quantity)[:40]!r} is not a quantity")
    return Fraction(match[1]) * _factor(match[2] or "")


def _factor(suffix: str) -> Fraction:
    if suffix in _BINARY:
        return Fraction(1024 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return Fraction(10) ** _DECIMAL[suffix]
    return Fraction(10) ** int(suffix[1:] or 0)
