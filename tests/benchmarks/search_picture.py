#!/usr/bin/env python3
"""Draw one simulated tuning, for the page that says how the search decides.

    python tests/benchmarks/search_picture.py --bench ../shared/bench --out autotuner/search/tuning.svg

The tuning is a real one of a development problem in simulated time. Over the picture of the report (each
trial's best accuracy over its batch size, by outcome, and the answer) come what the model believes at the
end: the best accuracy that it expects from any hyperparameters at a batch size, with one standard deviation,
and the probability that this batch size or a larger one is feasible.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from autotuner.decide import next_action as deciding
from autotuner.report import figures
from autotuner.search.beliefs import Beliefs
from autotuner.search.frontier import HALF_A_DOUBLING, candidates, chance_alone
from autotuner.search.shortfall import margin_of
from autotuner.search.space import Space
from autotuner.study.history import History

BELIEF = "#7e22ce"
SIZES = 48


def played(bench: str, name: str, seed: int):
    """Return the spec of a problem, the trials of its tuning, and the final decision."""
    sys.path.insert(0, bench)
    from policies import Autotuner  # noqa: PLC0415 (the benchmark's folder is an argument)
    from problems import development  # noqa: PLC0415
    from simulate import simulate  # noqa: PLC0415

    seen = []
    plain = deciding.decide

    def listening(spec, trials, now):
        seen[:] = [spec, list(trials), plain(spec, trials, now)]
        return seen[2]

    problem = next(p for p in development() if p.name == name)
    deciding.decide = listening
    simulate(problem, Autotuner(problem, seed=seed, parallel=1), name="autotuner", seed=seed)
    deciding.decide = plain
    return seen


def expected(beliefs: Beliefs, sizes: np.ndarray, threshold: float) -> np.ndarray:
    """Return the accuracy to expect at best at each batch size: less a deviation, mean, more; (sizes, 3)."""
    frontier, model = beliefs.frontier, beliefs.settled
    assert frontier is not None
    assert model is not None
    found = []
    for size in sizes:
        place = candidates(frontier, frontier.ensemble, chance_alone, float(size), 0)[0][:1]
        mean, variance = model.ends(place)
        band = mean[0] + np.sqrt(variance[0]) * np.array([-1.0, 0.0, 1.0])
        found.append(threshold + margin_of(band, model.kernel.headroom))
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bench", default="../shared/bench", help="folder of the search benchmark")
    parser.add_argument("--problem", default="lcbench-126026")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="where to write: .svg or .png")
    args = parser.parse_args()
    spec, trials, decision = played(str(Path(args.bench).resolve()), args.problem, args.seed)
    beliefs = Beliefs(History.of(spec, trials), Space.of(spec))
    frontier = beliefs.frontier
    figure = figures.frontier(spec, trials, decision.answer)
    axes = figure.axes[0]
    for label in axes.texts:  # the frontier falls where the report writes the target
        if label.get_text().startswith("target"):
            label.xy = (0.01, spec.target.threshold)
            label.set_horizontalalignment("left")
    low, high = spec.batch_size.minimum, spec.batch_size.maximum
    sizes = np.geomspace(low, high, SIZES)
    beneath, mean, above = expected(beliefs, sizes, spec.target.threshold).T
    axes.fill_between(sizes, beneath, above, color=BELIEF, alpha=0.15, linewidth=0, zorder=1)
    axes.plot(sizes, mean, color=BELIEF, linewidth=1.6, label="expected at best")
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
