"""Separate the values that a log has before the training: settings, the target, a checkpoint's evaluation.

They have the metric's name and no epoch or step, and the values of the training have one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.formats.reading import Label, Metric, Reading
from autotuner.study.logs.doubt import bounded

DERIVED: Final = frozenset({"ema", "swa", "running", "moving", "smooth", "smoothed", "batch"})
"""Variants that are printed in addition to the metric itself, which still counts."""
_WORD: Final = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Start:
    """The first readings of the training, and a warning about those left out or a doubt about those kept."""

    readings: tuple[Reading, ...]
    warning: str = ""
    doubt: str = ""
    doubtful: tuple[Reading, ...] = ()


def from_training(readings: list[Reading], metric: Metric, target: Target) -> Start:
    """Return the first readings without those from before the training."""
    kept = tuple(readings)
    at = next((i for i, r in enumerate(readings) if not r.position.is_empty), 0)
    early = readings[:at]
    if early and readings[at].variant not in DERIVED and all(_is_early(r, readings[at]) for r in early):
        if len(early) == 1:
            line = bounded(early[0].line)
            return Start(kept[1:], f"{line!r} comes before the first epoch or step and is not counted")
        met = [r for r in early if target.is_met(r.value)]
        if met and not all(is_echo(r, target) for r in met):
            doubt = f"{metric.name} appears several times before the first epoch or step"
            return Start((), doubt=doubt, doubtful=(met[0], readings[at]))
    elif early and target.is_met(early[0].value) and not target.is_met(readings[at].value):
        doubt = f"the first {metric.name} meets the target before any epoch or step, a later one does not"
        return Start((), doubt=doubt, doubtful=(early[0], readings[at]))
    if kept and target.is_met(kept[0].value) and all(r.position.is_empty for r in kept):
        other = next((r for r in kept if not target.is_met(r.value)), None)
        if other is not None:
            doubt = (
                f"the first {metric.name} meets the target, a later one does not: the first may be a setting"
            )
            return Start((), doubt=doubt, doubtful=(kept[0], other))
    return _without_echo(kept, metric, target)


def is_echo(reading: Reading, target: Target) -> bool:
    """Return whether a reading may be the target itself, printed before the training."""
    is_unlabelled = reading.label is Label.UNKNOWN and reading.position.is_empty
    return is_unlabelled and reading.value == target.threshold


def _is_early(reading: Reading, first: Reading) -> bool:
    """Return whether a value was printed before the training, whose first value is the other."""
    return reading.is_bare or reading.label is Label.UNKNOWN or _words(reading.line) != _words(first.line)


def _without_echo(readings: tuple[Reading, ...], metric: Metric, target: Target) -> Start:
    others = tuple(r for r in readings if not is_echo(r, target))
    if not readings or not is_echo(readings[0], target):
        return Start(readings)
    if others and not others[0].position.is_empty:
        line = bounded(readings[0].line)
        return Start(others, f"{line!r} repeats the target and is not a measurement")
    doubt = f"the first {metric.name} equals the target, and may be the target itself"
    return Start((), doubt=doubt, doubtful=readings[:2])


def _words(line: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(line)]
