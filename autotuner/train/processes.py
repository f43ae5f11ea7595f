"""Join the processes of a job, and distribute the model over them.

One environment variable selects the layout, so that a search can choose it (`layout: [ddp, fsdp]` in the
search space): DDP keeps the whole model in every process, FSDP2 a shard of it, for models that one process
cannot hold. The rest of a script is the same for both, and for a single process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from autotuner.train.compression import COMPRESSIONS, register_compression
from autotuner.train.noise_scale import NoiseScale

__all__ = ["LAYOUTS", "Processes", "distribute", "join"]

LAYOUTS: Final = ("ddp", "fsdp")
"""The names that `distribute` knows."""

_TIMEOUT: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process within its job: its rank, the number of processes, and its device."""

    rank: int
    count: int
    device: torch.device


def join(*, timeout: timedelta = _TIMEOUT) -> Processes:
    """Join the other processes of the job, if there are any, and return this process's position.

    Reads the variables that the training operator and torchrun set: WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR
    and MASTER_PORT. Without them the process is alone, and no process group is created. With GPUs, this
    process uses the one of its local rank; NCCL then exchanges tensors on the GPU, and gloo tensors on the
    host.

    Args:
        timeout: Maximum time to wait for the others, here and in every exchange with them.

    Raises:
        ValueError: WORLD_SIZE or LOCAL_RANK is not an integer.
    """
    local_rank = _number("LOCAL_RANK", 0)
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized() and _number("WORLD_SIZE", 1) > 1:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timeout)
    if not dist.is_initialized():
        return Processes(rank=0, count=1, device=device)
    return Processes(rank=dist.get_rank(), count=dist.get_world_size(), device=device)


def _number(name: str, default: int) -> int:
    """Return a number of the environment; a variable without a value is as none."""
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}: must be a whole number, or unset it if this process is alone")
    return int(text)


def distribute(
    model: nn.Module,
    hyperparameters: Mapping[str, Any],
    processes: Processes,
    *,
    meter: NoiseScale | None = None,
) -> nn.Module:
    """Move a model to its device and distribute it over the job's processes.

    With one process, returns the model itself. With more, returns the model in DDP, or, with layout `fsdp`,
    the model with each of its blocks sharded in place (FSDP2). Blocks are the members of the outermost
    `ModuleList`, `ModuleDict` or `Sequential`: a transformer's layers, a ResNet's stages.

    Args:
        model: The same model on every process; under DDP the weights of the first process are used.
        hyperparameters: `layout` (one of `LAYOUTS`; `ddp` if absent) and, for the exchange of gradients,
            `compression` and its options, see `register_compression`. Others are ignored.
        processes: From `join`.
        meter: A gradient-noise meter that reads this process's gradients before they are averaged; with DDP
            only. `MicroBatches` measures without it.

    Raises:
        ValueError: A name is unknown, or the layout does not support the compression.
    """
    layout, compression = hyperparameters.get("layout", "ddp"), hyperparameters.get("compression", "none")
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}: must be one of {', '.join(LAYOUTS)}")
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression is {compression!r}: must be one of {', '.join(COMPRESSIONS)}")
    model = model.to(processes.device)
    if processes.count == 1:
        return model
    if layout == "ddp":
        replica = DistributedDataParallel(
            model, device_ids=[processes.device] if processes.device.type == "cuda" else None
        )
        register_compression(replica, hyperparameters, meter=meter)
        return replica
    if compression not in {"none", "bf16"}:
        raise ValueError(f"compression is {compression!r}: must be none or bf16 with layout fsdp")
    # FSDP reduces shards with its own collectives: the only compression is a smaller type for them.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16 if compression == "bf16" else None)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for block in [*_blocks(model), model]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return model


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members, with parameters, of the outermost containers."""
    for child in module.children():
        is_member = isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential))
        if is_member and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            if any(True for _ in child.parameters()):
                yield child
        else:
            yield from _blocks(child)
