"""Hold what is found out about runs that did not train what they were asked to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autotuner.trial import Trial

FEWEST_VALUES: Final = 3
"""Different values of a curve that are a curve."""
FEWEST_SINGLE: Final = 4
"""Settings that must agree where a run has but one or two values; the baseline, which learns, is one."""

Point = tuple[float, float]
Member = tuple[Trial, tuple[Point, ...]]


class Reason(StrEnum):
    """What a finding says of the runs that it names."""

    NOT_WIRED = "NotWired"
    """Settings have no effect: no answer of this study can be true."""
    SEED_NOT_USED = "SeedNotUsed"
    """Seeds have no effect: confirmations are one run, repeated."""
    RESUMED = "Resumed"
    """A run continues another's training: it does not count."""
    BATCH_NOT_FOLLOWED = "BatchNotFollowed"
    """What is reported does not follow the batch size."""
    LARGER_THAN_DATA = "LargerThanData"
    """A batch holds the whole data set: a run of it does not count."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A doubt about runs: the reason, the numbers of the trials, words for the user.

    `names` are the settings without effect. `continues` is the trial that a resumed run goes on with.
    """

    reason: Reason
    trials: tuple[int, ...]
    message: str
    names: tuple[str, ...] = ()
    continues: int | None = None


def points_of(trial: Trial) -> tuple[Point, ...]:
    """Return the finite measurements in order of step, the last word on each step."""
    values = {m.step: m.value for m in trial.measurements if math.isfinite(m.step) and m.is_finite}
    return tuple(sorted(values.items()))
