"""Convert a reading to the unit of the target's threshold, or say why it cannot be the metric.

Accuracies are printed as fractions and in percent. Confusing the two makes every run reach its target, or
none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.formats.reading import Metric, Reading
from autotuner.trial import Measurement

OF_BATCH: Final = re.compile(
    r"(?<![A-Za-z])(?:val|valid|validation|eval|evaluation|test|dev)[ _-]batch(?:es)?[ :#=\[(]{0,4}\d",
    re.IGNORECASE,
)
"""`val batch 3/10`: a value of one batch, or an average so far."""
_PERCENT: Final = 100
_HALF: Final = 0.5
_THOUSAND: Final = 1000
_FAR: Final = 10
"""A first value above this is not a fraction, for a metric of any name."""
_EXCESS: Final = 2
"""Values from 1 to this one may be fractions of a wrong total."""
_UNBOUNDED: Final = re.compile(r"reward|return|psnr", re.IGNORECASE)
_SMALL: Final = 0.2
"""Values below this may be percentages of a run that learns nothing: chance of 1,000 classes is 0.1%."""


@dataclass(frozen=True, slots=True)
class Implausible:
    """Why a value cannot be the metric; `target` is one that would fit it, if there is one."""

    reason: str
    target: str = ""


def scaled(
    reading: Reading, metric: Metric, target: Target, *, first: float | None, is_pattern: bool
) -> float | Implausible:
    """Return a reading's value in the unit of the threshold; `first` is the first one that was measured."""
    value, threshold, name = reading.value, abs(target.threshold), metric.name
    if not math.isfinite(value):
        return value
    if not is_pattern and (reason := _ambiguity(reading, name, target)):
        return Implausible(reason)
    if reading.is_percent:
        if threshold > 1:
            return value
        if metric.is_share and value <= 1 and target.is_met(value):
            return Implausible(f"{value:g}% may be meant as the fraction {value:g}")
        if _is_met_as_fraction_only(value, metric, target):
            return Implausible(
                f"{value:g}% meets {target} as a fraction only, and it may be a percentage",
                fitting(target, 0.01),
            )
        return float(f"{value / _PERCENT:.12g}")
    is_share = metric.is_share or _looks_like_a_percentage(value, first, metric, target)
    if is_share and threshold <= 1 < value:
        is_percentage = value <= _PERCENT
        hint = "it looks like a percentage" if is_percentage else "it looks like a count"
        if first is not None and first <= 1 and value < _EXCESS:
            hint += ", or the script counts more samples as right than there are"
        return Implausible(
            f"{value:g} cannot be {name} where the target is {target.threshold:g}: {hint}",
            fitting(target, _PERCENT) if is_percentage else "",
        )
    if metric.is_share and not -1 <= value <= _PERCENT:
        return Implausible(f"{value:g} cannot be {name}, not even in percent")
    return _error_rate(value, first, metric, target) if metric.is_error_rate else value


def _is_met_as_fraction_only(value: float, metric: Metric, target: Target) -> bool:
    """Return whether a percentage meets a target for an error rate that is too high as a fraction."""
    is_no_goal = metric.is_error_rate and target.comparison == "<=" and target.threshold >= _HALF
    return is_no_goal and value / _PERCENT <= target.threshold < value


def _error_rate(value: float, first: float | None, metric: Metric, target: Target) -> float | Implausible:
    """Return an error rate in the unit of the threshold, as far as its size tells."""
    if _looks_like_a_share(value, first, target):
        return Implausible(
            f"{value:g} looks like a fraction, but {target} looks like a percentage", fitting(target, 0.01)
        )
    if _is_error_in_percent(value, first, metric.name, target):
        return Implausible(
            f"{value:g} looks like a percentage, but {target} looks like a fraction",
            fitting(target, _PERCENT),
        )
    return value


def _is_error_in_percent(value: float, first: float | None, name: str, target: Target) -> bool:
    """Return whether the first error rate is a percentage and the target a fraction; a MAPE has no bound."""
    is_of_fraction = target.comparison == "<=" and 0 < target.threshold < 1
    return is_of_fraction and first is None and _FAR < value <= _PERCENT and "mape" not in name.lower()


def _looks_like_a_percentage(value: float, first: float | None, metric: Metric, target: Target) -> bool:
    """Return whether a value is a percentage, by its name or its size, and the target a fraction.

    A first value of 0, of a model that knows nothing, is both.
    """
    if target.comparison != ">=" or not 0 < target.threshold <= 1 < value <= _PERCENT:
        return False
    is_first, is_any_number = not first, metric.is_loss or _UNBOUNDED.search(metric.name)
    if metric.is_rate:
        return is_first or value > _FAR
    return is_first and target.threshold < 1 and value > _FAR and not is_any_number


def _looks_like_a_share(value: float, first: float | None, target: Target) -> bool:
    """Return whether an error rate is a fraction, perhaps a little above 1, and the target a percentage."""
    if target.comparison != "<=" or target.threshold <= 1:
        return False
    most = 1 if target.threshold < _FAR / 2 else 2
    return 0 < value <= most and (first is None or first <= most)


def _ambiguity(reading: Reading, name: str, target: Target) -> str:
    """Return why the number may not be the one that is meant; empty if it is clear."""
    if reading.alternative is not None:
        other = f"{reading.alternative:g}"
        return f"{name} is followed by {other} in parentheses, which may be the average that counts"
    if reading.progress is None and OF_BATCH.search(reading.line):
        return f"{name} may be the value of one validation batch"
    if _may_have_decimal_comma(reading, target):
        return f"the comma in {reading.value:,.0f} may separate thousands or decimals"
    return ""


def _may_have_decimal_comma(reading: Reading, target: Target) -> bool:
    """Return whether a number such as `28,123` meets the target only if its comma separates thousands."""
    value = reading.value
    if abs(value) < _THOUSAND or value != int(value) or not target.is_met(value):
        return False
    is_one_comma = abs(value) < _THOUSAND**2 and f"{abs(value):,.0f}" in reading.line
    return is_one_comma and not target.is_met(value / _THOUSAND)


def are_fractions(measurements: Sequence[Measurement], metric: Metric, target: Target) -> bool:
    """Return whether values look like fractions where the target is a percentage."""
    values = {m.value for m in measurements if m.is_finite}
    if not metric.is_share or abs(target.threshold) <= 1 or not values or values == {1.0}:
        return False
    return _SMALL < max(values) <= 1


def fitting(target: Target, factor: float) -> str:
    """Return a target with its threshold in the other unit."""
    return f"{target.metric} {target.comparison} {factor * target.threshold:g}"


def agree(known: Reading, other: Reading, metric: Metric) -> bool:
    """Return whether two readings are the same value, up to rounding or as fraction and percentage."""
    if not math.isfinite(known.value) or not math.isfinite(other.value):
        return repr(known.value) == repr(other.value)
    digits = min(known.digits, other.digits)
    # Two formats round differently; one format prints the same value the same way.
    is_rounded = known.format != other.format or (known.digits != other.digits and digits >= 2)  # noqa: PLR2004
    tolerance = 0.51 * 10.0**-digits if is_rounded else 0.0
    if math.isclose(other.value, known.value, rel_tol=1e-9, abs_tol=tolerance):
        return True
    percentages = (other.value * _PERCENT, other.value / _PERCENT)
    is_share = metric.is_share or known.is_percent is not other.is_percent
    return is_share and any(math.isclose(v, known.value, rel_tol=1e-3) for v in percentages)
