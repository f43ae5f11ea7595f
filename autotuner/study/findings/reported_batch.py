"""Check that what a script reports of its batch, steps and throughput follows the batch that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from autotuner.study.finding import Finding, Reason
from autotuner.study.logs.loops import follows_batch
from autotuner.trial import Trial

_REPORTED: Final = "batch_size"
_STEPS: Final = "steps_per_epoch"
_SAMPLES, _RATE = "samples_per_second", "steps_per_second"


def shows_batch(trial: Trial, trials: Iterable[Trial]) -> bool:
    """Return whether a run of a study reports the batch size that it trains, or what shows it.

    Its throughput or the lengths of the loops in its log do.
    """
    is_reported = _REPORTED in trial.extras or {_SAMPLES, _RATE} <= trial.extras.keys()
    return is_reported or follows_batch(trials, trial)


def batch_doubts(trials: Sequence[Trial]) -> list[Finding]:
    """Return runs whose reported batch, steps or throughput do not follow the batch size.

    Read from `extras`: `batch_size` must be the requested one, or the script ignores its variables;
    `steps_per_epoch` must decrease as the batch grows; `samples_per_second` / `steps_per_second` is the batch
    that is trained.
    """
    found = [finding for trial in trials if (finding := _reported_doubt(trial)) is not None]
    counted = [trial for trial in trials if trial.extras.get(_STEPS, 0.0) > 0]
    for trial in counted:
        first = counted[0]
        ratio = trial.suggestion.batch_size / first.suggestion.batch_size
        steps, before = trial.extras[_STEPS], first.extras[_STEPS]
        if not 0.5 < ratio < 2 and abs(steps - before) <= 0.01 * before and before > 2:  # noqa: PLR2004
            message = (
                f"an epoch has {steps:g} steps in trial {trial.number} at batch size"
                f" {trial.suggestion.batch_size}, and {before:g} in trial {first.number} at"
                f" {first.suggestion.batch_size}: the batch that is trained does not change"
            )
            found.append(
                Finding(Reason.BATCH_NOT_FOLLOWED, (first.number, trial.number), message, ("batch_size",))
            )
            break
    return found


def _reported_doubt(trial: Trial) -> Finding | None:
    asked = trial.suggestion.batch_size
    extras: Mapping[str, float] = trial.extras
    reason, trained = Reason.NOT_WIRED, extras.get(_REPORTED)
    if trained is None and extras.get(_RATE, 0.0) > 0 and _SAMPLES in extras:
        # Rates may be those of one process only.
        reason, trained = Reason.BATCH_NOT_FOLLOWED, extras[_SAMPLES] / extras[_RATE]
    if trained is None or abs(trained - asked) <= 0.2 * asked:
        return None
    message = (
        f"trial {trial.number} was asked for batch size {asked}, and reports {trained:g}: pass on"
        " AUTOTUNER_BATCH_SIZE, which counts all processes and accumulation steps together"
    )
    return Finding(reason, (trial.number,), message, ("batch_size",))
