"""Gradient compression that the search can choose: none, bf16, PowerSGD, or top k.

Each is a communication hook of DDP, which gets a bucket of gradients before it is averaged. Whether one pays
off depends on the network and on the model, and all of them affect the training; therefore the search
chooses. bf16 and PowerSGD are PyTorch's own hooks. Top k, after Deep Gradient Compression (Lin et al. 2018,
arXiv:1712.01887), is implemented here because PyTorch does not have it.
"""

# No postponed annotations here: DDP checks the declared types of its hooks.

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket  # untyped in torch.distributed
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from autotuner.train.noise_scale import NoiseScale

__all__ = [
    "COMPRESSIONS",
    "TopK",
    "exchanges_gradients",
    "hook_momentum",
    "register_compression",
    "top_k_hook",
]

COMPRESSIONS: Final = ("none", "bf16", "powersgd", "topk")
"""The names that `register_compression` knows."""

_PARTIAL: Final[WeakSet[nn.Module]] = WeakSet()
"""Models whose exchange does not yield the mean gradient, because a part of it is sent later."""

_logger: Final = logging.getLogger(__name__)

Hook: TypeAlias = Callable[[Any, GradBucket], Future[Tensor]]


def register_compression(
    model: DistributedDataParallel, hyperparameters: Mapping[str, Any], *, meter: NoiseScale | None = None
) -> None:
    """Make a DDP model compress its gradients as the hyperparameters say. Call it once, before training.

    Args:
        model: The model in DDP.
        hyperparameters: `compression` (one of `COMPRESSIONS`; `none` if absent); `compression_rank` (of
            PowerSGD's factors, 1 if absent); `compression_density` (the fraction of the gradient that top k
            sends, 0.001 if absent); `compression_warmup` (steps until they are in full effect, 100 if
            absent); for top k also `optimizer` and `momentum`, see `hook_momentum`.
        meter: Reads gradients before they are exchanged. Not used with PowerSGD and top k, whose exchange
            does not yield the mean gradient to compare with: PowerSGD yields a low-rank approximation, top k
            a part of it.

    Raises:
        ValueError: The name is unknown, or a value is out of range.
    """
    get = hyperparameters.get
    name, warmup = get("compression", "none"), get("compression_warmup", 100)
    hook: Hook = default_hooks.allreduce_hook
    state: Any = None
    if name == "bf16":
        hook = _bf16_hook
    elif name == "powersgd":
        rank = get("compression_rank", 1)
        if rank < 1 or rank != int(rank) or warmup < 0:
            raise ValueError(
                f"compression_rank {rank} must be a whole number from 1, and compression_warmup {warmup} not"
                " negative"
            )
        hook = powerSGD_hook.powerSGD_hook
        # Gradients before the start are exchanged in full; PyTorch refuses a start before its buckets are
        # final.
        state = powerSGD_hook.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=int(rank),
            start_powerSGD_iter=max(warmup, 2),
        )
    elif name == "topk":
        hook = top_k_hook
        state = TopK(
            density=get("compression_density", 0.001),
            warmup=warmup,
            momentum=hook_momentum(model, hyperparameters),
        )
    elif name != "none":
        raise ValueError(f"compression is {name!r}: must be one of {', '.join(COMPRESSIONS)}")
    elif meter is None:
        return  # DDP's own exchange, without a Python hook
    if name in {"powersgd", "topk"}:
        _PARTIAL.add(model)
        if meter is not None:
            _logger.warning("there is no gradient noise scale with compression %s", name)
    elif meter is not None:
        hook = meter.before(hook)
    model.register_comm_hook(state, hook)


def exchanges_gradients(model: nn.Module) -> bool:
    """Return whether the exchange yields the mean gradient up to rounding: PowerSGD and top k do not."""
    return model not in _PARTIAL


def hook_momentum(model: nn.Module, hyperparameters: Mapping[str, Any]) -> float:
    """Return the momentum that the gradient exchange applies instead of the optimizer.

    Deep Gradient Compression accumulates *velocities* for gradients that are held back (its momentum
    correction, section 3.2): the momentum of SGD moves into the hook, and SGD itself must have none. Other
    optimizers keep theirs. `make_optimizer` calls this function, too, so momentum is applied only once.
    """
    get = hyperparameters.get
    moves = (
        isinstance(model, DistributedDataParallel)
        and get("compression", "none") == "topk"
        and get("optimizer", "sgd") == "sgd"
    )
    return float(get("momentum", 0.9)) if moves else 0.0


