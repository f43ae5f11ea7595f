"""Bound the batch by the data set, as runs report it.

A batch that holds the whole data set takes one optimizer step an epoch, or none where the incomplete batch
is dropped. Such a run may meet the target by an evaluation of weights that were hardly trained, and more
processes could not share it: it does not count, and no batch larger than half of it is tried. That is half of
the data set at most where incomplete batches are dropped; where the batch was larger than the data set, the
next run says so, and the limit is halved again. Runs say it through `autotuner.sdk.report`: `steps_per_epoch`
(of the optimizer) and `samples_per_epoch` (of all processes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from autotuner.spec import TuningSpec
from autotuner.study.finding import Finding, Reason
from autotuner.trial import Trial

FEWEST_STEPS: Final = 2
"""Optimizer steps of an epoch below which a batch is not confirmed."""
_STEPS, _SAMPLES = "steps_per_epoch", "samples_per_epoch"
_SLACK: Final = 1.5
"""Samples of an epoch by its steps, over those reported, beyond which the report is of one process alone."""


def batches_larger_than_data(trials: Iterable[Trial], spec: TuningSpec) -> list[Finding]:
    """Return the trials whose batch holds the whole data set.

    The job's own batch size, and smaller ones, are its owner's affair.
    """
    found: list[Finding] = []
    for trial in sorted(trials, key=lambda t: t.number):
        steps, size = trial.extras.get(_STEPS), trial.suggestion.batch_size
        if steps is None or steps >= FEWEST_STEPS or steps < 0 or size <= spec.baseline_batch_size:
            continue
        message = (
            f"an epoch has {steps:g} optimizer steps at batch size {size} (trial {trial.number}): the batch"
            " holds the whole data set, so this trial does not count, and no batch above half of it is tried"
        )
        found.append(Finding(Reason.LARGER_THAN_DATA, (trial.number,), message, ("batch_size",)))
    return found


def largest_batch(trials: Sequence[Trial], spec: TuningSpec) -> int | None:
    """Return the largest batch that the data set fills, as far as runs have told; None where none has.

    A report of samples that contradicts the steps of the same run counts samples of one process.
    """
    whole = {finding.trials[0] for finding in batches_larger_than_data(trials, spec)}
    limits = [trial.suggestion.batch_size // 2 for trial in trials if trial.number in whole]
    for trial in trials:
        samples, steps = trial.extras.get(_SAMPLES, 0.0), trial.extras.get(_STEPS, 0.0)
        if (
            samples >= 1
            and steps * trial.suggestion.batch_size <= _SLACK * samples + trial.suggestion.batch_size
        ):
            limits.append(int(samples))
    return min(limits, default=None)
