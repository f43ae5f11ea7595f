"""Tuning problems with a known answer that are given by data files.

A problem is a job as its owner would register it (annotations and a known-good baseline), a `run` that
returns the metric after each epoch, and the true largest feasible batch size.

`language_models()`: the final losses of 1,911 real pre-training runs of dense language models, over batch
size and learning rate (Step Law, Li et al. 2025, arXiv:2503.04715). One measurement a run, at its end.

`tabular()`: small networks fitted to the public LCBench surrogate (Zimmer et al., Auto-PyTorch Tabular;
Apache-2.0): funnel-shaped networks trained for 52 epochs, batch size 16 to 512. Its learning rate may not
exceed 0.1, so that at every optimum the momentum stands at the end of its range, and where the batch is large
the surrogate extrapolates. It has learning curves, which the language models lack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from tests.benchmarks.search.settings import Parameters, drawn, near

DATA = Path(__file__).with_name("data")
RUN_NOISE = 0.15
"""Standard deviation of a run's final metric between seeds, in points of accuracy."""
EPOCH_NOISE = 0.05
"""Standard deviation of one epoch's measurement around the run's own curve."""
TOLERANCE = RUN_NOISE / 3**0.5
"""How far below the target an answer may truly be: what the mean of three runs cannot tell."""
SEARCH_SPACE: Mapping[str, Any] = {
    "learning_rate": {"min": 1e-4, "max": 0.1, "log": True},
    "momentum": {"min": 0.1, "max": 0.99},
    "weight_decay": {"min": 1e-5, "max": 0.1, "log": True},
    "dropout": {"min": 0.0, "max": 1.0},
}
Curve = Callable[[int, Mapping[str, Any]], np.ndarray]


class Problem(Protocol):
    """A tuning problem whose true answer is known."""

    @property
    def name(self) -> str:
        """The problem's name, one of its own."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """What the owner writes on the job to register it."""

    @property
    def baseline(self) -> Mapping[str, Any]:
        """The job's own, known-good `batch_size` and hyperparameters."""

    @property
    def epochs(self) -> int:
        """Measurements of a whole run."""

    @property
    def target(self) -> float:
        """The metric that the owner asks for."""

    @property
    def largest(self) -> int:
        """The largest batch size for which some hyperparameters meet the target without noise."""

    def run(self, batch_size: int, parameters: Mapping[str, Any], seed: int) -> Sequence[float]:
        """Return the metric after each epoch of one noisy run."""

    def is_feasible(self, batch_size: int, parameters: Mapping[str, Any]) -> bool:
        """Return whether the run meets the target, noise aside and within the tolerance."""


@runtime_checkable
class SolvedProblem(Problem, Protocol):
    """A problem of which the best setting at every batch size is known."""

    def known_best(self, batch_size: int) -> Parameters:
        """Return the best hyperparameters at a batch size, as brute force found them."""


@dataclass(frozen=True)
class CurveProblem:
    """A problem whose noise-free learning curve is a function of batch size and hyperparameters."""

    name: str
    curve: Curve
    baseline: Mapping[str, Any]
    epochs: int
    target: float
    largest: int
    batch_sizes: tuple[int, int] = (16, 512)

    @cached_property
    def annotations(self) -> Mapping[str, str]:
        """What the owner writes on the job to register it."""
        return {
            "autotuner.dev/target": f"accuracy >= {self.target}",
            "autotuner.dev/batch-size": "{}..{}".format(*self.batch_sizes),
            "autotuner.dev/search-space": json.dumps(SEARCH_SPACE),
            "autotuner.dev/run-length": str(self.epochs),
        }

    def run(self, batch_size: int, parameters: Mapping[str, Any], seed: int) -> Sequence[float]:
        """Return the accuracy after each epoch of one noisy run."""
        rng = np.random.default_rng([seed, batch_size])
        clean = self.curve(batch_size, parameters)
        noise = rng.normal(0, RUN_NOISE) + rng.normal(0, EPOCH_NOISE, len(clean))
        noisy: list[float] = (clean + noise).tolist()
        return noisy

    def is_feasible(self, batch_size: int, parameters: Mapping[str, Any]) -> bool:
        """Return whether the curve meets the target, within the tolerance."""
        return float(self.curve(batch_size, parameters).max()) >= self.target - TOLERANCE

    def known_best(self, batch_size: int) -> Parameters:
        """Return the best hyperparameters at a batch size, of a thousand that are drawn ever closer."""

        def shortfall(one: Parameters) -> float:
            return -float(self.curve(batch_size, one).max())

        rng = np.random.default_rng(batch_size)
        best = sorted((drawn(SEARCH_SPACE, rng) for _ in range(600)), key=shortfall)[:8]
        for width in (0.15, 0.08, 0.04, 0.02):
            closer = [near(SEARCH_SPACE, one, width, rng) for one in best for _ in range(15)]
            best = sorted([*best, *closer], key=shortfall)[:8]
        return best[0]


