"""The common base of layer-wise optimizers, which treat parameters as blocks.

LARS, LAMB and LANS treat each parameter tensor as one block, and scale its update by a ratio of norms. This
module has what they share: batches of parameters for one launch of PyTorch's foreach kernels, norms of the
whole parameter even if this process holds a shard of it (FSDP2's `DTensor`), ratios that are defined for a
block of zeros, and the loop over groups.
"""

from __future__ import annotations

import math
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
    """Parameters with the same device, type and sharding, which are updated together.

    `parameters` are the optimizer's own; `weights` and `gradients` are the parts of them that this process
    holds.
    """

    parameters: list[Tensor]
    weights: list[Tensor]
    gradients: list[Tensor]
    mesh: DeviceMesh | None
    sharded_over: tuple[int, ...]

    def norms(self, tensors: Tensors) -> Tensor:
        """Return the 2-norm of each block, as one vector in at least float32.

        `tensors` are the parts that this process holds. Collective if parameters are sharded: one all-reduce
        for all blocks.
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
    """The loop over groups and batches; a subclass implements the update of one batch."""

    @abstractmethod
    def step_batch(self, batch: Batch, group: Mapping[str, Any]) -> None:
        """Update these parameters with the hyperparameters of their group, without recording gradients."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step. A closure is evaluated first, with gradients enabled, and its value is returned.

        Raises:
            RuntimeError: A gradient is sparse; the norm of a block needs all of it.
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
        """Return a running average of each block (the part that this process holds); initially zeros."""
        for parameter in batch.parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return _local(self.state[parameter][name] for parameter in batch.parameters)

    def count(self, batch: Batch) -> list[float]:
        """Count a step of each block, and return the number of its steps, including this one.

        Blocks count separately, because one that joins later (unfrozen, or unused so far) corrects the bias
        of its moments from its own start. The count is on the host, as in PyTorch's own optimizers: nothing
        waits.
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
    """Add `by * factor * update` to each target in place; the factor is 1 if `factors` is None.

    The factors, one per block, stay on the device.
    """
    if factors is None:
        foreach.add_(targets, updates, alpha=by)
    else:
        foreach.addcmul_(targets, updates, factors.to(targets[0].dtype).unbind(), value=by)


def ratios(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, or 1 where either is zero.

    A block of zeros has no scale to adapt to, and would otherwise stay zero forever. The papers do not
    define this case; their authors' code does the same.
    """
    return torch.where((numerator > 0) & (denominator > 0), numerator / denominator, 1.0)


def check(**values: float) -> None:
    """Check hyperparameters by name: decay rates must be in [0, 1), the others 0 or more and finite.

    Raises:
        ValueError: With name, value and rule.
    """
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}: must be 0 or more, and finite")
        if name in {"beta1", "beta2", "momentum"} and not value < 1:
            raise ValueError(f"{name} is {value}: must be less than 1")


def _batches(parameters: Iterable[Tensor]) -> list[Batch]:
    """Sort the parameters that have a gradient into batches; the others are not updated."""
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
    """Return the part of each tensor that this process holds, sharing its memory.

    Complex numbers are pairs of real ones, as in PyTorch's Adam: the square of a second moment is of each.
    """
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return [torch.view_as_real(part) if part.is_complex() else part for part in parts]
