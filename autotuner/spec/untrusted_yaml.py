"""Load untrusted YAML as JSON values, with limits on size and depth.

A few lines of YAML with aliases can expand to gigabytes, or contain themselves. A date or a set is not JSON.
A NUL ends a string in an environment, and half a surrogate pair is not valid UTF-8. Values that passed these
checks can safely be copied, hashed, compared and written.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from datetime import date
from itertools import count
from typing import Any, Final

import yaml

MAX_VALUES: Final = 100_000
"""Values of one document, with aliases expanded; a PyTorchJob has a few hundred."""
MAX_DEPTH: Final = 100
_MAX_INTEGER: Final = 2**63
YAML_ERRORS: Final = (
    yaml.YAMLError,
    # Other errors that PyYAML raises: for deep nesting, a date with a 99th month, an empty `!!int`, ...
    RecursionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""All errors that loading untrusted YAML may raise."""


def load_documents(text: str) -> list[object]:
    """Return the documents of a YAML or JSON text as JSON values, without the empty ones.

    Raises:
        ValueError: If the text is not YAML, has a key twice in a mapping, or holds values that JSON does not
            have.
    """
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        # PyYAML refuses the tabs that JSON may be indented with. What is not JSON is tried as YAML.
        with contextlib.suppress(ValueError, RecursionError):
            return [plain(json.loads(text.lstrip("\ufeff"), object_pairs_hook=_unique))]
    try:
        # The loader constructs JSON values, dates and what else `plain` refuses.
        documents = list(yaml.load_all(text, _UniqueLoader))
    except YAML_ERRORS as error:
        raise ValueError(f"must be YAML ({str(error)[:300] or type(error).__name__})") from None
    return [plain(document) for document in documents if document is not None]


def load_strictly(text: str) -> object:
    """Return the single document of a YAML text, read with the core schema of YAML 1.2.

    `off`, `yes`, `1:2` and dates are strings, and `010` is ten. Aliases and duplicate keys are not allowed.
    https://yaml.org/spec/1.2.2/#103-core-schema

    Raises:
        ValueError: If the text is not such a document.
    """
    try:
        # The loader constructs JSON values only.
        return yaml.load(text, _StrictLoader)  # noqa: S506
    except YAML_ERRORS as error:
        raise ValueError(
            str(getattr(error, "problem", None) or str(error) or type(error).__name__)[:300]
        ) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON; ValueError if it has a key twice, of which YAML's loader names the lines."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


class _UniqueLoader(yaml.SafeLoader):
    """PyYAML's safe loader, without duplicate keys: a second `env` of a container would replace the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 (as the stubs need it)
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, value in node.value:
            # `<<` may be there several times, and merges other mappings.
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"the key {key.value[:80]!r} is duplicated, in lines {lines[key.value]} and {line}:"
                    " only one of the two would count"
                )
            # Nothing is lost with an empty value.
            if not value.tag.endswith(":null"):
                lines[key.value] = line
        return node


class _StrictLoader(_UniqueLoader):
    """The same for YAML 1.2, without aliases, with which a few lines can expand to gigabytes."""

    # In PyYAML each loader class has its own resolvers; those of YAML 1.2 are added below.
    yaml_implicit_resolvers = {}  # noqa: RUF012 (as PyYAML declares it)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Return a whole number: decimal, `0o17` or `0x1f`."""
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)

    def construct_number(self, node: yaml.ScalarNode) -> float:
        """Return a number with a fraction or an exponent, also `.inf` and `.nan`."""
        return float(self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_integer)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_number)


def plain(value: object) -> Any:  # noqa: ANN401 (what JSON holds has no better name)
    """Return a deep copy of a document as JSON values, without shared parts.

    Raises:
        ValueError: If it holds values that JSON does not have, or is too large.
    """
    return _plain(value, count(), 0)


def _plain(value: object, seen: Iterator[int], depth: int) -> object:
    if next(seen) > MAX_VALUES or depth > MAX_DEPTH:
        raise ValueError(
            f"must hold at most {MAX_VALUES} values, nested at most {MAX_DEPTH} deep, with aliases expanded"
        )
    if isinstance(value, dict):
        return {_key(key): _plain(held, seen, depth + 1) for key, held in value.items()}
    if isinstance(value, list):
        return [_plain(held, seen, depth + 1) for held in value]
    return _scalar(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"must have text as keys: put {str(key)[:40]!r} in quotes")  # noqa: TRY004 (as documented)
    return _text(key)


def _scalar(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, date):
        # YAML 1.1 reads an unquoted date as a date; Kubernetes' own reader keeps it as a string.
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must not hold {value}, which is not a number")
    if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        raise ValueError("must hold whole numbers of at most 64 bits")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"must not hold a {type(value).__name__}, which Kubernetes does not support")


def _text(text: str) -> str:
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise ValueError(
            f"must not hold the character NUL or half of a surrogate pair, as the string {text[:40]!r} does"
        )
    return text
