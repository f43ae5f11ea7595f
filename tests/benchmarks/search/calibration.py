"""Compare what the search says of a larger batch, and of a confirmation that begins, with what is true.

Three claims, each binned by what was said: at every trial that starts (midway) and at the end, that a batch
half a doubling larger than the answer is feasible; and, where a confirmation begins, that it will pass.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autotuner.decide.decision import Decision
from autotuner.search.beliefs import Beliefs
from autotuner.search.frontier import TOLERATED_MISSES
from autotuner.search.space import Space
from autotuner.spec import TuningSpec
from autotuner.study.history import History
from autotuner.study.setting import Setting
from autotuner.trial import Purpose, Trial
from tests.benchmarks.search.policies import Autotuner
from tests.benchmarks.search.problems import Problem
from tests.benchmarks.search.simulate import HALF_A_DOUBLING, Move, Run

EDGES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
_LEFT_OUT = 1_000_000
"""Number of the first of the runs that a search has left out, for their seeds."""
MIDWAY, FINAL, CONFIRMED = "larger, midway", "larger, at the end", "the confirmation passes"
KINDS = {
    MIDWAY: "a batch half a doubling larger is feasible, said when a trial starts",
    FINAL: "a batch half a doubling larger is feasible, said at the end",
    CONFIRMED: "the confirmation that begins will pass",
}
RESAMPLES = 1000


@dataclass(frozen=True)
class Claim:
    """A probability that was said, and whether what it was said of is true."""

    kind: str
    problem: str
    said: float
    is_true: bool


@dataclass
class Listener:
    """The search under test, and what it claims while it decides."""

    problem: Problem
    tuner: Autotuner
    larger: list[Claim] = field(default_factory=list)
    begun: dict[Setting, float] = field(default_factory=dict)

    def decide(self, runs: Sequence[Run]) -> Move:
        """Return what the search decides, and note what it says."""
        move = self.tuner.decide(runs)
        decision = self.tuner.last
        if decision is not None:
            self._note_larger(decision)
            self._note_confirmations(decision)
        return move

    def claims(self) -> list[Claim]:
        """Return what was said over the whole tuning, and what was true."""
        spec = self.tuner.spec
        history = History.of(spec, self.tuner.trials)
        found = list(self.larger)
        for tried, chance in self.begun.items():
            reached, missed = history.tally(tried)
            passes = self._passes(spec, tried, reached, missed)
            found.append(Claim(CONFIRMED, self.problem.name, chance, passes))
        return found

    def _passes(self, spec: TuningSpec, tried: Setting, reached: int, missed: int) -> bool:
        """Return whether a confirmation passes, after so many runs.

        The search breaks many off after a miss, and few of these would pass. So the runs that it has left out
        are made here.
        """
        parameters = {**spec.baseline_parameters, **tried.parameters}
        number = _LEFT_OUT
        while reached < spec.confirmations and missed <= TOLERATED_MISSES:
            run = self.problem.run(tried.batch_size, parameters, seed=hash((spec.seed, number)) % 2**32)
            is_met = any(map(spec.target.is_met, run))
            reached, missed, number = reached + is_met, missed + (not is_met), number + 1
        return missed <= TOLERATED_MISSES

    def _note_larger(self, decision: Decision) -> None:
        answer, most = decision.answer, self.tuner.spec.batch_size.maximum
        if answer is None or answer.probability_larger is None or answer.batch_size >= most:
            return
        reach = min(answer.batch_size * HALF_A_DOUBLING, most)
        kind = FINAL if decision.is_final else MIDWAY
        if decision.is_final or decision.start:
            is_true = self.problem.largest >= math.floor(reach)
            self.larger.append(Claim(kind, self.problem.name, answer.probability_larger, is_true))

    def _note_confirmations(self, decision: Decision) -> None:
        for started in decision.start:
            tried = Setting.of(started.batch_size, started.parameters)
            if started.purpose is not Purpose.CONFIRM or tried in self.begun:
                continue
            chance = confirmation(self.tuner.spec, self.tuner.trials, tried)
            if chance is not None:
                self.begun[tried] = chance


def confirmation(spec: TuningSpec, trials: Sequence[Trial], tried: Setting) -> float | None:
    """Return the probability that the search gives to a setting's confirmation; None where it has none.

    It is no part of a decision, so this reads what the search keeps for itself.
    """
    frontier = Beliefs(History.of(spec, trials), Space.of(spec)).frontier
    if frontier is None or tried not in frontier.tried:
        return None
    return float(frontier.chances[frontier.tried.index(tried)])


def tables(family: str, claims: Sequence[Claim]) -> str:
    """Return the tables of one family."""
    return "\n\n".join(
        _table(f"{family}: {title}", [c for c in claims if c.kind == kind]) for kind, title in KINDS.items()
    )


def _table(title: str, claims: Sequence[Claim]) -> str:
    lines = [f"{title}: {len(claims)} claims of {len({c.problem for c in claims})} problems"]
    if not claims:
        return lines[0]
    lines.append(f"{'said':>14} {'number':>7} {'mean said':>10} {'true':>14}")
    for low, high in itertools.pairwise(EDGES):
        here = [c for c in claims if low <= c.said < high or c.said == high == EDGES[-1]]
        if here:
            lines.append(_row(f"{low:.2f} to {high:.2f}", here))
    lines.append(_row("all", claims))
    return "\n".join(lines)


def _row(title: str, claims: Sequence[Claim]) -> str:
    """Return a bin: its error is a bootstrap's over problems, for claims of one tuning are alike."""
    problems: dict[str, list[Claim]] = {}
    for claim in claims:
        problems.setdefault(claim.problem, []).append(claim)
    count = np.array([len(group) for group in problems.values()])
    true = np.array([sum(c.is_true for c in group) for group in problems.values()])
    chosen = np.random.default_rng(0).integers(len(count), size=(RESAMPLES, len(count)))
    share, least = true.sum() / count.sum(), (true.sum() + 2) / (count.sum() + 4)
    error = np.std(true[chosen].sum(1) / count[chosen].sum(1))
    error = max(error, math.sqrt(least * (1 - least) / (count.sum() + 4)))
    said = np.mean([c.said for c in claims])
    return f"{title:>14} {len(claims):7} {said:10.2f} {share:6.2f} +- {error:.2f}"
