"""The search space: a setting as coordinates and back.

Every coordinate lies in 0..1 over its range, on a log scale where magnitude matters. A choice has one
coordinate a value. The learning rate is what a good value depends on the batch size for, by a power law with
an exponent that differs between optimizers (0.3 to 1 in the literature); so the model learns that slope, and
here it serves only to carry a setting from one batch size to another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import optuna

from autotuner.search.history import Setting
from autotuner.spec import Choice, Dimension, FloatDimension, IntegerDimension, TuningSpec
from autotuner.trial import ParameterValue

Array = npt.NDArray[np.float64]

BATCH_SIZE: Final = "batch_size"
SCALING_EXPONENT: Final = 0.5
"""How the learning rate grows with the batch before anything is known: Adam-type 0.5, SGD 0.75 to 1."""
_DIGITS: Final = 4


@dataclass(frozen=True)
class Space:
    """Batch sizes and hyperparameters that may be tried."""

    batch_sizes: tuple[int, int]
    dimensions: tuple[tuple[str, Dimension], ...]
    learning_rate: str | None

    @classmethod
    def of(cls, spec: TuningSpec) -> Space:
        """Return the space that a spec allows."""
        return cls(
            (spec.batch_size.minimum, spec.batch_size.maximum),
            tuple(sorted(spec.search_space.items())),
            spec.learning_rate,
        )

    @cached_property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The space in optuna's words, with the batch size first."""
        low, high = self.batch_sizes
        found: dict[str, optuna.distributions.BaseDistribution] = {
            BATCH_SIZE: optuna.distributions.IntDistribution(low, high, log=True)
        }
        for name, dimension in self.dimensions:
            if isinstance(dimension, Choice):
                found[name] = optuna.distributions.CategoricalDistribution(dimension.values)
            elif isinstance(dimension, IntegerDimension):
                found[name] = optuna.distributions.IntDistribution(
                    dimension.minimum, dimension.maximum, log=dimension.log
                )
            else:
                found[name] = optuna.distributions.FloatDistribution(
                    dimension.minimum, dimension.maximum, log=dimension.log
                )
        return found

    def complete(self, parameters: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        """Return the parameters with the centre of the range, or the first choice, for those unknown."""
        return {
            name: parameters[name] if name in parameters else _centre(dimension)
            for name, dimension in self.dimensions
        }

    def scaled(self, setting: Setting, batch_size: int, exponent: float = SCALING_EXPONENT) -> Setting:
        """Return the setting carried to another batch size: its learning rate grows as a power of it."""
        parameters = setting.parameters
        name = self.learning_rate
        dimension = dict(self.dimensions).get(name) if name is not None else None
        if name in parameters and isinstance(dimension, FloatDimension):
            rate = float(parameters[name]) * (batch_size / setting.batch_size) ** exponent
            parameters[name] = snapped(dimension, rate)
        return Setting.of(batch_size, parameters)


def snapped(dimension: FloatDimension, value: float) -> float:
    """Return the value in its range with a few significant digits, as a person would write it."""
    rounded = round(value, _DIGITS - 1 - math.floor(math.log10(abs(value)))) if value else 0.0
    return float(min(max(rounded, dimension.minimum), dimension.maximum))


def _centre(dimension: Dimension) -> ParameterValue:
    if isinstance(dimension, Choice):
        return dimension.values[0]
    if dimension.log:
        centre = math.sqrt(dimension.minimum * dimension.maximum)
    else:
        centre = (dimension.minimum + dimension.maximum) / 2
    return round(centre) if isinstance(dimension, IntegerDimension) else centre
