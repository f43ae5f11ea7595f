"""Networks that compute an ensemble of members at once: every weight has the member as its first dimension.

One member is an ensemble of one, so that a single run and a search by brute force share every line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
}
RUNNING = 0.1
"""Share of a batch in the running statistics of batch normalisation, as in PyTorch."""


@dataclass(frozen=True)
class Network:
    """An architecture: kind, sizes, activation, and normalisation (`none`, `layer` or `batch`)."""

    kind: str
    width: int = 16
    depth: int = 1
    activation: str = "relu"
    normalisation: str = "none"


@dataclass(frozen=True)
class Weight:
    """The shape of one weight tensor of a member, and its distribution at the start."""

    shape: tuple[int, ...]
    scale: float = 0.0
    offset: float = 0.0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Pass:
    """What a forward pass needs apart from inputs and weights."""

    is_training: bool
    dropout: torch.Tensor | None
    """Chance of each member, shape (members,)."""
    generator: torch.Generator
    running: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    layer: int = 0


def weights(network: Network, shape: Sequence[int], outputs: int) -> list[Weight]:
    """Return the weights of a member for inputs of a shape."""
    wide = network.width
    if network.kind == "convolution":
        return [
            *_dense(9, wide, network),
            *_dense(4 * wide, wide, network),
            *_last(wide * 4, outputs),
        ]
    if network.kind == "recurrent":
        gates = 2 * wide
        return [
            *_last(shape[1] + wide, gates),
            *_last(shape[1] + wide, wide),
            *_last(wide, outputs),
        ]
    found: list[Weight] = []
    features = math.prod(shape)
    if network.kind in {"embedding", "attention"}:
        found.append(Weight((shape[1], wide), 0.5))
        features = shape[0] * wide
    if network.kind == "attention":
        found.append(Weight((shape[0], wide), 0.5))
        for _ in range(network.depth):
            found += [Weight((wide, 3 * wide), wide**-0.5), Weight((wide, wide), 0.5 * wide**-0.5)]
            found += [*_norm(wide), *_norm(wide)]
            found += [Weight((wide, 2 * wide), wide**-0.5), Weight((1, 2 * wide))]
            found += [Weight((2 * wide, wide), 0.5 * (2 * wide) ** -0.5)]
        return [*found, *_last(wide, outputs)]
    for _ in range(network.depth):
        found += _dense(features, wide, network)
        features = wide
    return found + _last(features, outputs)


def start(shapes: Sequence[Weight], seeds: Sequence[int]) -> torch.Tensor:
    """Return the flat weights at the start, shape (members, weights): a member's depend on its seed alone."""
    drawn = np.stack(
        [
            np.random.default_rng([seed, 1]).standard_normal(sum(w.size for w in shapes), np.float32)
            for seed in seeds
        ]
    )
    at = 0
    for weight in shapes:
        here = drawn[:, at : at + weight.size]
        here *= weight.scale
        here += weight.offset
        at += weight.size
    return torch.from_numpy(drawn)


def forward(network: Network, given: Sequence[torch.Tensor], x: torch.Tensor, how: Pass) -> torch.Tensor:
    """Return the outputs, shape (members, batch, outputs), for inputs (members, batch, ...)."""
    how.layer = 0
    rest = iter(given)
    if network.kind == "convolution":
        return _convolution(network, rest, x, how)
    if network.kind == "recurrent":
        return _recurrent(rest, x)
    members, batch = x.shape[:2]
    if network.kind in {"embedding", "attention"}:
        x = torch.bmm(x.reshape(members, -1, x.shape[-1]), next(rest)).view(members, batch, x.shape[2], -1)
    if network.kind == "attention":
        return _attention(network, rest, x)
    x = x.reshape(members, batch, -1)
    for _ in range(network.depth):
        x = _hidden(network, rest, x, how)
    return _affine(rest, x)


def _dense(inputs: int, outputs: int, network: Network) -> list[Weight]:
    gain = 1.0 if network.activation == "tanh" else math.sqrt(2)
    found = [Weight((inputs, outputs), gain * inputs**-0.5), Weight((1, outputs))]
    return found if network.normalisation == "none" else [*found, *_norm(outputs)]


