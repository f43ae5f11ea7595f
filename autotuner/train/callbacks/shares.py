"""A global batch size in a framework's words: samples a process takes at once, and turns."""

from __future__ import annotations

from autotuner.sdk import Hyperparameters

__all__ = ["per_process"]


def per_process(hyperparameters: Hyperparameters, *, processes: int, accumulation: int) -> tuple[int, int]:
    """Return micro-batch and accumulation steps that realise the trial's batch size exactly.

    The tuner's own, where it set them; else the script's accumulation, and as large a micro-batch as that
    leaves.

    Args:
        hyperparameters: With `batch_size`, and perhaps `micro_batch_size` and `accumulation_steps`.
        processes: How many take part, each with micro-batches of its own.
        accumulation: What the script accumulates by itself.

    Raises:
        ValueError: The batch size cannot be realised exactly: the run would train at another than the tuner
            records.
    """
    batch_size = hyperparameters.batch_size
    accumulation = int(hyperparameters.get("accumulation_steps", accumulation))
    micro_batch = int(hyperparameters.get("micro_batch_size", batch_size // (processes * accumulation)))
    if micro_batch < 1 or micro_batch * accumulation * processes != batch_size:
        raise ValueError(
            f"batch size {batch_size} is not {processes} processes x {accumulation} accumulation steps x a"
            " micro-batch: choose batch sizes that these divide, or let the tuner choose the layout with the"
            " annotations `workers` and `micro-batch-size`"
        )
    return micro_batch, accumulation
