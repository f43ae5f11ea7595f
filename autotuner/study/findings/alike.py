"""Find runs whose trainings begin alike although their settings differ.

Trainings on GPUs are seldom deterministic. So the digits differ even if a script ignores its variables, or
trains a smaller batch than it is given; the first losses are close all the same
(`autotuner.study.logs.losses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from autotuner.study.finding import FAR, FEWEST_BATCHES, Finding, Reason, points_of
from autotuner.study.findings.batch_check import batch_checks
from autotuner.study.logs.losses import are_close, are_comparable
from autotuner.trial import Trial

NEAR: Final = 0.05
"""Maximum difference of the values of the metric, in extents of the curve."""
_SHOWN: Final = 4


def beginnings_alike(trials: Sequence[Trial]) -> list[Finding]:
    """Return that settings have no effect, or a warning that a check trained the batch of its original.

    Nothing is found in a study whose trials accumulate gradients: the losses may be those of micro-batches,
    of which the first ones hardly depend on the batch.
    """
    if any((t.suggestion.accumulation_steps or 1) > 1 for t in trials):
        return []
    return _not_wired(trials) or _batch_not_followed(trials)


def _not_wired(trials: Sequence[Trial]) -> list[Finding]:
    """Return that all runs begin alike, at batch sizes that are far apart.

    A script that accumulates gradients by itself and prints the loss of each micro-batch begins alike, too,
    and so does one with a first stage of its own; but their metrics follow the batch.
    """
    known = [t for t in trials if are_comparable(t.losses, t.losses) and points_of(t)]
    alike = [t for t in known if _begin_alike(known[0], t)]
    batches = {t.suggestion.batch_size for t in alike}
    if len(alike) < len(known) or len(batches) < FEWEST_BATCHES or max(batches) < FAR * min(batches):
        return []
    numbers = tuple(t.number for t in alike)
    message = (
        f"trials {', '.join(map(str, numbers[:6]))} begin alike ({_losses(alike[0])}; {_losses(alike[-1])})"
        f" at batch sizes from {min(batches)} to {max(batches)}: the script does not use what it is given;"
        " pass on the variables, such as --batch-size=$(AUTOTUNER_BATCH_SIZE)"
    )
    return [Finding(Reason.NOT_WIRED, numbers, message, ("batch_size",))]


def _begin_alike(one: Trial, other: Trial) -> bool:
    curve = dict(points_of(one))
    near = NEAR * (max(curve.values()) - min(curve.values()))
    common = [(curve[step], value) for step, value in points_of(other) if step in curve]
    is_near = bool(common) and all(abs(before - after) <= near for before, after in common)
    return is_near and are_close(one.losses, other.losses)


def _batch_not_followed(trials: Sequence[Trial]) -> list[Finding]:
    for check in batch_checks(trials):
        one, other = check.original, check.trial
        if not check.is_of_rate and check.differs and are_close(one.losses, other.losses):
            message = (
                f"the first losses of trial {other.number} at batch size {other.suggestion.batch_size} are"
                f" nearly those of trial {one.number} at {one.suggestion.batch_size} ({_losses(other)};"
                f" {_losses(one)}), with the same seed and hyperparameters: the script may train a smaller"
                " batch than it is given, unless it accumulates gradients; look for a maximum, a rounding, or"
                " a data set smaller than the batch"
            )
            return [Finding(Reason.BATCH_NOT_FOLLOWED, check.numbers, message, ("batch_size",))]
    return []


def _losses(trial: Trial) -> str:
    return ", ".join(f"{loss:g}" for loss in trial.losses[:_SHOWN])