def _norm(width: int) -> list[Weight]:
    return [Weight((1, width), offset=1.0), Weight((1, width))]


def _last(inputs: int, outputs: int) -> list[Weight]:
    return [Weight((inputs, outputs), inputs**-0.5), Weight((1, outputs))]


def _affine(rest: Iterator[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    weight, bias = next(rest), next(rest)
    return torch.baddbmm(bias, x, weight)


def _hidden(network: Network, rest: Iterator[torch.Tensor], x: torch.Tensor, how: Pass) -> torch.Tensor:
    x = _affine(rest, x)
    if network.normalisation != "none":
        gain, bias = next(rest), next(rest)
        x = (_layer(x) if network.normalisation == "layer" else _batch(x, how)) * gain + bias
    x = ACTIVATIONS[network.activation](x)
    if how.is_training and how.dropout is not None:
        keep = 1 - how.dropout.view(-1, 1, 1)
        x = x * (torch.rand(x.shape, generator=how.generator) < keep) / keep
    return x


def _layer(x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def _batch(x: torch.Tensor, how: Pass) -> torch.Tensor:
    how.layer += 1
    if how.is_training:
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        old = how.running.get(how.layer, (torch.ones_like(variance), torch.zeros_like(mean)))
        how.running[how.layer] = (
            torch.lerp(old[0], variance.detach(), RUNNING),
            torch.lerp(old[1], mean.detach(), RUNNING),
        )
    else:
        variance, mean = how.running[how.layer]
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def _convolution(network: Network, rest: Iterator[torch.Tensor], x: torch.Tensor, how: Pass) -> torch.Tensor:
    """Two convolutions, 3 by 3 with stride 2 and 2 by 2 with stride 2; images of 8 by 8 pixels."""
    members, batch = x.shape[:2]
    padded = functional.pad(x, (1, 1, 1, 1))
    patches = padded.unfold(2, 3, 2).unfold(3, 3, 2).reshape(members, batch * 16, 9)
    wide = network.width
    x = _hidden(network, rest, patches, how)
    x = x.view(members, batch, 2, 2, 2, 2, wide).transpose(3, 4).reshape(members, batch * 4, 4 * wide)
    x = _hidden(network, rest, x, how)
    return _affine(rest, x.view(members, batch, 4 * wide))


def _recurrent(rest: Iterator[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A gated recurrent unit over the positions."""
    gate, gate_bias, new, new_bias, out, out_bias = rest
    state = x.new_zeros(*x.shape[:2], new.shape[-1])
    for at in range(x.shape[2]):
        here = x[:, :, at]
        gates = torch.sigmoid(torch.baddbmm(gate_bias, torch.cat([here, state], -1), gate))
        update, reset = gates.chunk(2, -1)
        proposed = torch.tanh(torch.baddbmm(new_bias, torch.cat([here, reset * state], -1), new))
        state = torch.lerp(state, proposed, update)
    return torch.baddbmm(out_bias, state, out)


def _attention(network: Network, rest: Iterator[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Transformer blocks of one head, normalised before each part or not at all; the last position counts."""
    members, batch, positions, wide = x.shape
    x = (x + next(rest).unsqueeze(1)).reshape(members, -1, wide)
    act = ACTIVATIONS[network.activation]

    def normed(x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return x if network.normalisation == "none" else _layer(x) * gain + bias

    for _ in range(network.depth):
        mix, out, gain, bias, second_gain, second_bias, up, up_bias, down = (next(rest) for _ in range(9))
        three = torch.bmm(normed(x, gain, bias), mix).view(members * batch, positions, 3 * wide)
        query, key, value = three.chunk(3, -1)
        scores = torch.bmm(query, key.transpose(1, 2)) * wide**-0.5
        seen = torch.bmm(scores.softmax(-1), value).view(members, -1, wide)
        x = torch.baddbmm(x, seen, out)
        x = torch.baddbmm(x, act(torch.baddbmm(up_bias, normed(x, second_gain, second_bias), up)), down)
    return _affine(rest, x.view(members, batch, positions, wide)[:, :, -1])
