"""The search space: convert settings to coordinates and back.

Every coordinate is in 0..1 over its range, on a log scale if the magnitude matters. The coordinate of a
choice is the number of its value. The best learning rate depends on the batch size, by a power law with an
exponent that differs between optimizers (0.3 to 1 in the literature), and on the momentum and other
hyperparameters. The model learns these exponents, and the distance between settings uses them.
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

from autotuner.search.prior import EXPECTED, Role, is_optimizer, momentum_range, reference_ranges, role
from autotuner.spec import Choice, Dimension, FloatDimension, IntegerDimension, TuningSpec
from autotuner.study.curve import Array
from autotuner.study.setting import Setting
from autotuner.trial import ParameterValue

BATCH_SIZE: Final = "batch_size"
SCALING_EXPONENT: Final = 0.5
"""Prior exponent of the learning rate over the batch size: 0.5 for Adam and similar, 0.75 to 1 for SGD."""
_ACROSS_OPTIMIZERS: Final = 0.3
"""Fraction of the distance to the known-good learning rate that counts with another optimizer: a factor of a
hundred counts as a factor of four."""
_DIGITS: Final = 4
"""Minimum number of significant digits of a value,"""
_STEPS: Final = 3
"""and of the width of its range."""


@dataclass(frozen=True)
class Space:
    """The allowed batch sizes and hyperparameters."""

    batch_sizes: tuple[int, int]
    dimensions: tuple[tuple[str, Dimension], ...]
    learning_rate: str | None
    origin: Setting | None = None
    """The known-good setting where the search starts; if None, the centre of the space."""

    @classmethod
    def of(cls, spec: TuningSpec) -> Space:
        """Return the space of a spec."""
        return cls(
            (spec.batch_size.minimum, spec.batch_size.maximum),
            tuple(sorted(spec.search_space.items())),
            spec.learning_rate,
            Setting.of(spec.baseline_batch_size, spec.baseline_parameters),
        )

    @cached_property
    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The space as Optuna distributions, the batch size first."""
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
        """Return the parameters; unknown ones get the centre of the range, or the first choice."""
        return {
            name: parameters[name] if name in parameters else _centre(dimension)
            for name, dimension in self.dimensions
        }

    def allows(self, setting: Setting) -> bool:
        """Return whether a trial may have this setting; those from before a change of the spec may not."""
        low, high = self.batch_sizes
        dimensions, parameters = dict(self.dimensions), setting.parameters
        if not low <= setting.batch_size <= high or not parameters.keys() <= dimensions.keys():
            return False
        return all(_contains(dimensions[name], value) for name, value in parameters.items())

    def scaled(self, setting: Setting, batch_size: int, exponent: float = SCALING_EXPONENT) -> Setting:
        """Return the setting at another batch size, with the learning rate scaled by a power of it."""
        parameters = setting.parameters
        name = self.learning_rate
        dimension = dict(self.dimensions).get(name) if name is not None else None
        if name in parameters and isinstance(dimension, FloatDimension):
            rate = float(parameters[name]) * (batch_size / setting.batch_size) ** exponent
            parameters[name] = snapped(dimension, rate)
        return Setting.of(batch_size, parameters)

    # --- coordinates -----------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of coordinates: the batch size first, then the hyperparameters by name."""
        return 1 + len(self.dimensions)

    @cached_property
    def rate_index(self) -> int | None:
        """The coordinate of the learning rate; None if there is none on a log scale."""
        for index, (name, dimension) in enumerate(self.dimensions, start=1):
            if name == self.learning_rate and isinstance(dimension, FloatDimension) and dimension.minimum > 0:
                return index
        return None

    @cached_property
    def rate_span(self) -> float:
        """E-folds between the smallest and the largest learning rate; 0 without `rate_index`."""
        if self.rate_index is None:
            return 0.0
        _, dimension = self.dimensions[self.rate_index - 1]
        assert isinstance(dimension, FloatDimension)  # noqa: S101 (as `rate_index` says)
        return math.log(dimension.maximum / dimension.minimum)

    @cached_property
    def _is_choice(self) -> npt.NDArray[np.bool_]:
        return np.array([False] + [isinstance(dimension, Choice) for _, dimension in self.dimensions])

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The role of each coordinate."""
        return (
            Role.BATCH_SIZE,
            *(
                role(name, dimension, is_learning_rate=index == self.rate_index)
                for index, (name, dimension) in enumerate(self.dimensions, start=1)
            ),
        )

    @cached_property
    def _stretch(self) -> Array:
        """The width of each coordinate in reference ranges of its role, (d,)."""
        spans = [
            reference_ranges(found, dimension)
            for found, (_, dimension) in zip(self.roles[1:], self.dimensions, strict=True)
        ]
        return np.array([1.0, *spans])

    @cached_property
    def exchange(self) -> Array:
        """The shift of the learning rate's coordinate with each of the others at exponent 1, (d,).

        0 for choices and for the learning rate itself, and for all if there is no learning rate.
        """
        if self.rate_index is None:
            return np.zeros(self.size)
        worth = [self._octaves * math.log(2) / self.rate_span]
        for found, (_, dimension) in zip(self.roles[1:], self.dimensions, strict=True):
            if found is Role.MOMENTUM and isinstance(dimension, FloatDimension):
                worth.append(-momentum_range(dimension) / self.rate_span)
            else:
                worth.append(0.0 if found in {Role.CHOICE, Role.LEARNING_RATE} else 1.0)
        return np.array(worth)

    @cached_property
    def _octaves(self) -> float:
        """Doublings between the smallest and the largest batch size, at least a thousandth."""
        return max(math.log2(self.batch_sizes[1] / self.batch_sizes[0]), 1e-3)

    def coordinates(self, setting: Setting) -> Array:
        """Return a setting's coordinates; unknown hyperparameters are at the centre.

        Values outside the current ranges (the user may narrow them) give coordinates outside 0..1.
        """
        parameters = self.complete(setting.parameters)
        found = [self.batch_coordinate(setting.batch_size)]
        for name, dimension in self.dimensions:
            found.append(_coordinate(self._log(name, dimension), dimension, parameters[name]))
        return np.array(found)

    def _log(self, name: str, dimension: Dimension) -> bool:
        # The magnitude of a learning rate matters, even if the user has not set `log`.
        return (
            not isinstance(dimension, Choice)
            and dimension.minimum > 0
            and (dimension.log or name == self.learning_rate)
        )

    def batch_coordinate(self, batch_size: float) -> float:
        """Return the coordinate of a batch size."""
        return math.log2(batch_size / self.batch_sizes[0]) / self._octaves

    def octaves(self, place: Array) -> Array:
        """Return log2 of the batch sizes at places (n, d)."""
        return math.log2(self.batch_sizes[0]) + place[..., 0] * self._octaves

    def setting(self, place: Array) -> Setting:
        """Return the setting at a place, with as few digits as needed."""
        low, high = self.batch_sizes
        size = min(max(round(low * 2 ** (place[0] * self._octaves)), low), high)
        values = {
            name: _value(self._log(name, dimension), dimension, float(place[index]))
            for index, (name, dimension) in enumerate(self.dimensions, start=1)
        }
        return Setting.of(size, values)

    def clipped(self, places: Array) -> Array:
        """Return places clipped to the space; a choice's coordinate is rounded to the number of a value."""
        inside = np.clip(places, 0.0, 1.0)
        for index, (_, dimension) in enumerate(self.dimensions, start=1):
            if isinstance(dimension, Choice):
                inside[:, index] = np.clip(np.round(places[:, index]), 0, len(dimension.values) - 1)
        return inside

    def adapted(self, found: Setting) -> Array:
        """Return the place in this space (d,) of a setting of another one.

        Hyperparameters that the other one does not have are known-good, and so are values that this one
        cannot have, such as unknown choices.
        """
        place = self.coordinates(found)
        for index, (name, dimension) in enumerate(self.dimensions, start=1):
            value = found.parameters.get(name)
            has_kind = (
                value in dimension.values if isinstance(dimension, Choice) else not isinstance(value, str)
            )
            if value is None or not has_kind:
                place[index] = self.origin_place[index]
        return np.asarray(self.clipped(place[None])[0])

    def perturbed(self, places: Array, scale: Array, normal: Array, uniform: Array) -> Array:
        """Return places moved by `scale * normal`; a choice jumps to any value with probability `scale`."""
        moved = places + scale * normal
        for index, (_, dimension) in enumerate(self.dimensions, start=1):
            if isinstance(dimension, Choice):
                jump = uniform[:, index] < scale[:, index]
                drawn = np.floor(
                    uniform[:, index] / np.maximum(scale[:, index], 1e-9) * len(dimension.values)
                )
                moved[:, index] = np.where(jump, drawn, places[:, index])
        return self.clipped(moved)

    def scattered(self, uniform: Array) -> Array:
        """Return places from numbers in 0..1, (n, d)."""
        places = uniform.copy()
        for index, (_, dimension) in enumerate(self.dimensions, start=1):
            if isinstance(dimension, Choice):
                places[:, index] = np.floor(uniform[:, index] * len(dimension.values))
        return self.clipped(places)

    def differences(self, left: Array, right: Array, exponents: Array) -> Array:
        """Return the differences between places, (d, n, m), in reference ranges.

        Choices differ by 0 or 1. The difference of the learning rate's logarithm is corrected for the other
        coordinates, by their `exponents` (d,).
        """
        gap = left.T[:, :, None] - right.T[:, None, :]
        if self._is_choice.any():
            gap[self._is_choice] = gap[self._is_choice] != 0
        if self.rate_index is not None:
            gap[self.rate_index] -= np.tensordot(exponents * self.exchange, gap, axes=1)
        return np.asarray(gap * self._stretch[:, None, None])

    def rate_slopes(self, places: Array) -> dict[int, Array]:
        """Return the derivatives of the learning rate's differences by the exponents, (n, n) each."""
        if self.rate_index is None:
            return {}
        worth = -self.exchange * self._stretch[self.rate_index]
        return {
            int(index): worth[index] * (places[:, None, index] - places[None, :, index])
            for index in np.flatnonzero(worth)
        }

    def doublings(self, places: Array) -> Array:
        """Return the doublings of the batch size over the origin, (n,)."""
        return np.asarray((places[:, 0] - self.origin_place[0]) * self._octaves)

    def displacements(self, places: Array) -> Array:
        """Return the distance of the hyperparameters from the origin, (n, d - 1), in reference ranges.

        The learning rate is corrected by the usual power laws.
        """
        gap = self.differences(places, self.origin_place[None], self._usual_exponents)[1:, :, 0]
        gap[self._is_choice[1:]] = 0.0  # another optimizer counts as no distance
        if self.rate_index is not None:
            # The best learning rate of one optimizer says little about that of another.
            for index in self.optimizers:
                gap[self.rate_index - 1, places[:, index] != self.origin_place[index]] *= _ACROSS_OPTIMIZERS
        return gap.T

    @cached_property
    def optimizers(self) -> tuple[int, ...]:
        """Coordinates that are choices of optimizers."""
        return tuple(
            index
            for index, (name, dimension) in enumerate(self.dimensions, start=1)
            if is_optimizer(name, dimension)
        )

    @cached_property
    def _usual_exponents(self) -> Array:
        return np.array([SCALING_EXPONENT, *(EXPECTED[found].exponent.mean for found in self.roles[1:])])

    @cached_property
    def origin_place(self) -> Array:
        """The coordinates of the known-good setting, (d,)."""
        if self.origin is None:
            return np.where(self._is_choice, 0.0, 0.5)
        return self.coordinates(self.origin)

    def carried(self, places: Array, batch: Array, exponent: float) -> Array:
        """Return places at other batch coordinates, with scaled learning rates."""
        moved = places.copy()
        moved[:, 0] = batch
        if self.rate_index is not None:
            moved[:, self.rate_index] += exponent * self.exchange[0] * (batch - places[:, 0])
        return self.clipped(moved)

    def shifted(self, places: Array, factor: float) -> Array:
        """Return places with the learning rate multiplied by a factor; unchanged if there is none."""
        moved = places.copy()
        if self.rate_index is not None:
            moved[:, self.rate_index] += math.log(factor) / self.rate_span
        return self.clipped(moved)


