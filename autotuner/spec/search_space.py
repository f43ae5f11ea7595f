"""Parse a search space: YAML, a mapping from names to ranges or lists of choices."""

from __future__ import annotations

import math
from typing import Final

from autotuner.spec.parsers import parameter_name
from autotuner.spec.untrusted_yaml import load_strictly
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

_MAPPING: Final = "must be YAML, a mapping from names to ranges or lists"
MAX_DIMENSIONS: Final = 32
MAX_CHOICES: Final = 64
MAX_CHOICE_LENGTH: Final = 256
MAX_MAGNITUDE: Final = 1e30
"""Maximum of a bound, and with `log` of 1 / bound: beyond it, the width of a range is not finite."""


def parse_space(value: object) -> object:
    """Read a search space from YAML; ValueError carries all of its mistakes."""
    if not isinstance(value, str):
        return value
    try:
        loaded = load_strictly(value)
    except ValueError as error:
        raise ValueError(f"{_MAPPING} ({error})") from None
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(_MAPPING)
    if len(loaded) > MAX_DIMENSIONS:
        raise ValueError(f"must have at most {MAX_DIMENSIONS} hyperparameters")
    space: dict[str, Dimension] = {}
    rules: list[str] = []
    for name, given in loaded.items():
        try:
            space[parameter_name(name)] = _dimension(str(name), given)
        except ValueError as error:
            rules.append(str(error))
    if rules:
        raise ValueError("; ".join(rules))
    return space


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
    if kind not in ("float", "int"):  # a tuple: the value need not be hashable
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
    # A number in quotes counts as a number.
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError(f"{name}: min and max must be numbers")
    try:
        number = finite_number(given)
    except ValueError:
        raise ValueError(f"{name}: min and max must be finite numbers") from None
    if abs(number) > MAX_MAGNITUDE:
        raise ValueError(f"{name}: min and max must lie within -{MAX_MAGNITUDE:g}..{MAX_MAGNITUDE:g}")
    return number


def _choice(name: str, given: list[object]) -> Choice:
    if not 1 <= len(given) <= MAX_CHOICES:
        raise ValueError(f"{name} must have 1 to {MAX_CHOICES} choices")
    values: list[ParameterValue] = []
    for value in given:
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{name} must have numbers, strings and booleans as choices")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must have finite numbers as choices")
        if len(str(value)) > MAX_CHOICE_LENGTH:
            raise ValueError(f"{name} must have choices of at most {MAX_CHOICE_LENGTH} characters")
        if not str(value).isprintable():
            # NUL ends a string in an environment, half a surrogate pair is not UTF-8, the others move the
            # cursor.
            raise ValueError(f"{name} must have choices without control characters")
        values.append(value)
    if len({meaning(value) for value in values}) != len(values):
        raise ValueError(f"{name} must have each choice only once")
    return Choice(values=tuple(values))
