"""Tell by the name of an option which part of a batch its value is."""

from __future__ import annotations

import re
from typing import Final

NAMES: Final = frozenset(
    {
        "b", "bs", "batch", "batchsize", "batch_size", "batch_size_per_gpu", "train_batch_size",
        "global_batch_size", "total_batch_size", "train_bs", "per_device_train_batch_size",
        "per_gpu_train_batch_size", "imgs_per_gpu", "samples_per_gpu", "micro_batch_size",
        "train_micro_batch_size_per_gpu", "max_tokens", "device_batch_size", "batch_size_training", "gbs",
        "mbs", "train_batch", "train_bsz",
    }
)  # fmt: skip
"""Names of the batch size in scripts."""
_OF_BATCH: Final = re.compile(r"batch(?!es)|(?:^|_)(?:bs|bsz|imgs|images|samples)(?:_|$)")
_OF_EACH: Final = re.compile(
    r"micro|(?:^|_)(?:device|local)(?:_|$)"
    r"|(?:^|_)per_?(?:accelerator|card|chip|device|gpu|npu|proc|process|rank|worker)(?:_|$)"
)
_OF_ALL: Final = re.compile(r"(?:^|_)(?:effective|global|total)_(?:\w{1,20}_)?(?:batch(?!es)|bs(?:_|$))")
_OF_OTHERS: Final = re.compile(
    r"(?:^|_)(?:dev|eval\w*|gen\w*|infer\w*|log_prob|max|num|pred\w*|rollout|test\w*|val\w*)(?:_|$)"
)
"""What is no batch of the training: that of an evaluation, or a number of batches."""
_STEPS: Final = re.compile(
    r"(?:\w{1,20}_)?(?:grad(?:ient)?s?_acc(?:um(?:ulation|ulate)?)?(?:_(?:every|iters?|steps?))?"
    r"|acc(?:um(?:ulation|ulate)?)?_(?:freq|grad(?:ient)?s?|iters?|steps?)"
    r"|accum(?:ulate|ulation)?|accumulate_grad_batches|update_freq)"
)
"""Names of the micro-batches of a step, `gradient_accumulation_steps` and the like."""

OF_RECIPE: Final = "batch_size"
"""The batch of one process in a recipe of torchtune."""


def is_of_process(name: str) -> bool:
    """Return whether an option is the batch of one process: `micro_batch_size`, `batch_size_per_device`."""
    if _OF_OTHERS.search(name) is not None:
        return False
    return name == "mbs" or (_OF_BATCH.search(name) is not None and _OF_EACH.search(name) is not None)


def is_of_all(name: str) -> bool:
    """Return whether an option is the batch of all processes: `global_batch_size`."""
    return _OF_ALL.search(name) is not None


def is_of_others(name: str) -> bool:
    """Return whether an option is a batch of no training: `eval_batch_size`."""
    return _OF_OTHERS.search(name) is not None and _OF_BATCH.search(name) is not None


def is_accumulation(name: str) -> bool:
    """Return whether an option is the number of micro-batches of a step."""
    return _STEPS.fullmatch(name) is not None and _OF_OTHERS.search(name) is None


def is_size(name: str) -> bool:
    """Return whether an option has a part in the size of a batch."""
    return is_of_process(name) or is_of_all(name) or is_accumulation(name)
