#!/usr/bin/env python3
"""What each element of the search is worth: the search without it, on a family of problems.

    python tests/benchmarks/search_ablation.py --set tabular --seeds 2 [--only NAME ...]

Each row is the search with one element replaced by the plain thing, in a process of its own; the replacements
are below, for they are the definition of what was left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from autotuner import decide
from autotuner.search import beliefs, data, frontier, model, roles
from autotuner.search.history import setting
from autotuner.trial import Outcome
from tests.benchmarks.search.families import FAMILIES, load
from tests.benchmarks.search.policies import Autotuner
from tests.benchmarks.search.report import LEGEND, table
from tests.benchmarks.search.simulate import Score, simulate


def fixed_exponent() -> None:
    """The learning rate grows as the square root of the batch, whatever the trials say."""
    prior_of = model.Prior.of

    def of(space, points):
        prior = prior_of(space, points)
        exponents = model.SCALES + space.size
        prior.mean[exponents:], prior.deviation[exponents:] = 0.0, 1e-3
        prior.mean[exponents] = 0.5
        return prior

    model.Prior.of = staticmethod(of)


def no_roles() -> None:
    """A momentum or a weight decay is a hyperparameter like any other, and the learning rate has no slope."""
    other = roles.EXPECTED[roles.Role.OTHER]
    roles.EXPECTED[roles.Role.MOMENTUM] = roles.EXPECTED[roles.Role.WEIGHT_DECAY] = other
    rate = roles.EXPECTED[roles.Role.LEARNING_RATE]
    roles.EXPECTED[roles.Role.LEARNING_RATE] = replace(rate, slope=other.slope, curvature=other.curvature)


def no_trends() -> None:
    """Slopes and curvatures are nought: the mean falls with the batch size alone."""
    none = roles.Normal(0.0, 0.0)
    for found, expected in roles.EXPECTED.items():
        roles.EXPECTED[found] = replace(expected, slope=none, curvature=none)


def no_look() -> None:
    """The largest batch size allowed is tried when the model expects most of it, and not before."""
    beliefs.LOOK_AFTER = 10**6


def final_values() -> None:
    """The model sees of each run its last value alone."""
    whole, prior_of = data.windows, model.Prior.of
    ranges: list[float] = []

    def last(seen, length):
        time, value, count = whole(seen, length)
        ranges.append(float(np.ptp(value)))
        return time[-1:], value[-1:], count[-1:]

    def of(space, points):
        # How large accuracies are is no secret to it: priors are still scaled by the first run's whole curve.
        margin, run = np.array([0.0, ranges[0]]), np.zeros(2, dtype=int)
        return prior_of(space, replace(points, margin=margin, run=run))

    data.windows, model.Prior.of = last, staticmethod(of)


def lucky_incumbent() -> None:
    """The incumbent is the largest batch that was seen to reach the target once, or promised to."""

    def incumbent(self, rejected):
        met = [
            setting(trial)
            for trial in self.history.trials
            if self.history.has_reached(trial) or trial.outcome is Outcome.PROMISING
        ]
        return max((s for s in met if s not in rejected), key=lambda s: s.batch_size, default=None)

    beliefs.Beliefs.incumbent = incumbent


def probability_alone() -> None:
    """The next trial is the likeliest success among batches half a doubling larger, not the largest gain."""

    def gain_over(octaves):
        return lambda reached, chance, _expected: np.where(reached >= octaves + 0.5, chance, 1e-3 * chance)

    frontier.gain_over = beliefs.gain_over = gain_over


def no_record() -> None:
    """The model is believed whatever came of its proposals."""
    frontier.OPTIMISM, frontier.RECORD = 0.0, 1e-6


def known_hyperparameters() -> None:
    """Hyperparameters fitted to a few runs are taken for known."""
    model.WIDENING = 0.0


def no_hopeless() -> None:
    """Runs that will miss go on to their end."""
    decide.HOPELESS = -1.0


def no_promising() -> None:
    """Runs that will reach the target go on until they have."""
    decide.PROMISING = 2.0


def strict_confirmation() -> None:
    """One confirmation run that misses rejects a setting for good."""
    decide.TOLERATED_MISSES = beliefs.TOLERATED_MISSES = 0


def no_confirmation() -> None:
    """One fresh run confirms."""
    # The spec says how many; see `play`.


def probability_end() -> None:
    """Only a probability under 10% of a larger batch ends the search, however long it takes."""
    decide.PATIENCE = 10**6


def far_leaps() -> None:
    """A gain counts by all its doublings, so that leaps to where the model knows nothing look good."""
    frontier.FURTHEST = 100.0


ELEMENTS: dict[str, Callable[[], None]] = {
    "all": lambda: None,
    **{
        f.__name__.replace("_", " "): f
        for f in (
            fixed_exponent,
            no_roles,
            no_trends,
            no_look,
            final_values,
            lucky_incumbent,
            probability_alone,
            no_record,
            known_hyperparameters,
            no_hopeless,
            no_promising,
            strict_confirmation,
            no_confirmation,
            probability_end,
            far_leaps,
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
    parser.add_argument("--limit", type=int, default=2000, help="epochs after which a tuning is cut off")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=ELEMENTS, default=list(ELEMENTS))
    args = parser.parse_args()
    count, scores = len(load(args.family)), []
    for element in args.only:
        jobs = [
            (args.family, element, i, seed, args.limit) for seed in range(args.seeds) for i in range(count)
        ]
        # The replacement dies with the row's processes.
        with ProcessPoolExecutor(args.workers, initializer=leave_out, initargs=(element,)) as pool:
            scores += list(pool.map(play, jobs))
    print(table(f"{args.family}: the search without", scores, args.only))
    print(LEGEND)


if __name__ == "__main__":
    main()
