"""How the trials of a job realise their batch sizes, in the light of what memory has held.

The arithmetic is `autotuner.layout`'s; here stands what of a spec and its trials goes into it. A job without
a range of workers or micro-batches keeps its own layout at every batch size.
"""

from __future__ import annotations

from dataclasses import replace

from autotuner.errors import Unrealisable
from autotuner.spec import IntegerRange
from autotuner.study.history import History, curve
from autotuner.study.layout import Bounds, Layout, lay_out, memory_bound, realisable
from autotuner.study.setting import Setting
from autotuner.trial import Outcome, Trial


def bounds(history: History) -> Bounds | None:
    """Return what layouts may be; None where the job has but its own.

    Without micro-batches, memory bounds the batch size, which is the search's affair.

    Raises:
        Unrealisable: No batch size has a layout as the annotations have it.
    """
    spec, micro = history.spec, history.spec.micro_batch_size
    if micro is None and spec.workers is None:
        return None
    workers = spec.workers or IntegerRange(minimum=spec.shape.workers, maximum=spec.shape.workers)
    own = Bounds(
        workers=(workers.minimum, workers.maximum),
        share=_share(spec.baseline_batch_size, history) if micro is None else micro.maximum,
        masters=spec.shape.masters,
        processes_per_replica=spec.shape.processes_per_replica,
        micro_batch=None if micro is None else (micro.minimum, micro.maximum),
    )
    if micro is None:
        return own
    at_once = [
        (t, t.suggestion.micro_batch_size or _share(t.suggestion.batch_size, history)) for t in history.trials
    ]
    memory = memory_bound(
        fits=[size for t, size in at_once if t.outcome is not Outcome.OUT_OF_MEMORY and len(curve(t))],
        failed=[size for t, size in at_once if t.outcome is Outcome.OUT_OF_MEMORY],
    )
    return own if memory is None else replace(own, memory=max(memory, micro.minimum))


def nearest(history: History, tried: Setting) -> Setting:
    """Return the setting at the nearest batch size allowed that the job's processes can share evenly.

    It is returned as it is where none is allowed; what it cannot share evenly is the script's affair then.
    """
    limits, allowed = bounds(history), history.spec.batch_size
    if limits is None:
        return tried
    for size in range(tried.batch_size, allowed.minimum - 1, -1):
        found = realisable(size, limits)
        if found in allowed:
            return Setting(found, tried.items)
    return tried


def layout(history: History, batch_size: int) -> Layout | None:
    """Return the layout of a batch size; None for the job's own."""
    limits = bounds(history)
    if limits is None or realisable(batch_size, limits) != batch_size:
        return None
    return lay_out(batch_size, limits)


def can_shrink(history: History, trial: Trial) -> bool:
    """Return whether a smaller micro-batch than the trial's is left for its batch size."""
    micro = history.spec.micro_batch_size
    if micro is None:
        return False
    used = trial.suggestion.micro_batch_size or _share(trial.suggestion.batch_size, history)
    try:
        smaller = layout(history, trial.suggestion.batch_size)
    except Unrealisable:
        return False
    return smaller is not None and smaller.micro_batch < used


def _share(batch_size: int, history: History) -> int:
    """Return what a process takes of a batch in the job's own layout."""
    return -(-batch_size // history.spec.shape.processes)
