"""Find studies of which every run met the target at its first value, which is the same in all.

A script may evaluate its model before it trains it, such as a checkpoint that is to be fine-tuned. If that
value meets the target, every batch size does, whatever the training achieves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.finding import FEWEST_SINGLE, Finding, Reason, points_of
from autotuner.study.proof import ENOUGH_SINGLE, bits_of_value
from autotuner.study.setting import Setting, setting
from autotuner.trial import Purpose, Trial

_SHOWN: Final = 6


def met_at_once(trials: Sequence[Trial], target: Target) -> list[Finding]:
    """Return why no run counts, if the digits prove that the training had no part in it; else a warning.

    Nothing is found before `FEWEST_SINGLE` settings, the job's own among them, have been run.
    """
    firsts: dict[tuple[Setting, int], tuple[int, float]] = {}
    has_baseline, shown = False, list[float]()
    for trial in trials:
        if points := points_of(trial):
            # A retry repeats the run of its setting and seed.
            firsts.setdefault((setting(trial), trial.suggestion.seed), (trial.number, points[0][1]))
            shown += [value for _, value in points]
            has_baseline = has_baseline or trial.suggestion.purpose is Purpose.BASELINE
    values = {value for _, value in firsts.values()}
    settings = {tried for tried, _ in firsts}
    if not has_baseline or len(settings) < FEWEST_SINGLE or len(values) != 1:
        return []
    value = values.pop()
    if not target.is_met(value):
        return []
    numbers = tuple(sorted(number for number, _ in firsts.values()))
    is_proof = (len(firsts) - 1) * bits_of_value(value, shown) >= ENOUGH_SINGLE
    message = (
        f"trials {', '.join(map(str, numbers[:_SHOWN]))} met {target} at their first value, which is"
        f" {value:g} in all of them: it seems to be measured before the training; print {target.metric} only"
        " after it, or set a target that the model does not meet without training"
    )
    return [Finding(Reason.NOT_WIRED if is_proof else Reason.MET_AT_ONCE, numbers, message)]
