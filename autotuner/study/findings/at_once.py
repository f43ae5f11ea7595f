"""Find studies of which every run met the target at its first value, or every run but the job's own.

A script may evaluate its model before it trains it, such as a checkpoint that is to be fine-tuned. If that
value meets the target, every batch size does, whatever the training achieves. It is the same in all runs, or,
if each run is evaluated on samples of its own, it differs a little. If only the job's own run had to learn,
the others may go on with what it has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.finding import FAR, FEWEST_SINGLE, FEWEST_VALUES, Finding, Reason, points_of
from autotuner.study.findings.proof import ENOUGH_SINGLE, bits_of_value
from autotuner.study.history import EPOCH
from autotuner.study.setting import Setting, setting
from autotuner.trial import Purpose, Trial

_SHOWN: Final = 6
_FEWEST_RUNS: Final = 7
"""Minimum number of runs of which none is worse than the one before it: with fewer, that may be chance."""
_OTHERS: Final = (
    "a checkpoint or a file that another trial has left; give each trial a folder of its own, such as"
    " $(AUTOTUNER_OUTPUT_DIR)"
)


def met_at_once(trials: Sequence[Trial], target: Target) -> list[Finding]:
    """Return why no run counts, if the digits prove that the training had no part in it; else a warning.

    Nothing is found before `FEWEST_SINGLE` runs, the job's own and one of another setting among them; nor, by
    the digits alone, before as many settings have been run.
    """
    firsts: dict[tuple[Setting, int], tuple[int, float]] = {}
    has_baseline, has_curve, shown = False, False, list[float]()
    for trial in trials:
        if points := points_of(trial):
            # A retry repeats the run of its setting and seed.
            firsts.setdefault((setting(trial), trial.suggestion.seed), (trial.number, points[0][1]))
            shown += [value for _, value in points]
            is_baseline = trial.suggestion.purpose is Purpose.BASELINE
            has_baseline = has_baseline or is_baseline
            has_curve = has_curve or (is_baseline and len(points) >= FEWEST_VALUES)
    values = {value for _, value in firsts.values()}
    settings = {tried for tried, _ in firsts}
    if not has_baseline or len(settings) == 1 or not all(map(target.is_met, values)):
        return []
    is_same = len(values) == 1 and len(settings) >= FEWEST_SINGLE
    # A run that prints its metric only at its end has no value of an untrained model.
    if not is_same and (not has_curve or len(firsts) < FEWEST_SINGLE):
        return []
    numbers = tuple(sorted(number for number, _ in firsts.values()))
    met = f"trials {', '.join(map(str, numbers[:_SHOWN]))} met {target} at their first value"
    advice = (
        f"print {target.metric} only after it, or set a target that the model does not meet without training"
    )
    if not is_same:
        message = f"{met}: it may be measured before the training; then {advice}"
        return [Finding(Reason.MET_AT_ONCE, numbers, message)]
    value = values.pop()
    is_proof = (len(firsts) - 1) * bits_of_value(value, shown) >= ENOUGH_SINGLE
    message = f"{met}, which is {value:g} in all of them: it seems to be measured before the training"
    message += f"; {advice}" if has_curve else f", or of {_OTHERS}"
    return [Finding(Reason.NOT_WIRED if is_proof else Reason.MET_AT_ONCE, numbers, message)]


def met_at_once_but_first(trials: Sequence[Trial], target: Target) -> list[Finding]:
    """Return a warning if every run met the target at its first epoch, except the job's own.

    They may start from weights that another run has left. A larger batch is no reason to learn faster, and
    where only another learning rate is the reason, it is one at every batch size and rate that was tried.
    """
    runs = [trial for trial in trials if points_of(trial)]
    own = next((trial for trial in runs if trial.suggestion.purpose is Purpose.BASELINE), None)
    if own is None or len(points_of(own)) < FEWEST_VALUES:
        return []
    others = [trial for trial in runs if setting(trial) != setting(own)]
    size, first = own.suggestion.batch_size, points_of(own)[0]
    is_of_epochs = all(trial.unit == EPOCH and points_of(trial)[0][0] == first[0] for trial in (own, *others))
    has_large = any(trial.suggestion.batch_size >= FAR * size for trial in others)
    is_met = not target.is_met(first[1]) and all(target.is_met(points_of(trial)[0][1]) for trial in others)
    if len(others) < FEWEST_SINGLE or not (is_of_epochs and has_large and is_met):
        return []
    numbers = tuple(sorted(trial.number for trial in others))
    message = (
        f"trials {', '.join(map(str, numbers[:_SHOWN]))} met {target} at their first value, and the job's own"
        f" run, trial {own.number}, began with {first[1]:g}: they may go on with the weights of {_OTHERS}"
    )
    return [Finding(Reason.MET_AT_ONCE, numbers, message)]


def never_worse(trials: Sequence[Trial], target: Target) -> list[Finding]:
    """Return a warning if each run measured one value, none worse than the one before it and many the same.

    Such a value may be of the best checkpoint of all trials, in a folder that they share: whatever a run
    trains, it is at least as good as those before. Runs that were stopped early show only a first value.
    """
    ended = [t for t in trials if not t.is_running and t.suggestion.purpose is not Purpose.CHECK]
    ended.sort(key=lambda t: (0.0 if t.ended_at is None else t.ended_at.timestamp(), t.number))
    curves = [(t, {value for _, value in points}) for t in ended if (points := points_of(t))]
    if len(curves) < _FEWEST_RUNS or any(len(values) > 1 for _, values in curves):
        return []
    shown = [target.sign * value for _, (value,) in curves]
    steps = [after - before for before, after in pairwise(shown)]
    ties = sum(step == 0 for step in steps)
    if min(steps) < 0 or not len(steps) // 2 < ties < len(steps):
        return []
    message = (
        f"no {target.metric} of {len(shown)} trials is worse than that of the trial before it, and {ties} are"
        f" the same: it seems to be the best of all trials so far, of {_OTHERS}"
    )
    return [Finding(Reason.NEVER_WORSE, tuple(sorted(t.number for t, _ in curves)), message)]
