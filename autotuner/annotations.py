"""The values that annotations carry, and the parsers that read them.

A parser takes the string that a stranger wrote and returns a value, or raises ValueError with the rule that
it breaks; `autotuner.spec` adds key, value and example. Sizes are bounded and nothing is evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from datetime import timedelta
from typing import Any, Final, Literal

import re2
import yaml
from pydantic import BaseModel, ConfigDict

from autotuner import keys
from autotuner.documents import YAML_ERRORS
from autotuner.trial import ParameterValue

MAX_DIMENSIONS: Final = 32
MAX_CHOICES: Final = 64
MAX_CHOICE_LENGTH: Final = 256
MAX_INTEGER: Final = 2**31 - 1
MAX_MAGNITUDE: Final = 1e30
"""Of a bound, and of one over a bound with `log`: beyond, a range's width is no finite number any more."""
MAX_PATTERN: Final = 512


class Value(BaseModel):
    """Base of the values: frozen, and without fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(Value):
    """A metric, a comparison and a threshold: what a run has to reach at some step."""

    metric: str
    comparison: Literal[">=", "<="]
    threshold: float

    @property
    def sign(self) -> int:
        """1 where larger values are better, -1 where smaller ones are."""
        return 1 if self.comparison == ">=" else -1

    def margin(self, value: float) -> float:
        """Return by how much a value is better than the threshold, in the metric's own unit."""
        return self.sign * (value - self.threshold)

    def is_met(self, value: float) -> bool:
        """Return whether a value meets the target; NaN and infinity, as of a diverged run, never do."""
        return math.isfinite(value) and self.margin(value) >= 0

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


class FloatDimension(Value):
    """A real hyperparameter in a closed range; `log` where its magnitude matters, not its value."""

    minimum: float
    maximum: float
    log: bool = False

    def parse(self, value: str | float) -> float:
        """Return a baseline value; ValueError says which rule it breaks."""
        number = _number(value)
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"lies outside of {self.minimum:g}..{self.maximum:g}")
        return number


class IntegerDimension(Value):
    """An integer hyperparameter in a closed range."""

    minimum: int
    maximum: int
    log: bool = False

    def parse(self, value: str | float) -> int:
        """Return a baseline value; ValueError says which rule it breaks."""
        number = _number(value)
        if number != int(number):
            raise ValueError("is not an integer")
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"lies outside of {self.minimum}..{self.maximum}")
        return int(number)


class Choice(Value):
    """A hyperparameter that takes one of a few values."""

    values: tuple[bool | int | float | str, ...]

    def parse(self, value: ParameterValue) -> ParameterValue:
        """Return the choice that a baseline value names; ValueError says which there are."""
        for choice in self.values:
            if _meaning(choice) == _meaning(value):
                return choice
        raise ValueError(f"is none of {', '.join(map(environment_value, self.values))}")


Dimension = FloatDimension | IntegerDimension | Choice


class Shape(Value):
    """How many processes the job runs, as its manifest says.

    `masters` is 0 for a job of workers only; `processes_per_replica` counts the processes that one pod
    starts (its GPUs, under torchrun with `nproc_per_node: auto`), and `processes_per_master` those of the
    Master's pod where they are others. `can_grow` says whether the manifest has a
    Worker replica, if only of 0 pods, of which a trial can have more.
    """

    masters: int = 1
    workers: int = 0
    processes_per_replica: int = 1
    can_grow: bool = True
    processes_per_master: int | None = None

    @property
    def processes(self) -> int:
        """The world size."""
        each = self.processes_per_replica if self.processes_per_master is None else self.processes_per_master
        return self.masters * each + self.workers * self.processes_per_replica


