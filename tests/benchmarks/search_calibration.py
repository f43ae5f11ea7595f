#!/usr/bin/env python3
"""Whether the search's probabilities come true, on one family of problems.

    python tests/benchmarks/search_calibration.py --set language-models --seeds 2
    python tests/benchmarks/search_calibration.py --set tests/benchmarks/search_problems.py

At every trial that a tuning starts, two claims are compared with the truth: that a batch half a doubling
larger than the answer is feasible, and, where a confirmation begins, that it will pass (and that the setting
is feasible without noise). The first also as the final answer says it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from autotuner.decide import next_action as deciding
from autotuner.search.beliefs import Beliefs
from autotuner.search.space import Space
from autotuner.study.history import History
from autotuner.study.setting import Setting, setting
from autotuner.trial import Purpose

Claims = list[tuple[float, bool]]
EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def play(job: tuple[str, str, int, int]) -> tuple[Claims, Claims, list[tuple[float, bool, bool]]]:
    """Return what one tuning claimed and what was true: of larger batches, and of confirmations."""
    bench, family, index, seed = job
    sys.path.insert(0, bench)
    from policies import Autotuner  # noqa: PLC0415 (the benchmark's folder is an argument)
    from run import load  # noqa: PLC0415
    from simulate import simulate  # noqa: PLC0415

    problem = load(family)[index]
    tuner = Autotuner(problem, seed=seed, parallel=1)
    larger: Claims = []
    final: Claims = []
    begun: dict[object, float] = {}
    trials: list = []
    plain = deciding.decide

    def listening(spec, given, now):
        trials[:] = given
        decision = plain(spec, trials, now)
        answer = decision.answer
        if answer is not None and answer.probability_larger is not None:
            if answer.batch_size < spec.batch_size.maximum:
                reach = min(answer.batch_size * math.sqrt(2), spec.batch_size.maximum)
                claim = (answer.probability_larger, problem.largest >= reach)
                if decision.start:
                    larger.append(claim)
                if decision.is_final:
                    final.append(claim)
            for started in decision.start:
                tried = started.purpose is Purpose.CONFIRM and _setting(started)
                frontier = Beliefs(History.of(spec, trials), Space.of(spec)).frontier
                if tried and tried not in begun and frontier is not None and tried in frontier.tried:
                    begun[tried] = float(frontier.chances[frontier.tried.index(tried)])
        return decision

    deciding.decide = listening
    simulate(problem, tuner, name="autotuner", seed=seed)
    deciding.decide = plain
    history = History.of(tuner.spec, trials)
    claims = []
    for tried, chance in begun.items():
        runs = [t for t in history.trials if t.suggestion.purpose is Purpose.CONFIRM and setting(t) == tried]
        passed = sum(map(history.has_reached, runs)) >= tuner.spec.confirmations
        failed = sum(map(history.has_missed, runs)) > deciding.TOLERATED_MISSES
        if passed or failed:
            claims.append((chance, passed, problem.is_feasible(tried.batch_size, tried.parameters)))
    return larger, final, claims


def _setting(started):
    return Setting.of(started.batch_size, started.parameters)


def table(title: str, claims: list[tuple[float, bool]]) -> None:
    print(f"\n{title}: {len(claims)} claims")
    print(f"{'claimed':>14} {'number':>7} {'mean claim':>11} {'true':>6}")
    said, true = np.array([p for p, _ in claims]), np.array([float(t) for _, t in claims])
    for low, high in itertools.pairwise(EDGES):
        here = (said >= low) & ((said < high) | (high == EDGES[-1]))
        if here.any():
            print(
                f"{low:6.2f} to {high:4.2f} {here.sum():7} {said[here].mean():11.2f} {true[here].mean():6.2f}"
            )
    if len(said):
        print(f"{'all':>14} {len(said):7} {said.mean():11.2f} {true.mean():6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bench", default="../shared/bench", help="folder of the search benchmark")
    parser.add_argument("--set", default="tabular", dest="family", help="a set, or a file of problems")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    bench = str(Path(args.bench).resolve())
    sys.path.insert(0, bench)
    from run import load  # noqa: PLC0415 (the benchmark's folder is an argument)

    count = len(load(args.family))
    jobs = [(bench, args.family, index, seed) for seed in range(args.seeds) for index in range(count)]
    with ProcessPoolExecutor(args.workers, max_tasks_per_child=1) as pool:
        told = list(pool.map(play, jobs))
    claimed = [claim for _, _, claims in told for claim in claims]
    table("a batch half a doubling larger is feasible", [claim for larger, _, _ in told for claim in larger])
    table("the same, of final answers", [claim for _, final, _ in told for claim in final])
    table("the confirmation passes", [(p, passed) for p, passed, _ in claimed])
    table("what passed is feasible", [(p, good) for p, passed, good in claimed if passed])


if __name__ == "__main__":
    main()
