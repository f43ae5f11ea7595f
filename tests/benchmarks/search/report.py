"""Print what policies scored on one family of problems, every number with its standard error.

Tunings of the same problem are alike, so errors come from a bootstrap over problems; those of a share are at
least binomial, by Agresti and Coull's estimate, so that 0 of 31 is not taken for certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.benchmarks.search.simulate import Score

RESAMPLES = 1000
Statistic = Callable[[Sequence[Score]], float]
COLUMNS: Sequence[tuple[str, Statistic, str]] = (
    # title, statistic, format: a share's ends in %
    ("right after", lambda scores: float(np.median([s.right_after for s in scores])), ".0f"),
    ("in runs", lambda scores: float(np.median([s.right_after / s.length for s in scores])), ".1f"),
    ("never right", lambda scores: float(np.mean([s.never_right for s in scores])), ".0%"),
    ("regret", lambda scores: float(np.mean([s.regret for s in scores])), ".2f"),
    ("false", lambda scores: float(np.mean([s.is_false for s in scores])), ".0%"),
    ("trials", lambda scores: float(np.mean([s.trials for s in scores])), ".1f"),
    ("trained", lambda scores: float(np.mean([s.epochs for s in scores])), ".0f"),
    ("in runs", lambda scores: float(np.mean([s.epochs / s.length for s in scores])), ".1f"),
)
LEGEND = (
    "right after: epochs trained until the answer held was right to the end (median); trained: epochs of the"
    " whole tuning (mean); in runs: the same in lengths of a whole run"
)


def standard_error(scores: Sequence[Score], statistic: Statistic, *, is_share: bool) -> float:
    """Return the standard error of a statistic; infinite where the statistic is in many resamples."""
    problems: dict[str, list[Score]] = {}
    for score in scores:
        problems.setdefault(score.problem, []).append(score)
    groups, rng = list(problems.values()), np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(groups), size=len(groups))
        found.append(statistic([score for at in chosen for score in groups[at]]))
    low, high = np.quantile(found, [0.16, 0.84], method="nearest")
    error = float(high - low) / 2 if math.isfinite(high) else math.inf
    if is_share:
        count = len(scores)
        share = (statistic(scores) * count + 2) / (count + 4)
        error = max(error, math.sqrt(share * (1 - share) / (count + 4)))
    return error


def table(title: str, scores: Sequence[Score], policies: Sequence[str]) -> str:
    """Return the table of one family."""
    lines = [title, f"{'policy':12}" + "".join(f"{name:>16}" for name, _, _ in COLUMNS)]
    for policy in policies:
        mine = [s for s in scores if s.policy == policy]
        cells = []
        for _, statistic, form in COLUMNS:
            value = statistic(mine)
            if math.isinf(value):
                cells.append("never")
                continue
            error = standard_error(mine, statistic, is_share=form.endswith("%"))
            told = format(error, form) if math.isfinite(error) else "?"
            cells.append(f"{value:{form}} +- {told}")
        lines.append(f"{policy:12}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


WORST = 1.5
"""Regret, in doublings, above which a difference does not count, so that no single study decides."""


def differences(title: str, scores: Sequence[Score], base: str, policies: Sequence[str]) -> str:
    """Return the table of each policy's mean differences from the base, on the same problems and seeds."""
    mine = {(s.problem, s.seed): s for s in scores if s.policy == base}
    lines = [title, f"{'policy':20}{'studies':>8}{'regret':>18}{'never right':>18}{'runs':>18}"]
    for policy in policies:
        pairs = [(s, mine[s.problem, s.seed]) for s in scores if s.policy == policy != base]
        if not pairs:
            continue
        found = np.array(
            [
                (
                    min(s.regret, WORST) - min(b.regret, WORST),
                    float(s.never_right) - float(b.never_right),
                    s.epochs / s.length - b.epochs / b.length,
                )
                for s, b in pairs
            ]
        )
        error = found.std(axis=0, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else [math.nan] * 3
        cells = [f"{mean:+.2f} +- {e:.2f}" for mean, e in zip(found.mean(axis=0), error, strict=True)]
        lines.append(f"{policy:20}{len(found):>8}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)
