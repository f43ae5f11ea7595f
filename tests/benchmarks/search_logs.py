#!/usr/bin/env python3
"""The same problems, as other scripts would log and run them: the search must not depend on it.

    python tests/benchmarks/search_logs.py --set real --only clusters friedman --seeds 1
    python tests/benchmarks/search_logs.py --set real --ways epochs early-stopping --seeds 2

The problems of the other benchmarks report every epoch, count epochs from one, set `run-length`, run to their
end, allow any batch size, and use the learning rate as it is given. Few scripts are like that. Here
`run-length` is unset. Regret is that of the answer by the truth of whole runs: a script that stops early, or
that evaluates every hundred optimizer steps, may not be able to show it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[2]))

from autotuner.spec import Shape, TuningSpec
from autotuner.trial import Measurement, Outcome, Trial
from tests.benchmarks.search.families import FAMILIES, load
from tests.benchmarks.search.policies import Autotuner, batch_sizes
from tests.benchmarks.search.problems import Problem
from tests.benchmarks.search.report import LEGEND, differences, table
from tests.benchmarks.search.simulate import Run, Score, simulate

SAMPLES = 2000
"""Size of the data set, from which the optimizer steps of an epoch follow."""


@dataclass(frozen=True)
class Way:
    """How a script logs and runs.

    Attributes:
        first: The number of the first epoch.
        in_steps: Whether it counts optimizer steps, not epochs.
        every: Epochs from one report to the next; the last epoch is always reported.
        lines: Lines in an epoch, with values on a straight line from one epoch's end to the next one's.
        is_again: Whether they print the last epoch's evaluation again instead.
        distance: Optimizer steps from one report to the next; 0 if it reports by epochs.
        patience: Epochs without a better value after which it stops; 0 if it never does.
        processes: Processes among which it divides its batch.
        parallel: Trials that run at once.
        power: Power of the batch size, over the known-good one, by which it multiplies the learning rate.
    """

    first: int = 1
    in_steps: bool = False
    every: int = 1
    lines: int = 1
    is_again: bool = False
    distance: int = 0
    patience: int = 0
    processes: int = 1
    parallel: int = 1
    power: float = 0.0

    def measured(self, curve: Sequence[float], epochs: int, batch_size: int) -> Iterator[Measurement]:
        """Yield what a run of so many `epochs` has logged after the epochs of `curve`."""
        steps = math.ceil(SAMPLES / batch_size)
        if self.distance:
            for step in range(self.distance, len(curve) * steps + 1, self.distance):
                yield Measurement(step, curve[max(step // steps, 1) - 1])
            return
        for epoch, value in enumerate(curve, start=1):
            if epoch % self.every == 0 or epoch == epochs:
                yield Measurement(epoch * steps if self.in_steps else epoch - 1 + self.first, value)
            for line in range(1, self.lines if epoch < len(curve) else 1):
                part = line / self.lines
                shown = value if self.is_again else (1 - part) * value + part * curve[epoch]
                yield Measurement(epoch + part, shown)

    def shortened(self, curve: Sequence[float], sign: int) -> Sequence[float]:
        """Return the part of a whole run's curve after which the script stops."""
        best, since = -math.inf, 0
        for epoch, value in enumerate(curve, start=1):
            best, since = (sign * value, 0) if sign * value > best else (best, since + 1)
            if self.patience and since >= self.patience:
                return curve[:epoch]
        return curve


WAYS: Mapping[str, Way] = {
    "epochs": Way(),
    "from-zero": Way(first=0),
    "optimizer-steps": Way(in_steps=True),
    "every-fifth": Way(every=5),
    "every-tenth-of-an-epoch": Way(lines=10),
    "printed-ten-times": Way(lines=10, is_again=True),
    "early-stopping": Way(patience=3),
    "every-100-steps": Way(distance=100),
    "32-processes": Way(processes=32),
    "4-at-once": Way(parallel=4),
    "rate-times-batch": Way(power=1.0),
    "rate-times-root": Way(power=0.5),
}


