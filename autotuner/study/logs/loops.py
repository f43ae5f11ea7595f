"""Read from logs how long the loops of a training are: `[100/391]`, `391/391`.

A script that trains a smaller batch than it is given measures the same to the last digit as with that one.
But trainings on GPUs are seldom deterministic, and then no digits show it. Its loops over the data do: with
eight times the batch they have an eighth of the iterations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

from autotuner.study.finding import Finding, Reason
from autotuner.trial import Trial

_PAIR: Final = re.compile(r"(?<![\w./-])(\d{1,7})\s{0,2}/\s{0,2}(\d{1,7})(?![\w/-]|[.:]\d)")
_MAX_LINE: Final = 2000
_MAX_LENGTHS: Final = 64
"""Maximum number of lengths that are followed in a log."""
_KEPT: Final = 8
"""Maximum number of lengths that are kept of a trial."""
_APART: Final = 1.5
"""Minimum ratio of two batch sizes that are compared."""
_FEWEST: Final = 4
"""Minimum length that shows a batch: the last incomplete batch may be dropped, and processes round."""
_CLEAR: Final = 8
"""Minimum length that shows that the batch is trained that was asked for."""
_MOST_EPOCHS: Final = 1000
_ALIKE: Final = 1.1
"""Ratio up to which batch sizes that several loops imply are the same."""


class LoopLengths:
    """Collects the lengths of the loops whose progress a log shows, line by line."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def note(self, text: str) -> None:
        """Process a line."""
        if "/" not in text:
            return
        for match in _PAIR.finditer(text[:_MAX_LINE]):
            at, length = int(match[1]), int(match[2])
            last, count = self._seen.get(length, (-1, 0))
            if at <= length and at != last and (count or len(self._seen) < _MAX_LENGTHS):
                self._seen[length] = at, count + 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of those that have advanced, of the most advanced ones."""
        moved = sorted((-count, length) for length, (_, count) in self._seen.items() if count > 1)
        return tuple(sorted(length for _, length in moved[:_KEPT]))


def follows_batch(trials: Iterable[Trial], trial: Trial) -> bool:
    """Return whether the lengths of a run's loops show that it trained the batch that it was asked for."""
    others = (other for other in trials if _are_apart(other, trial))
    return any(length >= _CLEAR for other in others for length in _in_proportion(other, trial))


def loop_doubts(trials: Iterable[Trial]) -> list[Finding]:
    """Return a warning if the loops of a run have changed, and not as its batch size has.

    Lengths that have not changed say nothing: epochs, validations, optimizer steps of a fixed number.
    """
    known = [trial for trial in trials if trial.loops and not trial.is_running]
    for trial in known[1:]:
        first = known[0]
        if not _are_apart(first, trial):
            continue
        gone, new = _changed(first, trial)
        # A script that changes its batch during a run has a length of each, and two runs may share some.
        ratio = _of_loop(first) / _of_loop(trial)
        if any(_may_be_proportional(n, m, ratio) for m in new for n in first.loops):
            continue
        if not gone or len(gone) != len(new) or min(*gone, *new) < _FEWEST:
            continue
        implied = [_of_loop(first) * before / after for before, after in zip(gone, new, strict=True)]
        if max(implied) > _ALIKE * min(implied):
            continue
        message = (
            f"a loop of trial {trial.number} at batch size {trial.suggestion.batch_size} has {new[-1]}"
            f" iterations, and {gone[-1]} in trial {first.number} at {first.suggestion.batch_size}: as with a"
            f" batch size of {implied[-1] * _steps(trial):.0f}; the script may train that one, unless it"
            " accumulates gradients"
        )
        numbers = (first.number, trial.number)
        return [Finding(Reason.BATCH_NOT_FOLLOWED, numbers, message, ("batch_size",))]
    return []


def _steps(trial: Trial) -> int:
    return trial.suggestion.accumulation_steps or 1


def _of_loop(trial: Trial) -> float:
    """Return the samples of one iteration, in all processes."""
    return trial.suggestion.batch_size / _steps(trial)


def _are_apart(one: Trial, other: Trial) -> bool:
    ratio = _of_loop(one) / _of_loop(other)
    return bool(one.loops and other.loops) and not 1 / _APART < ratio < _APART


def _changed(one: Trial, other: Trial) -> tuple[list[int], list[int]]:
    """Return the lengths that only one of two runs has, without those that are hyperparameters."""
    before, after = (set(t.loops).difference(t.suggestion.parameters.values()) for t in (one, other))
    return sorted(before - after), sorted(after - before)


def _in_proportion(one: Trial, other: Trial) -> list[int]:
    """Return the lengths of the other run that are those of one in proportion to the batch sizes."""
    before, after = _changed(one, other)
    return _proportional(before, after, _of_loop(one) / _of_loop(other))


def _proportional(before: Sequence[int], after: Sequence[int], ratio: float) -> list[int]:
    return [m for m in after if any(_is_proportional(n, m, ratio) for n in before)]


def _is_proportional(before: int, after: int, ratio: float) -> bool:
    return abs(after - before * ratio) <= 1 + 0.01 * after


def _may_be_proportional(before: int, after: int, ratio: float) -> bool:
    """Return whether two lengths are in proportion, or may be of several epochs, each of which is rounded."""
    common = math.gcd(before, after)
    most = min(common, min(before, after) // _FEWEST, _MOST_EPOCHS)
    epochs = next((n for n in range(most, 1, -1) if common % n == 0), 1)
    return _is_proportional(before // epochs, after // epochs, ratio)
