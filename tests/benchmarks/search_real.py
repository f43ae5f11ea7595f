#!/usr/bin/env python3
"""Real trainings as tuning problems: small networks, trained again for every trial of a simulated tuning.

    python tests/benchmarks/search.py autotuner --set real --seeds 2
    python tests/benchmarks/search_real.py    # makes search_real.json again, in some minutes

The other problems of the search benchmark come from one family of curves (LCBench). These do not: their
accuracies are counted over a few hundred samples and jump from epoch to epoch, their learning rates, momenta
and weight decays behave as they do in the examples under deploy/, and two of them are those examples.

Every job has three owners, each with a known-good setting of its own. Truth is measured: a setting is
feasible where the mean of its best values over a dozen fresh seeds meets the target, less what the mean of
three runs cannot tell; the largest feasible batch size is sought by brute force, from the top down.
"""

import argparse
import importlib.util
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from autotuner.spec import Target
from autotuner.spec.target import parse_target
from tests.benchmarks.search.settings import drawn, near

SETUPS = Path(__file__).with_suffix(".json")
EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
OWNERS = 3
TRUTH_SEEDS = range(10_000, 10_012)
"""Seeds by which the truth is measured."""
SPARE = 2
"""By how many deviations between seeds a known-good setting beats the target at least."""
Parameters = Mapping[str, Any]
Curve = Sequence[float]
Train = Callable[[int, Parameters, int], Curve]


@dataclass(frozen=True)
class Job:
    """A training that may be tuned, and what its owners want of it."""

    train: Train
    target: str
    batch_sizes: tuple[int, int]
    space: Mapping[str, Any]
    epochs: int
    start: int
    """Batch size of the known-good settings."""
    owner: Mapping[str, Any] | None = None
    """The known-good setting of the first owner, where it is given."""
    says_length: bool = True
    """Whether the owner sets the annotation `run-length`; most leave it to the first run to show."""

    @cached_property
    def wanted(self) -> Target:
        """The target as the tuner reads it."""
        return Target.model_validate(parse_target(self.target))

    def best(self, batch_size: int, parameters: Parameters, seed: int) -> float:
        """Return by how much the best value of one run beats the target."""
        curve = np.nan_to_num(
            np.array(self.train(batch_size, parameters, seed)), nan=-1e3 * self.wanted.sign, posinf=1e3
        )
        return max(self.wanted.margin(float(value)) for value in curve)


# --- the jobs ----------------------------------------------------------------------------------------------


@cache
def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits(batch_size: int, parameters: Parameters, seed: int) -> Curve:
    """Train deploy/examples/digits, in one process."""
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    curve: list[float] = []
    _example("digits").train(
        batch_size,
        parameters["learning_rate"],
        parameters["momentum"],
        seed,
        lambda _epoch, accuracy: curve.append(accuracy),
    )
    return curve


def large_batch(batch_size: int, parameters: Parameters, seed: int) -> Curve:
    """Train deploy/examples/large_batch, in one process."""
    from autotuner.train import Processes  # noqa: PLC0415 (the example's own, of the one that needs it)

    fixed = {"momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 0.2, "schedule": "constant"}
    hp = {**fixed, **parameters, "epochs": 30, "batch_size": batch_size, "seed": seed}
    alone = Processes(rank=0, count=1, device=torch.device("cpu"))
    curve: list[float] = []
    _example("large_batch").learn(hp, alone, lambda _epoch, accuracy, *_: curve.append(accuracy))
    return curve


@dataclass(frozen=True)
class Perceptron:
    """A perceptron with one hidden layer, trained on a table of scikit-learn's, with cosine decay or none."""

    data: str
    epochs: int
    optimizer: str
    hidden: int = 64
    cosine: bool = True

    def __call__(self, batch_size: int, parameters: Parameters, seed: int) -> Curve:
        train_x, test_x, train_y, test_y = _table(self.data)
        regression = train_y.is_floating_point()
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(train_x.shape[1], self.hidden),
            nn.ReLU(),
            nn.Dropout(parameters.get("dropout", 0.0)),
            nn.Linear(self.hidden, 1 if regression else int(train_y.max()) + 1),
        )
        rate = parameters["learning_rate"]
        decay = parameters.get("weight_decay", 0.0)
        if self.optimizer == "adamw":
            betas = (parameters.get("beta1", 0.9), 0.999)
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                net.parameters(), lr=rate, weight_decay=decay, betas=betas
            )
        else:
            momentum = parameters.get("momentum", 0.9)
            optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
        steps = max(1, len(train_x) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * steps)
        smoothing = parameters.get("label_smoothing", 0.0)
        curve = []
        for _ in range(self.epochs):
            net.train()
            order = torch.randperm(len(train_x))
            for step in range(steps):
                batch = order[step * batch_size : (step + 1) * batch_size]
                out = net(train_x[batch])
                if regression:
                    loss = nn.functional.mse_loss(out[:, 0], train_y[batch])
                else:
                    loss = nn.functional.cross_entropy(out, train_y[batch], label_smoothing=smoothing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if self.cosine:
                    schedule.step()
            net.eval()
            with torch.no_grad():
                out = net(test_x)
            if regression:
                curve.append(float(nn.functional.mse_loss(out[:, 0], test_y)))
            else:
                curve.append(100 * float((out.argmax(1) == test_y).float().mean()))
        return curve


@cache
def _table(name: str) -> tuple[torch.Tensor, ...]:
    if name == "digits":
        x, y = datasets.load_digits(return_X_y=True)
    elif name == "clusters":
        x, y = datasets.make_classification(
            2500, 20, n_informative=10, n_classes=5, n_clusters_per_class=3, class_sep=1.5, random_state=1
        )
    else:
        x, y = datasets.make_friedman1(2000, 10, noise=1.0, random_state=1)
    torch.set_num_threads(1)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=1 / 3, random_state=0)
    scaler = StandardScaler().fit(train_x)
    dtype = torch.float32 if y.dtype.kind == "f" else torch.int64
    return (
        torch.tensor(scaler.transform(train_x), dtype=torch.float32),
        torch.tensor(scaler.transform(test_x), dtype=torch.float32),
        torch.tensor(train_y, dtype=dtype),
        torch.tensor(test_y, dtype=dtype),
    )


