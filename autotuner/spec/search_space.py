"""Parse a search space: YAML, a mapping from names to ranges or lists of choices."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Final

import yaml

from autotuner.spec.parsers import SHOWN, parameter_name
from autotuner.spec.untrusted_yaml import YAML_ERRORS
from autotuner.spec.values import (
    MAX_INTEGER,
    Choice,
    Dimension,
    FloatDimension,
    IntegerDimension,
    finite_number,
    meaning,
)
from autotuner.trial import ParameterValue

MAX_DIMENSIONS: Final = 32
MAX_CHOICES: Final = 64
MAX_CHOICE_LENGTH: Final = 256
MAX_MAGNITUDE: Final = 1e30
"""Of a bound, and of one over a bound with `log`: beyond, a range's width is no finite number any more."""


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
                    raise yaml.YAMLError(f"{key.value[:SHOWN]!r} stands there twice")
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
    return {parameter_name(name): _dimension(name, given) for name, given in loaded.items()}


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
        number = finite_number(given)
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
    if len({meaning(value) for value in values}) != len(values):
        raise ValueError(f"{name} has a choice twice")
    return Choice(values=tuple(values))