def environment_value(value: ParameterValue) -> str:
    """Return a hyperparameter as a trial's environment carries it: `true`, `0.1`, `3`, `lars`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _meaning(value: ParameterValue) -> str | float:
    """Return what a script reads in a value: `1e-3` and 0.001 are the same number."""
    text = environment_value(value)
    try:
        return _number(text)
    except ValueError:
        return text


def _number(value: str | float) -> float:
    try:
        number = float(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


# --- parsers, one an annotation: a string in, a value out, ValueError with the rule --------------------

_TARGET = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w./@-]{0,63})\s*(?P<comparison>>=|<=)\s*(?P<threshold>[^\s]+)\s*"
)
_SHOWN = 80
"""Characters of a stranger's text that a rule repeats."""
_COUNT = re.compile(r"\s*\d{1,9}\s*")
_RANGE = re.compile(r"\s*(\d{1,10})\s*\.\.\s*(\d{1,10})\s*")
_DURATION = re.compile(r"\s*(?=\d)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?\s*")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,39}")


def parse_target(value: object) -> object:
    """Read `metric >= number`."""
    if not isinstance(value, str):
        return value
    match = _TARGET.fullmatch(value)
    if match is None:
        raise ValueError("write a metric, >= or <=, and a number")
    try:
        threshold = _number(match["threshold"])
    except ValueError as error:
        raise ValueError(f"the threshold {match['threshold'][:_SHOWN]!r} {error}") from None
    return Target.model_validate({**match.groupdict(), "threshold": threshold})


def parse_range(value: object) -> object:
    """Read `min..max`."""
    if not isinstance(value, str):
        return value
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError("write min..max, two whole numbers")
    minimum, maximum = int(match[1]), int(match[2])
    if not 1 <= minimum <= maximum <= MAX_INTEGER:
        raise ValueError(f"min must be at least 1 and at most max, and max at most {MAX_INTEGER}")
    return IntegerRange(minimum=minimum, maximum=maximum)


def parse_boolean(value: object) -> object:
    """Read `true` or `false`."""
    if not isinstance(value, str):
        return value
    if value.strip() not in {"true", "false"}:
        raise ValueError("write true or false, in quotes, for annotations are strings")
    return value.strip() == "true"


def parse_count(value: object) -> object:
    """Read a whole number."""
    if not isinstance(value, str):
        return value
    if not _COUNT.fullmatch(value.strip()):
        raise ValueError("write a whole number")
    return int(value)


def parse_positive(value: object) -> object:
    """Read a number above 0."""
    if not isinstance(value, str):
        return value
    number = _number(value)
    if number <= 0:
        raise ValueError("write a number above 0")
    return number


def parse_duration(value: object) -> object:
    """Read a duration such as `1h30m`."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise ValueError("write a duration above 0 in days, hours, minutes and seconds")
    days, hours, minutes, seconds = parts
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def parse_pattern(value: object) -> object:
    """Read a regular expression of linear time (RE2), so that no pattern can hang a log reader."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_PATTERN:
        raise ValueError(f"write at most {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(value, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it does not parse"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"write a regular expression in RE2's syntax ({text})") from None
    groups = compiled.groupindex
    if "value" not in groups and compiled.groups != 1:
        raise ValueError("write one group, or groups named value and step")
    return value


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, which let a few lines stand for gigabytes, nor a key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        written: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in written:
                    raise yaml.YAMLError(f"{key.value[:_SHOWN]!r} stands there twice")
                written.add(key.value)
        return super().construct_mapping(node, deep)


def parse_space(value: object) -> object:
    """Read a search space from YAML."""
    if not isinstance(value, str):
        return value
    try:
        # A SafeLoader by descent: it builds plain values only.
        loaded = yaml.load(value, _BoundedLoader)  # noqa: S506
    except YAML_ERRORS as error:
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ValueError(f"write YAML, a mapping from names to ranges or lists ({problem})") from None
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError("write YAML, a mapping from names to ranges or lists")
    if len(loaded) > MAX_DIMENSIONS:
        raise ValueError(f"write at most {MAX_DIMENSIONS} hyperparameters")
    return {_parameter_name(name): _dimension(name, given) for name, given in loaded.items()}