@dataclass
class TopK:
    """State of `top_k_hook`: the values that each process has not sent yet.

    Args:
        density: The fraction of each bucket's values that is sent, in (0, 1].
        warmup: Steps over which the density falls from a quarter to that, by a factor of four per phase
            (Lin et al. 2018, section 3.3; theirs lasts four epochs).
        momentum: Momentum of SGD, which moves into this hook; 0 accumulates gradients, not velocities.
        group: Process group; None: the default one.
    """

    density: float = 0.001
    warmup: int = 100
    momentum: float = 0.0
    group: dist.ProcessGroup | None = None
    step: int = field(default=0, init=False)
    velocities: dict[int, Tensor] = field(default_factory=dict, init=False)
    unsent: dict[int, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"density is {self.density}: must be above 0 and at most 1, for example 0.001")
        if not 0 <= self.momentum < 1 or self.warmup < 0:
            raise ValueError(
                f"momentum {self.momentum} must be in [0, 1), and warmup {self.warmup} not negative"
            )

    def density_now(self) -> float:
        """Return the density of the current step: 1/4, 1/16, ... down to the final one."""
        phases = max(math.ceil(math.log(1 / self.density, 4)), 1)
        if self.step >= self.warmup:
            return self.density
        phase = self.step * phases // self.warmup
        return max(0.25 ** (phase + 1), self.density)


def _bf16_hook(group: Any, bucket: GradBucket) -> Future[Tensor]:  # noqa: ANN401 (DDP's state)
    """Exchange like PyTorch's own hook, which DDP refuses by its name if PyTorch is built without CUDA."""
    return default_hooks.bf16_compress_hook(group, bucket)


def top_k_hook(state: TopK, bucket: GradBucket) -> Future[Tensor]:
    """Exchange the largest values of a bucket, and keep the others for later (Lin et al. 2018, algorithm 4).

    On each process, for a bucket's local gradient g::

        u <- momentum * u + g          momentum correction
        v <- v + u                     local accumulation
        send v where |v| is among the largest; there v <- 0 and u <- 0 (momentum factor masking)

    and the result is the mean over the processes of the sent values. Values and indices are sent in one
    message of 8 bytes each. The first step is exchanged in full, because DDP rebuilds its buckets after it.
    """
    gradient = bucket.buffer()
    group = state.group if state.group is not None else dist.group.WORLD
    is_first = state.step == 0
    density = state.density_now()
    if bucket.is_last():
        state.step += 1
    if is_first:
        return default_hooks.allreduce_hook(group, bucket)  # type: ignore[arg-type]

    index = bucket.index()
    if index not in state.unsent:
        state.unsent[index] = torch.zeros_like(gradient)
        state.velocities[index] = torch.zeros_like(gradient)
    unsent, velocity = state.unsent[index], state.velocities[index]
    velocity.mul_(state.momentum).add_(gradient)
    unsent.add_(velocity)

    count = max(math.ceil(density * gradient.numel()), 1)
    positions = unsent.abs().topk(count, sorted=False).indices
    values = unsent[positions].float()
    unsent[positions] = 0
    velocity[positions] = 0

    # Indices are sent as the bits of floats, next to the values: one message instead of two. A bucket has at
    # most a few hundred million values, so 32 bits suffice.
    message = torch.cat([values, positions.to(torch.int32).view(torch.float32)])
    world = dist.get_world_size(group)
    received = message.new_empty(world * message.numel())
    work = dist.all_gather_into_tensor(received, message, group=group, async_op=True)
    if work is None:
        raise RuntimeError("this process is not in the group that exchanges its gradients")

    def add_up(_: Future[Any]) -> Tensor:
        if received.is_cuda:  # this runs on its own stream, which the allocator must know
            received.record_stream(torch.cuda.current_stream())
        gradient.zero_()
        # Process by process: within each, positions are distinct, so the sum has one order and the replicas
        # stay bitwise equal. With one call for all, atomic additions would decide the order.
        for values, indices in received.view(world, 2, count):
            positions = indices.view(torch.int32).long()
            gradient.index_add_(0, positions, (values / world).to(gradient.dtype))
        return gradient

    future: Future[Tensor] = work.get_future().then(add_up)
    return future
