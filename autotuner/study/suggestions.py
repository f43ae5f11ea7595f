"""Encode suggestions as JSON, for a trial's annotation and its ledger entry, and decode them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Final

from autotuner.errors import InvalidRecord
from autotuner.trial import ParameterValue, Purpose, Suggestion

_OPTIONAL: Final = {"workers": 0, "micro_batch_size": 1, "accumulation_steps": 1, "rerun_of": 0}
"""Optional fields of a suggestion, with the minimum value of each."""


def encode_suggestion(suggestion: Suggestion) -> str:
    """Return a suggestion as the JSON of a trial's annotation; `decode_suggestion` reads it."""
    fields = {key: value for key, value in asdict(suggestion).items() if value is not None}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def decode_suggestion(text: str) -> Suggestion:
    """Read a suggestion from JSON.

    Raises:
        InvalidRecord: If it is not what `encode_suggestion` writes.
    """
    try:
        fields = json.loads(text)
        suggestion = Suggestion(
            number=_integer(fields["number"], 0),
            batch_size=_integer(fields["batch_size"], 1),
            parameters=_parameters(fields["parameters"]),
            seed=_integer(fields["seed"], 0),
            purpose=Purpose(fields["purpose"]),
            **{name: _integer(fields[name], least) for name, least in _OPTIONAL.items() if name in fields},
        )
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InvalidRecord(f"{text[:200]!r} is not a suggestion: {error!r}") from error
    return suggestion


def _integer(value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TypeError(f"{str(value)[:40]!r} is not a whole number of at least {least}")
    return value


def _parameters(value: object) -> dict[str, ParameterValue]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a mapping")
    for name, given in value.items():
        if not isinstance(name, str) or not isinstance(given, bool | int | float | str):
            raise TypeError(f"{name!r}: {given!r} is not a hyperparameter")
        if isinstance(given, float) and not math.isfinite(given):
            raise ValueError(f"{name!r}: {given} is not a hyperparameter")
    return value
