"""Findings about runs that did not train what they were asked to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autotuner.trial import Trial

FEWEST_VALUES: Final = 3
"""Number of different values from which on a run counts as a curve."""
FEWEST_SINGLE: Final = 4
"""Number of settings that must agree if a run has only one or two values; the baseline is one of them."""
FEWEST_BATCHES: Final = 3
"""Batch sizes that must agree if the digits alone do not decide."""
FAR: Final = 8.0
"""Ratio of batch sizes that are far apart."""
ENDS: Final = frozenset({0.0, 1.0, 100.0})
"""Values at an end of a scale."""

Point = tuple[float, float]
Member = tuple[Trial, tuple[Point, ...]]


class Reason(StrEnum):
    """The kind of a finding."""

    NOT_WIRED = "NotWired"
    """Settings have no effect, so no answer of this study can be true."""
    SEED_NOT_USED = "SeedNotUsed"
    """Seeds have no effect, so confirmations repeat one run."""
    RESUMED = "Resumed"
    """A run continues another's training, so it does not count."""
    EVALUATES_NOTHING = "EvaluatesNothing"
    """A run is perfect from its first value on: it seems to be evaluated on nothing, and does not count."""
    MET_AT_ONCE = "MetAtOnce"
    """Every run met the target at its first value, which may have been measured before the training."""
    LOSS_FALLS = "LossFalls"
    """The first losses of runs are smaller the larger the batch is, which may be a part of their formula."""
    NEVER_WORSE = "NeverWorse"
    """No run is worse than the one before it, so its value may be the best of all trials."""
    BATCH_NOT_FOLLOWED = "BatchNotFollowed"
    """Reported values do not follow the batch size."""
    IN_DOUBT = "InDoubt"
    """Runs are as they would be without their batch, or without a training, so they confirm nothing."""
    RATE_NOT_USED = "RateNotUsed"
    """A run with a smaller learning rate is the same, so the answer may name one that was not trained."""
    LARGER_THAN_DATA = "LargerThanData"
    """A batch holds the whole data set, so its run does not count."""
    ENDED_UNREPORTED = "EndedUnreported"
    """A run at a large batch ended before its first report, so no batch that large is tried."""
    SIZES_FAIL = "SizesFail"
    """The program fails at some batch sizes, whatever the hyperparameters, so they are not tried."""
    NO_MEMORY = "NoMemory"
    """A batch does not fit into memory, so none that large is tried."""
    SETTINGS_FAIL = "SettingsFail"
    """The program fails with hyperparameters that the search chooses, which costs trials."""
    OVERDUE = "Overdue"
    """A run takes many times as long as any other: it may hang."""
    RUN_LENGTH_TOO_SHORT = "RunLengthTooShort"
    """Every run would end at its first report, so nothing is started until `run-length` is right."""
    RUN_LENGTH_TOO_LONG = "RunLengthTooLong"
    """Runs end long before `run-length`, so hardly any is stopped early."""


NOT_COUNTED: Final = frozenset({Reason.RESUMED, Reason.EVALUATES_NOTHING})
"""Findings about a run of which no measurement counts."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about runs: the reason, the numbers of the trials, and a message for the user.

    `names` are the settings without effect. `continues` is the trial that a resumed run continues. A doubt
    is about all batches of at least `batch_size`.
    """

    reason: Reason
    trials: tuple[int, ...]
    message: str
    names: tuple[str, ...] = ()
    continues: int | None = None
    batch_size: int = 0


def points_of(trial: Trial) -> tuple[Point, ...]:
    """Return the finite measurements in order of step, the last value of each step."""
    values = {m.step: m.value for m in trial.measurements if math.isfinite(m.step) and m.is_finite}
    return tuple(sorted(values.items()))
