"""The time of an optimizer's step, against torch's AdamW in the same run.

    python tests/benchmarks/train_optimizers.py --device cuda

Needs torch only. Parameters have the shapes of a ResNet-50 (161 tensors, 26 million numbers) or of a
BERT-large (388 tensors, 334 million); what the gradients hold makes no difference to the time.
"""

# Run as scripts, without an installation: the path comes first; and they print, being benchmarks.
# ruff: noqa: E402, T201

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from train_timing import alternate, describe

from autotuner.train.optimizers import Lamb, Lans, Lars


def resnet50() -> Iterator[tuple[int, ...]]:
    """Yield the shapes of a ResNet-50's parameters."""

    def convolution(inputs: int, outputs: int, size: int) -> Iterator[tuple[int, ...]]:
        yield from ((outputs, inputs, size, size), (outputs,), (outputs,))  # and its batch normalisation

    yield from convolution(3, 64, 7)
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            if block == 0:
                yield from convolution(inputs, 4 * width, 1)
            yield from convolution(inputs, width, 1)
            yield from convolution(width, width, 3)
            yield from convolution(width, 4 * width, 1)
            inputs = 4 * width
    yield from ((1000, 2048), (1000,))


def bert_large() -> Iterator[tuple[int, ...]]:
    """Yield the shapes of a BERT-large's parameters, without pooler and head."""
    width = 1024
    yield from ((30522, width), (512, width), (2, width), (width,), (width,))
    for _ in range(24):
        for _ in range(4):
            yield from ((width, width), (width,))
        yield from ((4 * width, width), (4 * width,), (width, 4 * width), (width,))
        yield from ((width,), (width,)) * 2


MODELS: dict[str, Callable[[], Iterator[tuple[int, ...]]]] = {"resnet50": resnet50, "bert-large": bert_large}


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(describe(device))
    for model in MODELS if arguments.model == "all" else [arguments.model]:
        compare(model, device, arguments.rounds)


def compare(model: str, device: torch.device, rounds: int) -> None:
    """Step every optimizer on parameters of the model's shapes, and print times and ratios."""
    parameters = [torch.randn(shape, device=device, requires_grad=True) for shape in MODELS[model]()]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01, "adapt": True},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "adapt": False},
    ]

    def copies() -> list[dict[str, object]]:
        return [dict(group) for group in groups]

    # All share the parameters, and a rate that leaves them as they are in all but the last bits.
    optimizers = {
        "adamw, fused": torch.optim.AdamW(copies(), lr=1e-6, fused=True),
        "adamw, foreach": torch.optim.AdamW(copies(), lr=1e-6, foreach=True),
        "sgd, foreach": torch.optim.SGD(copies(), lr=1e-6, momentum=0.9, foreach=True),
        "lars": Lars(copies(), lr=1e-6),
        "lamb": Lamb(copies(), lr=1e-6),
        "lans": Lans(copies(), lr=1e-6),
    }
    times = alternate(
        {name: optimizer.step for name, optimizer in optimizers.items()}, device=device, rounds=rounds
    )
    count = sum(parameter.numel() for parameter in parameters)
    print(
        f"\n{model}: {len(parameters)} tensors, {count / 1e6:.1f} million numbers; median of {rounds} steps"
    )
    print(f"{'optimizer':16}{'ms':>10}{'quartiles':>20}{'/ fused':>10}{'/ foreach':>11}")
    for name, taken in times.items():
        quartiles = "..".join(f"{bound:.3f}" for bound in taken.quartiles)
        ratios = taken.over(times["adamw, fused"]), taken.over(times["adamw, foreach"])
        print(f"{name:16}{taken.median:>10.3f}{quartiles:>20}{ratios[0]:>10.2f}{ratios[1]:>11.2f}")


if __name__ == "__main__":
    main()
