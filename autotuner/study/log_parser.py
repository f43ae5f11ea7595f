"""Log lines to measurements.

A training script prints its metric in its own way, and that is enough: `accuracy=0.93 epoch=3`,
`accuracy: 0.93`, a JSON object on a line, the dictionaries that Hugging Face's Trainer prints, or a progress
bar that carries it, such as Lightning's. Lines are strangers' input: a line is cut at a bound, a user's own
pattern runs in linear time (RE2), and a run keeps a bounded number of measurements.

A progress bar says the same thing many times, so a step has one measurement, the last. And while it goes
through an epoch, it shows what the epoch before has measured: what a bar repeats at a new step counts only
once that step is past, or the run is.
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
_EPOCH: Final = re.compile(
    r"(?<![\w./@-])epoch\s{0,8}:?\s{0,8}\[?\s{0,8}(\d{1,15})(?![\w%]|\.\d)", re.IGNORECASE
)
"""`Epoch 3`, `Epoch 3/90`, `Epoch [3/90]`, `Epoch: [3][10/500]`."""
_BAR: Final = re.compile(r"\|\s{0,8}(\d{1,15})/(?:\d+|\?) \[\d")
"""The count of tqdm's bar: `30%|###   | 3/10 [00:01<00:03, 2.1it/s]`."""
_BETWEEN: Final = r"""["']?\s{0,8}[=:]\s{0,8}["']?|\s{1,80}\u2502\s{1,80}"""
"""What stands between a name and its number; the last is a row of the table of Lightning's `validate`."""


class LogParser:
    """Reads a run's log as it grows.

    Feed it the text in pieces of any size; `measurements` then holds what the complete lines so far said.
    A line without a step counts as the next one; a progress bar without one is at its own count, and what
    comes after another bar goes on from there.
    """

    def __init__(self, metric: str, pattern: str | None = None) -> None:
        self._metric = metric
        self._pattern = pattern
        self._rest = ""
        self._is_cut = False
        self._measurements: list[Measurement] = []
        self._repeated: Measurement | None = None
        self._bar = 0
        self._earlier_bars = 0
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
        self._settle(math.inf)

    def _take(self, line: str) -> None:
        if not line or len(line) > MAX_LINE:
            return
        line = ESCAPE.sub("", line)
        found = _read(line, self._metric, self._pattern)
        if found is not None:
            self._measure(*found, bar=_BAR.search(line))
        for name in EXTRA_NAMES:
            value = _value(line, name)
            if value is not None and math.isfinite(value):
                self._extras[name] = value

    def _measure(self, value: float, step: float | None, bar: re.Match[str] | None) -> None:
        last = self._measurements[-1] if self._measurements else None
        if step is None and bar is not None:
            count = int(bar[1])
            if count < self._bar:
                self._earlier_bars += self._bar
            self._bar = count
            step = float(self._earlier_bars + count)
        elif step is None:
            step = 1.0 if last is None else last.step + 1
        measurement = Measurement(step, value)
        self._settle(step)
        if bar is not None and last is not None and last.step < step and last.value == value:
            self._repeated = measurement
        else:
            self._keep(measurement)

    def _settle(self, step: float) -> None:
        """Keep what a bar has repeated, if that is past; what comes at the same step takes its place."""
        repeated, self._repeated = self._repeated, None
        if repeated is not None and repeated.step < step:
            self._keep(repeated)

    def _keep(self, measurement: Measurement) -> None:
        if self._measurements and self._measurements[-1].step == measurement.step:
            self._measurements[-1] = measurement
            return
        self._measurements.append(measurement)
        if len(self._measurements) > MAX_MEASUREMENTS:
            self._measurements = thin(self._measurements, MAX_MEASUREMENTS // 2)


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
    found = _read(ESCAPE.sub("", line), metric, pattern)
    if found is None:
        return None
    value, step = found
    return Measurement(default_step if step is None else step, value)


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


def _read(line: str, metric: str, pattern: str | None) -> tuple[float, float | None] | None:
    """Return the value that a line carries, and its step where it names one; None without a value."""
    value, step = (_value(line, metric), None) if pattern is None else _match(line, pattern)
    if value is None:
        return None
    return value, _step(line, metric) if step is None else step


def _step(line: str, metric: str) -> float | None:
    steps = (_value(line, name, step=True) for name in STEP_NAMES if name != metric)
    named = next((s for s in steps if s is not None and math.isfinite(s)), None)
    if named is None and (match := _EPOCH.search(line)):
        return float(match[1])
    return named


def _match(line: str, pattern: str) -> tuple[float | None, float | None]:
    match = _compiled(pattern).search(line)
    if match is None:
        return None, None
    named = match.re.groupindex
    step = _float(match.group("step")) if "step" in named else None
    value = _float(match.group("value" if "value" in named else 1))
    return value, step if step is not None and math.isfinite(step) else None


@cache
def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _value(line: str, name: str, *, step: bool = False) -> float | None:
    # A cheap look first: most lines of a log name nothing that we look for.
    if name.lower() not in line.lower():
        return None
    match = _named(name, step).search(line)
    return _float(match[1]) if match else None


@cache
def _named(name: str, step: bool) -> re.Pattern[str]:
    # No quantifier meets another that takes the same characters, so this is linear in the line. A step is no
    # percentage: `Epoch:  30%|###` is a bar.
    end = r"(?!\w|\.\d|%)" if step else r"(?!\w|\.\d)"
    return re.compile(rf"(?<![\w./@-]){re.escape(name)}(?:{_BETWEEN})({_NUMBER}){end}", re.IGNORECASE)


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
