"""What a trial has measured, cleaned: finite values in order of step.

Logs are strangers' input. A step may be reported twice (the script restarted from a checkpoint), out of
order, or with NaN; a script may report nothing at all. Everything behind this module sees increasing steps
and finite values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from autotuner.spec import Target
from autotuner.trial import Measurement

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A learning curve: `steps` increase strictly, `values` are finite and as long.

    Of two values at one step the one reported last counts: it is what the script says now.
    """

    steps: Array
    values: Array

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last_step(self) -> float:
        """The last step measured, 0 before the first."""
        return float(self.steps[-1]) if len(self.steps) else 0.0

    def best(self, target: Target) -> float | None:
        """Return the value that does best by the target; None where nothing was measured."""
        if not len(self.values):
            return None
        return float(self.values.max() if target.sign > 0 else self.values.min())

    def meets(self, target: Target) -> bool:
        """Return whether the target is met at some step."""
        best = self.best(target)
        return best is not None and target.is_met(best)


class _Same:
    """A key that is equal to itself alone: to hash a thousand measurements costs more than to read them."""

    __slots__ = ("measurements",)

    def __init__(self, measurements: tuple[Measurement, ...]) -> None:
        self.measurements = measurements

    def __hash__(self) -> int:
        return id(self.measurements)

    def __eq__(self, other: object) -> bool:
        # The cache holds the key, hence the tuple, so its identity is not given to another meanwhile.
        return isinstance(other, _Same) and self.measurements is other.measurements


def clean(measurements: tuple[Measurement, ...]) -> Curve:
    """Return the curve that measurements draw; those without a finite step and value are left out."""
    return _clean(_Same(measurements))


def until(measurements: tuple[Measurement, ...], step: float) -> tuple[Measurement, ...]:
    """Return what was measured up to a step; of the same measurements the same tuple."""
    return _until(_Same(measurements), step)


@lru_cache(maxsize=4096)
def _until(key: _Same, step: float) -> tuple[Measurement, ...]:
    kept = tuple(m for m in key.measurements if not m.step > step)
    return key.measurements if len(kept) == len(key.measurements) else kept


@lru_cache(maxsize=4096)
def _clean(key: _Same) -> Curve:
    return _by_content(key.measurements)


@lru_cache(maxsize=4096)
def _by_content(measurements: tuple[Measurement, ...]) -> Curve:
    # A caller that reads its ledger afresh each time has equal tuples, not the same: they share a curve.
    return _curve([(m.step, m.value) for m in measurements])


def _curve(points: Sequence[tuple[float, float]]) -> Curve:
    raw = np.array(points, dtype=np.float64).reshape(-1, 2)
    raw = raw[np.isfinite(raw).all(axis=1) & (raw[:, 0] >= 0)]
    if not len(raw):
        return Curve(np.empty(0), np.empty(0))
    # np.unique keeps the first of equals, so the last reported comes first.
    steps, kept = np.unique(raw[::-1, 0], return_index=True)
    return Curve(steps, raw[::-1, 1][kept])
