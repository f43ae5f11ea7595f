"""Notice lines without a position that are groups of different values: several of each evaluation.

A training and its validation may print alike: `[1] accuracy=0.30`, `[1] accuracy=0.26`, `[2] accuracy=0.50`,
and so on. The number alone says nothing: it may be a rank, which is the same on every line. Or lines with
different words take turns: `Validation (clean) EPE: 1.2`, `Validation (final) EPE: 2.1`, and both again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from autotuner.study.formats.reading import Label, Reading

MOST: Final = 10
"""Readings that are waited for: four data sets, and two of their values in the second epoch."""
MOST_KINDS: Final = 4
"""Kinds of lines that are waited for."""
_WORD: Final = re.compile(r"[^\W\d_]+")
_LEADING: Final = re.compile(r"\s{0,8}[\[(#]?(\d{1,6})(?![\d.]|[:/-]\d)")
"""A number that a line begins with, except times, dates and decimals."""


def grouped(readings: Sequence[Reading]) -> tuple[Reading, Reading] | None:
    """Return two different values of one group, if the numbers show groups of several; else None."""
    groups = [list(group) for _, group in groupby(distinct(readings), _number)]
    if len(groups) < 2 or any(len(group) < 2 for group in groups[:2]):  # noqa: PLR2004 (a pair)
        return None
    first, second = (_number(group[0]) for group in groups[:2])
    if first is None or second != first + 1:
        return None
    one, other = groups[0][:2]
    return None if one.value == other.value else (one, other)


def may_be_grouped(readings: Sequence[Reading]) -> bool:
    """Return whether more readings may show groups, as two values of one number begin them."""
    readings = distinct(readings)
    if len(readings) < 2 or len(readings) >= MOST or grouped(readings):  # noqa: PLR2004 (a pair)
        return False
    numbers = [_number(reading) for reading in readings]
    first = numbers[0]
    is_pair = first is not None and numbers[1] == first and readings[0].value != readings[1].value
    # The second group is open until it has two values.
    return is_pair and all(n == first for n in numbers[:-1]) and numbers[-1] in {first, (first or 0) + 1}


def taking_turns(readings: Sequence[Reading]) -> tuple[Reading, Reading] | None:
    """Return two different values of one label, if lines with different words take turns twice; else None."""
    readings = distinct(readings)
    kinds, count = _kinds(readings)
    if count < 2 or kinds[:count] * 2 != kinds[: 2 * count]:  # noqa: PLR2004 (a pair)
        return None
    other = next((r for r in readings[1:count] if r.value != readings[0].value), None)
    return None if other is None else (readings[0], other)


def may_take_turns(readings: Sequence[Reading]) -> bool:
    """Return whether more readings may show that lines with different words take turns."""
    readings = distinct(readings)
    kinds, count = _kinds(readings)
    if count == 1 or len(kinds) >= 2 * count or readings[0].label is Label.UNKNOWN:
        return False
    return count <= MOST_KINDS and (kinds[:count] * 2)[: len(kinds)] == kinds


def distinct(readings: Sequence[Reading]) -> list[Reading]:
    """Return readings without those of a line that is printed again at once, as by two loggers."""
    return [next(same) for _, same in groupby(readings, lambda reading: (reading.text, reading.value))]


def _kinds(readings: Sequence[Reading]) -> tuple[list[list[str]], int]:
    """Return the words of each line, and how many lines there are before the first one's words again.

    Values without a label need no such test: the words before them already keep them apart.
    """
    kinds = [_WORD.findall(reading.text.lower()) for reading in readings[: 2 * MOST_KINDS]]
    again = next((i for i, kind in enumerate(kinds) if i and kind == kinds[0]), len(kinds))
    return kinds, again


def _number(reading: Reading) -> int | None:
    match = _LEADING.match(reading.text)
    return None if match is None else int(match[1])
