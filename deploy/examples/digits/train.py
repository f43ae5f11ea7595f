"""Classify scikit-learn's digits with DistributedDataParallel: an ordinary training script.

It does not depend on the autotuner. Batch size and hyperparameters are arguments, the process group comes
from the environment that the training operator sets (MASTER_ADDR, RANK, WORLD_SIZE), and the metric is
printed as `accuracy=0.93 epoch=3`. `train_sdk.py` is the same training with the autotuner's SDK.
"""

import argparse
import gc
import os
from collections.abc import Callable

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def train(  # noqa: PLR0913, PLR0917 (a training has many hyperparameters)
    batch_size: int,
    learning_rate: float,
    momentum: float,
    seed: int,
    report: Callable[[int, float], None],
    epochs: int = 8,
) -> None:
    """Train for a few epochs, and report the accuracy after each from the first process."""
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)

    # The split is the same in every run; only the training is seeded.
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        torch.tensor(digits.data, dtype=torch.float32) / 16,
        torch.tensor(digits.target),
        test_size=0.25,
        random_state=0,
        stratify=digits.target,
    )

    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    steps = max(1, len(train_x) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * steps, cycle_momentum=False
    )
    shuffle = torch.Generator().manual_seed(seed)

    for epoch in range(1, epochs + 1):
        # Every process draws the same order and takes its share of each global batch.
        order = torch.randperm(len(train_x), generator=shuffle)
        for step in range(steps):
            batch = order[step * batch_size : (step + 1) * batch_size][rank::world]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            accuracy = (net(test_x).argmax(1) == test_y).float().mean().item()
        if rank == 0:
            report(epoch, accuracy)

    # Delete what uses the process group before the group, or the process may abort at exit (seen with gloo).
    del model, optimizer, schedule
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Read the arguments, train, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=32, help="global: over all processes")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("AUTOTUNER_SEED", "0")))
    args = parser.parse_args()

    def report(epoch: int, accuracy: float) -> None:
        print(f"accuracy={accuracy:.4f} epoch={epoch}", flush=True)

    train(args.batch_size, args.lr, args.momentum, args.seed, report)


if __name__ == "__main__":
    main()
