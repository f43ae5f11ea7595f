"""Simulated jobs with a choice of optimizers, whose best learning rates lie up to a hundred times apart.

Each optimizer has its own best learning rate, power of the batch size, and critical batch size, beyond which
its best accuracy falls with every doubling; often the known-good one is not the one that holds to the largest
batch. The truth is exact. The jobs are drawn, the same at every call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tests.benchmarks.search.problems import Problem

COUNT = 12
STEPS = 12
TOP, TARGET = 0.93, 0.9
RUN_NOISE, STEP_NOISE = 0.002, 0.001
"""Standard deviations of accuracy: of a run, and of one of its measurements."""
BATCH_SIZES = (16, 1024)
BASELINE = {"batch_size": 32, "learning_rate": 0.3}
NAMES = ("sgd", "adamw", "rmsprop", "lion")
WARMUP = 0.06
"""Accuracy that a warm-up that is off by its whole range costs."""


@dataclass(frozen=True)
class Optimizer:
    """How the best accuracy with one optimizer depends on batch size and learning rate."""

    offset: float
    """E-folds of its best learning rate over the known-good one, at the known-good batch size."""
    power: float
    critical: float


@dataclass(frozen=True)
class ChoiceProblem:
    """A job with a choice of optimizers, the first of which is the known-good one."""

    name: str
    optimizers: Mapping[str, Optimizer]
    width: float
    """Accuracy that a learning rate costs that is off by a factor of e."""
    fall: float
    """Accuracy that a doubling beyond the critical batch size costs."""
    speed: float
    warmup: float | None
    """The best warm-up, if the job has one."""
    epochs: int = STEPS
    target: float = TARGET

    @cached_property
    def annotations(self) -> Mapping[str, str]:
        """What the owner writes on the job to register it."""
        space: dict[str, Any] = {
            "learning_rate": {"min": 3e-5, "max": 10, "log": True},
            "optimizer": list(self.optimizers),
        }
        if self.warmup is not None:
            space["warmup"] = {"min": 0, "max": 0.5}
        return {
            "autotuner.dev/target": f"accuracy >= {self.target}",
            "autotuner.dev/batch-size": "{}..{}".format(*BATCH_SIZES),
            "autotuner.dev/search-space": json.dumps(space),
            "autotuner.dev/run-length": str(self.epochs),
        }

    @cached_property
    def baseline(self) -> Mapping[str, Any]:
        """The job's own, known-good `batch_size` and hyperparameters."""
        known: dict[str, Any] = {**BASELINE, "optimizer": next(iter(self.optimizers))}
        return known if self.warmup is None else {**known, "warmup": 0.1}

    @cached_property
    def largest(self) -> int:
        """The largest batch size for which some hyperparameters meet the target without noise."""
        spare = 2 ** ((TOP - self.target) / self.fall)
        return int(min(max(found.critical * spare for found in self.optimizers.values()), BATCH_SIZES[1]))

    def best(self, batch_size: int, parameters: Mapping[str, Any]) -> float:
        """Return the accuracy at the end of a run, without noise."""
        found = self.optimizers[parameters["optimizer"]]
        off = math.log(parameters["learning_rate"] / self._best_rate(found, batch_size))
        best = TOP - self.fall * max(math.log2(batch_size / found.critical), 0) - self.width * off**2
        if self.warmup is not None:
            best -= WARMUP * (parameters["warmup"] - self.warmup) ** 2
        return max(best, 0.1)

    @staticmethod
    def _best_rate(optimizer: Optimizer, batch_size: int) -> float:
        growth = (batch_size / BASELINE["batch_size"]) ** optimizer.power
        return float(BASELINE["learning_rate"] * math.exp(optimizer.offset) * growth)

    def run(self, batch_size: int, parameters: Mapping[str, Any], seed: int) -> Sequence[float]:
        """Return the accuracy after each step of one noisy run."""
        rng = np.random.default_rng([seed, batch_size])
        done = np.arange(1, self.epochs + 1) / self.epochs
        rise = (1 - np.exp(-self.speed * done)) / (1 - math.exp(-self.speed))
        noise = rng.normal(0, RUN_NOISE) + rng.normal(0, STEP_NOISE, self.epochs)
        noisy: list[float] = (self.best(batch_size, parameters) * rise + noise).tolist()
        return noisy

    def is_feasible(self, batch_size: int, parameters: Mapping[str, Any]) -> bool:
        """Return whether the accuracy meets the target, within what the mean of three runs cannot tell."""
        return self.best(batch_size, parameters) >= self.target - RUN_NOISE / 3**0.5

    def known_best(self, batch_size: int) -> Mapping[str, Any]:
        """Return the best hyperparameters at a batch size."""
        warmup = {} if self.warmup is None else {"warmup": self.warmup}
        settings = [
            {"optimizer": name, "learning_rate": self._best_rate(found, batch_size), **warmup}
            for name, found in self.optimizers.items()
        ]
        return max(settings, key=lambda one: self.best(batch_size, one))


def drawn(number: int) -> ChoiceProblem:
    """Return one of the jobs."""
    rng = np.random.default_rng(1000 + number)
    names = NAMES[: int(rng.integers(2, 5))]
    offsets = [0.0, *(math.log(10) * rng.choice([-2.0, -1.5, -1.0, -0.5, 0.5], size=len(names) - 1))]
    return ChoiceProblem(
        name=f"choices-{number}",
        optimizers={
            name: Optimizer(float(offset), float(rng.uniform(0.4, 1)), float(2 ** rng.uniform(5.5, 9.5)))
            for name, offset in zip(names, offsets, strict=True)
        },
        width=float(rng.uniform(0.015, 0.06)),
        fall=float(rng.uniform(0.015, 0.04)),
        speed=float(rng.uniform(2, 6)),
        warmup=float(rng.uniform(0, 0.5)) if rng.random() < 0.5 else None,
    )


def problems() -> list[Problem]:
    """Return the jobs."""
    return [drawn(number) for number in range(COUNT)]
