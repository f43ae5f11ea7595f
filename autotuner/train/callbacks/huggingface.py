"""For Hugging Face's `Trainer`.

    args = TrainingArguments(...)
    trainer = Trainer(model, args, callbacks=[HuggingFaceCallback(args)], ...)

The callback sets the trial's hyperparameters in the arguments before the `Trainer` reads them, and reports
every dictionary that it logs. Without the tuner it changes nothing.

When training begins, the callback compares what `Trainer` is about to train with the trial. Another batch
size or argument is an error. An optimizer of which no group has the trial's learning rate is only a warning,
because its groups may have rates of their own.

The tuner also reads what `Trainer` prints by itself, but there numbers are rounded to four digits, and a loss
that is NaN is left out.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Mapping, Sequence, Sized
from enum import Enum
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from autotuner import sdk
from autotuner.train.callbacks.shares import per_process, report
from autotuner.train.throughput import Throughput

__all__ = ["HuggingFaceCallback"]

_RENAMED: Final = {"lr": "learning_rate", "epochs": "num_train_epochs"}
"""Short names of hyperparameters, and the argument that each is."""

_BATCH: Final = frozenset({"batch_size", "micro_batch_size", "accumulation_steps", "trial"})
"""Hyperparameters of the tuner that are not arguments of `Trainer`."""


class HuggingFaceCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]  # Any where it is not installed
    """Applies the trial's hyperparameters to the arguments at once, and reports what `Trainer` logs.

    A hyperparameter that is named like a training argument (`learning_rate`, `weight_decay`, `warmup_steps`,
    `lr_scheduler_type`, `optim`, `seed`, ...) is set, the batch size as micro-batch and accumulation. The
    script reads the others from `hyperparameters`. The seed is set at once: create the callback before the
    model, so that the model's weights depend on it.

    Args:
        args: The arguments that the `Trainer` will be given. They are changed in place; a `Trainer` that was
            already made with them has read some of them before.
        environment: The environment to read; if None, that of the process.

    Raises:
        ValueError: The batch size cannot be realised exactly, or a value is not of its argument's type; when
            training begins, also if another batch size or argument is about to be used.
    """

    def __init__(self, args: TrainingArguments, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.hyperparameters = sdk.hyperparameters(environment)
        self._throughput = Throughput()
        self._applied: dict[str, object] = {}
        self._trained: int | None = None
        self._steps_per_epoch: int | None = None
        self._samples_per_epoch: int | None = None
        for name in self.hyperparameters:
            argument = _RENAMED.get(name, name)
            if name not in _BATCH and argument in args.__dataclass_fields__:
                self.hyperparameters[name]  # so that it counts as read
                text = environment[sdk.PREFIX + name.upper()]
                setattr(args, argument, _as(getattr(args, argument), argument, text))
                self._applied[argument] = getattr(args, argument)
        if "batch_size" in self.hyperparameters:
            _refuse_search(args)
            # A process with several GPUs and no launcher splits its batch among them (torch's DataParallel).
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
        # A filtered loss hides that the run diverges.
        args.logging_nan_inf_filter = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: object
    ) -> None:
        """Compare what is about to be trained with the trial."""
        del control
        for argument, value in self._applied.items():
            if getattr(args, argument) != value:
                raise ValueError(
                    f"{argument} is {getattr(args, argument)!r}: must be the trial's {value!r}; do not change"
                    " the arguments after HuggingFaceCallback(args), and give the same to the Trainer"
                )
        _check_learning_rate(args.learning_rate, given.get("optimizer"), self._applied)
        loader = given.get("train_dataloader")
        data = getattr(loader, "dataset", None)
        with contextlib.suppress(TypeError, NotImplementedError):  # a stream has no length
            self._samples_per_epoch = len(data) if isinstance(data, Sized) else None
        if isinstance(loader, Sized):
            self._steps_per_epoch = math.ceil(len(loader) / args.gradient_accumulation_steps)
        if "batch_size" not in self.hyperparameters:
            return
        _refuse_search(args)
        at_once = _samples_at_once(loader, args.world_size)
        if at_once is None:
            at_once = (state.train_batch_size or args.train_batch_size) * args.world_size
        self._trained = at_once * args.gradient_accumulation_steps
        if self._trained != self.hyperparameters.batch_size:
            raise ValueError(
                f"the Trainer is about to train with batch size {self._trained} ({at_once} samples over all"
                f" processes x {args.gradient_accumulation_steps} accumulation steps): must be the trial's"
                f" {self.hyperparameters.batch_size}; make HuggingFaceCallback(args) before the Trainer, and"
                " leave per_device_train_batch_size, gradient_accumulation_steps and the loader's batch to it"
            )

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
        numbers = {name: value for name, value in (logs or {}).items() if _is_number(value)}
        numbers.pop("total_flos", None)
        if not numbers:
            return
        step = numbers.pop("epoch", state.epoch or 0.0)
        report(
            step,
            numbers,
            samples_per_second=self._throughput.samples_per_second,
            batch_size=self._trained,
            steps_per_epoch=self._steps_per_epoch,
            samples_per_epoch=self._samples_per_epoch,
        )

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Leave the evaluation's time out of the throughput."""
        del args, state, control
        self._throughput.stop()


def _is_number(value: object) -> bool:
    """Return whether a logged value is a number, perhaps one of NumPy or a tensor with one element."""
    return isinstance(value, (int, float)) or getattr(value, "ndim", None) == 0


def _refuse_search(args: TrainingArguments) -> None:
    if args.auto_find_batch_size:
        raise ValueError(
            "auto_find_batch_size is True: must be False, or Trainer trains with a smaller batch than the"
            " trial records; with the annotation micro-batch-size the tuner chooses a smaller micro-batch"
        )


def _samples_at_once(loader: object, processes: int) -> int | None:
    """Return the samples that all processes load at once; None where the loader does not say."""
    if isinstance(loader, Sized) and isinstance(total := getattr(loader, "total_batch_size", None), int):
        return total
    own = getattr(loader, "batch_size", None)
    return own * processes if isinstance(own, int) else None


def _check_learning_rate(rate: float, optimizer: object, applied: Mapping[str, object]) -> None:
    """Warn of an optimizer that the script has made with a learning rate of its own."""
    groups: Sequence[Mapping[str, Any]] = getattr(optimizer, "param_groups", ())
    rates = {float(group.get("initial_lr", group["lr"])) for group in groups if "lr" in group}
    if "learning_rate" in applied and rates and not any(math.isclose(rate, each) for each in rates):
        warnings.warn(
            f"the optimizer's learning rates are {sorted(rates)}: one must be the trial's {rate:g}; pass"
            " args.learning_rate to the optimizer that the script makes",
            stacklevel=2,
        )


def _as(present: object, argument: str, text: str) -> object:
    """Return the text as a value of the type that the argument has now."""
    if isinstance(present, Enum):
        return type(present)(text)
    defaults = {argument: present} if isinstance(present, (bool, int, float, str)) else {}
    return sdk.hyperparameters({sdk.PREFIX + argument.upper(): text}, **defaults)[argument]
