"""The priors of the model of curves for a hyperparameter, by its role.

The role is derived from name and range, never from the position. No direction is expected: slopes have the
mean zero. The prior expects a hump in the logarithm of the learning rate, whose maximum follows a power of
about one half of the batch size, and `1 - momentum`; and it expects that settings far from the known-good
value may be worse. All of these are means of priors with a deviation, so the job's trials decide. Distances
are in units of a reference range (a factor of 1,000 for the learning rate): in a range half as wide, half the
effect is expected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autotuner.spec import Choice, Dimension, FloatDimension
from autotuner.trial import ParameterValue

_DECAY_NAMES: Final = frozenset({"wd", "l2", "weightdecay"})
_OF_AVERAGES: Final = frozenset({"bn", "batchnorm", "norm", "ema", "swa", "polyak", "teacher"})
"""Words in names such as `bn_momentum` and `ema_decay`, which belong to an average, not to the optimizer."""
_BY_GRADIENT: Final = frozenset({"sgd", "momentum", "nesterov", "asgd"})
"""Optimizers whose step is the gradient times the learning rate."""
_NORMALISED: Final = frozenset(
    {"adam", "adamw", "adamax", "nadam", "radam", "rmsprop", "lion", "adafactor", "sophia", "adan"}
)
"""Optimizers that divide the gradient by its size, so that the step is about the learning rate itself."""
_SCALED_OTHERWISE: Final = frozenset({"adagrad", "adadelta", "lars", "lamb", "lans", "muon"})
"""Optimizers that scale the gradient in another way: by its sum so far, by layer, or by matrix."""
_OPTIMIZERS: Final = _BY_GRADIENT | _NORMALISED | _SCALED_OTHERWISE
_APART: Final = math.log(10)
"""E-folds by which the best learning rate is expected to be smaller if an optimizer divides the gradient by
its size. Usual are 0.1 for SGD and 0.001 for Adam; half of that on a log scale, because the size of the
gradient is unknown."""
_NEAREST_ONE: Final = 1e-3
"""Minimum of a momentum's distance from 1, as a fraction of the largest distance in its range."""


class Role(StrEnum):
    """The role of a coordinate of the search space."""

    BATCH_SIZE = "batch size"
    LEARNING_RATE = "learning rate"
    MOMENTUM = "momentum"
    WEIGHT_DECAY = "weight decay"
    CHOICE = "choice"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal distribution."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Expectation:
    """The priors of one role, in log-shortfall and reference ranges.

    Attributes:
        scale: Logarithm of the length scale.
        slope: Change of the log-shortfall with the distance above the known-good value.
        curvature: Change of the log-shortfall with the square of that distance.
        exponent: How the best learning rate depends on it: `lr ~ batch ** a`, `lr ~ (1 - momentum) ** a`,
            and for others the ratio of coordinates.
    """

    scale: Normal
    slope: Normal = Normal(0.0, 0.0)
    curvature: Normal = Normal(0.0, 0.0)
    exponent: Normal = Normal(0.0, 0.15)


EXPECTED: Final = {
    Role.BATCH_SIZE: Expectation(Normal(0.5, 0.4), exponent=Normal(0.5, 0.25)),
    Role.LEARNING_RATE: Expectation(Normal(-1.6, 0.5), Normal(0.0, 0.5), Normal(-3.0, 2.0)),
    Role.MOMENTUM: Expectation(Normal(0.0, 0.45), Normal(0.0, 0.4), Normal(0.0, 0.4), Normal(0.9, 0.25)),
    Role.WEIGHT_DECAY: Expectation(Normal(-0.3, 0.45), Normal(0.0, 0.3), Normal(-0.3, 0.3)),
    Role.OTHER: Expectation(Normal(-0.15, 0.45), Normal(0.0, 0.15), Normal(-0.25, 0.2)),
    Role.CHOICE: Expectation(Normal(-0.3, 0.45)),
}

_REFERENCE: Final = {
    Role.LEARNING_RATE: math.log(1000),
    Role.WEIGHT_DECAY: math.log(10_000),
    Role.MOMENTUM: math.log(90),
}
"""The ranges for which the numbers above hold, in natural logarithms; of 1 - m for a momentum."""


def role(name: str, dimension: Dimension, *, is_learning_rate: bool) -> Role:
    """Return the role of a hyperparameter.

    Adam's betas are not a momentum in this sense: its step does not grow with them.
    """
    if isinstance(dimension, Choice):
        return Role.CHOICE
    if is_learning_rate:
        return Role.LEARNING_RATE
    if not isinstance(dimension, FloatDimension):
        return Role.OTHER
    words = name.lower().split("_")
    if _OF_AVERAGES.intersection(words):
        return Role.OTHER
    if words[-1] == "momentum" and 0 <= dimension.minimum < dimension.maximum <= 1:
        return Role.MOMENTUM
    is_decay = words[-1] in _DECAY_NAMES or words == ["decay"] or words[-2:] == ["weight", "decay"]
    return Role.WEIGHT_DECAY if is_decay and dimension.log else Role.OTHER


def is_optimizer(name: str, dimension: Dimension) -> bool:
    """Return whether a choice is between optimizers, whose best learning rates may differ a hundredfold."""
    if not isinstance(dimension, Choice):
        return False
    known = {str(value).lower() for value in dimension.values} & _OPTIMIZERS
    return "optim" in name.lower() or len(known) > 1


def usual_shift(known: ParameterValue, other: ParameterValue) -> float:
    """Return the e-folds by which another optimizer's best learning rate is expected to be larger."""
    left, right = str(known).lower(), str(other).lower()
    if left in _BY_GRADIENT and right in _NORMALISED:
        return -_APART
    return _APART if left in _NORMALISED and right in _BY_GRADIENT else 0.0


def momentum_range(dimension: FloatDimension) -> float:
    """Return the number of e-folds of `1 - m` between the smallest and the largest momentum."""
    return math.log((1 - dimension.minimum) / max(1 - dimension.maximum, nearest_one(dimension)))


def nearest_one(dimension: FloatDimension) -> float:
    """Return the minimum distance from 1 of a momentum in the range."""
    return _NEAREST_ONE * (1 - dimension.minimum)


def reference_ranges(found: Role, dimension: Dimension) -> float:
    """Return the width of a dimension in reference ranges of its role; 1 if unknown."""
    if found not in _REFERENCE or not isinstance(dimension, FloatDimension):
        return 1.0
    if found is Role.MOMENTUM:
        return momentum_range(dimension) / _REFERENCE[found]
    return math.log(dimension.maximum / dimension.minimum) / _REFERENCE[found]
