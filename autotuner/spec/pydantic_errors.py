"""Convert pydantic errors to rules (`must be ...`), for annotations and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic_core import ErrorDetails

MAX_RULE: Final = 500
"""Characters of a rule; some contain the message of a parser of YAML or regular expressions."""

_RULES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "greater_than": lambda bounds: f"must be above {bounds['gt']:g}",
    "greater_than_equal": lambda bounds: f"must be at least {bounds['ge']:.15g}",
    "less_than": lambda bounds: f"must be below {bounds['lt']:g}",
    "less_than_equal": lambda bounds: f"must be at most {bounds['le']:.15g}",
    "finite_number": lambda _: "must be a finite number",
    "int_parsing": lambda _: "must be a whole number",
    "int_parsing_size": lambda _: "must be a whole number with fewer digits",
    "int_type": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "float_parsing": lambda _: "must be a number",
    "float_type": lambda _: "must be a number",
    "bool_parsing": lambda _: "must be true or false",
    "bool_type": lambda _: "must be true or false",
    "string_type": lambda _: "must be text",
    "string_too_short": lambda _: "must not be empty",
    "path_type": lambda _: "must be a path",
    "tuple_type": lambda _: "must be a list",
    "literal_error": lambda bounds: f"must be one of {bounds['expected']}",
}


def rule_of(details: ErrorDetails) -> str:
    """Return the rule that a value breaks, with bounded length: our own parser's, or pydantic's."""
    rule = _RULES.get(details["type"])
    if rule is not None:
        return rule(details.get("ctx", {}))
    text = details["msg"].removeprefix("Value error, ")[:MAX_RULE]
    return text if text.startswith(("must ", "the ")) else f"{text[:1].lower()}{text[1:]}"
