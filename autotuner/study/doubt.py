"""Doubt about the reading of a log: the possible readings, and the annotation that resolves it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import re2

from autotuner.study.formats.reading import Metric, Reading
from autotuner.study.formats.text import Finder

MAX_SHOWN: Final = 200
"""Maximum characters of a line in a message."""
_VALUE: Final = r"(?P<value>[-+.\deE]+)"
_MAX_PATTERN: Final = 200


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
        remedy = " or ".join(self.remedies)
        return f"the metric is in doubt: {self.reason}. Read {said}. Nothing is counted; add {remedy}"


def doubt(metric: Metric, reason: str, *readings: Reading, target: str = "") -> Doubt:
    """Return a doubt about readings, with a pattern for each line or with the target that fits them."""
    remedies = [_annotation("target", target)] if target else []
    for reading in readings if not target else ():
        for value in (reading.value, reading.alternative):
            pattern = None if value is None else pattern_for(metric, reading.line, value)
            if pattern is not None and (remedy := _annotation("metric-pattern", pattern)) not in remedies:
                remedies.append(remedy)
    if not remedies:
        remedies.append(
            _annotation("metric-pattern", re.escape(metric.name) + r"\D{1,20}" + _VALUE)
            + ", changed so that it matches the right lines"
        )
    return Doubt(reason, tuple((bounded(r.line), r.value) for r in readings), tuple(remedies))


def pattern_for(metric: Metric, line: str, value: float) -> str | None:
    """Return an RE2 pattern that reads a value from a line and from lines like it; None if none is found."""
    found = next((f for f in Finder(metric).find(line) if value in {f.value, f.average}), None)
    if found is None:
        return None
    start = max(0, found.start - 40)
    start = line.rfind(" ", 0, start) + 1 if start else 0
    lead = _generalised(line[start : found.start]).lstrip()
    shown = line[found.start : found.end]
    number = re.search(r"[-+.\d][-+.\deE,]*\s?%?\]?$", shown)
    if number is None:
        return None
    pattern = lead + _generalised(shown[: number.start()]) + _VALUE
    if value != found.value:  # the average, in parentheses after the value
        pattern = lead + _generalised(shown[: number.start()]) + r"[-+.\deE]+%?\s*\(\s*" + _VALUE
    if len(pattern) > _MAX_PATTERN or not _reads(pattern, line):
        return None
    return pattern


def bounded(line: str) -> str:
    """Return a line as shown in messages."""
    text = "".join(c if c.isprintable() else " " for c in line).strip()
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _generalised(text: str) -> str:
    escaped = re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)
    escaped = re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", escaped)
    return re.sub(r"\s+", r"\\s+", escaped)


def _reads(pattern: str, line: str) -> bool:
    try:
        options = re2.Options()
        options.log_errors = False
        return re2.compile(pattern, options).search(line) is not None
    except re2.error:
        return False


def _annotation(name: str, value: str) -> str:
    quoted = value.replace("'", "''")
    return f"autotuner.dev/{name}: '{quoted}'"