@dataclass(frozen=True)
class Logged:
    """A problem whose script logs and runs in another way, without `run-length`."""

    problem: Problem
    way: Way

    def __getattr__(self, name: str) -> Any:
        return getattr(self.problem, name)

    @property
    def annotations(self) -> Mapping[str, str]:
        """The problem's own, without the length of a run.

        The learning rate's range is as much wider as the script may multiply it.
        """
        kept = {k: v for k, v in self.problem.annotations.items() if k != "autotuner.dev/run-length"}
        space = json.loads(kept["autotuner.dev/search-space"])
        if "learning_rate" in space:
            space["learning_rate"]["min"] /= self._factor(batch_sizes(self.problem)[1])
        return {**kept, "autotuner.dev/search-space": json.dumps(space)}

    def _factor(self, batch_size: int) -> float:
        known: int = self.problem.baseline["batch_size"]
        return (batch_size / known) ** self.way.power

    def _trained(self, batch_size: int, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the script trains with, given these parameters."""
        if "learning_rate" not in parameters:
            return parameters
        return {**parameters, "learning_rate": parameters["learning_rate"] * self._factor(batch_size)}

    def run(self, batch_size: int, parameters: Mapping[str, Any], seed: int) -> Sequence[float]:
        """Return the metric after each epoch until the script stops."""
        sign = -1 if "<=" in self.annotations["autotuner.dev/target"] else 1
        return self.way.shortened(
            self.problem.run(batch_size, self._trained(batch_size, parameters), seed), sign
        )

    def is_feasible(self, batch_size: int, parameters: Mapping[str, Any]) -> bool:
        """Return whether the script meets the target with these parameters, noise aside."""
        return self.problem.is_feasible(batch_size, self._trained(batch_size, parameters))


class Reader(Autotuner):
    """The search, which sees what the script has logged."""

    def __init__(self, problem: Logged, seed: int) -> None:
        super().__init__(problem, seed=seed, parallel=problem.way.parallel)
        self.problem = problem
        if problem.way.processes > 1:
            asked = {"parallel-trials": str(problem.way.parallel), "seed": str(seed)}
            self.spec = TuningSpec.from_annotations(
                {**problem.annotations, **{f"autotuner.dev/{key}": value for key, value in asked.items()}},
                baseline=problem.baseline,
                shape=Shape(workers=problem.way.processes - 1),
            )

    def _trial(self, run: Run) -> Trial:
        way, size = self.problem.way, run.batch_size
        measured = tuple(way.measured(run.curve, len(run.future), size))
        outcome = None
        if run.stopped is not None:
            outcome = Outcome(run.stopped)
        elif not run.is_running:
            reached = any(self.spec.target.is_met(m.value) for m in measured)
            outcome = Outcome.REACHED if reached else Outcome.MISSED
        ended = None if outcome is None else run.stopped is None
        return Trial(self.suggestions[run.number], measured, outcome, is_complete=ended)


@dataclass(frozen=True)
class Game:
    """One study to simulate."""

    family: str
    index: int
    way: str
    seed: int


def play(game: Game) -> Score:
    """Simulate one study."""
    torch.set_num_threads(1)
    way = WAYS[game.way]
    problem = Logged(load(game.family)[game.index], way)
    reader = Reader(problem, game.seed)
    return simulate(problem, reader, name=game.way, seed=game.seed, parallel=way.parallel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", choices=FAMILIES, default="real", dest="family")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="problems, by what their names contain")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    args = parser.parse_args()
    chosen = [
        Game(args.family, index, way, seed)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for index, problem in enumerate(load(args.family))
        if not args.only or any(wanted in problem.name for wanted in args.only)
        for way in args.ways
    ]
    scores: list[Score] = []
    with ProcessPoolExecutor(args.workers) as pool:
        for score in pool.map(play, chosen):
            scores.append(score)
            said = f"{len(scores)}/{len(chosen)} {score.problem}, {score.policy}, seed {score.seed}"
            print(f"{said}: regret {score.regret:.2f}, {score.trials} trials", file=sys.stderr, flush=True)
    print(table(args.family, scores, args.ways))
    print(differences(f"\ndifferences from {args.ways[0]}", scores, args.ways[0], args.ways))
    print(LEGEND)


if __name__ == "__main__":
    main()
