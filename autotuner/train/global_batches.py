"""Which samples a process takes in each step, so that a run goes the same way on any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import Sampler

from autotuner.train.processes import Processes

__all__ = ["GlobalBatches"]


class GlobalBatches(Sampler[list[int]]):
    """Cuts shuffled epochs, laid end to end, into global batches, and each of those into one share a process.

        batches = GlobalBatches(len(data), 512, processes, seed=1)
        loader = DataLoader(data, batch_sampler=batches)

    Every batch is full: what is left at the end of an epoch begins the next one's first batch. A last batch
    of three samples would be a step like any other, in a random direction, and the run's batch size would not
    be the one it is known by; leaving it out would leave out a third of the data at large batch sizes. So an
    epoch has one batch more or fewer than another, and none where the batch is larger than the data.

    Nothing is repeated to make numbers even, as `DistributedSampler` does: each sample is taken once in an
    epoch, by one process, and the shares of a batch differ by a sample where they must, which `MicroBatches`
    weighs exactly. The order depends on the seed and the epoch alone, so a run takes the same batches on one
    process as on a hundred.

    Args:
        samples: Length of the data set.
        batch_size: Samples in a step over all processes.
        processes: From `join`.
        seed: The same on every process.

    Raises:
        ValueError: There are no samples, or fewer in a batch than processes.
    """

    def __init__(self, samples: int, batch_size: int, processes: Processes, *, seed: int = 0) -> None:
        if samples < 1 or batch_size < processes.count:
            raise ValueError(
                f"{samples} samples in batches of {batch_size} on {processes.count} processes: there must be"
                " samples, and one at least for each process in a batch"
            )
        self.samples = samples
        self.batch_size = batch_size
        self.processes = processes
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, the first being 0."""
        self.epoch = epoch

    def steps(self, epochs: int) -> int:
        """Return how many batches a run of that many epochs has."""
        return epochs * self.samples // self.batch_size

    def __len__(self) -> int:
        return self.steps(self.epoch + 1) - self.steps(self.epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.steps(self.epoch), self.steps(self.epoch + 1)):
            start = number * self.batch_size
            batch = self._stream(start, start + self.batch_size)
            yield batch[self.processes.rank :: self.processes.count]

    def _stream(self, start: int, end: int) -> list[int]:
        """Return a stretch of the epochs laid end to end."""
        taken: list[int] = []
        for epoch in range(start // self.samples, -(-end // self.samples)):
            first = epoch * self.samples
            taken += self._order(epoch)[max(start - first, 0) : end - first]
        return taken

    @lru_cache(maxsize=2)  # noqa: B019 (an epoch and the one before; a sampler lives as long as its run)
    def _order(self, epoch: int) -> list[int]:
        # The epoch is mixed into the seed by a large odd number: seed 1, epoch 0 is not seed 0, epoch 1.
        generator = torch.Generator().manual_seed((self.seed + 0x9E3779B97F4A7C15 * epoch) % 2**63)
        order: list[int] = torch.randperm(self.samples, generator=generator).tolist()
        return order
