"""Notice lines without a position that begin with a number which counts groups of different values.

A training and its validation may print alike: `[1] accuracy=0.30`, `[1] accuracy=0.26`, `[2] accuracy=0.50`,
and so on. The number alone says nothing: it may be a rank, which is the same on every line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from autotuner.study.formats.reading import Reading

MOST: Final = 10
"""Readings that are waited for: four data sets, and two of their values in the second epoch."""
_LEADING: Final = re.compile(r"\s{0,8}[\[(#]?(\d{1,6})(?![\d.]|[:/-]\d)")
"""A number that a line begins with: no time, date or decimal."""


def grouped(readings: Sequence[Reading]) -> tuple[Reading, Reading] | None:
    """Return two different values of one group, if the numbers show groups of several; else None."""
    groups = [list(group) for _, group in groupby(readings, _number)]
    if len(groups) < 2 or any(len(group) < 2 for group in groups[:2]):  # noqa: PLR2004 (a pair)
        return None
    first, second = (_number(group[0]) for group in groups[:2])
    if first is None or second != first + 1:
        return None
    one, other = groups[0][:2]
    return None if one.value == other.value else (one, other)


def may_be_grouped(readings: Sequence[Reading]) -> bool:
    """Return whether more readings may show groups, as two values of one number begin them."""
    if len(readings) < 2 or len(readings) >= MOST or grouped(readings):  # noqa: PLR2004 (a pair)
        return False
    numbers = [_number(reading) for reading in readings]
    first = numbers[0]
    is_pair = first is not None and numbers[1] == first and readings[0].value != readings[1].value
    # The second group is open until it has two values.
    return is_pair and all(n == first for n in numbers[:-1]) and numbers[-1] in {first, (first or 0) + 1}


def _number(reading: Reading) -> int | None:
    match = _LEADING.match(reading.line)
    return None if match is None else int(match[1])
