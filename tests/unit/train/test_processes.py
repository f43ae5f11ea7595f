"""Layouts over processes: what is sharded, what is refused, and that both take the same steps."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from autotuner.train import Processes, distribute, join, make_optimizer

ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))


class Transformer(nn.Module):
    """The shape of a model: an embedding, layers in a list, a head in a sequence."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Linear(6, 8)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8)) for _ in range(2)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(8, 3))
        self.double()

    def forward(self, inputs):
        hidden = self.embedding(inputs)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.head(hidden)


def _steps(processes, layout, optimizer):
    hp = {
        "layout": layout,
        "optimizer": optimizer,
        "lr": 0.02,
        "weight_decay": 0.01,
        "trust_coefficient": 0.1,
    }
    model = distribute(Transformer(), hp, processes)
    stepper = make_optimizer(model, hp)
    generator = torch.Generator().manual_seed(5)
    for _ in range(5):
        inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        share = inputs[processes.rank :: processes.count]
        stepper.zero_grad()
        model(share).square().mean().backward()
        stepper.step()
    weights = [p.full_tensor() if layout == "fsdp" and processes.count > 1 else p for p in model.parameters()]
    return torch.cat([weight.detach().flatten() for weight in weights]).numpy().copy()


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "lamb", "lans"])
@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_a_layout_changes_where_a_model_is_and_not_what_it_learns(two_processes, layout, optimizer):
    alone = _steps(ALONE, layout, optimizer)
    for found in two_processes.run(_steps, layout, optimizer):
        np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-11)


def _sharded_blocks(processes):
    model = distribute(Transformer(), {"layout": "fsdp"}, processes)
    local = sum(parameter.to_local().numel() for parameter in model.parameters())
    names = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    return names, local / sum(parameter.numel() for parameter in model.parameters())


def test_each_layer_is_a_block_and_each_process_holds_its_shard(two_processes):
    results = two_processes.run(_sharded_blocks)
    assert [names for names, _ in results] == [["", "layers.0", "layers.1", "head.1"]] * 2
    assert sum(part for _, part in results) == pytest.approx(1)
    assert all(part < 0.6 for _, part in results)


def _refused(processes, hyperparameters):
    try:
        distribute(Transformer(), hyperparameters, processes)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"layout": "pipeline"}, "layout is 'pipeline': must be one of ddp, fsdp"),
        (
            {"layout": "fsdp", "compression": "topk"},
            "compression is 'topk': must be none or bf16 with layout fsdp",
        ),
    ],
)
def test_a_layout_that_there_is_not_is_refused(two_processes, hyperparameters, message):
    assert two_processes.run(_refused, hyperparameters) == [message, message]


def test_a_process_alone_keeps_its_model_as_it_is(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    processes = join()
    model = nn.Linear(2, 2)
    assert (processes.rank, processes.count) == (0, 1)
    assert distribute(model, {"layout": "fsdp", "compression": "topk"}, processes) is model


@pytest.mark.parametrize(
    ("name", "text"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "-1"), ("LOCAL_RANK", "0.5")]
)
def test_a_variable_that_is_no_number_is_named(monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=f"{name} is '{text}': must be a whole number"):
        join()


def test_variables_without_a_value_are_as_none(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
    assert join().count == 1


def test_an_unknown_compression_is_refused_on_one_process_too():
    with pytest.raises(ValueError, match="compression is 'gzip': must be one of none, bf16, powersgd, topk"):
        distribute(nn.Linear(2, 2), {"compression": "gzip"}, ALONE)


def _place(processes):
    return processes.rank, processes.count, join() == processes


def test_processes_know_their_place_however_often_they_join(two_processes):
    assert two_processes.run(_place) == [(0, 2, True), (1, 2, True)]
