"""Log lines to measurements.

A training script prints its metric in its own way, and that is enough: `accuracy=0.93 epoch=3`,
`accuracy: 0.93`, a JSON object on a line, or the dictionaries that Hugging Face's Trainer prints. Lines are
strangers' input: a line is cut at a bound, a user's own pattern runs in linear time (RE2), and a run keeps a
bounded number of measurements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Final

import re2

from autotuner.trial import Measurement

MAX_LINE: Final = 4096
"""Characters of a line that are looked at; a longer line is a dump, no report."""
MAX_MEASUREMENTS: Final = 10_000
"""Measurements kept of one run; beyond, every second one goes, records and the last one excepted."""
STEP_NAMES: Final = ("step", "global_step", "epoch", "iteration", "iter")
"""What scripts call their unit of progress, the first that a line has wins."""
EXTRA_NAMES: Final = ("noise_scale", "samples_per_second")
"""What `autotuner.sdk.report` carries beside the metric."""

_NUMBER: Final = r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
"""What colours a terminal (ECMA-48, control sequences)."""
_LINE_END: Final = re.compile(r"[\r\n]")


class LogParser:
    """Reads a run's log as it grows.

    Feed it the text in pieces of any size; `measurements` then holds what the complete lines so far said.
    A line without a step counts as the next one.
    """

    def __init__(self, metric: str, pattern: str | None = None) -> None:
        self._metric = metric
        self._pattern = pattern
        self._rest = ""
        self._is_cut = False
        self._measurements: list[Measurement] = []
        self._count = 0
        self._extras: dict[str, float] = {}

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What the log has said so far, in its order."""
        return tuple(self._measurements)

    @property
    def extras(self) -> dict[str, float]:
        """The last value of each of `EXTRA_NAMES` that the log has said."""
        return dict(self._extras)

    def feed(self, text: str) -> None:
        """Take the next piece of the log."""
        *lines, rest = _LINE_END.split(self._rest + text)
        for line in lines:
            if not self._is_cut:
                self._take(line)
            self._is_cut = False
        # An unfinished line past the bound is not kept: a program can write for ever without a newline.
        self._is_cut = self._is_cut or len(rest) > MAX_LINE
        self._rest = "" if self._is_cut else rest

    def close(self) -> None:
        """Take the last line, which may lack its newline."""
        self.feed("\n")

    def _take(self, line: str) -> None:
        if not line or len(line) > MAX_LINE:
            return
        measurement = parse_line(line, self._metric, self._pattern, default_step=self._count + 1)
        if measurement is not None:
            # Counted apart: what is thinned away was a step all the same.
            self._count += 1
            self._measurements.append(measurement)
            if len(self._measurements) > MAX_MEASUREMENTS:
                self._measurements = thin(self._measurements, MAX_MEASUREMENTS // 2)
        for name in EXTRA_NAMES:
            value = _value(ESCAPE.sub("", line), name)
            if value is not None and math.isfinite(value):
                self._extras[name] = value


def parse_line(
    line: str, metric: str, pattern: str | None = None, *, default_step: float = 1
) -> Measurement | None:
    """Return the measurement that a line carries, or None.

    Args:
        line: One line, without its end.
        metric: The metric's name; `test_accuracy=1` says nothing of `accuracy`.
        pattern: The user's own RE2 pattern, with one group or with groups `value` and, optionally, `step`.
        default_step: The step of a line that names none.
    """
    line = ESCAPE.sub("", line)
    if pattern is not None:
        return _match(line, pattern, default_step)
    value = _value(line, metric)
    if value is None:
        return None
    steps = (_value(line, name) for name in STEP_NAMES if name != metric)
    step = next((s for s in steps if s is not None and math.isfinite(s)), default_step)
    return Measurement(step=step, value=value)


def thin(measurements: Sequence[Measurement], limit: int) -> list[Measurement]:
    """Return at most about `limit` of the measurements: evenly spaced ones, and each side's records.

    The largest and the smallest value and the last measurement stay, for they decide what a run reached.
    """
    if len(measurements) <= limit:
        return list(measurements)
    stride = math.ceil(len(measurements) / max(1, limit - 3))
    finite = [m for m in measurements if m.is_finite]
    kept = {id(m) for m in measurements[::stride]} | {id(measurements[-1])}
    if finite:
        kept |= {id(max(finite, key=lambda m: m.value)), id(min(finite, key=lambda m: m.value))}
    return [m for m in measurements if id(m) in kept]


def _match(line: str, pattern: str, default_step: float) -> Measurement | None:
    compiled = _compiled(pattern)
    match = compiled.search(line)
    if match is None:
        return None
    named = compiled.groupindex
    value = _float(match.group("value" if "value" in named else 1))
    if value is None:
        return None
    step = _float(match.group("step")) if "step" in named else None
    return Measurement(step=default_step if step is None or not math.isfinite(step) else step, value=value)


@cache
def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _value(line: str, name: str) -> float | None:
    # A cheap look first: most lines of a log name nothing that we look for.
    if name.lower() not in line.lower():
        return None
    match = _named(name).search(line)
    return _float(match[1]) if match else None


@cache
def _named(name: str) -> re.Pattern[str]:
    # No quantifier meets another that takes the same characters, so this is linear in the line.
    return re.compile(
        rf"""(?<![\w./@-]){re.escape(name)}["']?\s{{0,8}}[=:]\s{{0,8}}["']?({_NUMBER})(?!\w|\.\d)""",
        re.IGNORECASE,
    )


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
