"""Judge from the runs of the known-good setting whether the target can be confirmed, or propose one.

A target that the unchanged job meets in two of four runs is met by chance: no larger batch can be confirmed
with it. After a first run that meets the target no more runs are needed; only after a miss there are more.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Final

from autotuner.spec import Target
from autotuner.study.history import History, curve
from autotuner.study.setting import setting
from autotuner.trial import Trial

RUNS: Final = 4
"""Maximum number of runs of the unchanged job."""
ENOUGH_MET: Final = 0.75
"""Fraction of its runs that must meet the target. A setting that meets it this often is confirmed by three of
at most four new runs with probability 0.74; one that meets it in every second run, with 0.31."""
SPARE: Final = 1.3
"""Standard deviations between runs by which a setting should exceed its target: nine of ten runs meet it."""
DIGITS: Final = 3


@dataclass(frozen=True)
class KnownGood:
    """The runs of the known-good setting with a known result.

    Attributes:
        met: Runs that met it.
        missed: Runs that did not.
        proposal: A target that most of its runs meet; None without enough runs.
    """

    met: int
    missed: int
    proposal: float | None

    @property
    def runs(self) -> int:
        """Number of runs with a known result."""
        return self.met + self.missed

    @property
    def needs_run(self) -> bool:
        """Whether another run of the unchanged job is needed."""
        if self.met and not self.missed:
            return False
        return self.runs < (RUNS if self.met else RUNS // 2)

    @property
    def is_met_by_chance(self) -> bool:
        """Whether too few of its runs meet the target for a similar setting to be confirmed."""
        return self.missed > 0 and self.met < ENOUGH_MET * self.runs

    def text(self, target: Target) -> str:
        """Return the result of the runs as text, with the proposed target."""
        said = f"your own setting met {target} in {self.met} of {self.runs} runs"
        if self.proposal is None:
            return said
        return f"{said}; a target that it meets: {target.metric} {target.comparison} {self.proposal:g}"


def known_good(history: History) -> KnownGood:
    """Return the results of the runs of the known-good setting."""
    spec = history.spec
    runs: list[Trial] = [
        t
        for t in history.trials
        if setting(t) == history.own_setting
        and (history.has_reached(t) or history.has_missed(t))
        and not t.is_running
    ]
    met = sum(map(history.has_reached, runs))
    bests = [best for t in runs if (best := curve(t).best(spec.target)) is not None]
    return KnownGood(met, len(runs) - met, _proposal(spec.target, bests) if len(bests) > 1 else None)


def _proposal(target: Target, bests: list[float]) -> float | None:
    """Return the strictest target with few digits that nine of ten runs would meet."""
    value = statistics.mean(bests) - target.sign * SPARE * statistics.stdev(bests)
    if not value:
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1)
    rounded = math.floor(value / unit) if target.sign > 0 else math.ceil(value / unit)
    return float(f"{rounded * unit:.12g}")
