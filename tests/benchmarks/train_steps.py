"""What the noise-scale meter and micro-batches add to the time of a training step.

    python tests/benchmarks/train_steps.py --device cuda
    torchrun --nproc-per-node 2 tests/benchmarks/train_steps.py --device cpu

Needs torch only. The model is a transformer's encoder; the meter measures every tenth step, so times are of
ten steps, and all that is compared alternates in one run. With one process it is in DDP, too, in a group of
one, for the meter's hook to have a place.
"""

# Run as scripts, without an installation: the path comes first; and they print, being benchmarks.
# ruff: noqa: E402, T201

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from train_timing import alternate, describe

from autotuner.train import MicroBatches, NoiseScale, join
from autotuner.train.compression import register_compression

STEPS = 10
_MEASUREMENT = "the meter's measurement"
SIZES = {"cpu": (4, 256, 32, 16), "cuda": (12, 1024, 128, 64)}
"""Layers, width, tokens in a sample, samples of a process, by the kind of device."""


def encoder(device: torch.device) -> nn.Module:
    """Make the model: the same in every call."""
    layers, width, _, _ = SIZES[device.type]
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        width, nhead=width // 64, dim_feedforward=4 * width, dropout=0.0, batch_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).to(device)


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    """Return a loss that costs nothing beside the model."""
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=batch.is_cuda):
        return model(batch).square().mean()


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    os.environ.update({name: os.environ.get(name, value) for name, value in _ALONE.items()})
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    processes = join()
    compare(device, arguments.rounds, prints=processes.rank == 0)
    dist.destroy_process_group()


_ALONE = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}


def steps(model: nn.Module, backward: Callable[[], object]) -> Callable[[], None]:
    """Return a call that takes `STEPS` steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=True)

    def run() -> None:
        for _ in range(STEPS):
            backward()
            optimizer.step()

    return run


def plain_loop(batch: Tensor) -> Callable[[], None]:
    """Return steps of an ordinary DDP loop."""
    model = DistributedDataParallel(encoder(batch.device))

    def backward() -> None:
        model.zero_grad()
        loss(model, batch).backward()

    return steps(model, backward)


def hooked_loop(batch: Tensor) -> Callable[[], None]:
    """Return steps of the same loop with a meter in DDP's hook."""
    model = DistributedDataParallel(encoder(batch.device))
    meter = NoiseScale(every=STEPS)
    register_compression(model, {}, meter=meter)

    def backward() -> None:
        model.zero_grad()
        loss(model, batch).backward()
        if meter.is_due:
            total = len(batch) * dist.get_world_size()
            meter.large((parameter.grad for parameter in model.parameters()), total, part=len(batch))
        meter.next_step()

    return steps(model, backward)


def micro_batch_loop(batch: Tensor, turns: int, *, measured: bool) -> Callable[[], None]:
    """Return steps of `MicroBatches` in as many turns, with or without a meter."""
    model = DistributedDataParallel(encoder(batch.device))
    meter = NoiseScale(every=STEPS) if measured else None
    micro_batches = MicroBatches(model, loss, len(batch) // turns, meter=meter)
    return steps(model, lambda: micro_batches.backward(batch))


def measurements(batch: Tensor) -> Callable[[], None]:
    """Return as many of the meter's measurements, by themselves: both norms and the means."""
    model = encoder(batch.device)
    loss(model, batch).backward()
    meter = NoiseScale(every=1)

    def run() -> None:
        for _ in range(STEPS):
            meter.small((parameter.grad for parameter in model.parameters()), len(batch) // 2)
            meter.large((parameter.grad for parameter in model.parameters()), len(batch))
            meter.next_step()

    return run


def compare(device: torch.device, rounds: int, *, prints: bool) -> None:
    """Time steps of each kind, and print times and overheads."""
    _, width, tokens, samples = SIZES[device.type]
    batch = torch.randn(samples, tokens, width, device=device)
    times = alternate(
        {
            "plain loop": plain_loop(batch),
            "plain loop, meter in the hook": hooked_loop(batch),
            "1 turn": micro_batch_loop(batch, 1, measured=False),
            "1 turn, meter": micro_batch_loop(batch, 1, measured=True),
            "2 turns": micro_batch_loop(batch, 2, measured=False),
            "2 turns, meter": micro_batch_loop(batch, 2, measured=True),
            "4 turns": micro_batch_loop(batch, 4, measured=False),
            _MEASUREMENT: measurements(batch),
        },
        device=device,
        rounds=rounds,
    )
    if not prints:
        return
    print(f"{describe(device)}, {dist.get_world_size()} process(es), {samples} samples each")
    print(f"{'':32}{'ms a step':>12}{'quartiles':>22}{'against plain':>15}")
    base = times["plain loop"]
    for name, taken in times.items():
        quartiles = "..".join(f"{bound / STEPS:.3f}" for bound in taken.quartiles)
        print(f"{name:32}{taken.median / STEPS:>12.3f}{quartiles:>22}{100 * (taken.over(base) - 1):>+14.1f}%")
    for name in ("1 turn", "2 turns"):
        added = times[f"{name}, meter"].over(times[name]) - 1
        print(f"the meter adds {100 * added:+.1f}% to {name}, by difference")
    own = times[_MEASUREMENT].over(base) / STEPS
    print(f"its measurements by themselves, every {STEPS}th step: {100 * own:.2f}% of the plain loop")


if __name__ == "__main__":
    main()
