"""The processes of a job: joining them, and laying the model out over them.

One environment variable chooses the layout, so that a search can treat it as a choice (`layout: [ddp, fsdp]`
in the search space): DDP keeps the whole model in every process, and FSDP2 a shard of it, for models that
one process cannot hold. The rest of a script is the same for both, and for a single process.
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

from autotuner.train.compression import register_compression
from autotuner.train.noise_scale import NoiseScale

__all__ = ["LAYOUTS", "Processes", "distribute", "join"]

LAYOUTS: Final = ("ddp", "fsdp")
"""The names that `distribute` knows."""

_TIMEOUT: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of its job: which of how many, and the device it works on."""

    rank: int
    count: int
    device: torch.device


def join(*, timeout: timedelta = _TIMEOUT) -> Processes:
    """Join the other processes of the job, if there are any, and return this one's place.

    Reads what the training operator and torchrun set: WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT. Without them the process is alone, and no process group is made. With a GPU, this process
    takes the one of its local rank; NCCL then carries what is on it, and gloo what is on the host.

    Args:
        timeout: How long to wait for the others, here and in every exchange with them.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timeout)
    if not dist.is_initialized():
        return Processes(rank=0, count=1, device=device)
    return Processes(rank=dist.get_rank(), count=dist.get_world_size(), device=device)


def distribute(
    model: nn.Module,
    hyperparameters: Mapping[str, Any],
    processes: Processes,
    *,
    meter: NoiseScale | None = None,
) -> nn.Module:
    """Move a model to its device and lay it out over the job's processes.

    With one process it is the model itself, moved. With more it is the model in DDP, or, with layout `fsdp`,
    the model with each of its blocks sharded in place (FSDP2). Blocks are what stands in the outermost
    `ModuleList`, `ModuleDict` or `Sequential`: a transformer's layers, a ResNet's stages.

    Args:
        model: The same on every process; the first one's weights win under DDP.
        hyperparameters: `layout` (one of `LAYOUTS`; `ddp` if absent) and, for the exchange of gradients,
            `compression` with what belongs to it, see `register_compression`. Others are passed over.
        processes: From `join`.
        meter: A gradient-noise meter that reads this process's gradients before they are averaged; under
            DDP only. `MicroBatches` measures without it.

    Raises:
        ValueError: A name is unknown, or the compression is none that the layout has.
    """
    layout, compression = hyperparameters.get("layout", "ddp"), hyperparameters.get("compression", "none")
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}: it must be one of {', '.join(LAYOUTS)}")
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
        raise ValueError(f"compression is {compression!r}: layout fsdp has none and bf16 only")
    # FSDP reduces shards with its own collectives: a smaller type for them is all the compression it has.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.bfloat16 if compression == "bf16" else None)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for block in [*_blocks(model), model]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return model


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of the outermost containers that have parameters."""
    for child in module.children():
        is_member = isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential))
        if is_member and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            if any(True for _ in child.parameters()):
                yield child
        else:
            yield from _blocks(child)
