#!/usr/bin/env python3
"""Draw one simulated tuning, for the page that says how the search decides.

    python tests/benchmarks/search_picture.py --out autotuner/search/tuning.svg

The tuning is a real one of a development problem in simulated time. Over the picture of the report (each
trial's best accuracy over its batch size, by outcome, and the answer) comes the probability at the end that
a batch size or a larger one is feasible.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

sys.path.append(str(Path(__file__).parents[2]))

from autotuner.report import figures
from autotuner.search.beliefs import Beliefs
from autotuner.search.frontier import HALF_A_DOUBLING
from autotuner.search.space import Space
from autotuner.study.history import History
from tests.benchmarks.search.policies import Autotuner
from tests.benchmarks.search.problems import tabular
from tests.benchmarks.search.simulate import simulate

SIZES = 48


def played(name: str, seed: int) -> Autotuner:
    """Return the tuner of a problem after its study."""
    problem = next(p for p in tabular() if p.name == name)
    tuner = Autotuner(problem, seed=seed, parallel=1)
    simulate(problem, tuner, name="autotuner", seed=seed)
    return tuner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problem", default="lcbench-126026")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where to write: .svg or .png")
    args = parser.parse_args()
    tuner = played(args.problem, args.seed)
    spec, trials = tuner.spec, tuner.trials
    assert tuner.last is not None
    beliefs = Beliefs(History.of(spec, trials), Space.of(spec))
    frontier = beliefs.frontier
    figure = figures.frontier(spec, trials, tuner.last.answer)
    axes = figure.axes[0]
    for label in axes.texts:  # the frontier falls where the report writes the target
        if label.get_text().startswith("target"):
            label.xy = (0.01, spec.target.threshold)
            label.set_horizontalalignment("left")
    low, high = spec.batch_size.minimum, spec.batch_size.maximum
    sizes = np.geomspace(low, high, SIZES)
    beside = axes.twinx()
    chance = [frontier.probability_larger(size / 2**HALF_A_DOUBLING) for size in sizes]
    beside.plot(sizes, chance, color="#0e7490", linewidth=1.2, linestyle="-.", label="probability")
    beside.set_ylim(0, 1.02)
    beside.set_ylabel("probability that this batch or a larger one is feasible", color="#0e7490", fontsize=8)
    figure.set_size_inches(7.2, 4.6)
    handles = [*axes.get_legend_handles_labels()[0], *beside.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="center left", fontsize=8)
    with mpl.rc_context({"svg.hashsalt": "tuning", "svg.fonttype": "none"}):
        figure.savefig(args.out, metadata={"Date": None} if args.out.suffix == ".svg" else None, dpi=110)


if __name__ == "__main__":
    main()
