"""How a batch size is realised: workers, samples a process takes at once, and accumulation steps.

    batch size = processes x accumulation x micro-batch
    processes = (masters + workers) x processes a replica

Pure: the same batch size under the same bounds has the same layout, whoever asks. Not every batch size has
one: 1000 samples cannot be parted evenly among three processes, and a script that divides anyway trains at a
batch size that nobody recorded. So `realisable` first moves a batch size to the nearest that has a layout,
and that one is what the search proposes, the trial runs and the ledger records.

Workers grow with the batch: there are as few of them as can take it without one process taking more than its
`share`, and when all of them are at work, accumulation makes up the rest. So at a given batch size a process
is kept as busy as it may be, and GPUs are not taken before they are needed.

Running out of memory is knowledge about the micro-batch, never about accuracy: it becomes `memory` here, and
the same batch size gets smaller micro-batches and more steps of accumulation. Only where the job has no
micro-batches does it bound the batch size itself (`largest`). What is learned is taken to hold for every
number of workers and every hyperparameter: true of data-parallel training, and on the safe side where the
model is sharded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autotuner.errors import Unrealisable

__all__ = ["Bounds", "Layout", "largest", "lay_out", "memory_bound", "realisable"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What realises a batch size: `processes x accumulation x micro_batch` samples, exactly.

    `processes` counts all of them, masters' and workers'; `micro_batch` is what one process takes at once.
    """

    workers: int
    processes: int
    micro_batch: int
    accumulation: int

    @property
    def batch_size(self) -> int:
        """Samples that one optimizer step takes, over all processes."""
        return self.processes * self.accumulation * self.micro_batch


