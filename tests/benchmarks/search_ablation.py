#!/usr/bin/env python3
"""What each element of the search is worth: the search without it, on one family of problems.

    python tests/benchmarks/search_ablation.py --set language-models --seeds 2 [--only ELEMENT ...]
    python tests/benchmarks/search_ablation.py --set real --first-seed 20 --skip large-batch

Each row is the search with one element replaced by the plain thing, in a process of its own. The replacements
below define what is left out. The second table has the differences from the whole search on the same problems
and seeds, which vary much less.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))

from autotuner.decide import standing
from autotuner.search import beliefs, curves, ensemble, frontier, replay
from autotuner.search.rivals import Hump, Plain
from autotuner.study.setting import setting
from autotuner.trial import Outcome
from tests.benchmarks.search.families import FAMILIES, load
from tests.benchmarks.search.policies import Autotuner
from tests.benchmarks.search.report import LEGEND, differences, table
from tests.benchmarks.search.simulate import Score, simulate


def no_hump() -> None:
    """Of the ends of runs, the plain process alone judges."""
    ensemble.RIVALS = (Plain,)


def no_plain() -> None:
    """Of the ends of runs, the one with the hump alone judges."""
    ensemble.RIVALS = (Hump,)


def no_moves() -> None:
    """No candidates that an engineer would try by hand."""
    frontier.moves = lambda found, _low, _high: np.empty((0, found.space.size))


def full_reach() -> None:
    """A gain counts up to one doubling, however many proposals have missed."""
    frontier.MISSES = 10**6


def no_look() -> None:
    """The largest batch size allowed is tried when it is expected to gain most, and not before."""
    beliefs.TRY_LARGEST_AFTER = 10**6


def lucky_incumbent() -> None:
    """The incumbent is the largest batch that was seen to reach the target once, or promised to."""

    def incumbent(self):
        met = [
            setting(trial)
            for trial in self.history.trials
            if self.history.has_reached(trial) or trial.outcome is Outcome.PROMISING
        ]
        return max((s for s in met if s not in self.rejected), key=lambda s: s.batch_size, default=None)

    beliefs.Beliefs.incumbent = property(incumbent)


def probability_alone() -> None:
    """The next trial is the likeliest success among batches half a doubling larger, not the largest gain."""

    def gain_over(octaves, _furthest=1.0):
        return lambda reached, chance, _expected: np.where(reached >= octaves + 0.5, chance, 1e-3 * chance)

    frontier.gain_over = beliefs.gain_over = gain_over


def no_hopeless() -> None:
    """Runs that will miss go on to their end."""
    replay.HOPELESS = -1.0


def no_promising() -> None:
    """Runs that will reach the target go on until they have."""
    replay.PROMISING = 2.0


def early_stops() -> None:
    """A run may be stopped after its first measurement."""
    replay.FEWEST_SEEN = 0.0


def curves_alone() -> None:
    """The model of curves alone judges running trials."""
    beliefs.Beliefs.chance = beliefs.Beliefs.chance_by_curves


def ends_alone() -> None:
    """The rivals alone judge running trials, given what each one's curve says of its end."""
    beliefs.Beliefs.chance = beliefs.Beliefs._chance_by_ends
    beliefs.Beliefs.chance_by_curves = lambda *_: 0.0  # else it could rule out that the run is stopped


def no_cavity() -> None:
    """What the other runs say of a run's end is not divided out: the rivals count it twice."""
    curves.MOST_LEFT = 0.0


def no_spare() -> None:
    """A proposed setting need only just be expected to meet the target."""
    frontier.MARGIN = 0.0


def no_last_step() -> None:
    """Only the answer itself is confirmed."""
    frontier.BOLD = 2.0


def strict_confirmation() -> None:
    """One confirmation run that misses rejects a setting for good."""
    beliefs.TOLERATED_MISSES = frontier.TOLERATED_MISSES = 0


def no_confirmation() -> None:
    """One fresh run confirms."""
    # The spec says how many; see `play`.


def probability_end() -> None:
    """Only a probability under 10% of a larger batch ends the search, however long it takes."""
    standing.PATIENCE = 10**6


ALL = "all"
ELEMENTS: dict[str, Callable[[], None]] = {
    ALL: lambda: None,
    **{
        f.__name__.replace("_", " "): f
        for f in (
            no_hump,
            no_plain,
            no_moves,
            full_reach,
            no_look,
            lucky_incumbent,
            probability_alone,
            no_hopeless,
            no_promising,
            early_stops,
            curves_alone,
            ends_alone,
            no_cavity,
            no_spare,
            no_last_step,
            strict_confirmation,
            no_confirmation,
            probability_end,
        )
    },
}


def leave_out(element: str) -> None:
    """Replace an element in this process."""
    ELEMENTS[element]()


def play(job: tuple[str, str, int, int, int]) -> Score:
    """Run one problem with one element left out."""
    family, element, index, seed, limit = job
    problem = load(family)[index]
    asked = {"confirmations": "1"} if element == "no confirmation" else {}
    tuner = Autotuner(problem, seed=seed, parallel=1, **asked)
    return simulate(problem, tuner, name=element, seed=seed, max_epochs=limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", choices=FAMILIES, default="tabular", dest="family")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--skip", nargs="+", default=[], help="problems, by what their names contain")
    parser.add_argument("--limit", type=int, default=2000, help="epochs after which a tuning is cut off")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=ELEMENTS, default=list(ELEMENTS))
    args = parser.parse_args()
    names, scores = [problem.name for problem in load(args.family)], []
    kept = [i for i, name in enumerate(names) if not any(part in name for part in args.skip)]
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    for element in args.only:
        jobs = [(args.family, element, i, seed, args.limit) for seed in seeds for i in kept]
        # The replacement dies with the row's processes.
        with ProcessPoolExecutor(args.workers, initializer=leave_out, initargs=(element,)) as pool:
            scores += list(pool.map(play, jobs))
    print(table(f"{args.family}: the search without", scores, args.only))
    print(LEGEND)
    if ALL in args.only:
        print(differences("differences from the whole search", scores, ALL, args.only))


if __name__ == "__main__":
    main()
