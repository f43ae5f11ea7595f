"""Strangers' documents as plain values: what JSON can hold, no value twice, and no more than a bound.

A few lines of YAML with aliases can stand for gigabytes, or contain themselves; a date or a set is no JSON; a
NUL ends a string in an environment, and half a surrogate pair is no UTF-8. What has passed here can be
copied, hashed, compared and written without a second thought.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
from itertools import count
from typing import Any, Final

import yaml

MAX_VALUES: Final = 100_000
"""Values of one document, aliases followed; a PyTorchJob has some hundreds."""
MAX_DEPTH: Final = 100
_MAX_INTEGER: Final = 2**63
YAML_ERRORS: Final = (
    yaml.YAMLError,
    # What else PyYAML lets through: deep nesting, a date with a 99th month, an empty `!!int`, ...
    RecursionError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""All that loading a stranger's YAML may raise."""


def load_documents(text: str) -> list[object]:
    """Return the documents of a YAML text as plain values, without the empty ones.

    Raises:
        ValueError: If the text is no YAML, or more than plain values.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except YAML_ERRORS as error:
        raise ValueError(f"it is no YAML ({str(error)[:300] or type(error).__name__})") from None
    return [plain(document) for document in documents if document is not None]


def plain(value: object) -> Any:  # noqa: ANN401 (what JSON holds has no better name)
    """Return a copy of a document that shares nothing, within itself or with the original.

    Raises:
        ValueError: If it holds something that JSON does not, or too much.
    """
    return _plain(value, count(), 0)


def _plain(value: object, seen: Iterator[int], depth: int) -> object:
    if next(seen) > MAX_VALUES or depth > MAX_DEPTH:
        raise ValueError(
            f"it holds more than {MAX_VALUES} values, or they nest deeper than {MAX_DEPTH}, once its aliases"
            " are followed"
        )
    if isinstance(value, dict):
        return {_key(key): _plain(held, seen, depth + 1) for key, held in value.items()}
    if isinstance(value, list):
        return [_plain(held, seen, depth + 1) for held in value]
    return _scalar(value)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"the key {str(key)[:40]!r} is no string: put it in quotes")  # noqa: TRY004 (as documented)
    return _text(key)


def _scalar(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, date):
        # YAML 1.1 reads an unquoted date as one; Kubernetes' own reader leaves it the text that it is.
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"it holds {value}, which is no number")
    if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        raise ValueError("it holds a whole number of more than 64 bits")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"it holds a {type(value).__name__}, which Kubernetes does not know")


def _text(text: str) -> str:
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise ValueError(f"the text {text[:40]!r} holds a character that no file can (NUL, or half a pair)")
    return text
