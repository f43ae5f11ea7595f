"""Choose the samples of each process and step, so that a run does not depend on the number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch.utils.data import Sampler

from autotuner.train.processes import Processes

__all__ = ["GlobalBatches"]


class GlobalBatches(Sampler[list[int]]):
    """Splits concatenated shuffled epochs into global batches, and each of those into one share per process.

        batches = GlobalBatches(len(data), 512, processes, seed=1)
        loader = DataLoader(data, batch_sampler=batches)

    Every batch is full: the rest of an epoch becomes the start of the next epoch's first batch. A last batch
    of three samples would be a full step in a random direction, and the batch size of the run would not be
    the stated one; dropping it could drop a third of the data at large batch sizes. So the number of batches
    may differ by one between epochs, and an epoch may have none if the batch is larger than the data.

    No samples are repeated to make numbers even, as `DistributedSampler` does: each sample is used once per
    epoch, by one process. The shares of a batch may differ by one sample, for which `MicroBatches` corrects
    exactly. The order depends only on the seed and the epoch, so a run has the same batches on one process as
    on a hundred.

    Args:
        samples: Size of the data set.
        batch_size: Samples of a step over all processes.
        processes: From `join`.
        seed: Must be the same on every process.

    Raises:
        ValueError: There are no samples, or a batch has fewer samples than there are processes.
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
        """Set the next epoch; the first is 0."""
        self.epoch = epoch

    def steps(self, epochs: int) -> int:
        """Return the number of batches of a run of so many epochs."""
        return epochs * self.samples // self.batch_size

    def __len__(self) -> int:
        return self.steps(self.epoch + 1) - self.steps(self.epoch)

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.steps(self.epoch), self.steps(self.epoch + 1)):
            start = number * self.batch_size
            batch = self._stream(start, start + self.batch_size)
            yield batch[self.processes.rank :: self.processes.count]

    def _stream(self, start: int, end: int) -> list[int]:
        """Return a range of samples of the concatenated epochs."""
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
