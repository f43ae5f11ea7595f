"""Parse annotations: a string in, a value out, or ValueError with the rule that it breaks.

`autotuner.spec.tuning_spec` adds key, value and example. Sizes are bounded and nothing is evaluated.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Final

import re2

from autotuner import keys
from autotuner.spec.log_formats import LOG_FORMATS
from autotuner.spec.values import MAX_INTEGER, IntegerRange, Price, finite_number

MAX_PATTERN: Final = 512
MAX_EARLIER: Final = 4
"""Earlier studies that inform a search: each costs a model of its own."""
SHOWN: Final = 80
"""Characters of the user's text that a rule shows."""
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "True", "TRUE", "1"), True),
    **dict.fromkeys(("false", "False", "FALSE", "0"), False),
}
_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PRICE = re.compile(r"\s*(?P<amount>\d{1,9}(?:\.\d{1,9})?)\s{1,4}(?P<currency>[A-Z]{3})\s*")
_COUNT = re.compile(r"\s*\d{1,9}\s*")
_RANGE = re.compile(r"\s*(\d{1,10})\s*\.\.\s*(\d{1,10})\s*")
_DURATION = re.compile(r"\s*(?=\d)(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?\s*")


def parse_range(value: object) -> object:
    """Read `min..max`."""
    if not isinstance(value, str):
        return value
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError("must be min..max, two whole numbers")
    minimum, maximum = int(match[1]), int(match[2])
    if not 1 <= minimum <= maximum <= MAX_INTEGER:
        raise ValueError(f"must be min..max with 1 <= min <= max <= {MAX_INTEGER}")
    return IntegerRange(minimum=minimum, maximum=maximum)


def parse_boolean(value: object) -> object:
    """Read `true` or `false`, also written as True, TRUE or 1, as templates and people do."""
    if not isinstance(value, str):
        return value
    word = value.strip()
    if word not in _BOOLEANS:
        raise ValueError('must be "true" or "false", in quotes, because annotations are strings')
    return _BOOLEANS[word]


def parse_apply(value: object) -> object:
    """Read `true`, `false` or `patch`."""
    if isinstance(value, str) and value.strip() == "patch":
        return "patch"
    try:
        return parse_boolean(value)
    except ValueError:
        raise ValueError('must be "true", "false" or "patch", in quotes') from None


def parse_count(value: object) -> object:
    """Read a whole number."""
    if not isinstance(value, str):
        return value
    if not _COUNT.fullmatch(value.strip()):
        raise ValueError("must be a whole number")
    return int(value)


def parse_count_or_auto(value: object) -> object:
    """Read a whole number, or `auto`."""
    if isinstance(value, str) and value.strip() == "auto":
        return "auto"
    try:
        return parse_count(value)
    except ValueError:
        raise ValueError("must be a whole number or auto") from None


def parse_positive(value: object) -> object:
    """Read a number above 0."""
    if not isinstance(value, str):
        return value
    try:
        number = finite_number(value)
    except ValueError:
        raise ValueError("must be a finite number above 0") from None
    if number <= 0:
        raise ValueError("must be a number above 0")
    return number


def parse_price(value: object) -> object:
    """Read an amount above 0 and the three letters of a currency (ISO 4217), such as `2.50 USD`."""
    if not isinstance(value, str):
        return value
    match = _PRICE.fullmatch(value)
    if match is None or float(match["amount"]) == 0:
        raise ValueError("must be a number above 0, a space, and the three capital letters of a currency")
    return Price(amount=float(match["amount"]), currency=match["currency"])


def parse_duration(value: object) -> object:
    """Read a duration such as `1h30m`."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not any(parts):
        raise ValueError("must be a duration above 0 in days, hours, minutes and seconds")
    days, hours, minutes, seconds = parts
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def parse_log_format(value: object) -> object:
    """Read the name of a log format."""
    if not isinstance(value, str) or value.strip() not in LOG_FORMATS:
        raise ValueError("must be a format that `autotuner metrics --formats` lists")
    return value.strip()


def parse_moment(value: object) -> object:
    """Read a time with its zone."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("must be a time in RFC 3339 format, with a time zone")
    return moment


def parse_pattern(value: object) -> object:
    """Read a regular expression of linear time (RE2), so that no pattern can hang a log reader."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_PATTERN:
        raise ValueError(f"must have at most {MAX_PATTERN} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(value, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it does not parse"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"must be a regular expression in RE2's syntax ({text})") from None
    groups = compiled.groupindex
    if "value" not in groups and compiled.groups != 1:
        raise ValueError("must have one group, or groups named value and step")
    return value


def parse_name(value: object) -> object:
    """Read the name of a hyperparameter."""
    return parameter_name(value.strip()) if isinstance(value, str) else value


def parse_queue(value: object) -> object:
    """Read the name of a Kueue LocalQueue."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise ValueError("must be the name of a LocalQueue: at most 63 lower-case letters, digits and '-'")
    return value


def parse_job_name(value: object) -> object:
    """Read the name of a job."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", value):
        raise ValueError(
            "must be the name of a job: at most 50 lower-case letters, digits and '-', from a letter"
        )
    return value


def parse_jobs(value: object) -> object:
    """Read names of jobs, separated by commas."""
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(","))
    if not all(re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name) for name in names):
        raise ValueError("must be names of jobs in the same namespace, separated by commas")
    if len(names) > MAX_EARLIER or len(set(names)) < len(names):
        raise ValueError(f"must be at most {MAX_EARLIER} different names")
    return names


def parse_sampler(value: object) -> object:
    """Read a sampler's name."""
    if value not in {"frontier", "gp", "tpe", "random"}:
        raise ValueError("must be frontier, gp, tpe or random")
    if value == "gp" and find_spec("torch") is None:
        raise ValueError(
            "must be frontier, tpe or random: gp needs PyTorch, which is not installed here"
            " (pip install 'autotuner[train]')"
        )
    return value


def parameter_name(name: object) -> str:
    """Return the name of a hyperparameter; ValueError names the rule that it breaks."""
    if not isinstance(name, str) or not _PARAMETER.fullmatch(name):
        raise ValueError(
            "must name a hyperparameter in at most 40 lower-case letters, digits and underscores that start"
            f" with a letter; {str(name)[:SHOWN]!r} does not"
        )
    if name in keys.RESERVED_PARAMETERS:
        raise ValueError(
            f"must use another name than {name!r}: {keys.environment_name(name)} is already in use"
        )
    return name
