"""Find studies of which every run met the target at its first value.

A script may evaluate its model before it trains it, such as a checkpoint that is to be fine-tuned. If that
value meets the target, every batch size does, whatever the training achieves. It is the same in all runs, or,
if each run is evaluated on samples of its own, it differs a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.finding import FEWEST_SINGLE, FEWEST_VALUES, Finding, Reason, points_of
from autotuner.study.proof import ENOUGH_SINGLE, bits_of_value
from autotuner.study.setting import Setting, setting
from autotuner.trial import Purpose, Trial

_SHOWN: Final = 6


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
    message = (
        f"{met}, which is {value:g} in all of them: it seems to be measured before the training; {advice}"
    )
    return [Finding(Reason.NOT_WIRED if is_proof else Reason.MET_AT_ONCE, numbers, message)]