@dataclass(frozen=True, slots=True)
class Bounds:
    """What layouts a job allows.

    Args:
        workers: Fewest and most Worker replicas.
        share: Samples that one process takes before another worker is added. What fits the job: the
            largest micro-batch, or, without micro-batches, what a process takes at the job's own batch size.
        masters: Master replicas, 0 or 1.
        processes_per_replica: Processes that one pod starts.
        micro_batch: Fewest and most samples that one process may take at once; None for a job that cannot
            accumulate.
        memory: Most samples at once that are not known to run out of memory (see `memory_bound`); None when
            nothing is known.

    Raises:
        Unrealisable: No batch size at all has a layout under these bounds.
    """

    workers: tuple[int, int]
    share: int
    masters: int = 1
    processes_per_replica: int = 1
    micro_batch: tuple[int, int] | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.workers[0] <= self.workers[1] or self.masters < 0 or self.processes_per_replica < 1:
            raise Unrealisable(
                f"workers {self.workers}, {self.masters} masters and {self.processes_per_replica} processes a"
                " replica are no layout: counts must not be negative, nor a range end before it starts"
            )
        if self.processes(self.workers[0]) < 1:
            raise Unrealisable(
                "a job without a Master needs at least one worker: raise the fewest workers to 1"
            )
        if self.share < 1 or self.fewest_at_once < 1:
            raise Unrealisable("a process must take at least one sample: raise the micro-batch to 1")
        if self.most_at_once < self.fewest_at_once:
            raise Unrealisable(
                f"a micro-batch of {self.fewest_at_once} does not fit: the most that is not known to run out"
                f" of memory, or is allowed, is {self.most_at_once}; allow smaller micro-batches"
            )

    @property
    def fewest_at_once(self) -> int:
        """Fewest samples that a process may take at once."""
        return self.micro_batch[0] if self.micro_batch else 1

    @property
    def most_at_once(self) -> float:
        """Most samples that a process may take at once; infinite without a limit."""
        allowed = self.micro_batch[1] if self.micro_batch else math.inf
        return min(allowed, math.inf if self.memory is None else self.memory)

    def processes(self, workers: int) -> int:
        """Return how many processes a number of Worker replicas makes, the Master's among them."""
        return (self.masters + workers) * self.processes_per_replica

    def workers_for(self, batch_size: int) -> int:
        """Return the fewest workers that take the batch within each one's share, or the most there are."""
        share = int(min(self.share, self.most_at_once))
        replicas = -(-batch_size // (share * self.processes_per_replica))
        return min(max(replicas - self.masters, self.workers[0]), self.workers[1])


def lay_out(batch_size: int, bounds: Bounds) -> Layout:
    """Return the layout of a batch size: the fewest workers, then the fewest accumulation steps.

    Raises:
        Unrealisable: The batch size has none; `realisable` gives the nearest that has.
    """
    layout = _layout(batch_size, bounds)
    if layout is None:
        raise Unrealisable(
            f"batch size {batch_size} cannot be parted evenly among its"
            f" {bounds.processes(bounds.workers_for(batch_size))} processes within the bounds:"
            f" take {realisable(batch_size, bounds)}"
        )
    return layout


def realisable(batch_size: int, bounds: Bounds) -> int:
    """Return the batch size nearest to this one that has a layout, the smaller one of two.

    It is a projection: what it returns, it returns unchanged. With micro-batches up to m, it moves a batch
    size by at most one sample per micro-batch or so, that is by a fraction of about 1/m, except where the
    bounds themselves leave a gap.
    """
    # There is one: the largest has a layout, and where there is no largest, multiples have one for ever.
    candidates = _outwards(batch_size, _smallest(bounds), largest(bounds))
    return next(candidate for candidate in candidates if _layout(candidate, bounds) is not None)


def largest(bounds: Bounds) -> int | None:
    """Return the largest batch size that has a layout, or None where accumulation realises any.

    Without micro-batches, what fits into the memory of all processes together bounds the batch size.
    """
    if bounds.micro_batch is not None or bounds.memory is None:
        return None
    return bounds.processes(bounds.workers[1]) * bounds.memory


def memory_bound(fits: Iterable[int], failed: Iterable[int]) -> int | None:
    """Return the most samples at once that are not known to run out of memory; None when nothing has.

    Half of the smallest that failed, for each try costs a trial; more where more is known to fit. Fits at or
    above the smallest failure do not count: memory is at its edge there, and an allocator's fragments decide.

    Args:
        fits: Micro-batches of trials that trained.
        failed: Micro-batches of trials that ran out of memory.
    """
    smallest = min(failed, default=None)
    if smallest is None:
        return None
    return max(smallest // 2, max((size for size in fits if size < smallest), default=0))


def _layout(batch_size: int, bounds: Bounds) -> Layout | None:
    """Return the layout of a batch size, or None where it has none."""
    workers = bounds.workers_for(batch_size)
    processes = bounds.processes(workers)
    share, rest = divmod(batch_size, processes)
    if rest or share < bounds.fewest_at_once:
        return None
    if bounds.micro_batch is None:
        return Layout(workers, processes, share, 1) if share <= bounds.most_at_once else None
    most = int(bounds.most_at_once)
    fewest_steps = -(-share // most)
    # Halving the largest micro-batch is as far as an even split may go: 2 x 31 rather than 61 x 1 samples,
    # for the latter has the right product and wastes the device.
    small = max(bounds.fewest_at_once, most // 2, 1) if fewest_steps > 1 else bounds.fewest_at_once
    for steps in range(fewest_steps, share // small + 1):
        if share % steps == 0:
            return Layout(workers, processes, share // steps, steps)
    return None


def _smallest(bounds: Bounds) -> int:
    return bounds.processes(bounds.workers[0]) * bounds.fewest_at_once


def _outwards(start: int, low: int, high: int | None) -> Iterator[int]:
    """Yield the integers from low to high, nearest to the start first and the smaller first of two."""
    start = max(start, low) if high is None else min(max(start, low), high)
    yield start
    distance = 1
    while start - distance >= low or high is None or start + distance <= high:
        if start - distance >= low:
            yield start - distance
        if high is None or start + distance <= high:
            yield start + distance
        distance += 1
