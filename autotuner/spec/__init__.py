"""Parse the annotations of a job into a `TuningSpec`."""

from autotuner.spec.tuning_spec import TuningSpec
from autotuner.spec.values import (
    Choice,
    Dimension,
    FloatDimension,
    IntegerDimension,
    IntegerRange,
    Shape,
    Target,
    environment_value,
)

__all__ = [
    "Choice",
    "Dimension",
    "FloatDimension",
    "IntegerDimension",
    "IntegerRange",
    "Shape",
    "Target",
    "TuningSpec",
    "environment_value",
]