def fitted_surface(weights: Mapping[str, np.ndarray], task: str, epochs: int = 52) -> Curve:
    """Return the noise-free learning curve of one fitted LCBench task."""
    layers = [
        (weights[f"{task}_w{depth}"].astype(np.float64), weights[f"{task}_b{depth}"].astype(np.float64))
        for depth in (1, 2, 3, 4)
    ]
    mean, scale = weights[f"{task}_scale"]
    log_epoch = (np.log2(np.arange(1, epochs + 1)) - 2.85) / 2.85

    def curve(batch_size: int, parameters: Mapping[str, Any]) -> np.ndarray:
        point = [
            (np.log2(batch_size) - 6.5) / 2.5,
            (np.log10(parameters["learning_rate"]) + 2.5) / 1.5,
            (parameters["momentum"] - 0.545) / 0.445,
            (np.log10(parameters["weight_decay"]) + 3) / 2,
            (parameters["dropout"] - 0.5) * 2,
        ]
        x = np.column_stack([np.tile(point, (epochs, 1)), log_epoch])
        for weight, bias in layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = layers[-1]
        return np.asarray(np.clip((x @ weight.T + bias)[:, 0] * scale + mean, 0, 100))

    return curve


@dataclass(frozen=True)
class GridProblem:
    """A grid of measured final losses over batch size and learning rate, interpolated in their logarithms."""

    name: str
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    loss: tuple[tuple[float, ...], ...]
    noise: float
    """Standard deviation of the final loss between seeds."""
    target: float
    largest: int
    baseline: Mapping[str, Any]
    epochs: int = 1

    @cached_property
    def annotations(self) -> Mapping[str, str]:
        """What the owner writes on the job to register it."""
        rates = {"min": self.learning_rates[0], "max": self.learning_rates[-1], "log": True}
        return {
            "autotuner.dev/target": f"loss <= {self.target}",
            "autotuner.dev/batch-size": f"{self.batch_sizes[0]}..{self.batch_sizes[-1]}",
            "autotuner.dev/search-space": json.dumps({"learning_rate": rates}),
            "autotuner.dev/run-length": "1",
        }

    @cached_property
    def _surface(self) -> RegularGridInterpolator:
        axes = np.log2(self.batch_sizes), np.log10(self.learning_rates)
        return RegularGridInterpolator(axes, np.array(self.loss))

    def clean(self, batch_size: int, learning_rate: float) -> float:
        """Return the loss without noise."""
        axes = np.log2(self.batch_sizes), np.log10(self.learning_rates)
        at = (np.log2(batch_size), np.log10(learning_rate))
        inside = [np.clip(x, axis[0], axis[-1]) for x, axis in zip(at, axes, strict=True)]
        return float(self._surface(inside)[0])

    def run(self, batch_size: int, parameters: Mapping[str, Any], seed: int) -> Sequence[float]:
        """Return the final loss of one noisy run."""
        noise = np.random.default_rng([seed, batch_size]).normal(0, self.noise)
        return [self.clean(batch_size, parameters["learning_rate"]) + float(noise)]

    def is_feasible(self, batch_size: int, parameters: Mapping[str, Any]) -> bool:
        """Return whether the loss meets the target, within what the mean of three runs cannot tell."""
        return self.clean(batch_size, parameters["learning_rate"]) <= self.target + self.noise / 3**0.5

    def known_best(self, batch_size: int) -> Parameters:
        """Return the learning rate of the grid with the smallest loss."""
        return {"learning_rate": min(self.learning_rates, key=lambda rate: self.clean(batch_size, rate))}


def grids(path: Path) -> list[Problem]:
    """Return the problems of a file of grids."""
    found: list[Problem] = []
    for grid in json.loads(path.read_text()):
        shared = {
            "batch_sizes": tuple(grid["batch_sizes"]),
            "learning_rates": tuple(grid["learning_rates"]),
            "loss": tuple(map(tuple, grid["loss"])),
            "noise": grid["noise"],
        }
        for given in grid["setups"]:
            setup = dict(given)
            found.append(GridProblem(f"{grid['name']}-{setup.pop('tolerance')}", **shared, **setup))
    return found


def language_models() -> list[Problem]:
    """Return the grids of dense language models."""
    return grids(DATA / "steplaw_dense.json")


def tabular() -> list[Problem]:
    """Return the twelve fitted LCBench tasks."""
    weights = dict(np.load(DATA / "lcbench_dev.npz"))
    setups = json.loads((DATA / "lcbench_dev.json").read_text())
    return [
        CurveProblem(name=f"lcbench-{task}", curve=fitted_surface(weights, task), epochs=52, **setup)
        for task, setup in setups.items()
    ]
