"""Bound the batch by the data set, as runs report it.

If a batch holds the whole data set, an epoch has one optimizer step, or none if incomplete batches are
dropped. Such a run may meet the target although its weights have barely changed, and more processes would not
make it faster. So it does not count, and no batch above half of its size is tried. If that is still larger
than the data set, the next run reports it, and the limit is halved again. Runs report it through
`autotuner.sdk.report`: `steps_per_epoch` (of the optimizer) and `samples_per_epoch` (of all processes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from autotuner.spec import TuningSpec
from autotuner.study.finding import Finding, Reason
from autotuner.trial import Trial

FEWEST_STEPS: Final = 2
"""Minimum number of optimizer steps of an epoch; a larger batch is not confirmed."""
_STEPS, _SAMPLES = "steps_per_epoch", "samples_per_epoch"
_SLACK: Final = 1.5
"""Ratio of the samples implied by the steps to the reported ones above which the report is of one process."""


def batches_larger_than_data(trials: Iterable[Trial], spec: TuningSpec) -> list[Finding]:
    """Return the trials whose batch holds the whole data set.

    The job's own batch size and smaller ones are never among them.
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
    """Return the largest batch size for the reported data set; None if no run has reported it.

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