def _coordinate(log: bool, dimension: Dimension, value: ParameterValue) -> float:
    if isinstance(dimension, Choice):
        return float(dimension.values.index(value)) if value in dimension.values else -1.0
    if isinstance(value, str):  # an earlier study had a choice of this name
        return 0.5
    low, high, at = dimension.minimum, dimension.maximum, float(value)
    if log:
        return math.log(max(at, 1e-300) / low) / math.log(high / low)
    return (at - low) / (high - low)


def _value(log: bool, dimension: Dimension, coordinate: float) -> ParameterValue:
    if isinstance(dimension, Choice):
        return dimension.values[min(max(round(coordinate), 0), len(dimension.values) - 1)]
    low, high = dimension.minimum, dimension.maximum
    value = low * (high / low) ** coordinate if log else low + coordinate * (high - low)
    if isinstance(dimension, IntegerDimension):
        return min(max(round(value), dimension.minimum), dimension.maximum)
    return snapped(dimension, value)


def _contains(dimension: Dimension, value: ParameterValue) -> bool:
    try:
        dimension.parse(value)
    except ValueError:
        return False
    return True


def snapped(dimension: FloatDimension, value: float) -> float:
    """Return the value in its range with a few significant digits, as a person would write it.

    A range that is narrow for its values, such as 0.9991..0.9999, takes more digits.
    """
    rounded = round(
        value, max(_decimals(value, _DIGITS), _decimals(dimension.maximum - dimension.minimum, _STEPS))
    )
    return float(min(max(rounded, dimension.minimum), dimension.maximum))


def _decimals(size: float, digits: int) -> int:
    """Return the number of decimals that gives a number of this size that many significant digits."""
    return digits - 1 - math.floor(math.log10(abs(size))) if size else 0


def _centre(dimension: Dimension) -> ParameterValue:
    if isinstance(dimension, Choice):
        return dimension.values[0]
    if dimension.log:
        centre = math.sqrt(dimension.minimum * dimension.maximum)
    else:
        centre = (dimension.minimum + dimension.maximum) / 2
    return round(centre) if isinstance(dimension, IntegerDimension) else centre
