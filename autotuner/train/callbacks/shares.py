"""Common parts of the callbacks: lay out a global batch size, and report what a framework logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

from autotuner import sdk

__all__ = ["per_process", "report"]


def report(step: float, logged: Mapping[str, SupportsFloat], **own: float | None) -> None:
    """Report the metrics that a framework logged, and what the callback itself knows.

    A logged metric with the name of one of the callback's own values, or of a field of the record, is left
    out: scripts log `step`, or a `batch_size` that is one process's.
    """
    kept = {name: value for name, value in logged.items() if name not in {"autotuner", "step", *own}}
    sdk.report(step, **kept, **own)


def per_process(
    hyperparameters: sdk.Hyperparameters, *, processes: int, accumulation: int
) -> tuple[int, int]:
    """Return micro-batch and accumulation steps that realise the trial's batch size exactly.

    They are the tuner's, if it set them; otherwise the script's accumulation, and the micro-batch that
    follows from it.

    Args:
        hyperparameters: With `batch_size`, and perhaps `micro_batch_size` and `accumulation_steps`.
        processes: Number of processes, each with its own micro-batches.
        accumulation: Accumulation steps of the script, used if the tuner has set none.

    Raises:
        ValueError: The batch size cannot be realised exactly: the run would train at another than the tuner
            records; or one of the three is not a positive integer.
    """
    batch_size = _whole(hyperparameters, "batch_size", 0)
    accumulation = _whole(hyperparameters, "accumulation_steps", accumulation)
    micro_batch = _whole(hyperparameters, "micro_batch_size", batch_size // (processes * accumulation))
    if micro_batch < 1 or micro_batch * accumulation * processes != batch_size:
        raise ValueError(
            f"batch size {batch_size} is not {processes} processes x {accumulation} accumulation steps x a"
            " micro-batch: choose batch sizes that these divide, or let the tuner choose the layout with the"
            " annotations `workers` and `micro-batch-size`"
        )
    return micro_batch, accumulation


def _whole(hyperparameters: sdk.Hyperparameters, name: str, default: int) -> int:
    if name not in hyperparameters:
        return default
    value = hyperparameters[name]
    if isinstance(value, str) or value < 1 or not float(value).is_integer():
        raise ValueError(
            f"{sdk.PREFIX}{name.upper()} is {value!r}: must be a positive whole number, for example 64"
        )
    return int(value)
