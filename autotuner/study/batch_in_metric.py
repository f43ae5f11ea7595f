"""Find a loss that falls in proportion to the batch size, because it is computed with it.

A script that adds up the mean losses of its batches and divides them by the number of samples, instead of the
number of batches, prints a loss that halves with each doubling of the batch. Every batch size meets a target
such as `val_loss <= 0.01` then, however badly it trains. No training does that: over a factor of `WIDE` in
batch size, first losses change by much less, and where a run has a number of epochs, a larger batch has had
fewer updates by then. Only targets with `<=` are judged: an accuracy near chance may grow with the samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from autotuner.spec.values import Target
from autotuner.study.finding import Finding, Reason, points_of
from autotuner.trial import Purpose, Trial

FEWEST: Final = 4
"""Minimum number of batch sizes that are compared, the job's own among them."""
WIDE: Final = 8.0
"""Minimum ratio of the largest to the smallest."""
_SLOPE: Final = 0.25
"""Maximum distance of the exponent of the batch size from 1: learning changes the values as well."""
_EXPLAINED: Final = 0.95
"""Minimum part of the variance that the batch size explains."""


def in_proportion_to_batch(trials: Iterable[Trial], target: Target) -> list[Finding]:
    """Return at most one finding: the first values of the runs fall in proportion to the batch size."""
    if target.sign > 0:
        return []
    firsts: dict[int, tuple[int, float]] = {}
    has_baseline = False
    for trial in sorted(trials, key=lambda t: t.number):
        points = points_of(trial)
        if points and trial.suggestion.purpose is not Purpose.CHECK:
            firsts.setdefault(trial.suggestion.batch_size, (trial.number, points[0][1]))
            has_baseline = has_baseline or trial.suggestion.purpose is Purpose.BASELINE
    sizes = sorted(firsts)
    if not has_baseline or len(sizes) < FEWEST or sizes[-1] < WIDE * sizes[0]:
        return []
    if any(value <= 0 for _, value in firsts.values()):
        return []
    x = np.log2(sizes)
    y = -np.log2([firsts[size][1] for size in sizes])
    slope = float(np.polyfit(x, y, 1)[0])
    explained = float(np.corrcoef(x, y)[0, 1]) ** 2 if np.ptp(y) > 0 else 0.0
    if abs(slope - 1) > _SLOPE or explained < _EXPLAINED:
        return []
    values = ", ".join(
        f"{firsts[size][1]:.3g} at {size}" for size in (sizes[0], sizes[len(sizes) // 2], sizes[-1])
    )
    message = (
        f"the first {target.metric} of a run falls in proportion to the batch size ({values}): it seems to be"
        " a sum of the batches' means that is divided by the number of samples; divide it by the number of"
        " batches"
    )
    numbers = tuple(sorted(firsts[size][0] for size in sizes))
    return [Finding(Reason.NOT_WIRED, numbers, message, ("batch_size",))]
