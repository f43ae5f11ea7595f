"""Judge by the known-good setting's own runs whether the target can be confirmed at all, and which one can.

A target that the unchanged job meets in two runs of four is met by chance: no larger batch can be confirmed
against it. One run that meets the target says nothing against it, so there are more only after a miss.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Final

from autotuner.spec import Target
from autotuner.study.history import History, curve
from autotuner.study.setting import Setting, setting
from autotuner.trial import Trial

RUNS: Final = 4
"""Runs of the unchanged job at most."""
ENOUGH_MET: Final = 0.75
"""Part of its runs that must meet the target. A setting that meets it so often is confirmed by three of at
most four fresh runs with probability 0.74; one that meets it in every second run, with 0.31."""
SPARE: Final = 1.3
"""Deviations between runs by which a setting should beat its target: nine of ten runs then meet it."""
DIGITS: Final = 3


@dataclass(frozen=True)
class KnownGood:
    """Runs of the known-good setting that have shown whether they meet the target.

    Attributes:
        met: Runs that met it.
        missed: Runs that did not.
        proposal: A target that most of its runs meet; None where there is nothing to tell it by.
    """

    met: int
    missed: int
    proposal: float | None

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return self.met + self.missed

    @property
    def needs_run(self) -> bool:
        """Whether one more run of the unchanged job is wanted."""
        if self.met and not self.missed:
            return False
        return self.runs < (RUNS if self.met else RUNS // 2)

    @property
    def is_met_by_chance(self) -> bool:
        """Whether too few of its runs meet the target for any setting like it to be confirmed."""
        return self.missed > 0 and self.met < ENOUGH_MET * self.runs

    def text(self, target: Target) -> str:
        """Return what the runs say, and the target that would hold."""
        said = f"your own setting met {target} in {self.met} of {self.runs} runs"
        if self.proposal is None:
            return said
        return f"{said}; a target that it meets: {target.metric} {target.comparison} {self.proposal:g}"


def known_good(history: History) -> KnownGood:
    """Return what the runs of the known-good setting have shown."""
    spec = history.spec
    origin = Setting.of(spec.baseline_batch_size, spec.baseline_parameters)
    told: list[Trial] = [
        t
        for t in history.trials
        if setting(t) == origin and (history.has_reached(t) or history.has_missed(t)) and not t.is_running
    ]
    met = sum(map(history.has_reached, told))
    bests = [best for t in told if (best := curve(t).best(spec.target)) is not None]
    return KnownGood(met, len(told) - met, _proposal(spec.target, bests) if len(bests) > 1 else None)


def _proposal(target: Target, bests: list[float]) -> float | None:
    """Return the strictest target of few digits that nine runs of ten would meet."""
    value = statistics.mean(bests) - target.sign * SPARE * statistics.stdev(bests)
    if not value:
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1)
    rounded = math.floor(value / unit) if target.sign > 0 else math.ceil(value / unit)
    return float(f"{rounded * unit:.12g}")
