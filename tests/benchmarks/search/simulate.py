"""Drive a tuning policy against a problem in simulated time and measure the result.

Time advances one epoch at a time; every running trial then has one more measurement, and the policy decides
again what to start and what to stop. Cost is the number of epochs trained, by every trial, stopped ones and
confirmations included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.benchmarks.search.problems import Problem

Setting = tuple[int, Mapping[str, Any]]
"""A batch size and hyperparameters."""
HALF_A_DOUBLING = math.sqrt(2)


@dataclass
class Run:
    """One simulated training run."""

    number: int
    batch_size: int
    parameters: Mapping[str, Any]
    seed: int
    future: Sequence[float]
    """The measurements of the run unless it is stopped, one an epoch."""
    epochs: int = 0
    stopped: str | None = None

    @property
    def curve(self) -> Sequence[float]:
        """What has been measured."""
        return self.future[: self.epochs]

    @property
    def is_running(self) -> bool:
        """Whether it was neither stopped nor has come to its end."""
        return self.stopped is None and self.epochs < len(self.future)


@dataclass(frozen=True)
class Request:
    """A run that the policy wants started."""

    batch_size: int
    parameters: Mapping[str, Any]
    seed: int = 0
    number: int | None = None


@dataclass(frozen=True)
class Move:
    """What a policy wants now."""

    start: Sequence[Request] = ()
    stop: Mapping[int, str] = field(default_factory=dict)
    """Number of the run to stop, and why."""
    answer: Setting | None = None
    """The policy's current best answer."""
    done: bool = False


class Policy(Protocol):
    """Decides what to train next, from what has been seen so far."""

    def decide(self, runs: Sequence[Run]) -> Move:
        """Return what to start and stop now."""


@dataclass(frozen=True)
class Score:
    """How one simulated tuning went."""

    problem: str
    policy: str
    seed: int
    trials: int
    epochs: int
    length: int
    """Epochs of a whole run."""
    regret: float
    """log2(true largest / answer); the whole range when the answer is missing or infeasible."""
    is_false: bool
    """Whether the answer misses the target in expectation."""
    right_after: float
    """Epochs trained until the answer held was, in truth, feasible and within half a doubling of
    the largest, and stayed so to the end; inf if never."""

    @property
    def never_right(self) -> bool:
        """Whether the final answer is not right."""
        return self.right_after == math.inf


def simulate(
    problem: Problem, policy: Policy, *, name: str, seed: int, parallel: int = 1, max_epochs: int = 10_000
) -> Score:
    """Tune `problem` with `policy` to its end and score it."""
    runs: list[Run] = []
    spent, held_since, move = 0, math.inf, Move()
    while spent < max_epochs:
        move = policy.decide(runs)
        for number, reason in move.stop.items():
            run = next(r for r in runs if r.number == number)
            if not run.is_running:
                raise ValueError(f"{name} stops run {number}, which is not running")
            run.stopped = reason
        held_since = min(held_since, spent) if _is_right(problem, move.answer) else math.inf
        if move.done:
            break
        free = parallel - sum(r.is_running for r in runs)
        if len(move.start) > free:
            raise ValueError(f"{name} starts {len(move.start)} runs with {free} places free")
        for want in move.start:
            number = len(runs) if want.number is None else want.number
            future = problem.run(want.batch_size, want.parameters, seed=hash((seed, number)) % 2**32)
            runs.append(Run(number, want.batch_size, want.parameters, want.seed, future))
        running = [r for r in runs if r.is_running]
        if not running:
            raise ValueError(f"{name} waits with nothing running")
        for run in running:
            run.epochs += 1
            spent += 1
    feasible = move.answer is not None and problem.is_feasible(*move.answer)
    worst = math.log2(problem.largest / problem.baseline["batch_size"]) + 1
    return Score(
        problem=problem.name,
        policy=name,
        seed=seed,
        trials=len(runs),
        epochs=spent,
        length=problem.epochs,
        regret=math.log2(problem.largest / move.answer[0]) if feasible and move.answer else worst,
        is_false=move.answer is not None and not feasible,
        right_after=held_since,
    )


def _is_right(problem: Problem, answer: Setting | None) -> bool:
    return (
        answer is not None and answer[0] * HALF_A_DOUBLING >= problem.largest and problem.is_feasible(*answer)
    )
