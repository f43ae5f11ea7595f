"""How a batch size is realised: workers, samples a process takes at once, and accumulation steps.

    batch size = processes x accumulation x micro-batch
    processes = masters x processes of a master + workers x processes of a replica

Pure: the same batch size under the same bounds has the same layout, whoever asks. Not every batch size has
one: 1000 samples cannot be parted evenly among three processes, and a script that divides anyway trains at a
batch size that nobody recorded. So `realisable` first moves a batch size to the nearest that has a layout,
and that one is what the search proposes, the trial runs and the ledger records. `largest_realisable` is the
largest batch size that can be proposed at all: the end of the range that the search, the rules and the words
of a status speak of.

The cost of every function here is bounded by the root of a process's samples, whatever the annotations say:
the batch sizes of a number of workers are multiples in an interval, and only with all workers at work does
accumulation need a search, over micro-batches or over steps, whichever are fewer.

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
        processes_per_replica: Processes that one pod of the Workers starts.
        processes_per_master: Processes that the Master's pod starts; as many as a Worker's where None.
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
    processes_per_master: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.workers[0] <= self.workers[1] or self._has_no_processes:
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
    def _has_no_processes(self) -> bool:
        of_master = self.processes_per_master
        return self.masters < 0 or self.processes_per_replica < 1 or (of_master is not None and of_master < 1)

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
        return self._of_masters + workers * self.processes_per_replica

    @property
    def at_most(self) -> int:
        """Samples that a process takes before another worker is added, as far as memory allows."""
        return int(min(self.share, self.most_at_once))

    def workers_for(self, batch_size: int) -> int:
        """Return the fewest workers that take the batch within each one's share, or the most there are."""
        processes = -(-batch_size // self.at_most)
        workers = -(-(processes - self._of_masters) // self.processes_per_replica)
        return min(max(workers, self.workers[0]), self.workers[1])

    @property
    def _of_masters(self) -> int:
        each = self.processes_per_replica if self.processes_per_master is None else self.processes_per_master
        return self.masters * each


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
    found = [size for size in (_below(batch_size, bounds), _above(batch_size, bounds)) if size is not None]
    # There is one: all workers with as much at once as there may be have a layout.
    return min(found, key=lambda size: (abs(size - batch_size), size))


def largest_realisable(bounds: Bounds, allowed: IntegerRange) -> int | None:
    """Return the largest batch size allowed that has a layout, or None where none has.

    It is the end of the search: no trial can be larger, so an answer of this size is the largest allowed.
    """
    size = _below(allowed.maximum, bounds)
    return size if size is not None and size in allowed else None


def smallest_realisable(bounds: Bounds, allowed: IntegerRange) -> int | None:
    """Return the smallest batch size allowed that has a layout, or None where none has."""
    size = _above(allowed.minimum, bounds)
    return size if size is not None and size in allowed else None


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
    if share <= bounds.most_at_once:
        return Layout(workers, processes, share, 1)
    if bounds.micro_batch is None or _split_below(share, bounds) != share:
        return None
    micro = _largest_divisor(share, _crumb(bounds), int(bounds.most_at_once))
    return Layout(workers, processes, micro, share // micro)


def _below(batch_size: int, bounds: Bounds) -> int | None:
    """Return the largest batch size up to this one that has a layout, or None where none has."""
    if batch_size < 1:
        return None
    workers = bounds.workers_for(batch_size)
    found = _in_group(workers, batch_size, bounds, downwards=True)
    if found is None and workers > bounds.workers[0]:
        # One worker fewer takes its whole share, or, where that is below the fewest, no fewer can take any.
        found = _in_group(workers - 1, batch_size, bounds, downwards=True)
    return found


def _above(batch_size: int, bounds: Bounds) -> int | None:
    """Return the smallest batch size from this one on that has a layout, or None where none has."""
    for workers in dict.fromkeys((bounds.workers_for(max(batch_size, 1)), bounds.workers[1])):
        found = _in_group(workers, batch_size, bounds, downwards=False)
        if found is not None:
            return found
    return None


def _in_group(workers: int, batch_size: int, bounds: Bounds, *, downwards: bool) -> int | None:
    """Return the batch size next to this one, in one direction, among those that this many workers take.

    Those are multiples of the processes. Fewer workers than the most take no more than their share each;
    the most workers take all that is larger, by accumulation where they can.
    """
    fewest, most = bounds.workers
    processes = bounds.processes(workers)
    low = bounds.fewest_at_once
    if workers > fewest:
        low = max(low, bounds.processes(workers - 1) * bounds.at_most // processes + 1)
    high = bounds.at_most if workers < most else bounds.most_at_once
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


def _crumb(bounds: Bounds) -> int:
    """Return the fewest samples at once beside accumulation.

    Halving the largest micro-batch is as far as an even split may go: 2 x 31 rather than 61 x 1 samples, for
    the latter has the right product and wastes the device.
    """
    return max(bounds.fewest_at_once, int(bounds.most_at_once) // 2, 1)


def _split_below(share: int, bounds: Bounds) -> int:
    """Return the most samples up to `share`, above one micro-batch, that equal micro-batches make up."""
    small, most = _crumb(bounds), int(bounds.most_at_once)
    if most - small <= share // small - share // most:
        return max(share - share % micro for micro in range(small, most + 1))
    # Of fewer steps than share // most, none makes up more than those with whole micro-batches.
    return max(steps * min(most, share // steps) for steps in range(share // most, share // small + 1))


def _split_above(share: int, bounds: Bounds) -> int:
    """Return the fewest samples from `share` on, above one micro-batch, that equal micro-batches make up."""
    small, most = _crumb(bounds), int(bounds.most_at_once)
    if most - small <= share // small - share // most:
        return min(share + -share % micro for micro in range(small, most + 1))
    steps_needed = range(-(-share // most), -(-share // small) + 1)
    return min(steps * max(small, -(-share // steps)) for steps in steps_needed)


def _largest_divisor(share: int, small: int, most: int) -> int:
    """Return the largest micro-batch from `small` to `most` that parts `share` evenly; there is one."""
    if most - small <= share // small - share // most:
        return next(micro for micro in range(most, small - 1, -1) if share % micro == 0)
    steps = next(steps for steps in range(-(-share // most), share // small + 1) if share % steps == 0)
    return share // steps
