"""Compute the layout of a batch size: workers, micro-batch, and accumulation steps.

    batch size = processes x accumulation x micro-batch
    processes = masters x processes of a master + workers x processes of a replica

Pure: the same batch size under the same bounds always has the same layout. Not every batch size has one: 1000
samples cannot be divided evenly among three processes, and a script that divides anyway trains at a batch
size that is recorded nowhere. So `realisable` first moves a batch size to the nearest one with a layout; the
search proposes that one, the trial runs it, and the ledger records it. `largest_realisable` is the largest
batch size that can be proposed: the upper end of the range for the search, the rules and the messages.

The cost of every function here is bounded by the square root of a process's samples, whatever the annotations
say: the batch sizes of a number of workers are multiples in an interval, and only with all workers in use
does accumulation need a search, over micro-batches or over steps, whichever are fewer.

Workers grow with the batch: there are as few as possible without any process taking more than its `share`.
When all workers are in use, accumulation makes up the rest. So processes are fully used at each batch size,
and GPUs are not allocated before they are needed.

Running out of memory says something about the micro-batch, never about accuracy: it becomes `memory` here,
and the same batch size gets smaller micro-batches and more accumulation steps. Only for a job without
micro-batches does it bound the batch size itself (`largest`). The bound is assumed to hold for every number
of workers and all hyperparameters: this is true of data-parallel training, and conservative where the model
is sharded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autotuner.errors import Unrealisable
from autotuner.spec import IntegerRange

__all__ = [
    "Bounds",
    "Layout",
    "largest",
    "largest_realisable",
    "lay_out",
    "memory_bound",
    "realisable",
    "smallest_realisable",
]


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a batch size: exactly `processes x accumulation x micro_batch` samples.

    `processes` counts those of masters and workers; `micro_batch` is the number of samples of one process at
    once.
    """

    workers: int
    processes: int
    micro_batch: int
    accumulation: int

    @property
    def batch_size(self) -> int:
        """Samples of one optimizer step, over all processes."""
        return self.processes * self.accumulation * self.micro_batch


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the layouts that a job allows.

    Args:
        workers: Minimum and maximum number of Worker replicas.
        share: Samples that one process takes before another worker is added. This is the largest micro-batch,
            or, without micro-batches, the samples of a process at the job's own batch size.
        masters: Master replicas, 0 or 1.
        processes_per_replica: Processes that one Worker pod starts.
        processes_per_master: Processes that the Master's pod starts; None: as many as a Worker's.
        micro_batch: Minimum and maximum number of samples that one process may take at once; None for a job
            that cannot accumulate.
        memory: Maximum number of samples at once that is not known to run out of memory (see `memory_bound`);
            None if nothing is known.

    Raises:
        Unrealisable: No batch size at all has a layout under these bounds.
    """

    workers: tuple[int, int]
    share: int
    masters: int = 1
    processes_per_replica: int = 1
    micro_batch: tuple[int, int] | None = None
    memory: int | None = None
    processes_per_master: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.workers[0] <= self.workers[1] or self._has_no_processes:
            raise Unrealisable(
                f"workers {self.workers}, {self.masters} masters and {self.processes_per_replica} processes a"
                " replica are not a layout: counts must not be negative, nor a range end before it starts"
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
    def _has_no_processes(self) -> bool:
        of_master = self.processes_per_master
        return self.masters < 0 or self.processes_per_replica < 1 or (of_master is not None and of_master < 1)

    @property
    def fewest_at_once(self) -> int:
        """Minimum number of samples that a process may take at once."""
        return self.micro_batch[0] if self.micro_batch else 1

    @property
    def most_at_once(self) -> float:
        """Maximum number of samples that a process may take at once; infinite without a limit."""
        allowed = self.micro_batch[1] if self.micro_batch else math.inf
        return min(allowed, math.inf if self.memory is None else self.memory)

    def processes(self, workers: int) -> int:
        """Return the number of processes for a number of Worker replicas, including the Master's."""
        return self._of_masters + workers * self.processes_per_replica

    @property
    def full_share(self) -> int:
        """Samples that a process takes before another worker is added, as far as memory allows."""
        return int(min(self.share, self.most_at_once))

    def workers_for(self, batch_size: int) -> int:
        """Return the fewest workers that can take the batch within their shares, or the maximum."""
        processes = -(-batch_size // self.full_share)
        workers = -(-(processes - self._of_masters) // self.processes_per_replica)
        return min(max(workers, self.workers[0]), self.workers[1])

    @property
    def _of_masters(self) -> int:
        each = self.processes_per_replica if self.processes_per_master is None else self.processes_per_master
        return self.masters * each


def lay_out(batch_size: int, bounds: Bounds) -> Layout:
    """Return the layout of a batch size: the fewest workers, then the fewest accumulation steps.

    Raises:
        Unrealisable: The batch size has none; `realisable` returns the nearest one that has.
    """
    layout = _layout(batch_size, bounds)
    if layout is None:
        raise Unrealisable(
            f"batch size {batch_size} cannot be divided evenly among its"
            f" {bounds.processes(bounds.workers_for(batch_size))} processes within the bounds:"
            f" take {realisable(batch_size, bounds)}"
        )
    return layout


def realisable(batch_size: int, bounds: Bounds) -> int:
    """Return the nearest batch size with a layout; of two equally near ones, the smaller.

    It is a projection: it returns its own results unchanged. With micro-batches up to m, it moves a batch
    size by about one sample per micro-batch at most, that is by a fraction of about 1/m, except where the
    bounds themselves leave a gap.
    """
    found = [size for size in (_below(batch_size, bounds), _above(batch_size, bounds)) if size is not None]
    # There always is one: all workers with the maximum at once have a layout.
    return min(found, key=lambda size: (abs(size - batch_size), size))


def largest_realisable(bounds: Bounds, allowed: IntegerRange) -> int | None:
    """Return the largest allowed batch size with a layout, or None if there is none.

    No trial can be larger, so an answer of this size is the largest allowed, and ends the search.
    """
    size = _below(allowed.maximum, bounds)
    return size if size is not None and size in allowed else None


def smallest_realisable(bounds: Bounds, allowed: IntegerRange) -> int | None:
    """Return the smallest allowed batch size with a layout, or None if there is none."""
    size = _above(allowed.minimum, bounds)
    return size if size is not None and size in allowed else None


def largest(bounds: Bounds) -> int | None:
    """Return the largest batch size with a layout, or None if accumulation can realise any.

    Without micro-batches, the memory of all processes together bounds the batch size.
    """
    if bounds.micro_batch is not None or bounds.memory is None:
        return None
    return bounds.processes(bounds.workers[1]) * bounds.memory


def memory_bound(fits: Iterable[int], failed: Iterable[int]) -> int | None:
    """Return the maximum samples at once that are not known to run out of memory; None if nothing has.

    This is half of the smallest micro-batch that failed, because each attempt costs a trial; more if more is
    known to fit. Fits at or above the smallest failure do not count: there, fragmentation decides.

    Args:
        fits: Micro-batches of trials that trained.
        failed: Micro-batches of trials that ran out of memory.
    """
    smallest = min(failed, default=None)
    if smallest is None:
        return None
    return max(smallest // 2, max((size for size in fits if size < smallest), default=0))


def _layout(batch_size: int, bounds: Bounds) -> Layout | None:
    """Return the layout of a batch size, or None if it has none."""
    workers = bounds.workers_for(batch_size)
    processes = bounds.processes(workers)
    share, rest = divmod(batch_size, processes)
    if rest or share < bounds.fewest_at_once:
        return None
    if share <= bounds.most_at_once:
        return Layout(workers, processes, share, 1)
    if bounds.micro_batch is None or _split_below(share, bounds) != share:
        return None
    micro = _largest_divisor(share, _smallest_micro_batch(bounds), int(bounds.most_at_once))
    return Layout(workers, processes, micro, share // micro)


def _below(batch_size: int, bounds: Bounds) -> int | None:
    """Return the largest batch size up to this one with a layout, or None if there is none."""
    if batch_size < 1:
        return None
    workers = bounds.workers_for(batch_size)
    found = _in_group(workers, batch_size, bounds, downwards=True)
    if found is None and workers > bounds.workers[0]:
        # With one worker fewer, each takes its whole share; if that is below the minimum, fewer workers
        # cannot.
        found = _in_group(workers - 1, batch_size, bounds, downwards=True)
    return found


def _above(batch_size: int, bounds: Bounds) -> int | None:
    """Return the smallest batch size from this one on with a layout, or None if there is none."""
    for workers in dict.fromkeys((bounds.workers_for(max(batch_size, 1)), bounds.workers[1])):
        found = _in_group(workers, batch_size, bounds, downwards=False)
        if found is not None:
            return found
    return None


def _in_group(workers: int, batch_size: int, bounds: Bounds, *, downwards: bool) -> int | None:
    """Return the nearest batch size, in one direction, among those that this many workers can take.

    Those are multiples of the processes. Fewer workers than the maximum take at most their share each; the
    maximum number of workers takes all larger batches, by accumulation if possible.
    """
    fewest, most = bounds.workers
    processes = bounds.processes(workers)
    low = bounds.fewest_at_once
    if workers > fewest:
        low = max(low, bounds.processes(workers - 1) * bounds.full_share // processes + 1)
    high = bounds.full_share if workers < most else bounds.most_at_once
    if downwards:
        share = batch_size // processes
        if workers == most and share > high:
            share = int(high) if bounds.micro_batch is None else _split_below(share, bounds)
        share = min(share, int(high)) if workers < most else share
        return share * processes if share >= low else None
    share = max(-(-batch_size // processes), low)
    if share > high:
        if workers < most or bounds.micro_batch is None:
            return None
        share = _split_above(share, bounds)
    return share * processes


def _smallest_micro_batch(bounds: Bounds) -> int:
    """Return the smallest micro-batch for accumulation.

    An even split may at most halve the largest micro-batch: 2 x 31 rather than 61 x 1 samples, because
    micro-batches of one sample waste the device.
    """
    return max(bounds.fewest_at_once, int(bounds.most_at_once) // 2, 1)


def _split_below(share: int, bounds: Bounds) -> int:
    """Return the largest multiple of equal micro-batches, above one micro-batch, up to `share` samples."""
    small, most = _smallest_micro_batch(bounds), int(bounds.most_at_once)
    if most - small <= share // small - share // most:
        return max(share - share % micro for micro in range(small, most + 1))
    # Fewer steps than share // most give no more samples than whole micro-batches do.
    return max(steps * min(most, share // steps) for steps in range(share // most, share // small + 1))


def _split_above(share: int, bounds: Bounds) -> int:
    """Return the smallest multiple of equal micro-batches, above one micro-batch, from `share` samples on."""
    small, most = _smallest_micro_batch(bounds), int(bounds.most_at_once)
    if most - small <= share // small - share // most:
        return min(share + -share % micro for micro in range(small, most + 1))
    steps_needed = range(-(-share // most), -(-share // small) + 1)
    return min(steps * max(small, -(-share // steps)) for steps in steps_needed)


def _largest_divisor(share: int, small: int, most: int) -> int:
    """Return the largest micro-batch from `small` to `most` that divides `share` evenly; there is one."""
    if most - small <= share // small - share // most:
        return next(micro for micro in range(most, small - 1, -1) if share % micro == 0)
    steps = next(steps for steps in range(-(-share // most), share // small + 1) if share % steps == 0)
    return share // steps