def _parameter_name(name: object) -> str:
    if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
        raise ValueError(
            f"the name {str(name)[:_SHOWN]!r} must be lower-case letters, digits and underscores,"
            " from a letter"
        )
    if name in keys.RESERVED_PARAMETERS:
        raise ValueError(f"the name {name!r} is taken by {keys.environment_name(name)}")
    return name


def _dimension(name: str, given: object) -> Dimension:
    if isinstance(given, list):
        return _choice(name, given)
    if not isinstance(given, dict):
        raise ValueError(f"{name} must be {{min, max}} or a list of choices")
    unknown = set(map(str, given)) - {"min", "max", "log", "type"}
    if unknown or not {"min", "max"} <= set(given):
        raise ValueError(f"{name} must have min and max, and may have log and type: float or int")
    log, kind = given.get("log", False), given.get("type", "float")
    if not isinstance(log, bool):
        raise ValueError(f"{name}.log must be true or false")
    if kind not in ("float", "int"):  # a tuple: a stranger's value need not be hashable
        raise ValueError(f"{name}.type must be float or int")
    minimum, maximum = _bound(name, given["min"]), _bound(name, given["max"])
    if minimum >= maximum:
        raise ValueError(f"{name}: min must be less than max")
    if log and minimum < 1 / MAX_MAGNITUDE:
        raise ValueError(f"{name}: min must be above 0 with log, and at least {1 / MAX_MAGNITUDE:g}")
    if kind == "int":
        return _integers(name, minimum, maximum, log=log)
    return FloatDimension(minimum=minimum, maximum=maximum, log=log)


def _integers(name: str, minimum: float, maximum: float, *, log: bool) -> IntegerDimension:
    if minimum != int(minimum) or maximum != int(maximum):
        raise ValueError(f"{name}: min and max must be whole numbers with type: int")
    if max(-minimum, maximum) > MAX_INTEGER:
        raise ValueError(f"{name}: min and max must be at most {MAX_INTEGER} with type: int")
    return IntegerDimension(minimum=int(minimum), maximum=int(maximum), log=log)


def _bound(name: str, given: object) -> float:
    # YAML 1.1 reads `1e-5` as a string, so strings that are numbers count as numbers.
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError(f"{name}: min and max must be numbers")
    try:
        number = _number(given)
    except ValueError as error:
        raise ValueError(f"{name}: min or max {error}") from None
    if abs(number) > MAX_MAGNITUDE:
        raise ValueError(f"{name}: min and max must lie within -{MAX_MAGNITUDE:g}..{MAX_MAGNITUDE:g}")
    return number


def _choice(name: str, given: list[object]) -> Choice:
    if not 1 <= len(given) <= MAX_CHOICES:
        raise ValueError(f"{name} must have 1 to {MAX_CHOICES} choices")
    values: list[ParameterValue] = []
    for value in given:
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{name} has a choice that is no number, string or boolean")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} has a choice that is not a finite number")
        if len(str(value)) > MAX_CHOICE_LENGTH:
            raise ValueError(f"{name} has a choice longer than {MAX_CHOICE_LENGTH} characters")
        if not str(value).isprintable():
            # NUL ends a string in an environment, half a surrogate pair is no UTF-8, the rest moves cursors.
            raise ValueError(f"{name} has a choice with a control character")
        values.append(value)
    if len({_meaning(value) for value in values}) != len(values):
        raise ValueError(f"{name} has a choice twice")
    return Choice(values=tuple(values))


def parse_name(value: object) -> object:
    """Read the name of a hyperparameter."""
    return _parameter_name(value.strip()) if isinstance(value, str) else value


def parse_queue(value: object) -> object:
    """Read the name of a Kueue LocalQueue."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise ValueError("write a LocalQueue's name: at most 63 lower-case letters, digits and '-'")
    return value


def parse_sampler(value: object) -> object:
    """Read a sampler's name."""
    if value not in {"frontier", "gp", "tpe", "random"}:
        raise ValueError("write frontier, gp, tpe or random")
    return value
