"""Parse a target: the name of a metric, a comparison, a threshold."""

from __future__ import annotations

import math
import re
from typing import Final

from autotuner.spec.values import Target

MAX_NAME: Final = 100
RULE: Final = "must be a metric as the log prints it, >= or <=, and a number"
_NAMES: Final = (
    "must name the metric as the log prints it, in letters, digits, spaces and / @ . - _ ( ) # : + % (to read"
    " one that the log prints differently, set autotuner.dev/metric-pattern), and not as"
)
_TARGET: Final = re.compile(
    r"\s*(?P<metric>[^\s<>=][^<>=]*?)\s*(?P<comparison>>=|<=|\u2265|\u2264|=>|=<|==|=|>|<)\s*(?P<threshold>[^<>=]*?)\s*"
)
_NAME: Final = re.compile(r"[\w(][\w ./@\-()#:+%]*", re.UNICODE)
_SIGNS: Final = {">=": ">=", "<=": "<=", "\u2265": ">=", "\u2264": "<="}
_UNIT: Final = re.compile(r"(?P<number>\S+?)\s?(?P<unit>%|percent|pct)")
_SHOWN: Final = 80
_MAX_TEXT: Final = 300


def parse_target(value: object) -> object:
    """Read `metric >= number`; a threshold in percent, `93%`, is the fraction 0.93.

    Raises:
        ValueError: With the rule that the text breaks.
    """
    if not isinstance(value, str):
        return value
    match = _TARGET.fullmatch(value) if len(value) <= _MAX_TEXT else None
    if match is None:
        raise ValueError(RULE)
    metric = " ".join(match["metric"].strip("\"'`").split())
    comparison = _SIGNS.get(match["comparison"])
    if comparison is None:
        raise ValueError(f"must compare the metric by >= or <=, not by {match['comparison']}")
    if len(metric) > MAX_NAME or not _NAME.fullmatch(metric):
        raise ValueError(f"{_NAMES} {metric[:_SHOWN]!r}")
    return Target.model_validate(
        {"metric": metric, "comparison": comparison, "threshold": _threshold(match["threshold"])}
    )


def _threshold(text: str) -> float:
    unit = _UNIT.fullmatch(text)
    number = _finite(unit["number"] if unit else text)
    if number is None:
        raise ValueError(f"the threshold {text[:_SHOWN]!r} must be a number without a unit, for example 0.93")
    # A percent sign in the log is converted to the unit of the threshold, so the fraction is safe for both.
    return float(f"{number / 100:.12g}") if unit else number


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
