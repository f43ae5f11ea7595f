"""Train a language model of bytes on the source text of Python's standard library.

A script as people have it: arguments, a loop, a print. It knows nothing of the autotuner. 3 million
parameters, 8 million tokens a run; on an H100 a run takes some seconds. See `job.yaml` beside it.
"""

# Run as a script; what it prints is what the autotuner reads.
# ruff: noqa: T201

import argparse
import math
import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

CONTEXT, WIDTH, LAYERS, HEAD = 128, 256, 4, 64
BYTES = 256
MEASUREMENTS = 10
VALIDATION = (4, 512)
"""Batches of a validation, and sequences in each."""


class Block(nn.Module):
    """A transformer block, normalised before each part."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_layers = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inputs, self.outputs = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return the next state of sequences (batch, positions, width)."""
        batch, positions, _ = x.shape
        shape = (batch, positions, 3, WIDTH // HEAD, HEAD)
        query, key, value = self.inputs(self.before_attention(x)).view(shape).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.outputs(seen.transpose(1, 2).reshape(batch, positions, WIDTH))
        return x + self.layers(self.before_layers(x))


class Model(nn.Module):
    """A decoder over bytes with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.position = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        blocks = [Block() for _ in range(LAYERS)]
        self.rest = nn.Sequential(*blocks, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, BYTES))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next byte, (batch, positions, 256)."""
        return self.rest(self.embedding(tokens) + self.position)


def texts(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the bytes for training and for validation."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = torch.frombuffer(bytearray(b"".join(f.read_bytes() for f in files)), dtype=torch.uint8)
    cut = int(len(text) * 0.95)
    return text[:cut].to(device), text[cut:].to(device)


def loss_of(model: nn.Module, text: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the mean loss over so many sequences, drawn from a text."""
    starts = torch.randint(len(text) - CONTEXT, (count, 1), generator=generator, device=text.device)
    sequences = text[starts + torch.arange(CONTEXT + 1, device=text.device)].long()
    with torch.autocast(text.device.type, torch.bfloat16):
        logits = model(sequences[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1).float(), sequences[:, 1:].flatten())


@torch.no_grad()
def validate(model: nn.Module, text: Tensor) -> float:
    """Return the loss on sequences that are the same in every run."""
    generator = torch.Generator(text.device).manual_seed(1)
    batches, count = VALIDATION
    return sum(loss_of(model, text, count, generator).item() for _ in range(batches)) / batches


def main() -> None:
    """Train, and validate ten times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sequences", type=int, default=65536, help="length of the run")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, validation = texts(device)
    model = Model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.1)
    steps = max(1, args.sequences // args.batch_size)
    generator = torch.Generator(device).manual_seed(args.seed)
    due = {max(1, round(steps * (k + 1) / MEASUREMENTS)) for k in range(MEASUREMENTS)}
    for step in range(1, steps + 1):
        warm = min(1.0, step / max(1.0, args.warmup * steps))
        rate = args.lr * warm * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, train, args.batch_size, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % max(1, steps // 40) == 0:
            print(f"step {step}/{steps} | loss {loss.item():.4f} | lr {rate:.2e}", flush=True)
        if step in due:
            print(f"step {step}/{steps} | val_loss {validate(model, validation):.4f}", flush=True)


if __name__ == "__main__":
    main()
