"""The interface of a training script to the tuner: read hyperparameters, and report metrics.

A script that reads `AUTOTUNER_BATCH_SIZE` from its environment and prints `accuracy=0.93 epoch=3` needs
nothing from this module. With it, the script gets numbers with the right types, defaults for running
without the tuner, and a line with more than one metric:

    from autotuner import sdk

    hp = sdk.hyperparameters(batch_size=256, learning_rate=0.1, epochs=30)
    for epoch in range(hp.epochs):
        ...
        sdk.report(epoch + 1, accuracy=accuracy, noise_scale=meter.value)

It imports only the standard library, opens no connection, and only writes lines to standard output, so it
can stay in a script that runs elsewhere. The line is the whole protocol:

    {"autotuner": 1, "step": 3, "accuracy": 0.93, "noise_scale": 412.0}

Before the first of these lines, and again after further reads, a line lists the tuner's variables that the
script has read: a batch size that was not read is not the one that is trained.

    {"autotuner": 1, "reads": ["batch_size", "learning_rate"]}
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, SupportsFloat, TypeAlias

__all__ = ["Hyperparameters", "Value", "hyperparameters", "is_reporting_process", "report"]

PREFIX: Final = "AUTOTUNER_"
"""Environment variables with this prefix carry a trial's hyperparameters."""

FORMAT: Final = 1
"""The value of `autotuner` in a reported line; a reader ignores lines with an unknown value."""

Value: TypeAlias = bool | int | float | str

_read: set[str] = set()
"""The names of the tuner's hyperparameters that this process has read."""
_told: set[str] = set()
"""The names that have been printed."""
_first: bool | None = None
"""Whether this process was the first of its process group, which may be gone; None without one so far."""
_RANKS: Final = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
"""A process's number as torchrun and the training operator set it, or else mpirun."""
_TRUTH: Final = {"true": True, "false": False}


class Hyperparameters(Mapping[str, Value]):
    """The hyperparameters of this run: read as `hp.learning_rate` or `hp["learning_rate"]`.

    Values are numbers if they look like numbers, booleans if they are `true` or `false`, otherwise text;
    a name with a default has the type of the default. A hyperparameter counts as read when its value is
    accessed, as an attribute, by name or with all others (`**hp`); giving a default is not reading. The
    script may change a value: `hp.learning_rate = 0.2`.
    """

    def __init__(self, values: Mapping[str, Value | None], tuned: Iterable[str] = ()) -> None:
        self._values: dict[str, Any] = dict(values)
        self._tuned = frozenset(tuned)

    def __getitem__(self, name: str) -> Value:
        value: Value = self._values[name]
        if name in self._tuned:
            _note(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (the script knows the type)
        # Reached only for names that are not attributes. copy and pickle access dunder names before `_values`
        # exists, which must not recurse.
        if not name.startswith("_") and name in self._values:
            return self[name]
        raise AttributeError(
            f"there is no hyperparameter {name!r} in the environment: give it a default, such as"
            f" hyperparameters({name}=...), or set {PREFIX}{name.upper()}"
        )

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 (the script knows the type)
        # Otherwise `hp.learning_rate` would be the new value, and `hp["learning_rate"]` the old one.
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._values[name] = value

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"Hyperparameters({inner})"


def hyperparameters(
    environment: Mapping[str, str] | None = None, /, **defaults: Value | None
) -> Hyperparameters:
    """Return the hyperparameters that the tuner set in the environment, over the defaults given here.

    In addition to those of the search space there are `batch_size` (global: all processes together), `seed`,
    `trial`, and, if the job has micro-batches, `micro_batch_size` and `accumulation_steps`. Without the tuner
    only names with a default exist.

    Args:
        environment: The environment to read; if None, that of the process.
        defaults: Values for running without the tuner. A default's type is also the type of the tuner's
            value: a float stays a float if the tuner sets `1`. None has no type to keep.

    Raises:
        ValueError: A variable is text and its default a number, or neither true nor false and its default a
            boolean.
    """
    # Another mapping was not set for this process, so reading it is not recorded.
    is_own = environment is None or environment is os.environ
    environment = os.environ if environment is None else environment
    tuned: set[str] = set()
    values: dict[str, Value | None] = {}
    for name, default in defaults.items():
        text = environment.get(PREFIX + name.upper())
        values[name] = default if text is None else _like(default, text, name)
        if text is not None:
            tuned.add(name)
    taken = {name.upper() for name in defaults}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX)
        if variable != name and name and name not in taken:
            values[name.lower()] = _guess(text)
            tuned.add(name.lower())
    return Hyperparameters(values, tuned if is_own else ())


