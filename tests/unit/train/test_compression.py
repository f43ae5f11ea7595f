"""Gradients in fewer bytes: what arrives, and that runs still learn."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autotuner.train.compression import (
    TopK,
    exchanges_gradients,
    hook_momentum,
    register_compression,
    top_k_hook,
)
from autotuner.train.noise_scale import NoiseScale
from autotuner.train.optimizers import make_optimizer
from autotuner.train.processes import distribute
from tests.unit.train.compression_reference import deep_gradient_compression

SIZE = 50


class Linear(nn.Module):
    """A model whose gradient is its input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))

    def forward(self, direction):
        return self.weight @ direction


def directions(processes, steps):
    return np.random.default_rng(7).normal(size=(steps, processes, SIZE))


def _exchanged(processes, steps, momentum, density, warmup):
    model = DistributedDataParallel(Linear())
    model.register_comm_hook(TopK(density=density, warmup=warmup, momentum=momentum), top_k_hook)
    seen = []
    for step in range(steps):
        model.zero_grad()
        model(torch.from_numpy(directions(2, steps)[step][processes.rank])).backward()
        seen.append(model.module.weight.grad.numpy().copy())
    return seen


@pytest.mark.parametrize(("momentum", "density"), [(0.9, 0.1), (0.0, 0.02), (0.5, 1.0)])
def test_the_top_k_are_exchanged_as_the_paper_says(two_processes, momentum, density):
    steps, count = 12, max(int(np.ceil(density * SIZE)), 1)
    one, other = two_processes.run(_exchanged, steps, momentum, density, 0)
    np.testing.assert_array_equal(one, other)
    gradients = directions(2, steps)
    np.testing.assert_allclose(one[0], gradients[0].mean(0), rtol=1e-12)  # the first step is sent in full
    expected = deep_gradient_compression(gradients[1:], momentum=momentum, counts=[count] * (steps - 1))
    # Values travel in float32, to the process itself too, so what is right is right to seven digits.
    for found, right in zip(one[1:], expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=3e-7, atol=1e-7)


def test_without_momentum_nothing_is_lost_only_late(two_processes):
    steps = 200
    one, _ = two_processes.run(_exchanged, steps, 0.0, 0.1, 0)
    arrived, wanted = np.sum(one, axis=0), directions(2, steps).mean(1).sum(0)
    late = np.abs(arrived - wanted).max()
    assert 0 < late < 0.25 * np.abs(directions(2, steps)).mean(1).sum(0).max()


def test_density_falls_by_factors_of_four_to_the_final_one():
    state = TopK(density=0.001, warmup=10)
    seen = []
    for step in range(12):
        state.step = step
        seen.append(state.density_now())
    assert seen == pytest.approx(
        [1 / 4] * 2 + [1 / 16] * 2 + [1 / 64] * 2 + [1 / 256] * 2 + [0.001] * 4, rel=0.03
    )
    assert TopK(density=0.5, warmup=0).density_now() == 0.5
    assert TopK(density=1.0, warmup=10).density_now() == 1.0


@pytest.mark.parametrize("bad", [{"density": 0.0}, {"density": 1.5}, {"momentum": 1.0}, {"warmup": -1}])
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"density|momentum"):
        TopK(**bad)


class Regression(nn.Module):
    """Enough parameters for PowerSGD's factors to be smaller than the matrix."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, inputs):
        return self.layers(inputs)


def _learned(processes, hyperparameters, layout="ddp"):
    hp = {
        "lr": 0.05,
        "compression_warmup": 10,
        "compression_density": 0.05,
        "layout": layout,
        **hyperparameters,
    }
    model = distribute(Regression(), hp, processes)
    optimizer = make_optimizer(model, hp)
    generator = torch.Generator().manual_seed(processes.rank)
    losses = []
    for _ in range(150):
        inputs = torch.randn(32, 16, generator=generator)
        optimizer.zero_grad()
        loss = (model(inputs) - inputs[:, :4].sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    weights = [p.full_tensor() if layout == "fsdp" else p for p in model.parameters()]
    return (
        np.mean(losses[:5]),
        np.mean(losses[-20:]),
        torch.cat([w.detach().flatten() for w in weights]).numpy(),
    )


@pytest.mark.parametrize(
    ("hyperparameters", "layout"),
    [
        ({"compression": "none"}, "ddp"),
        ({"compression": "bf16"}, "ddp"),
        ({"compression": "powersgd", "compression_rank": 2}, "ddp"),
        ({"compression": "topk"}, "ddp"),
        ({"compression": "topk", "optimizer": "lamb"}, "ddp"),
        ({"compression": "bf16"}, "fsdp"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_run_learns_and_its_replicas_stay_equal(two_processes, hyperparameters, layout):
    (first, last, weights), (_, _, others) = two_processes.run(_learned, hyperparameters, layout)
    assert last < 0.2 * first
    np.testing.assert_array_equal(weights, others)


def _register(_processes, hyperparameters):
    model = DistributedDataParallel(Regression())
    try:
        register_compression(model, hyperparameters, meter=NoiseScale())
    except ValueError as error:
        return str(error)
    optimizer = make_optimizer(model, {"lr": 0.1, "momentum": 0.7, **hyperparameters})
    return (
        exchanges_gradients(model),
        hook_momentum(model, {"momentum": 0.7, **hyperparameters}),
        optimizer.defaults.get("momentum"),
    )


@pytest.mark.parametrize(
    ("hyperparameters", "expected"),
    [
        ({}, (True, 0.0, 0.7)),
        ({"compression": "powersgd"}, (False, 0.0, 0.7)),
        ({"compression": "topk"}, (False, 0.7, 0.0)),
        ({"compression": "topk", "optimizer": "lars"}, (False, 0.0, 0.7)),
        ({"compression": "topk", "optimizer": "lamb"}, (False, 0.0, None)),
        ({"compression": "gzip"}, "compression is 'gzip': must be one of none, bf16, powersgd, topk"),
    ],
)
def test_momentum_is_applied_once_wherever_it_is(two_processes, hyperparameters, expected):
    assert two_processes.run(_register, hyperparameters) == [expected, expected]


@pytest.mark.parametrize(
    "bad", [{"compression_rank": 0}, {"compression_rank": 1.5}, {"compression_warmup": -1}]
)
def test_a_powersgd_that_would_send_nothing_is_refused(two_processes, bad):
    for said in two_processes.run(_register, {"compression": "powersgd", **bad}):
        assert "must be a whole number from 1" in said


def test_a_process_alone_keeps_its_momentum():
    hyperparameters = {"compression": "topk", "momentum": 0.7, "lr": 0.1}
    assert hook_momentum(Regression(), hyperparameters) == 0
    assert make_optimizer(Regression(), hyperparameters).defaults["momentum"] == 0.7