def _log(low: float, high: float) -> dict[str, Any]:
    return {"min": low, "max": high, "log": True}


JOBS: Mapping[str, Job] = {
    "digits": Job(
        digits,
        "accuracy >= 0.94",
        (16, 1024),
        {"learning_rate": _log(0.01, 2.0), "momentum": {"min": 0.5, "max": 0.98}},
        epochs=8,
        start=32,
        owner={"learning_rate": 0.05, "momentum": 0.9},
        says_length=False,
    ),
    "large-batch": Job(
        large_batch,
        "accuracy >= 0.95",
        (64, 1344),
        {
            "learning_rate": _log(0.005, 0.3),
            "optimizer": ["sgd", "lars", "lamb"],
            "warmup": [0.0, 0.2],
        },
        epochs=30,
        start=64,
        owner={"learning_rate": 0.05, "optimizer": "sgd", "warmup": 0.0},
    ),
    "digits-adamw": Job(
        Perceptron("digits", 12, "adamw", hidden=128),
        "accuracy >= 96",
        (16, 1024),
        {
            "learning_rate": _log(1e-4, 0.1),
            "weight_decay": _log(1e-4, 1.0),
            "dropout": {"min": 0.0, "max": 0.7},
        },
        epochs=12,
        start=32,
    ),
    "clusters-sgd": Job(
        Perceptron("clusters", 20, "sgd"),
        "accuracy >= 75",
        (16, 1024),
        {
            "learning_rate": _log(1e-3, 1.0),
            "momentum": {"min": 0.0, "max": 0.99},
            "weight_decay": _log(1e-6, 1e-2),
        },
        epochs=20,
        start=32,
    ),
    "clusters-plain": Job(
        Perceptron("clusters", 20, "sgd", cosine=False),
        "accuracy >= 75",
        (16, 1024),
        {"learning_rate": _log(1e-3, 3.0), "label_smoothing": {"min": 0.0, "max": 0.4}},
        epochs=20,
        start=32,
    ),
    "friedman": Job(
        Perceptron("friedman", 20, "adamw"),
        "loss <= 1.8",
        (16, 1024),
        {
            "learning_rate": _log(3e-4, 0.3),
            "beta1": {"min": 0.0, "max": 0.99},
            "weight_decay": _log(1e-4, 1.0),
        },
        epochs=20,
        start=32,
    ),
}


# --- as the benchmark wants them ---------------------------------------------------------------------------


@dataclass(frozen=True)
class RealProblem:
    """One owner's job."""

    name: str
    job: Job
    baseline: Mapping[str, Any]
    largest: int
    tolerance: float
    """How far below the target the mean of a feasible setting may lie: a run's noise over the root of 3."""

    @property
    def epochs(self) -> int:
        return self.job.epochs

    @property
    def target(self) -> float:
        return self.job.wanted.threshold

    @cached_property
    def annotations(self) -> Mapping[str, str]:
        """What the owner writes on the job."""
        asked = {
            "autotuner.dev/target": self.job.target,
            "autotuner.dev/batch-size": "{}..{}".format(*self.job.batch_sizes),
            "autotuner.dev/search-space": json.dumps(self.job.space),
        }
        return asked | ({"autotuner.dev/run-length": str(self.job.epochs)} if self.job.says_length else {})

    def run(self, batch_size: int, parameters: Parameters, seed: int) -> Curve:
        """Train, and return the metric after each epoch."""
        return self.job.train(batch_size, _without_size(parameters), seed % 2**31)

    def is_feasible(self, batch_size: int, parameters: Parameters) -> bool:
        """Return whether the mean over fresh seeds meets the target, within the tolerance."""
        name = self.name.rsplit("-", 1)[0]
        return mean_best(name, batch_size, _without_size(parameters)) >= -self.tolerance

    def known_best(self, batch_size: int) -> Parameters:
        """Return the best setting that brute force finds at a batch size; it takes a minute."""
        return _known_best(self.name.rsplit("-", 1)[0], batch_size)