def report(step: float, **metrics: SupportsFloat | None) -> None:
    """Print one line for the tuner: metrics at a step, in the script's own unit of steps.

    Every process may call it; only the first one prints. Metrics that are None are left out (a meter that
    has not measured yet). NaN and infinities are reported too, as the strings "NaN", "Infinity" and
    "-Infinity", which are valid JSON: they show the tuner that a run has diverged.

    Args:
        step: The position in the run, such as the epoch; increasing.
        metrics: Numbers, or anything `float()` takes, such as a tensor with one element. `noise_scale` and
            `samples_per_second` are recorded in addition to the target metric. `batch_size` (global, as it
            was trained) and `steps_per_epoch` (of the optimizer) are compared with the trial's suggestion,
            and no batch larger than `samples_per_epoch` (of all processes together) is confirmed.

    Raises:
        ValueError: A metric is named `autotuner`.
    """
    if "autotuner" in metrics:
        raise ValueError(
            'a metric is named "autotuner": choose another name, that one marks the tuner\'s lines'
        )
    if not is_reporting_process():
        return
    line: dict[str, float | int | str] = {"autotuner": FORMAT, "step": _json_number(step)}
    for name, value in metrics.items():
        if value is not None:
            line[name] = _json_number(value)
    _write(_untold() + json.dumps(line, allow_nan=False) + "\n")


def _write(text: str) -> None:
    # One write: with several processes in one log, another line could come between two writes.
    if sys.stdout is not None:  # a process without a console has none, and `print` does nothing there
        sys.stdout.write(text)
        sys.stdout.flush()


def _note(name: str) -> None:
    if not _read:
        # A script that prints its metric itself never reports.
        atexit.register(_tell_at_exit)
    _read.add(name.lower())


def _untold() -> str:
    """Return the line with the names that were read, if there are new ones."""
    if _read <= _told:
        return ""
    _told.update(_read)
    return json.dumps({"autotuner": FORMAT, "reads": sorted(_read)}) + "\n"


def _tell_at_exit() -> None:
    # Standard output may be closed already.
    with contextlib.suppress(OSError, ValueError):
        if is_reporting_process() and (line := _untold()):
            _write(line)


def is_reporting_process() -> bool:
    """Return whether this is the first of the job's processes, the one whose log the tuner reads.

    A process group decides, if there is one, also after its end: processes that a script spawns itself share
    the environment of their parent. Without one, RANK decides, as set by the training operator (one process
    per pod) and torchrun, or the number that mpirun gives to its processes.
    """
    distributed = sys.modules.get("torch.distributed")  # asked only if the script imported it: no import here
    global _first  # noqa: PLW0603 (the process's own, like its group)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        _first = bool(distributed.get_rank() == 0)
    if _first is not None:
        return _first
    return next((rank for name in _RANKS if (rank := os.environ.get(name))), "0") == "0"


def _json_number(value: SupportsFloat) -> float | int | str:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _guess(text: str) -> Value:
    """Return an int, a float or a boolean if the text is one, otherwise the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _TRUTH.get(text, text)


def _like(default: Value | None, text: str, name: str) -> Value:
    """Return the text as a value of the default's type."""
    if default is None:
        return _guess(text)
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.strip().lower() in {"true", "1"}:
            return True
        if text.strip().lower() in {"false", "0"}:
            return False
        raise ValueError(f"{PREFIX}{name.upper()} is {text!r}: set it to true or false")
    number = _guess(text)
    if isinstance(number, (str, bool)):
        raise ValueError(  # noqa: TRY004 (the value is wrong, not its type)
            f"{PREFIX}{name.upper()} is {text!r}: set it to a number, as its default {default} is"
        )
    if isinstance(default, float):
        return float(number)
    # `weight_decay=0` means a number: an integer if the tuner's value is whole, otherwise a float.
    return int(number) if math.isfinite(number) and number == int(number) else number
