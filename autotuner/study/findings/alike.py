"""Find runs whose trainings begin alike although their settings differ.

Trainings on GPUs are seldom deterministic. So the digits differ even if a script ignores its variables, or
trains a smaller batch than it is given; the first losses are close all the same
(`autotuner.study.logs.losses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from autotuner.study.finding import FAR, FEWEST_BATCHES, Finding, Reason, points_of
from autotuner.study.findings.batch_check import FEWEST_NEAR, BatchCheck, batch_checks, noise_of_seeds
from autotuner.study.findings.reported_batch import shows_batch
from autotuner.study.logs.losses import are_close, are_comparable
from autotuner.study.setting import Setting, setting
from autotuner.trial import Trial

NEAR: Final = 0.05
"""Maximum difference of the values of the metric, in extents of the curve."""
_SHOWN: Final = 4


def beginnings_alike(trials: Sequence[Trial]) -> list[Finding]:
    """Return that settings or seeds have no effect, or a doubt whether the batch of a check has one."""
    of_batch = _not_wired(trials) or _batch_not_followed(trials) or _batch_within_noise(trials)
    return [*of_batch, *_seed_not_used(trials)]


def _not_wired(trials: Sequence[Trial]) -> list[Finding]:
    """Return that all runs begin alike, at batch sizes that are far apart.

    A script that accumulates gradients by itself and prints the loss of each micro-batch begins alike, too,
    and so does one with a first stage of its own; but their metrics follow the batch. Nothing is found in a
    study whose trials accumulate: the losses may be those of micro-batches, of which the first ones hardly
    depend on the batch.
    """
    if any((t.suggestion.accumulation_steps or 1) > 1 for t in trials):
        return []
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


def _seed_not_used(trials: Sequence[Trial]) -> list[Finding]:
    """Return at most one warning: two runs of a setting begin alike with different seeds.

    `autotuner.study.findings.proof` reports runs that are the same to the last digit.
    """
    firsts: dict[Setting, Trial] = {}
    for trial in trials:
        one = firsts.setdefault(setting(trial), trial)
        if one.suggestion.seed == trial.suggestion.seed or not are_close(one.losses, trial.losses):
            continue
        if points_of(one)[:1] == points_of(trial)[:1]:
            continue
        message = (
            f"trials {one.number} and {trial.number} begin alike with different seeds ({_losses(one)};"
            f" {_losses(trial)}): the script does not use AUTOTUNER_SEED, so its confirmations prove no more"
            " than one run does"
        )
        return [Finding(Reason.SEED_NOT_USED, (one.number, trial.number), message, ("seed",))]
    return []


def _begin_alike(one: Trial, other: Trial) -> bool:
    curve = dict(points_of(one))
    near = NEAR * (max(curve.values()) - min(curve.values()))
    common = [(curve[step], value) for step, value in points_of(other) if step in curve]
    is_near = bool(common) and all(abs(before - after) <= near for before, after in common)
    return is_near and are_close(one.losses, other.losses)


def _batch_not_followed(trials: Sequence[Trial]) -> list[Finding]:
    """Return at most one doubt whether the checks trained another batch than their originals; else a warning.

    Losses and values together are a doubt. The losses alone are a warning: a script that accumulates
    gradients by itself may print those of its micro-batches, but its metric follows the batch. The values
    alone are a warning, too, because the batch may have little effect. They are a doubt once a control has
    shown that the training is not deterministic.
    """
    known = batch_checks(trials)
    checks = [check for check in known if check.differs and check.is_of_batch]
    alike = [check for check in checks if check.seems_same and not shows_batch(check.original, trials)]
    controls = _differing_controls(known)
    for check in alike:
        control = controls.get(check.original.number)
        if check.has_close_losses or control is not None:
            return [_doubt(check, Reason.IN_DOUBT, None if control is None else control.trial)]
    warned = [check for check in checks if check.has_close_losses or check in alike]
    return [_doubt(check, Reason.BATCH_NOT_FOLLOWED) for check in warned[:1]]


def _differing_controls(checks: Sequence[BatchCheck]) -> dict[int, BatchCheck]:
    """Return the controls whose digits differ, by the number of the run that they repeat."""
    return {check.original.number: check for check in checks if check.differs and check.is_control}


def _batch_within_noise(trials: Sequence[Trial]) -> list[Finding]:
    """Return at most one warning: half the batch changes the first value by no more than chance does."""
    known = batch_checks(trials)
    controls = _differing_controls(known)
    noise = noise_of_seeds(trials) if controls else {}
    for check in known:
        one, other, repeated = check.original, check.trial, controls.get(check.original.number)
        if repeated is None or not check.is_within(noise) or check.exceeds(repeated):
            continue
        if shows_batch(one, trials):
            continue
        control = repeated.trial
        length = min(FEWEST_NEAR, *(len(points_of(trial)) for trial in (one, other, control)))
        begins = [_values(trial, length) for trial in (one, other, control)]
        message = (
            f"nothing shows that the script trains a batch of {one.suggestion.batch_size}: trial {one.number}"
            f" begins with {begins[0]}, trial {other.number} with half the batch with {begins[1]}, and trial"
            f" {control.number}, which repeats trial {one.number} unchanged, with {begins[2]}: the difference"
            " may be chance; use AUTOTUNER_SEED, or report the batch size, as with"
            " sdk.report(epoch, ..., batch_size=...)"
        )
        numbers = (*check.numbers, control.number)
        return [Finding(Reason.BATCH_NOT_FOLLOWED, numbers, message, ("batch_size",))]
    return []


def _doubt(check: BatchCheck, reason: Reason, control: Trial | None = None) -> Finding:
    one, other = check.original, check.trial
    what, of = ("losses", _losses) if check.has_close_losses else ("values", _values)
    causes = "a maximum, a rounding, a retry when memory runs out, or a data set smaller than the batch"
    if (one.suggestion.accumulation_steps or 1) > 1:
        causes = f"accumulation steps that are not used, {causes}"
    unless = ", unless it accumulates gradients" if check.has_close_losses else ""
    if not check.has_close_losses and control is None:
        unless = ", unless the batch has little effect"
    message = (
        f"the first {what} of trial {other.number} at batch size {other.suggestion.batch_size} are nearly"
        f" those of trial {one.number} at {one.suggestion.batch_size} ({of(other)}; {of(one)}), with the same"
        f" seed and hyperparameters: the script may train a smaller batch than it is given{unless}; look for"
        f" {causes}"
    )
    numbers: tuple[int, ...] = check.numbers
    if control is not None and not check.has_close_losses:
        numbers = (*numbers, control.number)
        message += (
            f"; trial {control.number} repeats trial {one.number} unchanged and measured {_values(control)},"
            " so the training is not deterministic, and these differences may be chance"
        )
    if reason is Reason.IN_DOUBT:
        message += "; a script that trains its batch can show it: sdk.report(epoch, ..., batch_size=...)"
    size = one.suggestion.batch_size
    return Finding(reason, numbers, message, ("batch_size",), batch_size=size)


def _values(trial: Trial, count: int = FEWEST_NEAR) -> str:
    return ", ".join(f"{value:g}" for _, value in points_of(trial)[:count])


def _losses(trial: Trial) -> str:
    return ", ".join(f"{loss:g}" for loss in trial.losses[:_SHOWN])
