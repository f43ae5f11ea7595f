"""Parsers of annotations: a string in, a value out, or ValueError with the rule that it breaks.

`autotuner.spec.tuning_spec` adds key, value and example. Sizes are bounded and nothing is evaluated.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

import re2

from autotuner import keys
from autotuner.spec.values import (
    MAX_INTEGER,
    IntegerRange,
    Target,
    finite_number,
)

MAX_PATTERN: Final = 512
SHOWN: Final = 80
"""Characters of the user's text that a rule repeats."""
_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TARGET = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w./@-]{0,63})\s*(?P<comparison>>=|<=)\s*(?P<threshold>[^\s]+)\s*"
)
_COUNT = re.compile(r"\s*\d{1,9}\s*")
_RANGE = re.compile(r"\s*(\d{1,10})\s*\.\.\s*(\d{1,10})\s*")
_DURATION = re.compile(r"\s*(?=\d)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?\s*")


def parse_target(value: object) -> object:
    """Read `metric >= number`."""
    if not isinstance(value, str):
        return value
    match = _TARGET.fullmatch(value)
    if match is None:
        raise ValueError("write a metric, >= or <=, and a number")
    try:
        threshold = finite_number(match["threshold"])
    except ValueError as error:
        raise ValueError(f"the threshold {match['threshold'][:SHOWN]!r} {error}") from None
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
    number = finite_number(value)
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


def parse_moment(value: object) -> object:
    """Read a moment in time, with its zone."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("write a moment as RFC 3339 has it, with a time zone")
    return moment


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


def parse_name(value: object) -> object:
    """Read the name of a hyperparameter."""
    return parameter_name(value.strip()) if isinstance(value, str) else value


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


def parameter_name(name: object) -> str:
    """Return the name of a hyperparameter; ValueError says which rule it breaks."""
    if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
        raise ValueError(
            f"the name {str(name)[:SHOWN]!r} must be lower-case letters, digits and underscores,"
            " from a letter"
        )
    if name in keys.RESERVED_PARAMETERS:
        raise ValueError(f"the name {name!r} is taken by {keys.environment_name(name)}")
    return name