def _without_size(parameters: Parameters) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "batch_size"}


def mean_best(job: str, batch_size: int, parameters: Parameters) -> float:
    """Return by how much the best value beats the target, on average over fresh seeds."""
    return _mean_best(job, batch_size, tuple(sorted(parameters.items())))


@lru_cache(maxsize=1024)
def _mean_best(job: str, batch_size: int, items: tuple[tuple[str, Any], ...]) -> float:
    return statistics.mean(JOBS[job].best(batch_size, dict(items), seed) for seed in TRUTH_SEEDS)


def problems() -> list[RealProblem]:
    """Return every owner's problem."""
    return [
        RealProblem(
            name=setup["name"],
            job=JOBS[setup["job"]],
            baseline=setup["baseline"],
            largest=setup["largest"],
            tolerance=setup["tolerance"],
        )
        for setup in json.loads(SETUPS.read_text())
    ]


# --- how the truth is found --------------------------------------------------------------------------------


class Peak(NamedTuple):
    """The best setting that was found at a batch size."""

    margin: float
    """Mean over fresh seeds by which it beats the target."""
    spread: float
    """Deviation between seeds."""
    parameters: Parameters


def peak(job: Job, name: str, batch_size: int, rng: np.random.Generator) -> Peak:
    """Return the best setting that brute force finds at a batch size."""

    def score(parameters: Parameters) -> tuple[float, Parameters]:
        return job.best(batch_size, parameters, int(rng.integers(2**31))), parameters

    scored = [score(drawn(job.space, rng)) for _ in range(150)]
    for width in (0.15, 0.08, 0.04):
        scored.sort(key=lambda s: -s[0])
        for _, parameters in scored[:8]:
            scored += [score(near(job.space, parameters, width, rng)) for _ in range(5)]
    # The best of so many is lucky: so first three seeds of their own for many, then five more for a few, and
    # for the two best of these as many fresh ones as tell the truth.
    best = [parameters for _, parameters in sorted(scored, key=lambda s: -s[0])[:24]]
    values = {i: [job.best(batch_size, p, seed) for seed in range(3)] for i, p in enumerate(best)}
    spread = statistics.median(map(statistics.stdev, values.values()))
    for i in sorted(values, key=lambda i: -statistics.mean(values[i]))[:8]:
        values[i] += [job.best(batch_size, best[i], seed) for seed in range(3, 8)]
    judged = sorted((i for i in values if len(values[i]) > 3), key=lambda i: -statistics.mean(values[i]))
    found = max((best[i] for i in judged[:2]), key=lambda one: mean_best(name, batch_size, one))
    return Peak(mean_best(name, batch_size, found), spread, found)


@lru_cache(maxsize=1024)
def _known_best(name: str, batch_size: int) -> Parameters:
    return peak(JOBS[name], name, batch_size, np.random.default_rng(batch_size)).parameters


def make(name: str) -> list[dict[str, Any]]:
    """Return the setups of a job's owners."""
    job, rng = JOBS[name], np.random.default_rng([11, sorted(JOBS).index(name)])
    low, high = job.batch_sizes
    octaves = math.ceil(math.log2(high / low))
    sizes = [round(low * (high / low) ** (i / (6 * octaves))) for i in range(6 * octaves + 1)]
    peaks: dict[int, Peak] = {}

    def holds(size: int) -> bool:
        peaks[size] = peak(job, name, size, rng)
        print(f"{name}: {size} {peaks[size].margin:+.4f}", flush=True)
        return peaks[size].margin >= 0

    coarse = next(i for i in range(len(sizes) - 1, -1, -3) if holds(sizes[i]))
    finer = [i for i in (coarse + 2, coarse + 1) if i < len(sizes) - 1]
    found = next((i for i in finer if holds(sizes[i])), coarse)
    largest, spread = sizes[found], peaks[sizes[found]].spread
    tolerance = spread / math.sqrt(3)
    owners = [] if job.owner is None else [dict(job.owner)]
    tries = 0
    while len(owners) < OWNERS:
        parameters = drawn(job.space, rng)
        tries += 1
        if job.best(job.start, parameters, 1) < 0:
            continue
        if mean_best(name, job.start, parameters) >= SPARE * spread:
            owners.append(parameters)
    print(f"{name}: largest {largest}, tolerance {tolerance:.4f}, {tries} draws for the owners", flush=True)
    return [
        {
            "name": f"{name}-{index}",
            "job": name,
            "baseline": {"batch_size": job.start, **parameters},
            "largest": largest,
            "tolerance": round(tolerance, 5),
        }
        for index, parameters in enumerate(owners)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    args = parser.parse_args()
    kept = [s for s in json.loads(SETUPS.read_text()) if s["job"] not in args.only] if SETUPS.exists() else []
    with ProcessPoolExecutor(args.workers) as pool:
        for setups in pool.map(make, args.only):
            kept += setups
            SETUPS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
