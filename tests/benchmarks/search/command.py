"""The command: compare policies on families of problems, or the search's claims with the truth."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tests.benchmarks.search.calibration import Claim, Listener, tables
from tests.benchmarks.search.families import FAMILIES, load
from tests.benchmarks.search.policies import POLICIES, Autotuner
from tests.benchmarks.search.report import LEGEND, table
from tests.benchmarks.search.simulate import Score, simulate


@dataclass(frozen=True)
class Game:
    """One tuning to simulate."""

    family: str
    index: int
    policy: str
    seed: int
    parallel: int


def play(game: Game) -> tuple[Score, list[Claim]]:
    """Simulate one tuning."""
    torch.set_num_threads(1)
    problem = load(game.family)[game.index]
    tuner = POLICIES[game.policy](problem, seed=game.seed, parallel=game.parallel)
    listener = Listener(problem, tuner) if isinstance(tuner, Autotuner) else None
    score = simulate(problem, listener or tuner, name=game.policy, seed=game.seed, parallel=game.parallel)
    return score, listener.claims() if listener else []


def progress(score: Score, done: int, of: int) -> str:
    """Return one tuning in a line: a family takes minutes, and what it shows early is worth seeing."""
    told = "never right" if score.never_right else f"right after {score.right_after:.0f}"
    return (
        f"{done}/{of} {score.policy} {score.problem}, seed {score.seed}: {told}, regret {score.regret:.2f},"
        f" {score.trials} trials, {score.epochs} epochs{', false' if score.is_false else ''}"
    )


def main(description: str | None) -> None:
    """Read the command line, play, and print a table for each family."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policies", nargs="+", choices=POLICIES)
    parser.add_argument(
        "--set",
        nargs="+",
        default=["tabular"],
        dest="families",
        metavar="SET",
        help=f"{', '.join(FAMILIES)}, or a Python file with a function problems()",
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1, help="trials that run at once")
    parser.add_argument("--only", nargs="+", help="problems, by what their names contain")
    parser.add_argument(
        "--calibration", action="store_true", help="compare the search's claims with the truth"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="write every score to this file")
    args = parser.parse_args()
    kept = []
    with ProcessPoolExecutor(args.workers) as pool:
        for family in args.families:
            names = [problem.name for problem in load(family)]
            chosen = [
                index
                for index, name in enumerate(names)
                if not args.only or any(wanted in name for wanted in args.only)
            ]
            games = [
                Game(family, index, policy, seed, args.parallel)
                for seed in range(args.first_seed, args.first_seed + args.seeds)
                for index in chosen
                for policy in args.policies
            ]
            played = []
            for score, claims in pool.map(play, games):
                played.append((score, claims))
                print(progress(score, len(played), len(games)), file=sys.stderr, flush=True)
            scores = [score for score, _ in played]
            title = f"{family}: {len(chosen)} problems, {args.seeds} seeds, {args.parallel} at once"
            print(table(title, scores, args.policies), flush=True)
            if args.calibration:
                print(f"\n{tables(family, [claim for _, claims in played for claim in claims])}")
            print(flush=True)
            kept += [{"family": family, **asdict(score)} for score in scores]
    print(LEGEND)
    if args.json:
        args.json.write_text(json.dumps(kept, indent=1))
