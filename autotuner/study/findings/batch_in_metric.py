"""Find a loss that falls as the batch size grows, because it is computed with it.

A script that adds up the mean losses of its batches and divides them by the number of samples, instead of the
number of batches, prints a loss that halves with each doubling of the batch. Every batch size meets a target
such as `val_loss <= 0.01` then, however badly it trains. A check of the batch shows it: with half the batch
and nothing else changed, no training has twice the loss at its first evaluation. Only targets with `<=` are
judged: an accuracy near chance may grow with the samples.

The true loss of the first epoch is smaller for a smaller batch, which has had more updates, so the printed
one may grow by less. That is a warning only, and only where the log counts epochs: with a fixed number of
steps between evaluations, a larger batch has seen more samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np

from autotuner.spec.values import Target
from autotuner.study.finding import Finding, Reason, points_of
from autotuner.study.findings.batch_check import batch_checks
from autotuner.study.history import EPOCH
from autotuner.trial import Purpose, Trial

_FEWEST_TIMES: Final = 1.8
"""Minimum ratio of the two batch sizes: a smaller one changes the loss by no more than training does."""
_SLACK: Final = 0.2
"""Maximum distance of the exponent of the batch size from 1: training changes the values as well."""
_FEWEST: Final = 4
"""Minimum number of batch sizes of which first losses are compared, the job's own among them."""
_WIDE: Final = 16.0
"""Minimum ratio of the largest to the smallest of them."""
_FALLS: Final = 0.3
"""Minimum exponent of the batch size."""
_EXPLAINED: Final = 0.8
"""Minimum part of the variance that the batch size explains."""


def in_proportion_to_batch(trials: Iterable[Trial], target: Target) -> list[Finding]:
    """Return at most one finding: the first value of a check is larger by as much as its batch is smaller."""
    if target.sign > 0:
        return []
    for check in batch_checks(trials):
        one, other = check.original, check.trial
        times = one.suggestion.batch_size / other.suggestion.batch_size
        known, points = dict(points_of(one)), points_of(other)
        if times < _FEWEST_TIMES or not points or points[0][0] not in known:
            continue
        before, after = known[points[0][0]], points[0][1]
        if min(before, after) > 0 and abs(math.log(after / before, times) - 1) <= _SLACK:
            message = (
                f"the first {target.metric} is {after:.3g} at batch size {other.suggestion.batch_size} (trial"
                f" {other.number}) and {before:.3g} at {one.suggestion.batch_size} (trial {one.number}), with"
                " nothing else changed: it falls in proportion to the batch size, as a sum of the batches'"
                " means that is divided by the number of samples; divide it by the number of batches"
            )
            return [Finding(Reason.NOT_WIRED, check.numbers, message, ("batch_size",))]
    return []


def first_loss_falls(trials: Iterable[Trial], target: Target) -> list[Finding]:
    """Return at most one warning: the first loss of an epoch is smaller the larger the batch is."""
    firsts: dict[int, tuple[int, float]] = {}
    has_baseline = False
    for trial in sorted(trials, key=lambda t: t.number):
        points = points_of(trial)
        if not points or trial.suggestion.purpose is Purpose.CHECK:
            continue
        if target.sign > 0 or trial.unit != EPOCH or points[0][1] <= 0:
            return []
        firsts.setdefault(trial.suggestion.batch_size, (trial.number, points[0][1]))
        has_baseline = has_baseline or trial.suggestion.purpose is Purpose.BASELINE
    sizes = sorted(firsts)
    if not has_baseline or len(sizes) < _FEWEST or sizes[-1] < _WIDE * sizes[0]:
        return []
    x, y = np.log2(sizes), -np.log2([firsts[size][1] for size in sizes])
    if np.ptp(y) == 0 or np.polyfit(x, y, 1)[0] < _FALLS or np.corrcoef(x, y)[0, 1] ** 2 < _EXPLAINED:
        return []
    shown = ", ".join(f"{firsts[n][1]:.3g} at {n}" for n in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    message = (
        f"the first {target.metric} of a run is smaller the larger its batch is ({shown}), which has had"
        " fewer updates by then: it may be a sum of the batches' means that is divided by the number of"
        " samples; divide it by the number of batches"
    )
    numbers = tuple(sorted(number for number, _ in firsts.values()))
    return [Finding(Reason.LOSS_FALLS, numbers, message)]
