"""Further problems of the development problems' form: the same surfaces, other jobs.

    python ../shared/bench/run.py autotuner --problems tests/benchmarks/search_problems.py --seeds 2

Each of the fitted surfaces gets another owner: another known-good setting, at another batch size, and the
target at another point of the frontier. So hyperpriors and thresholds can be checked on problems that they
were not chosen on, and probabilities on more of them than twelve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

# The search benchmark's own modules: its run.py puts them on the path.
from problems import DATA, SEARCH_SPACE, CurveProblem, fitted_surface

SIZES = np.unique(np.geomspace(16, 512, 26).round().astype(int))
HEADROOM = 0.15
"""How far above the target a job's own setting comes at least, in points of accuracy."""


def problems(owners: int = 1) -> list[CurveProblem]:
    """Return so many problems a surface; the same at every call."""
    return [problem(index, owner) for index in range(len(_setups())) for owner in range(owners)]


def problem(index: int, owner: int = 0) -> CurveProblem:
    """Return one of them; to make one takes some seconds."""
    task, setup = _setups()[index]
    curve = fitted_surface(dict(np.load(DATA / "lcbench_dev.npz")), task)
    return _problem(f"{task}/{owner}", curve, setup["baseline"], np.random.default_rng([index, owner]))


def _setups() -> list[tuple[str, Mapping]]:
    return sorted(json.loads((DATA / "lcbench_dev.json").read_text()).items())


def _problem(name: str, curve, known: Mapping[str, float], rng: np.random.Generator) -> CurveProblem:
    frontier = np.array([_best(curve, int(size), rng) for size in SIZES])
    start = int(rng.choice([16, 32, 64]))
    while True:
        wanted = int(rng.integers(np.searchsorted(SIZES, 2 * start), len(SIZES)))
        target = round(float(frontier[wanted]), 2)
        near = [_scattered(known, rng, 0.15) for _ in range(200)]
        good = [p for p in near if curve(start, p).max() >= target + HEADROOM]
        if good:
            break
    largest = int(SIZES[np.flatnonzero(frontier >= target - 0.005)].max())
    baseline = {"batch_size": start, **good[int(rng.integers(len(good)))]}
    return CurveProblem(name=name, curve=curve, baseline=baseline, epochs=52, target=target, largest=largest)


def _best(curve, size: int, rng: np.random.Generator) -> float:
    """Return the best accuracy at a batch size, by random search and ever smaller steps."""
    units = rng.random((150, len(SEARCH_SPACE)))
    values = [curve(size, _parameters(unit)).max() for unit in units]
    unit, best = units[int(np.argmax(values))], max(values)
    for step in range(150):
        tried = np.clip(unit + rng.normal(0, 0.15 * 0.975**step, len(unit)), 0, 1)
        value = curve(size, _parameters(tried)).max()
        if value > best:
            unit, best = tried, value
    return float(best)


def _parameters(unit: np.ndarray) -> dict[str, float]:
    values = {}
    for (name, s), u in zip(SEARCH_SPACE.items(), unit, strict=True):
        low, high = s["min"], s["max"]
        values[name] = float(low * (high / low) ** u if s.get("log") else low + u * (high - low))
    return values


def _scattered(known: Mapping[str, float], rng: np.random.Generator, width: float) -> dict[str, float]:
    unit = []
    for name, s in SEARCH_SPACE.items():
        low, high, value = s["min"], s["max"], known[name]
        unit.append(
            np.log(value / low) / np.log(high / low) if s.get("log") else (value - low) / (high - low)
        )
    return _parameters(np.clip(np.array(unit) + rng.normal(0, width, len(unit)), 0, 1))
