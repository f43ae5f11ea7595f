"""Optimizers and schedules for an ensemble: every hyperparameter is a column with one value a member.

Each is the algorithm of PyTorch's class of that name (Lion: Chen et al. 2023, arXiv:2302.06675, algorithm 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Column = torch.Tensor
Step = Callable[["State", torch.Tensor, torch.Tensor, Column], None]


@dataclass
class State:
    """What an optimizer keeps between steps, and its hyperparameters as columns (members, 1)."""

    momentum: Column
    weight_decay: Column
    beta2: Column
    count: int = 0
    first: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    second: torch.Tensor = field(default_factory=lambda: torch.zeros(()))


def sgd(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    """Take a step with heavy-ball momentum and coupled weight decay."""
    gradient = gradient + state.weight_decay * flat
    state.first = state.first * state.momentum + gradient
    flat -= rate * state.first


def nesterov(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    """Take a step with Nesterov momentum and coupled weight decay."""
    gradient = gradient + state.weight_decay * flat
    state.first = state.first * state.momentum + gradient
    flat -= rate * (gradient + state.momentum * state.first)


def rmsprop(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    """Take a step of RMSprop (alpha 0.99) with coupled weight decay."""
    gradient = gradient + state.weight_decay * flat
    state.second = torch.addcmul(0.99 * state.second, gradient, gradient, value=0.01)
    state.first = state.first * state.momentum + gradient / (state.second.sqrt() + 1e-8)
    flat -= rate * state.first


def adam(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    """Take a step of Adam with coupled weight decay."""
    _adam(state, flat, gradient + state.weight_decay * flat, rate)


def adamw(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    """Take a step of AdamW: the decay is decoupled."""
    flat *= 1 - rate * state.weight_decay
    _adam(state, flat, gradient, rate)


def lion(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    """Take a step of Lion with its decoupled weight decay."""
    flat *= 1 - rate * state.weight_decay
    flat -= rate * torch.lerp(gradient, state.first + torch.zeros_like(flat), state.momentum).sign()
    state.first = 0.99 * state.first + 0.01 * gradient


def _adam(state: State, flat: torch.Tensor, gradient: torch.Tensor, rate: Column) -> None:
    state.count += 1
    state.first = state.first * state.momentum + (1 - state.momentum) * gradient
    state.second = state.second * state.beta2 + (1 - state.beta2) * gradient * gradient
    first = state.first / (1 - state.momentum**state.count)
    second = state.second / (1 - state.beta2**state.count)
    flat -= rate * first / (second.sqrt_() + 1e-8)


OPTIMIZERS: Mapping[str, Step] = {
    "sgd": sgd,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
}
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    # Share of the learning rate at a fraction of the run.
    "constant": lambda _: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** (int(done >= 0.5) + int(done >= 0.8)),
}
