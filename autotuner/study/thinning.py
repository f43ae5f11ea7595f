"""Thin a curve: keep fewer measurements, including those that decide what a run reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from autotuner.trial import Measurement

MAX_MEASUREMENTS: Final = 10_000
"""Measurements kept of one run; beyond, every second one is dropped, except records and the last one."""


def thin(measurements: Sequence[Measurement], limit: int) -> list[Measurement]:
    """Return at most about `limit` measurements: evenly spaced ones, and the records on each side.

    The largest value, the smallest value and the last measurement are kept, because they decide what a run
    reached.
    """
    if len(measurements) <= limit:
        return list(measurements)
    stride = math.ceil(len(measurements) / max(1, limit - 3))
    finite = [m for m in measurements if m.is_finite]
    kept = {id(m) for m in measurements[::stride]} | {id(measurements[-1])}
    if finite:
        kept |= {id(max(finite, key=lambda m: m.value)), id(min(finite, key=lambda m: m.value))}
    return [m for m in measurements if id(m) in kept]
