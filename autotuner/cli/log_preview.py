"""Render what is read from a log: a table, a plot, warnings; or the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from autotuner.spec.values import Target
from autotuner.study.logs.log_reader import LogReader
from autotuner.trial import Measurement
from autotuner.wording import read_from

_ROWS: Final = 10
_COLUMNS: Final = 60
_SHOWN: Final = 8
"""Number of measurements that a long table shows at its beginning, and at its end."""


def is_read(reader: LogReader) -> bool:
    """Return whether something was read and nothing is in doubt."""
    return reader.doubt is None and bool(reader.measurements)


def record(reader: LogReader, target: Target) -> dict[str, Any]:
    """Return what was read as the JSON of `autotuner metrics --json`.

    NaN and infinity are written as Python's json does. The warnings begin with the doubt; if nothing was
    read, they name what is similar to the metric.
    """
    doubts = [] if reader.doubt is None else [reader.doubt.message]
    return {
        "measurements": [[m.step, m.value] for m in reader.measurements],
        "reached": any(target.is_met(m.value) for m in reader.measurements),
        "format": reader.format,
        "warnings": [*doubts, *_near_misses(reader), *reader.warnings],
    }


def lines(reader: LogReader, target: Target) -> list[str]:
    """Return what was read as lines for people."""
    measurements = reader.measurements
    shown: list[str] = []
    if measurements:
        first = measurements[0]
        shown += [
            f"reads {read_from(target, first, reader.unit, reader.first_line)}",
            f"format: {reader.format}",
            "",
            *_table(measurements, target),
            "",
            *plot(measurements, target),
            "",
            _verdict(measurements, target),
        ]
    if reader.doubt is not None:
        shown.append(f"doubt: {reader.doubt.reason}")
        shown += [f"  read {value:g} from: {line}" for line, value in reader.doubt.lines]
        shown.append("  Nothing is counted. Add one of these annotations to the job:")
        shown += [f"    {remedy}" for remedy in reader.doubt.remedies]
    return [*shown, *(f"warning: {text}" for text in (*_near_misses(reader), *reader.warnings))]


def _near_misses(reader: LogReader) -> tuple[str, ...]:
    has_nothing = not reader.measurements and reader.doubt is None
    return reader.near_misses or (("nothing was read: the log is empty",) if has_nothing else ())


def plot(measurements: Sequence[Measurement], target: Target) -> list[str]:
    """Return a plot of values over steps, `*` a measurement and `-` the threshold; empty without numbers."""
    finite = [m for m in measurements if m.is_finite]
    if not finite:
        return []
    values = [m.value for m in finite] + [target.threshold]
    low, high = min(values), max(values)
    start, end = min(m.step for m in finite), max(m.step for m in finite)
    if not math.isfinite(high - low) or not math.isfinite(end - start):
        return []
    grid = [[" "] * _COLUMNS for _ in range(_ROWS)]
    grid[_row(target.threshold, low, high)] = ["-"] * _COLUMNS
    for m in finite:
        column = 0 if end == start else round((m.step - start) / (end - start) * (_COLUMNS - 1))
        grid[_row(m.value, low, high)][column] = "*"
    labels = {
        0: f"{high:g}",
        _ROWS - 1: f"{low:g}",
        _row(target.threshold, low, high): f"{target.threshold:g}",
    }
    width = max(len(label) for label in labels.values())
    drawn = [f"{labels.get(i, ''):>{width}} |{''.join(cells).rstrip()}" for i, cells in enumerate(grid)]
    return [*drawn, f"{'':>{width}}  {start:g}{f'{end:g}':>{_COLUMNS - len(f'{start:g}')}}"]


def _row(value: float, low: float, high: float) -> int:
    return 0 if high == low else round((high - value) / (high - low) * (_ROWS - 1))


def _table(measurements: Sequence[Measurement], target: Target) -> list[str]:
    rows = [
        f"{m.step:>12g}  {m.value:<12g}{'  reached' if target.is_met(m.value) else ''}" for m in measurements
    ]
    if len(rows) > 2 * _SHOWN:
        rows = [*rows[:_SHOWN], f"{'...':>12}  ({len(rows) - 2 * _SHOWN} more)", *rows[-_SHOWN:]]
    return [f"{'step':>12}  {target.metric}", *(row.rstrip() for row in rows)]


def _verdict(measurements: Sequence[Measurement], target: Target) -> str:
    met = next((m for m in measurements if target.is_met(m.value)), None)
    if met is None:
        return f"{target} is not reached"
    return f"{target} is reached at step {met.step:g}"
