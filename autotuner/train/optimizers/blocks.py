"""Parameters as blocks: what layer-wise optimizers share.

LARS, LAMB and LANS treat each parameter tensor as one block, and scale its update by a ratio of norms. Here
stand: sorting parameters into batches that torch's foreach kernels take in one launch, norms that are those
of the whole parameter even where this process holds a shard of it (FSDP2's `DTensor`), ratios that are
defined for a block of zeros, and the loop over groups.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard
from torch.optim import Optimizer

from autotuner.train import foreach

Tensors: TypeAlias = list[Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Parameters of one device, type and sharding, which are stepped together.

    `parameters` are as the optimizer knows them; `weights` and `gradients` are the parts of them that this
    process holds.
    """

    parameters: list[Tensor]
    weights: list[Tensor]
    gradients: list[Tensor]
    mesh: DeviceMesh | None
    sharded_over: tuple[int, ...]

    def norms(self, tensors: Tensors) -> Tensor:
        """Return the 2-norm of each block, as one vector in float32 or better.

        `tensors` are the parts that this process holds. Collective where parameters are sharded: one
        all-reduce for all blocks.
        """
        kind = torch.promote_types(tensors[0].dtype, torch.float32)
        norms = torch.stack(foreach.norm(tensors, 2, dtype=kind))
        if self.mesh is None:
            return norms
        squares = norms.square_()
        for dimension in self.sharded_over:
            dist.all_reduce(squares, group=self.mesh.get_group(dimension))
        return squares.sqrt_()


class BlockOptimizer(Optimizer):
    """The loop over groups and batches; a subclass says how one batch is stepped."""

    @abstractmethod
    def step_batch(self, batch: Batch, group: Mapping[str, Any]) -> None:
        """Step these parameters by the hyperparameters of their group, without gradients being recorded."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step. A closure is evaluated first, with gradients on, and its value returned.

        Raises:
            RuntimeError: A gradient is sparse: a norm of the block needs all of it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for batch in _batches(group["params"]):
                self.step_batch(batch, group)
        return loss

    def moments(self, batch: Batch, name: str) -> list[Tensor]:
        """Return a running average of each block, the parts that this process holds; zeros at first."""
        for parameter in batch.parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return _local(self.state[parameter][name] for parameter in batch.parameters)

    def count(self, batch: Batch) -> list[float]:
        """Count a step of each block, and return how many there have been, this one included.

        A block for itself, for one that joins later (unfrozen, or unused so far) corrects the bias of its
        moments from its own beginning. On the host, as torch's own optimizers keep it: nothing waits.
        """
        steps = []
        for parameter in batch.parameters:
            state = self.state[parameter]
            if "step" not in state:
                state["step"] = torch.tensor(0.0)
            state["step"] += 1
            steps.append(float(state["step"]))
        return steps


def add_scaled(targets: Tensors, updates: Tensors, factors: Tensor | None, *, by: float = 1.0) -> None:
    """Add `by * factor * update` to each target in place; a factor of 1 where `factors` is None.

    The factors, one a block, stay on the device.
    """
    if factors is None:
        foreach.add_(targets, updates, alpha=by)
    else:
        foreach.addcmul_(targets, updates, factors.to(targets[0].dtype).unbind(), value=by)


def ratios(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, and 1 where either is zero.

    A block of zeros has no scale to adapt to, and would without this stay zero for ever. The papers leave it
    open; their authors' code does so.
    """
    return torch.where((numerator > 0) & (denominator > 0), numerator / denominator, 1.0)


def check(**values: float) -> None:
    """Refuse hyperparameters out of range, by name: decay rates in [0, 1), the others 0 or more.

    Raises:
        ValueError: With name, value and rule.
    """
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}: it must be 0 or more")
        if name in {"beta1", "beta2", "momentum"} and not value < 1:
            raise ValueError(f"{name} is {value}: it must be less than 1")


def _batches(parameters: Iterable[Tensor]) -> list[Batch]:
    """Sort the parameters that have a gradient into batches; the others are not stepped."""
    alike: dict[tuple[Any, ...], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            raise RuntimeError("layer-wise optimizers need dense gradients: use Embedding(..., sparse=False)")
        mesh: DeviceMesh | None = None
        placements: tuple[Placement, ...] = ()
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
        alike.setdefault((parameter.device, parameter.dtype, mesh, placements), []).append(parameter)
    return [
        Batch(
            parameters=members,
            weights=_local(members),
            gradients=_local(cast("Tensor", member.grad) for member in members),
            mesh=mesh,
            sharded_over=tuple(i for i, placement in enumerate(placements) if isinstance(placement, Shard)),
        )
        for (_, _, mesh, placements), members in alike.items()
    ]


def _local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the part of each tensor that this process holds, sharing its memory."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
