"""The values of annotations: targets, ranges, hyperparameters."""

from __future__ import annotations

import math
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from autotuner.trial import ParameterValue

MAX_INTEGER: Final = 2**31 - 1
SINGLE_PRECISION: Final = 6e-8
"""The relative error of a number in single precision: half of its last bit, 2**-24, rounded up."""


class Value(BaseModel):
    """Base of the values: frozen, without undeclared fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(Value):
    """A metric, a comparison and a threshold that a run must reach at some step."""

    metric: str
    comparison: Literal[">=", "<="]
    threshold: float

    @property
    def sign(self) -> int:
        """1 if larger values are better, -1 if smaller ones are."""
        return 1 if self.comparison == ">=" else -1

    @property
    def bar(self) -> float:
        """The worst value that meets the target: the threshold, or what single precision makes of it.

        Frameworks compute metrics in float32: 94 right answers of 100 are 0.9399999976158142.
        """
        return self.threshold - self.sign * SINGLE_PRECISION * abs(self.threshold)

    def margin(self, value: float) -> float:
        """Return the difference by which a value is better than the threshold, in the metric's unit."""
        return self.sign * (value - self.threshold)

    def is_met(self, value: float) -> bool:
        """Return whether a value meets the target; NaN and infinity (a diverged run) never do."""
        return math.isfinite(value) and self.sign * (value - self.bar) >= 0

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.threshold:g}"


class IntegerRange(Value):
    """A closed range of positive integers."""

    minimum: int
    maximum: int

    def __contains__(self, value: int) -> bool:
        return self.minimum <= value <= self.maximum

    def __str__(self) -> str:
        return f"{self.minimum}..{self.maximum}"


class Price(Value):
    """The price of a GPU-hour, with its currency."""

    amount: float
    currency: str

    def of(self, hours: float) -> str:
        """Return the price of a number of GPU-hours, for people."""
        return f"{self.amount * hours:,.2f} {self.currency}"

    def __str__(self) -> str:
        return f"{self.amount:g} {self.currency}"


class FloatDimension(Value):
    """A real hyperparameter in a closed range; with `log`, it is searched on a logarithmic scale."""

    minimum: float
    maximum: float
    log: bool = False

    def parse(self, value: str | float) -> float:
        """Parse a value; ValueError names the rule that it breaks."""
        number = finite_number(value)
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"must lie within {self.minimum:g}..{self.maximum:g}")
        return number


class IntegerDimension(Value):
    """An integer hyperparameter in a closed range."""

    minimum: int
    maximum: int
    log: bool = False

    def parse(self, value: str | float) -> int:
        """Parse a value; ValueError names the rule that it breaks."""
        number = finite_number(value)
        if number != int(number):
            raise ValueError("must be a whole number")
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"must lie within {self.minimum}..{self.maximum}")
        return int(number)


class Choice(Value):
    """A hyperparameter that takes one of a few values."""

    values: tuple[bool | int | float | str, ...]

    def parse(self, value: ParameterValue) -> ParameterValue:
        """Parse a value as one of the choices; ValueError lists them."""
        for choice in self.values:
            if meaning(choice) == meaning(value):
                return choice
        raise ValueError(f"must be one of {', '.join(map(environment_value, self.values))}")


Dimension = FloatDimension | IntegerDimension | Choice


class Shape(Value):
    """The number of processes of the job, according to its manifest.

    `masters` is 0 for a job of workers only. `processes_per_replica` counts the processes that one pod starts
    (its GPUs, under torchrun with `nproc_per_node: auto`), and `processes_per_master` those of the Master's
    pod if they differ. `can_grow` says whether the manifest has Worker replicas, whose number a trial can
    increase.
    """

    masters: int = 1
    workers: int = 0
    processes_per_replica: int = 1
    processes_per_master: int | None = None
    can_grow: bool = True

    @property
    def processes(self) -> int:
        """The world size."""
        each = self.processes_per_replica if self.processes_per_master is None else self.processes_per_master
        return self.masters * each + self.workers * self.processes_per_replica


def environment_value(value: ParameterValue) -> str:
    """Return a hyperparameter as text for a trial's environment: `true`, `0.1`, `3`, `lars`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def meaning(value: ParameterValue) -> str | float:
    """Return the value that a script reads: `1e-3` and 0.001 are the same number."""
    text = environment_value(value)
    try:
        return finite_number(text)
    except ValueError:
        return text


def finite_number(value: str | float) -> float:
    """Return a value as a finite number; ValueError names the rule that it breaks."""
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number
