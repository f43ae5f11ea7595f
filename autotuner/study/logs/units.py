"""Decide which unit the steps of a log are counted in, and number its readings in it.

Epochs are preferred, as their length does not change with the batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from autotuner.study.formats.reading import Reading


class Unit(Enum):
    """The unit of steps: epochs, optimizer steps, epochs with fractions, or a count of the measurements."""

    EPOCH = auto()
    STEP = auto()
    FRACTION = auto()
    COUNT = auto()

    @property
    def word(self) -> str:
        """The unit in a word; empty for a count."""
        return {Unit.STEP: "step", Unit.COUNT: ""}.get(self, "epoch")


def unit_of(readings: Sequence[Reading], *, is_pattern: bool) -> Unit:
    """Return the unit for a log with these first readings."""
    first = readings[0].position
    if first.step is not None and (readings[0].uses_step or first.epoch is None):
        return Unit.STEP
    if first.epoch is None:
        return Unit.COUNT
    for reading in readings[1:]:
        if reading.position.epoch == first.epoch and first.epoch == int(first.epoch):
            # Counts of different totals are of two loops, as of a training and an evaluation behind it.
            is_one_loop = (
                None in {reading.position.total, first.total} or reading.position.total == first.total
            )
            is_other = reading.position.step != first.step and is_one_loop
            if is_other and None not in {reading.position.step, first.step}:
                return Unit.FRACTION if first.total else Unit.STEP
            if is_pattern:
                return Unit.COUNT
        break
    return Unit.EPOCH


def has_two_units(reading: Reading) -> bool:
    """Return whether a reading has an epoch and a step, so that more of them show which unit is meant."""
    p = reading.position
    return p.epoch is not None and p.step is not None and p.epoch == int(p.epoch) and not reading.uses_step


def step_of(reading: Reading, unit: Unit, last: float) -> float:
    """Return the step of a reading, which follows the last one's."""
    position = reading.position
    if unit is Unit.FRACTION and position.epoch is not None:
        share = position.step / position.total if position.step is not None and position.total else 0.0
        return round(position.epoch + share, 6)
    if unit is Unit.EPOCH and position.epoch is not None:
        return position.epoch
    if unit is Unit.STEP and position.step is not None:
        return position.step
    return last + 1
