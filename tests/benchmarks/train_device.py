"""Checks on a GPU of what a CPU cannot show, and prints one line for each.

    python tests/benchmarks/train_device.py --device cuda

Needs torch only. Memory really runs out; optimizers, the top-k exchange over NCCL (a group of one), FSDP2 and
the meter run on the device, and are held against the same on the CPU in float64. Ends with 1 if one fails.
"""

# Run as a script, without an installation: the path comes first; and it prints, being for a reader.
# ruff: noqa: T201

import argparse
import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from autotuner.train import MicroBatches, NoiseScale, Processes, distribute, make_optimizer
from autotuner.train.compression import TopK, top_k_hook
from autotuner.train.optimizers import OPTIMIZERS

ALONE = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29519"}


def network(width: int = 64) -> nn.Module:
    """Make a network with matrices, biases and a normalisation: the same in every call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, 1))


def loss(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return a regression's loss."""
    return (model(inputs) - inputs[:, :4].sum(1, keepdim=True)).square().mean()


def inputs(device: torch.device, dtype: torch.dtype, step: int = 0) -> Tensor:
    """Return a batch: the same numbers on every device."""
    return torch.randn(64, 32, generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(
        device, dtype
    )


def weights(model: nn.Module) -> Tensor:
    """Return all parameters as one vector of float64 on the host."""
    return torch.cat([parameter.detach().double().cpu().flatten() for parameter in model.parameters()])


def distance(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((one - other).abs().max() / other.abs().max())


def optimizers_match(device: torch.device) -> tuple[bool, str]:
    """Ten steps of every optimizer in float32 on the device, against float64 on the CPU."""
    worst = {}
    for name in OPTIMIZERS:
        ends = []
        for where, dtype in ((device, torch.float32), (torch.device("cpu"), torch.float64)):
            model = network().to(where, dtype)
            hp = {"optimizer": name, "lr": 0.01, "weight_decay": 0.01, "trust_coefficient": 0.1}
            optimizer = make_optimizer(model, hp)
            for step in range(10):
                optimizer.zero_grad()
                loss(model, inputs(where, dtype, step)).backward()
                optimizer.step()
            ends.append(weights(model))
        worst[name] = distance(*ends)
    return max(worst.values()) < 1e-3, " ".join(f"{name} {value:.1e}" for name, value in worst.items())


def memory_runs_out(device: torch.device) -> tuple[bool, str]:
    """Activations of the whole batch do not fit; those of micro-batches do, and the gradient is the same."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    room = min(2 << 30, free // 2)
    torch.cuda.set_per_process_memory_fraction(room / total, device)
    try:
        width, samples = 4096, 2 * room // (4096 * 4)  # one activation alone is twice the room
        model = network(width).to(device)
        batch = inputs(device, torch.float32).repeat(samples // 64, 1)
        micro_batches = MicroBatches(model, loss)
        step = micro_batches.backward(batch)
        found = torch.cat([parameter.grad.double().cpu().flatten() for parameter in model.parameters()])
        again = micro_batches.backward(batch)
        whole = copy.deepcopy(model).double().cpu()
        loss(whole, inputs(torch.device("cpu"), torch.float64)).backward()
        right = torch.cat([parameter.grad.flatten() for parameter in whole.parameters()])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    error = distance(found, right)
    is_good = step.accumulation > 1 and error < 1e-3 and again.accumulation == step.accumulation
    return (
        is_good,
        f"{step.samples} samples in {step.accumulation} turns of {step.micro_batch}, error {error:.1e}",
    )


def top_k_sends_all(device: torch.device) -> tuple[bool, str]:
    """At density 1 the top k are the whole gradient."""
    model = DistributedDataParallel(network().to(device))
    model.register_comm_hook(TopK(density=1.0, warmup=0), top_k_hook)
    plain = network().to(device)
    worst = 0.0
    for step in range(4):
        for each in (model, plain):
            each.zero_grad()
            loss(each, inputs(device, torch.float32, step)).backward()
        pairs = zip(model.parameters(), plain.parameters(), strict=True)
        worst = max(worst, *(float((a.grad - b.grad).abs().max()) for a, b in pairs))
    return worst < 1e-6, f"largest difference {worst:.1e}"


def sharded_steps_match(device: torch.device) -> tuple[bool, str]:
    """FSDP2 in a group of one takes LAMB's steps."""
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415 (needs the group)
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    ends = []
    for sharded in (True, False):
        model = network().to(device)
        if sharded:
            fully_shard(model, mesh=init_device_mesh(device.type, (1,)))
        optimizer = make_optimizer(model, {"optimizer": "lamb", "lr": 0.01})
        for step in range(5):
            optimizer.zero_grad()
            loss(model, inputs(device, torch.float32, step)).backward()
            optimizer.step()
        full = [p.full_tensor() if sharded else p for p in model.parameters()]
        ends.append(torch.cat([parameter.detach().double().cpu().flatten() for parameter in full]))
    error = distance(*ends)
    return error < 1e-5, f"error {error:.1e}"


def noise_scale_is_measured(device: torch.device) -> tuple[bool, str]:
    """A model whose samples' gradients have a known noise scale, measured on the device."""
    size, noise = 200, 0.5
    model = distribute(nn.Linear(size, 1, bias=False), {}, Processes(0, 1, device))
    meter = NoiseScale(every=1, smoothing=0.99)
    micro_batches = MicroBatches(model, lambda each, batch: each(batch).mean(), 16, meter=meter)
    generator = torch.Generator(device).manual_seed(0)
    for _ in range(300):
        batch = noise * torch.randn(32, size, generator=generator, device=device)
        batch[:, 0] += 1.0
        micro_batches.backward(batch)
    value, true = meter.value or 0.0, size * noise**2
    return abs(value / true - 1) < 0.15, f"{value:.1f}, true {true:.1f}"


CHECKS: dict[str, Callable[[torch.device], tuple[bool, str]]] = {
    "optimizers are those of the CPU": optimizers_match,
    "memory that runs out": memory_runs_out,
    "the top k over NCCL": top_k_sends_all,
    "FSDP2": sharded_steps_match,
    "the noise scale": noise_scale_is_measured,
}


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    os.environ.update(ALONE)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    failed = 0
    for name, check in CHECKS.items():
        if device.type != "cuda" and check is memory_runs_out:
            continue
        is_good, found = check(device)
        failed += not is_good
        print(f"{'ok  ' if is_good else 'FAIL'} {name}: {found}", flush=True)
    dist.destroy_process_group()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
