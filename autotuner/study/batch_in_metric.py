"""Find a loss that falls in proportion to the batch size, because it is computed with it.

A script that adds up the mean losses of its batches and divides them by the number of samples, instead of the
number of batches, prints a loss that halves with each doubling of the batch. Every batch size meets a target
such as `val_loss <= 0.01` then, however badly it trains. A check of the batch shows it: with half the batch
and nothing else changed, no training has twice the loss at its first evaluation. Only targets with `<=` are
judged: an accuracy near chance may grow with the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.batch_check import batch_checks
from autotuner.study.finding import Finding, Reason, points_of
from autotuner.trial import Trial

_FEWEST_TIMES: Final = 1.8
"""Minimum ratio of the two batch sizes: a smaller one changes the loss by no more than training does."""
_SLACK: Final = 0.2
"""Maximum distance of the exponent of the batch size from 1: training changes the values as well."""


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
