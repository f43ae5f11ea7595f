"""Train a job: one run, or an ensemble of runs with settings and seeds of their own, on one thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.benchmarks.generated import data as datasets
from tests.benchmarks.generated.data import Data
from tests.benchmarks.generated.networks import Network, Pass, forward, start, weights
from tests.benchmarks.generated.optimizers import OPTIMIZERS, SCHEDULES, State

Parameters = Mapping[str, Any]
ROWS = 2048
"""Examples that an ensemble computes at once: more do not fit a core's cache."""
PROGRAM = ("optimizer", "schedule")
"""Hyperparameters that change what is computed: members that differ in them are trained apart."""


@dataclass(frozen=True)
class Job:
    """A training without its batch size and hyperparameters."""

    data: str
    train: int
    """Number of training examples."""
    test: int
    label_noise: float
    network: Network
    metric: str
    """`accuracy` and `error` as a fraction, `accuracy%` and `error%` in percent, `loss`, `rmse` or `r2`."""
    epochs: int
    drop_last: bool
    """Whether the examples of an epoch that fill no batch are left out; else they go to the next epoch's."""
    measurements: int
    clip: float | None
    from_checkpoint: bool
    """Whether every run starts at the same weights, as fine-tuning does; else its seed draws them."""
    seed: int
    fixed: Parameters
    """Hyperparameters that are not tuned."""

    @property
    def examples(self) -> Data:
        return datasets.load(self.data, self.train, self.test, self.label_noise, self.seed)

    @property
    def sign(self) -> int:
        """1 where larger values of the metric are better, -1 where smaller ones are."""
        return 1 if self.metric.startswith(("accuracy", "r2")) else -1

    def steps(self, batch_size: int) -> int:
        """Return the number of steps of a run."""
        if self.drop_last:
            return self.epochs * max(1, self.train // batch_size)
        return max(1, self.epochs * self.train // batch_size)


def curves(job: Job, batch_size: int, settings: Sequence[Parameters], seeds: Sequence[int]) -> np.ndarray:
    """Return the measurements of every run, shape (runs, measurements); not finite where it diverged."""
    whole = [{**job.fixed, **setting} for setting in settings]
    for setting in whole:
        setting["momentum"] = setting.get("beta1", setting["momentum"])
    groups: dict[tuple[str, ...], list[int]] = {}
    for at, setting in enumerate(whole):
        groups.setdefault(tuple(setting[name] for name in PROGRAM), []).append(at)
    found = np.empty((len(whole), job.measurements))
    size = max(4, ROWS // batch_size)
    for members in groups.values():
        for first in range(0, len(members), size):
            these = members[first : first + size]
            with _fast_arithmetic():
                found[these] = _train(job, batch_size, [whole[i] for i in these], [seeds[i] for i in these])
    return found


@contextmanager
def _fast_arithmetic() -> Iterator[None]:
    """Compute in one thread and without denormal numbers, and leave the process as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def _train(job: Job, batch_size: int, settings: Sequence[Parameters], seeds: Sequence[int]) -> np.ndarray:
    examples, members = job.examples, len(seeds)
    shapes = weights(job.network, examples.train_x.shape[1:], examples.classes or 1)
    flat = start(shapes, [job.seed] * members if job.from_checkpoint else seeds)
    parts, at = [], 0
    for weight in shapes:
        part = flat[:, at : at + weight.size].view(members, *weight.shape)
        parts.append(part.detach().requires_grad_())
        at += weight.size

    def column(name: str) -> torch.Tensor:
        return torch.tensor([[float(setting[name])] for setting in settings])

    state = State(column("momentum"), column("weight_decay"), column("beta2"))
    optimize, schedule = OPTIMIZERS[settings[0]["optimizer"]], SCHEDULES[settings[0]["schedule"]]
    rate, warmup, smoothing = column("learning_rate"), column("warmup"), column("label_smoothing")
    dropout = column("dropout")
    how = Pass(
        is_training=True,
        dropout=dropout if dropout.any() else None,
        generator=torch.Generator().manual_seed(seeds[0]),
    )
    steps = job.steps(batch_size)
    due = [max(1, round(steps * (k + 1) / job.measurements)) for k in range(job.measurements)]
    measured: list[torch.Tensor] = []
    for step, batch in enumerate(_batches(job, batch_size, seeds), start=1):
        y = examples.train_y[batch]
        out = forward(job.network, parts, examples.train_x[batch], how)
        loss = _loss(out, y, smoothing)
        gradients = torch.autograd.grad(loss, parts, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([g.reshape(members, -1) for g in gradients], 1)
        if job.clip is not None:
            gradient *= (job.clip / (torch.linalg.vector_norm(gradient, dim=1, keepdim=True) + 1e-6)).clamp(
                max=1
            )
        done = (step - 1) / steps
        warm = (step / (warmup * steps).clamp(min=1)).clamp(max=1)
        optimize(state, flat, gradient, rate * schedule(done) * warm)
        if due[len(measured)] == step:
            value = _measure(job, parts, how)
            measured += [value] * due.count(step)
            if len(measured) == job.measurements:
                break
    # As a log prints it: 140 right of 200 are 0.7, not 0.699999988.
    return torch.stack(measured, 1).double().numpy().round(6)


def _batches(job: Job, batch_size: int, seeds: Sequence[int]) -> Iterator[torch.Tensor]:
    """Yield the examples of each step, shape (members, batch): a member's order depends on its seed alone."""
    rngs = [np.random.default_rng([seed, 2]) for seed in seeds]
    batch_size = min(batch_size, job.train) if job.drop_last else batch_size
    left = torch.empty((len(seeds), 0), dtype=torch.int64)
    while True:
        epoch = torch.from_numpy(np.stack([rng.permutation(job.train) for rng in rngs]))
        left = epoch if job.drop_last else torch.cat([left, epoch], 1)
        while left.shape[1] >= batch_size:
            yield left[:, :batch_size]
            left = left[:, batch_size:]


def _loss(out: torch.Tensor, y: torch.Tensor, smoothing: torch.Tensor) -> torch.Tensor:
    """Return the sum over members of each one's mean loss."""
    if y.is_floating_point():
        return functional.mse_loss(out[..., 0], y, reduction="sum") / y.shape[1]
    logs = out.log_softmax(-1)
    right = logs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return -((1 - smoothing) * right + smoothing * logs.mean(-1)).sum() / y.shape[1]


@torch.no_grad()
def _measure(job: Job, parts: Sequence[torch.Tensor], how: Pass) -> torch.Tensor:
    """Return the metric over the test examples, one a member."""
    examples, members = job.examples, len(parts[0])
    how.is_training = False
    out = forward(job.network, parts, examples.test_x.expand(members, *examples.test_x.shape), how)
    how.is_training = True
    y = examples.test_y
    percent = 100.0 if job.metric.endswith("%") else 1.0
    if job.metric.startswith(("accuracy", "error")):
        right = (out.argmax(-1) == y).float().mean(1)
        right = torch.where(out.isfinite().all(-1).all(-1), right, 1 / examples.classes)
        return percent * (right if job.metric.startswith("accuracy") else 1 - right)
    if examples.classes:
        return (
            functional.cross_entropy(out.flatten(0, 1), y.repeat(members), reduction="none")
            .view(members, -1)
            .mean(1)
        )
    squared = (out[..., 0] - y).square().mean(1)
    if job.metric == "rmse":
        return examples.unit * squared.sqrt()
    return 1 - squared / y.var(correction=0) if job.metric == "r2" else squared
