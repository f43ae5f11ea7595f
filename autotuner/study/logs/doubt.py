"""Doubt about the reading of a log: the possible readings, and the annotation that resolves it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import re2

from autotuner.study.formats.finder import Finder
from autotuner.study.formats.line import clean
from autotuner.study.formats.reading import Metric, Reading
from autotuner.study.formats.records import value_of
from autotuner.study.logs.scale import OF_BATCH

MAX_SHOWN: Final = 200
"""Maximum characters of a line in a message."""
TEMPLATE: Final = (
    r"autotuner.dev/metric-pattern: '<what stands before the number that is meant>(?P<value>\S+)'"
)
"""The remedy where no pattern is known to read the right number: it matches nothing as it stands."""
_VALUE: Final = r"(?P<value>nan|[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?%s)"
_LEADS: Final = (40, MAX_SHOWN)
"""Characters before the name that a pattern contains: more of them where fewer do not tell lines apart."""
_MAX_PATTERN: Final = 400
_RECORD: Final = re.compile(r"best|highest|lowest|maximum|minimum", re.IGNORECASE)
_IS_RECORD: Final = re.compile(r"[^\d|]{0,24}(?<![a-z])best(?![a-z])(?![^\d|]{0,16}\d)", re.IGNORECASE)
"""Before a name and after its value: a record, and a pattern for it would never see the metric fall."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the readings of a log do not count, with the lines, the numbers on them, and remedies to copy."""

    reason: str
    lines: tuple[tuple[str, float], ...]
    remedies: tuple[str, ...]

    @property
    def message(self) -> str:
        """The doubt as a message: reason, readings, remedy."""
        said = "; ".join(f"{value:g} from {line!r}" for line, value in self.lines)
        which = ", whichever reads the values that are meant" if len(self.remedies) > 1 else ""
        remedy = " or ".join(self.remedies) + which
        return f"the metric is in doubt: {self.reason}. Read {said}. Nothing is counted; add {remedy}"


def doubt(
    metric: Metric, reason: str, *readings: Reading, target: str = "", others: Sequence[Reading] = ()
) -> Doubt:
    """Return a doubt about readings, with a pattern for each line or with the target that fits them.

    A pattern that also matches the line of another reading, one of `others` included, settles nothing.
    """
    remedies = [_annotation("target", target)] if target else []
    for reading in readings if not target else ():
        for value in (reading.value, reading.alternative):
            rivals = [other.line for other in (*readings, *others) if other.line != reading.line]
            pattern = None if value is None else pattern_for(metric, reading.line, value, rivals)
            if pattern is not None and (remedy := _annotation("metric-pattern", pattern)) not in remedies:
                remedies.append(remedy)
    if not remedies:
        remedies.append(f"{TEMPLATE}, or print that number under a name of its own")
    return Doubt(reason, tuple((bounded(r.line), r.value) for r in readings), tuple(remedies))


def pattern_for(metric: Metric, line: str, value: float, rivals: Sequence[str] = ()) -> str | None:
    """Return an RE2 pattern that reads a value from a line and from lines like it; None if none is found.

    It matches none of the lines `rivals`.
    """
    line = clean(line).text.strip()
    found = next((f for f in Finder(metric).find(line) if value in {f.value, f.average}), None)
    shown = "" if found is None else line[found.start : found.end]
    number = re.search(r"[-+.\d][-+.\deE,]*(?P<percent>\s?%)?\]?$", shown)
    if found is None or number is None or OF_BATCH.search(line):
        return None
    if _RECORD.search(line, 0, found.start) or _IS_RECORD.match(line, found.end):
        return None
    named = _generalised(shown[: number.start()])
    if value != found.value:  # the average, in parentheses after the value
        named += r"[-+.\deE]+%?\s*\(\s*"
    named += _VALUE % (r"\s?%" if number["percent"] else "")
    for length in _LEADS:
        start = max(0, found.start - length)
        start = line.rfind(" ", 0, start) + 1 if start else 0
        pattern = _generalised(line[start : found.start]).lstrip() + named
        if start == 0:
            pattern = rf"^\s*{pattern}"
        is_right = len(pattern) <= _MAX_PATTERN and _reads(pattern, line, value)
        if is_right and not any(_reads(pattern, rival) for rival in rivals):
            return pattern
    return None


def bounded(line: str) -> str:
    """Return a line as shown in messages."""
    text = "".join(c if c.isprintable() else " " for c in line).strip()
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _generalised(text: str) -> str:
    escaped = re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)
    escaped = re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", escaped)
    return re.sub(r"\s+", r"\\s+", escaped)


def _reads(pattern: str, line: str, value: float | None = None) -> bool:
    """Return whether a pattern reads something from a line, or this value."""
    try:
        options = re2.Options()
        options.log_errors = False
        compiled = re2.compile(pattern, options)
    except re2.error:
        return False
    match = compiled.search(clean(line).text) or compiled.search(line)
    found = None if match is None else value_of(match.group("value"))
    return found is not None and (value is None or math.isnan(value) or found[0] == value)


def _annotation(name: str, value: str) -> str:
    quoted = value.replace("'", "''")
    return f"autotuner.dev/{name}: '{quoted}'"
