#!/usr/bin/env python3
"""Further problems of the development problems' form: other owners, and other surfaces.

    python tests/benchmarks/search.py autotuner --set tabular-further --seeds 2
    python tests/benchmarks/search_problems.py    # makes others, in minutes

So priors and thresholds can be checked on problems that they were not chosen on, and probabilities on more of
them than twelve. 24 have one of the twelve fitted surfaces, with another known-good setting, often at another
batch size, and another target. The others have a mixture of two of the surfaces.

A setup is made as those of development seem to be: the target is what some two percent of all settings reach
at the known-good batch size, and the known-good setting is one of these that has 0.3 points to spare.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.search.problems import DATA, SEARCH_SPACE, CurveProblem, fitted_surface

SETUPS = Path(__file__).with_suffix(".json")
OWNERS, MIXTURES = 24, 24
SPARE = 0.3
"""How far above the target a job's own setting comes at least, in points of accuracy."""
SIZES = np.unique(np.geomspace(16, 512, 61).round().astype(int))

Curve = Callable[[int, Mapping[str, float]], np.ndarray]


def problems() -> list[CurveProblem]:
    """Return all of them."""
    return [
        CurveProblem(
            name=setup["name"],
            curve=surface(setup["tasks"], setup["share"]),
            baseline=setup["baseline"],
            epochs=52,
            target=setup["target"],
            largest=setup["largest"],
        )
        for setup in json.loads(SETUPS.read_text())
    ]


def surface(tasks: list[str], share: float) -> Curve:
    """Return the curves of one task, or of two mixed: their standardised accuracies, means and scales."""
    weights = dict(np.load(DATA / "lcbench_dev.npz"))
    scales = [weights[f"{task}_scale"] for task in tasks]
    shares = [share, 1 - share][: len(tasks)]
    mean, scale = (sum(p * s[i] for p, s in zip(shares, scales, strict=True)) for i in (0, 1))
    # A surface without a mean and of scale 1 would be clipped at 0: so lift it to where nothing is.
    plain = {**weights, **{f"{task}_scale": np.array([50.0, 1.0]) for task in tasks}}
    curves = [fitted_surface(plain, task) for task in tasks]

    def curve(batch_size: int, parameters: Mapping[str, float]) -> np.ndarray:
        mixed = sum(p * (c(batch_size, parameters) - 50) for p, c in zip(shares, curves, strict=True))
        return np.clip(mixed * scale + mean, 0, 100)

    return curve


def make(number: int) -> dict | None:
    """Return a setup; None where the surface has no frontier to find."""
    tasks = sorted(json.loads((DATA / "lcbench_dev.json").read_text()))
    rng = np.random.default_rng([7, number])
    chosen, share = [tasks[number % len(tasks)]], 1.0
    if number >= OWNERS:
        chosen = [tasks[i] for i in rng.choice(len(tasks), 2, replace=False)]
        share = float(rng.uniform(0.35, 0.65))
    curve = surface(chosen, share)
    start = int(rng.choice([16, 32, 64], p=[0.15, 0.7, 0.15]))
    units = rng.random((1000, 4))
    best = np.array([curve(start, parameters(unit)).max() for unit in units])
    target = round(float(np.quantile(best, rng.choice([0.97, 0.975, 0.98, 0.985]))), 2)
    good = units[best >= target + SPARE]
    if not len(good):
        return None
    feasible = [int(s) for s in SIZES if s > start and peak(curve, int(s), rng) >= target]
    if not feasible:
        return None
    baseline = {"batch_size": start, **parameters(good[rng.integers(len(good))])}
    name = f"{'mixed' if len(chosen) > 1 else 'owner'}{number}-{'+'.join(chosen)}"
    setup = {"name": name, "tasks": chosen, "share": share, "baseline": baseline}
    return {**setup, "target": target, "largest": max(feasible)}


def peak(curve: Curve, size: int, rng: np.random.Generator) -> float:
    """Return the best accuracy at a batch size, by random search and ever smaller steps from the best."""
    units = rng.random((400, 4))
    values = np.array([curve(size, parameters(unit)).max() for unit in units])
    for step in range(40):
        top = units[np.argsort(-values)[:8]]
        near = np.clip(np.repeat(top, 4, axis=0) + rng.normal(0, 0.15 * 0.9**step, (32, 4)), 0, 1)
        units = np.concatenate([top, near])
        values = np.array([curve(size, parameters(unit)).max() for unit in units])
    return float(values.max())


def parameters(unit: np.ndarray) -> dict[str, float]:
    """Return the hyperparameters at a place in the unit cube."""
    values = {}
    for (name, s), u in zip(SEARCH_SPACE.items(), unit, strict=True):
        low, high = s["min"], s["max"]
        values[name] = float(low * (high / low) ** u if s.get("log") else low + u * (high - low))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers) as pool:
        setups = [setup for setup in pool.map(make, range(OWNERS + MIXTURES)) if setup is not None]
    SETUPS.write_text(json.dumps(setups, indent=1) + "\n")


if __name__ == "__main__":
    main()
