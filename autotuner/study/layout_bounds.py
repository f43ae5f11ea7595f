"""Derive the bounds of a job's layouts from its spec and from the memory use of its trials.

The arithmetic is in `autotuner.study.layout`. A job without a range of workers or micro-batches keeps its own
layout at every batch size: its batch sizes are multiples of its processes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np

from autotuner.errors import Unrealisable
from autotuner.spec import IntegerRange, TuningSpec
from autotuner.study.findings.failing_sizes import Spacing, failing_sizes
from autotuner.study.history import History, curve
from autotuner.study.layout import (
    Bounds,
    Layout,
    largest_realisable,
    lay_out,
    memory_bound,
    realisable,
    smallest_realisable,
)
from autotuner.study.setting import Setting
from autotuner.trial import Outcome, Suggestion, Trial

MOST_SIZES: Final = 1024
"""Maximum number of batch sizes among which the search chooses, if not all have a layout."""


def bounds(history: History) -> Bounds:
    """Return the bounds of the layouts.

    Without micro-batches, memory bounds the batch size itself, which the search handles.

    Raises:
        Unrealisable: No allowed batch size has a layout under the annotations.
    """
    own = bounds_of(history.spec)
    micro = history.spec.micro_batch_size
    if micro is None:
        return own
    fit = (t for t in history.trials if t.outcome is not Outcome.OUT_OF_MEMORY and len(curve(t)))
    memory = memory_bound(
        fits=[_at_once(trial, history.spec) for trial in fit],
        failed=[_at_once(trial, history.spec) for trial in history.lacked_memory],
    )
    return own if memory is None else replace(own, memory=max(memory, micro.minimum))


def _at_once(trial: Trial, spec: TuningSpec) -> int:
    return trial.suggestion.micro_batch_size or _share(trial.suggestion.batch_size, spec)


def bounds_of(spec: TuningSpec) -> Bounds:
    """Return the bounds of the layouts before any trial has run.

    Raises:
        Unrealisable: No allowed batch size has a layout under the annotations.
    """
    micro, shape = spec.micro_batch_size, spec.shape
    if micro is None and spec.workers is None:
        # The script divides its batch by its processes. If the job's own batch size is not a multiple of
        # them, the script does not need one: their greatest common divisor is known to work.
        common = math.gcd(spec.baseline_batch_size, shape.processes)
        own = Bounds(workers=(0, 0), share=1, processes_per_replica=max(common, 1))
    else:
        workers = spec.workers or IntegerRange(minimum=shape.workers, maximum=shape.workers)
        own = Bounds(
            workers=(workers.minimum, workers.maximum),
            share=_share(spec.baseline_batch_size, spec) if micro is None else micro.maximum,
            masters=shape.masters,
            processes_per_replica=shape.processes_per_replica,
            processes_per_master=shape.processes_per_master,
            micro_batch=None if micro is None else (micro.minimum, micro.maximum),
        )
    if largest_realisable(own, spec.batch_size) is None:
        near = realisable(spec.batch_size.maximum, own)
        raise Unrealisable(
            f"no batch size from {spec.batch_size} can be divided evenly among the job's processes"
            f" ({own.processes(own.workers[0])} with the fewest workers,"
            f" {own.processes(own.workers[1])} with the most): the nearest that can is {near};"
            " widen batch-size, workers or micro-batch-size"
        )
    return own


def within_reach(spec: TuningSpec, most: int | None = None) -> TuningSpec:
    """Return the spec with its batch sizes from the smallest to the largest that a trial can have.

    `most` is the largest batch size for the data set, if runs have reported it.

    The largest batch size of a range such as 256..32768 may have no layout, and a search that waits for it
    would not end. So all decisions use this spec: the end of the search, and the largest possible answer. It
    contains the job's own batch size. A spec without any layout is returned unchanged, and `bounds` raises.
    """
    if most is not None and most < spec.batch_size.maximum:
        most = max(most, spec.baseline_batch_size)
        capped = IntegerRange(minimum=min(spec.batch_size.minimum, most), maximum=most)
        spec = spec.model_copy(update={"batch_size": capped})
    try:
        limits = bounds_of(spec)
    except Unrealisable:
        return spec
    allowed, own = spec.batch_size, spec.baseline_batch_size
    low, high = smallest_realisable(limits, allowed), largest_realisable(limits, allowed)
    reach = IntegerRange(
        minimum=min(own, own if low is None else low), maximum=max(own, own if high is None else high)
    )
    return spec if reach == allowed else spec.model_copy(update={"batch_size": reach})


def nearest(history: History, tried: Setting) -> Setting:
    """Return the setting at the nearest allowed batch size that can be divided evenly among the processes.

    It is one with which the program does not fail. It is returned unchanged if memory no longer allows any.
    """
    found = nearest_size(tried.batch_size, bounds(history), history.spec.batch_size)
    if found is not None and failing_sizes(history).spacing is not Spacing.ANY:
        works = sizes(history) or (found,)
        found = min(works, key=lambda size: (abs(math.log(size / tried.batch_size)), size))
    return tried if found is None else Setting(found, tried.items)


def nearest_size(batch_size: int, limits: Bounds, allowed: IntegerRange) -> int | None:
    """Return the nearest allowed batch size with a layout; None if there is none."""
    low, high = smallest_realisable(limits, allowed), largest_realisable(limits, allowed)
    if low is None or high is None:
        return None
    return realisable(min(max(batch_size, low), high), limits)


def sizes(history: History) -> tuple[int, ...] | None:
    """Return the allowed batch sizes with a layout, in order; None if all have one, as far as is seen.

    Of very many only some are returned, evenly spaced on a log scale. If none has a layout any more, because
    the annotations have changed, the result is None, too: then no trial is proposed. Sizes with which the
    program is known to fail are left out.
    """
    try:
        limits = bounds(history)
    except Unrealisable:
        return None
    spacing = failing_sizes(history).spacing
    return _sizes(limits, history.spec.batch_size, spacing, history.spec.baseline_batch_size)


@lru_cache(maxsize=64)
def _sizes(limits: Bounds, allowed: IntegerRange, spacing: Spacing, own: int) -> tuple[int, ...] | None:
    scale = np.geomspace(allowed.minimum, allowed.maximum, MOST_SIZES)
    near = np.unique(np.clip(scale.round().astype(int), allowed.minimum, allowed.maximum)).tolist()
    if spacing is not Spacing.ANY:
        smaller = {own // 2**k for k in range(own.bit_length())}
        several = {own * max(round(n / own), 1) for n in near} | smaller
        fitting = (n for n in several if n in allowed and spacing.has(n, own))
        return tuple(sorted(n for n in fitting if nearest_size(n, limits, allowed) == n)) or None
    found = sorted({size for n in near if (size := nearest_size(n, limits, allowed)) is not None})
    return None if found == near else tuple(found)


def layout(history: History, batch_size: int) -> Layout | None:
    """Return the layout of a batch size; None if it has none: then the job's own is kept."""
    limits = bounds(history)
    if realisable(batch_size, limits) != batch_size:
        return None
    return lay_out(batch_size, limits)


def laid_out(suggestion: Suggestion, spec: TuningSpec, found: Layout | None) -> Suggestion:
    """Return a suggestion with the parts of a layout that the spec varies; unchanged without a layout."""
    if found is None:
        return suggestion
    has_micro = spec.micro_batch_size is not None
    return replace(
        suggestion,
        workers=found.workers if spec.workers is not None else None,
        micro_batch_size=found.micro_batch if has_micro else None,
        accumulation_steps=found.accumulation if has_micro else None,
    )


def can_shrink(history: History, trial: Trial) -> bool:
    """Return whether a smaller micro-batch than the trial's is possible for its batch size."""
    micro = history.spec.micro_batch_size
    if micro is None:
        return False
    used = trial.suggestion.micro_batch_size or _share(trial.suggestion.batch_size, history.spec)
    try:
        smaller = layout(history, trial.suggestion.batch_size)
    except Unrealisable:
        return False
    return smaller is not None and smaller.micro_batch < used


def _share(batch_size: int, spec: TuningSpec) -> int:
    """Return the samples of a process for a batch in the job's own layout."""
    return -(-batch_size // spec.shape.processes)
