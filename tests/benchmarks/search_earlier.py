#!/usr/bin/env python3
"""What an earlier study is worth to a later one (`start-from`), on one family of problems.

    python tests/benchmarks/search_earlier.py --set real --seeds 2
    python tests/benchmarks/search_earlier.py --set tabular-further --only lcbench-1 --unlike

Each problem whose name ends in a number (`digits-1`) has other owners: the same training with another target,
known-good setting or range. It is tuned alone and after the study of the first owner (`digits-0`) or, with
`--unlike`, after that of a different training. The rows are pairs: the same problem, the same seed.
"""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[2]))

from autotuner.study.history import History
from tests.benchmarks.search.families import FAMILIES, load
from tests.benchmarks.search.policies import Autotuner
from tests.benchmarks.search.report import LEGEND, table
from tests.benchmarks.search.simulate import Score, simulate

ALONE, LATER = "alone", "start-from"


@dataclass(frozen=True)
class Pair:
    """Two problems of a family by their index, and the seed of both tunings."""

    family: str
    earlier: int
    later: int
    seed: int


@cache
def studied(family: str, index: int, seed: int) -> History:
    """Return the study of a problem: several later ones start from it."""
    problem = load(family)[index]
    tuner = Autotuner(problem, seed=seed, parallel=1)
    simulate(problem, tuner, name="earlier", seed=seed)
    return History.of(tuner.spec, tuner.trials)


def play(pair: Pair) -> tuple[Score, Score]:
    """Tune the later problem alone, and after the earlier one."""
    torch.set_num_threads(1)
    second = load(pair.family)[pair.later]
    history = studied(pair.family, pair.earlier, pair.seed + 100)
    alone, later = (
        simulate(
            second, Autotuner(second, seed=pair.seed, parallel=1, earlier=earlier), name=name, seed=pair.seed
        )
        for name, earlier in ((ALONE, ()), (LATER, (history,)))
    )
    return alone, later


def pairs(names: list[str], *, unlike: bool) -> list[tuple[int, int]]:
    """Return the earlier and the later problem of each pair, by index."""
    kinds = [re.sub(r"-\d+$", "", name) for name in names]
    first = {kind: kinds.index(kind) for kind in kinds}
    others = list(first)
    found = []
    for index, kind in enumerate(kinds):
        if index != first[kind]:
            before = others[others.index(kind) - 1] if unlike else kind
            found.append((first[before], index))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", choices=FAMILIES, default="real", dest="family")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="later problems, by what their names contain")
    parser.add_argument("--unlike", action="store_true", help="start from the study of another training")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    args = parser.parse_args()
    names = [problem.name for problem in load(args.family)]
    chosen = [
        Pair(args.family, earlier, later, seed)
        for earlier, later in pairs(names, unlike=args.unlike)
        if not args.only or any(wanted in names[later] for wanted in args.only)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
    ]
    scores: list[Score] = []
    with ProcessPoolExecutor(args.workers) as pool:
        for alone, later in pool.map(play, chosen):
            scores += [alone, later]
            print(f"{alone.problem}: {alone.epochs} and {later.epochs} epochs", file=sys.stderr, flush=True)
    print(table(f"{args.family}: {len(chosen)} pairs", scores, [ALONE, LATER]))
    print(LEGEND)


if __name__ == "__main__":
    main()
