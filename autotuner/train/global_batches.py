"""Which samples a process takes in each step, so that a run goes the same way on any number of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from autotuner.train.processes import Processes

__all__ = ["GlobalBatches"]


class GlobalBatches(Sampler[list[int]]):
    """Cuts a shuffled epoch into global batches, and each of those into one share a process.

        loader = DataLoader(data, batch_sampler=GlobalBatches(len(data), 512, processes, seed=1))

    Nothing is repeated to make numbers even, as `DistributedSampler` does: each sample is taken once in an
    epoch, by one process. The last batch is as small as it comes, and the shares of a batch differ by a
    sample where they must; `MicroBatches` weighs both exactly. (A last batch with fewer samples than there
    are processes is left out: a `DataLoader` makes no batch of nothing.) The order depends on the seed and
    the epoch alone, so a run takes the same batches on one process as on a hundred.

    Args:
        samples: Length of the data set.
        batch_size: Samples in a step over all processes.
        processes: From `join`.
        seed: The same on every process.
        shuffle: Without, the order of the data set.
    """

    def __init__(
        self, samples: int, batch_size: int, processes: Processes, *, seed: int = 0, shuffle: bool = True
    ) -> None:
        if samples < 1 or batch_size < processes.count:
            raise ValueError(
                f"{samples} samples in batches of {batch_size} on {processes.count} processes: there must be"
                " samples, and one at least for each process in a batch"
            )
        self.samples = samples
        self.batch_size = batch_size
        self.processes = processes
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; each has an order of its own."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest >= self.processes.count)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            # The epoch is mixed into the seed by a large odd number: seed 1, epoch 0 is not seed 0, epoch 1.
            generator = torch.Generator().manual_seed((self.seed + 0x9E3779B97F4A7C15 * self.epoch) % 2**63)
            order = torch.randperm(self.samples, generator=generator).tolist()
        else:
            order = list(range(self.samples))
        for start in range(0, self.samples, self.batch_size):
            batch = order[start : start + self.batch_size]
            if len(batch) >= self.processes.count:
                yield batch[self.processes.rank :: self.processes.count]
