"""The generated jobs as problems of the search benchmark."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.generated.networks import Network
from tests.benchmarks.generated.training import Job, Parameters, curves

DEVELOPMENT, FINAL = "development", "final"
SEEDS = {DEVELOPMENT: range(40), FINAL: range(2000, 2040)}
"""Which seeds draw the jobs of a set.

One check has been run on the final ones: the next check needs new ones (other seeds here, and without the old
file `truth --set final`).
"""
WORST = 1e6
"""A loss that is infinite or not a number counts as this, so that it has a median and a mean."""
TRUTH_SEEDS = tuple(2**31 + number for number in range(15))
"""Seeds by which the truth is searched for: no trial has one of them."""
JUDGING_SEEDS = tuple(2**31 + number for number in range(31))
"""Seeds by which an answer is judged."""
WIDEST = 2.0
"""Times the tolerance that a setting is allowed whose own runs vary more than the best ones."""


def gains(job: Job, batch_size: int, settings: Sequence[Parameters], seeds: Sequence[int]) -> np.ndarray:
    """Return the best measurement of each run; a larger value is better, whatever the metric."""
    values = job.sign * curves(job, batch_size, settings, seeds)
    return np.asarray(np.where(np.isfinite(values), values, -WORST).max(1))


def deviation(values: np.ndarray) -> float:
    """Return a standard deviation that a run which failed does not decide."""
    low, high = np.quantile(values, [0.16, 0.84])
    return float(max(high - low, 1e-9) / 2)


@dataclass(frozen=True)
class GeneratedProblem:
    """One drawn job with its owner's target, and the answer that brute force found."""

    name: str
    job: Job
    space: Mapping[str, Any]
    batch_sizes: tuple[int, int]
    baseline: Mapping[str, Any]
    target: float
    largest: int
    peaks: Sequence[tuple[int, Parameters]]
    """The best setting of each batch size that was searched."""
    tolerance: float
    """How far below the target the median of a feasible setting may lie: noise over the root of 3."""

    @property
    def epochs(self) -> int:
        """Measurements of a whole run, which is what the benchmark counts."""
        return self.job.measurements

    @cached_property
    def annotations(self) -> Mapping[str, str]:
        """What the owner writes on the job."""
        comparison = ">=" if self.job.sign > 0 else "<="
        return {
            "autotuner.dev/target": f"{self.job.metric.rstrip('%')} {comparison} {self.target:g}",
            "autotuner.dev/batch-size": "{}..{}".format(*self.batch_sizes),
            "autotuner.dev/search-space": json.dumps(self.space),
            "autotuner.dev/run-length": str(self.job.measurements),
        }

    def run(self, batch_size: int, parameters: Parameters, seed: int) -> Sequence[float]:
        """Train, and return the metric at each measurement."""
        values: list[float] = curves(self.job, batch_size, [_tuned(parameters)], [seed % 2**31])[0].tolist()
        return values

    def is_feasible(self, batch_size: int, parameters: Parameters) -> bool:
        """Return whether the median over fresh seeds meets the target, within the tolerance."""
        gain, spread = _judged(self, batch_size, tuple(sorted(_tuned(parameters).items())))
        tolerance = min(max(self.tolerance, spread / math.sqrt(3)), WIDEST * self.tolerance)
        return gain >= self.job.sign * self.target - tolerance

    def known_best(self, batch_size: int) -> Parameters:
        """Return the best setting of the nearest batch size that was searched."""
        return min(self.peaks, key=lambda one: abs(math.log(one[0] / batch_size)))[1]

    def __hash__(self) -> int:
        return hash(self.name)


def problems(which: str = DEVELOPMENT) -> list[GeneratedProblem]:
    """Return the problems of a set whose truth is known."""
    return [problem(entry) for entry in read(which)]


def problem(entry: Mapping[str, Any]) -> GeneratedProblem:
    """Return the problem of an entry of a data file."""
    job = dict(entry["job"])
    return GeneratedProblem(
        name=entry["name"],
        job=Job(**{**job, "network": Network(**job["network"])}),
        space=entry["space"],
        batch_sizes=tuple(entry["batch_sizes"]),
        baseline=entry["baseline"],
        target=entry["target"],
        largest=entry["largest"],
        peaks=[(size, best) for size, _, best in entry["peaks"]],
        tolerance=entry["tolerance"],
    )


def path(which: str) -> Path:
    """Return the data file of a set."""
    return Path(__file__).with_name(f"{which}.json")


def read(which: str) -> list[dict[str, Any]]:
    """Return the entries of a set's data file, none where it does not exist yet."""
    entries: list[dict[str, Any]] = json.loads(path(which).read_text()) if path(which).exists() else []
    return entries


def _tuned(parameters: Parameters) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "batch_size"}


@lru_cache(maxsize=4096)
def _judged(of: GeneratedProblem, batch_size: int, items: tuple[tuple[str, Any], ...]) -> tuple[float, float]:
    """Return the median gain of a setting and the deviation between seeds."""
    seeds = JUDGING_SEEDS
    values = gains(of.job, batch_size, [dict(items)] * len(seeds), seeds)
    return float(np.median(values)), deviation(values)
