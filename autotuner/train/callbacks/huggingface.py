"""For Hugging Face's `Trainer`.

    args = TrainingArguments(...)
    trainer = Trainer(model, args, callbacks=[HuggingFaceCallback(args)], ...)

That is all: the trial's hyperparameters are in the arguments before the `Trainer` sees them, and every
dictionary that it logs is reported. Without the tuner, nothing is changed.

The tuner also reads what `Trainer` prints by itself. But those numbers are rounded to four digits, and a loss
that is no number is left out of them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from autotuner import sdk
from autotuner.train.callbacks.shares import per_process
from autotuner.train.throughput import Throughput

__all__ = ["HuggingFaceCallback"]

_RENAMED: Final = {"lr": "learning_rate", "epochs": "num_train_epochs"}
"""Short names of hyperparameters, and the argument that each is."""

_BATCH: Final = frozenset({"batch_size", "micro_batch_size", "accumulation_steps", "trial"})
"""What the tuner sets and is no argument of `Trainer`'s."""


class HuggingFaceCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]  # Any where it is not installed
    """Applies the trial's hyperparameters to the arguments at once, and reports what `Trainer` logs.

    A hyperparameter that is named like a training argument (`learning_rate`, `weight_decay`, `warmup_steps`,
    `lr_scheduler_type`, `optim`, `seed`, ...) is set, the batch size as micro-batch and accumulation. Others
    are the script's, in `hyperparameters`. The seed is set at once: make this before the model, for its
    weights to follow.

    Args:
        args: The arguments that the `Trainer` will be given. They are changed in place; a `Trainer` that was
            already made with them has read some of them before.
        environment: Where the tuner's values are; the process's environment where None.

    Raises:
        ValueError: The batch size cannot be realised exactly, or a value is not of its argument's type.
    """

    def __init__(self, args: TrainingArguments, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.hyperparameters = sdk.hyperparameters(environment)
        self._throughput = Throughput()
        self._epoch: dict[str, float] = {}
        for name in self.hyperparameters:
            argument = _RENAMED.get(name, name)
            if name not in _BATCH and argument in args.__dataclass_fields__:
                text = environment[sdk.PREFIX + name.upper()]
                setattr(args, argument, _as(getattr(args, argument), argument, text))
        if "batch_size" in self.hyperparameters:
            # A process with several GPUs and no launcher parts its batch among them (torch's DataParallel).
            devices = max(1, args.n_gpu)
            micro_batch, accumulation = per_process(
                self.hyperparameters,
                processes=args.world_size * devices,
                accumulation=args.gradient_accumulation_steps,
            )
            args.per_device_train_batch_size = micro_batch
            args.gradient_accumulation_steps = accumulation
        if "seed" in self.hyperparameters:
            set_seed(args.seed)
        # A filtered loss looks well while the run diverges.
        args.logging_nan_inf_filter = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,  # noqa: ANN401 (whatever the `Trainer` was given)
        **_: object,
    ) -> None:
        """Learn how many samples and optimizer steps an epoch has; a stream has no length."""
        del state, control
        with contextlib.suppress(TypeError, AttributeError, NotImplementedError):
            batches = len(train_dataloader)
            self._epoch["steps_per_epoch"] = math.ceil(batches / args.gradient_accumulation_steps)
            self._epoch["samples_per_epoch"] = len(train_dataloader.dataset)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Count the samples of a step."""
        del state, control
        self._throughput.add(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: object,
    ) -> None:
        """Report the numbers that `Trainer` logs, at the epoch that it has reached."""
        del args, control
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        numbers.pop("total_flos", None)
        if not numbers:
            return
        step = numbers.pop("epoch", state.epoch or 0.0)
        told = {**self._epoch, "samples_per_second": self._throughput.samples_per_second}
        sdk.report(step, **{**told, **numbers})

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Leave the evaluation's time out of the throughput."""
        del args, state, control
        self._throughput.stop()


def _as(present: object, argument: str, text: str) -> object:
    """Return the text as a value of the type that the argument has now."""
    if isinstance(present, Enum):
        return type(present)(text)
    defaults = {argument: present} if isinstance(present, (bool, int, float, str)) else {}
    return sdk.hyperparameters({sdk.PREFIX + argument.upper(): text}, **defaults)[argument]
