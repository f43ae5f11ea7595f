"""The rivals: priors of where a run ends, over settings.

Each is a Gaussian process of where runs end, `z = asinh(margin / s)`, whose parameters are sampled, not
fitted. `Hump` has the properties of all kinds of training: one hump in the logarithm of the learning rate,
steep above and gentle below, whose maximum follows a power between 0 and 1 of the batch size, and `1 -
momentum`; every other numeric hyperparameter has a best value. `Plain` assumes only that similar settings end
similarly. The README of this package has a table of the priors with their reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy.special import ndtri

from autotuner.search.matern import matern52
from autotuner.search.prior import Role, nearest_one, usual_shift
from autotuner.search.space import Space
from autotuner.spec import Choice, FloatDimension
from autotuner.study.curve import Array

_OPTIMIZER_DEVIATION: Final = 2.3
"""Deviation in e-folds of the best learning rate of another optimizer from what is usual: a factor of ten."""
_CHOICE_DEVIATION: Final = 0.5
"""The same for another value of any other choice, such as a schedule: a factor of 1.6."""
SCALED_BY_SCRIPT: Final = 0.1
"""Probability that the script itself multiplies the learning rate by the batch size over a reference size, as
those of Goyal et al. (2017, arXiv:1706.02677), DeiT, DINO and MAE do."""


@dataclass(frozen=True, eq=False)
class Features:
    """Settings in units that mean the same in every search space.

    Attributes:
        doublings: Doublings of the batch size over the known-good one, (n,).
        rate: Logarithm of the learning rate over the known-good one, (n,); 0 without a learning rate.
        memory: The sum of log((1 - m0) / (1 - m)) over the momenta, (n,).
        other: Distance of the other numeric hyperparameters from the known-good value, in ranges, (n, k).
        choice: Number of the value of each choice, (n, c).
        unit: All coordinates in 0..1, (n, d).
        task: 0 for settings of the study itself, 1, 2, ... for those of earlier studies, (n,).
    """

    doublings: Array
    rate: Array
    memory: Array
    other: Array
    choice: np.ndarray
    unit: Array
    task: np.ndarray


@dataclass(frozen=True)
class Frame:
    """The meaning of the coordinates of a space."""

    space: Space

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """Coordinates that are choices."""
        return tuple(i for i, found in enumerate(self.space.roles) if found is Role.CHOICE)

    @cached_property
    def others(self) -> tuple[int, ...]:
        """Coordinates that are numeric, but neither the batch size nor the learning rate."""
        known = {0, self.space.rate_index, *self.choices}
        return tuple(i for i in range(self.space.size) if i not in known)

    @cached_property
    def numeric(self) -> tuple[int, ...]:
        """All coordinates except choices."""
        return tuple(i for i in range(self.space.size) if i not in self.choices)

    @cached_property
    def values(self) -> tuple[int, ...]:
        """Number of values of each choice."""
        found = (self.space.dimensions[i - 1][1] for i in self.choices)
        return tuple(len(one.values) for one in found if isinstance(one, Choice))

    @cached_property
    def origin(self) -> Array:
        """The known-good setting."""
        return self.space.origin_place

    def features(self, places: Array, task: np.ndarray | None = None) -> Features:
        """Return the features of places (n, d); without a `task` (n,) they belong to the study itself."""
        space, index = self.space, self.space.rate_index
        rate, memory = np.zeros(len(places)), np.zeros(len(places))
        if index is not None:
            rate = (places[:, index] - self.origin[index]) * space.rate_span
        for i, found in enumerate(space.roles):
            if found is Role.MOMENTUM:
                dimension = space.dimensions[i - 1][1]
                assert isinstance(dimension, FloatDimension)  # noqa: S101 (as the role says)
                low, width = dimension.minimum, dimension.maximum - dimension.minimum
                here, there = (
                    np.maximum(1 - low - width * at, nearest_one(dimension))
                    for at in (self.origin[i], places[:, i])
                )
                memory = memory + np.log(here / there)
        return Features(
            doublings=space.doublings(places),
            rate=rate,
            memory=memory,
            other=places[:, self.others] - self.origin[list(self.others)],
            choice=places[:, self.choices].astype(int),
            unit=places[:, self.numeric],
            task=np.zeros(len(places), dtype=int) if task is None else task,
        )


@dataclass(frozen=True)
class Parameter:
    """A normal prior of a parameter, or of its logarithm."""

    mean: float
    deviation: float
    count: int = 1


class Rival:
    """A prior over settings: named parameters, and the mean and covariance that they give."""

    def __init__(self, frame: Frame, earlier: int = 0) -> None:
        self.frame, self.earlier = frame, earlier
        self.parameters: dict[str, Parameter] = {
            "scale": Parameter(0.0, 0.7),
            "noise": Parameter(math.log(0.15), 0.8),
            "equal": Parameter(0.0, 0.7, len(frame.choices)),
            **self.own(),
        }
        self.size = sum(p.count for p in self.parameters.values())

    def own(self) -> dict[str, Parameter]:
        """Return the parameters of this rival only."""
        raise NotImplementedError

    def read(self, values: Array) -> Mapping[str, Array]:
        """Return the parameters by name, (draws, count) each, from standardised ones (draws, size)."""
        found, at = {}, 0
        for name, p in self.parameters.items():
            found[name] = p.mean + p.deviation * values[:, at : at + p.count]
            at += p.count
        return found

    def mean(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the mean of settings, (draws, n)."""
        raise NotImplementedError

    def covariance(self, p: Mapping[str, Array], x: Features, y: Features) -> Array:
        """Return the covariance of settings, (draws, n, m)."""
        raise NotImplementedError

    def variance(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the variance of settings, (draws, n)."""
        raise NotImplementedError

    def _apart(self, p: Mapping[str, Array], x: Features, y: Features) -> Array | float:
        """Return the squared distance between choices, (draws, n, m)."""
        if not self.frame.choices:
            return 0.0
        differs = (x.choice[:, None] != y.choice[None]).astype(float)
        return np.asarray(np.einsum("nmc,pc->pnm", differs, np.exp(-2 * p["equal"])))


def _squared(x: Array, y: Array, scale: Array) -> Array:
    """Return squared distances (draws, n, m) of x (n, k) and y (m, k), scales (draws, k)."""
    left, right = x[None] / scale[:, None], y[None] / scale[:, None]
    product = left @ right.transpose(0, 2, 1)
    return np.asarray((left**2).sum(axis=2)[:, :, None] + (right**2).sum(axis=2)[:, None] - 2 * product)


class Plain(Rival):
    """A Matern 5/2 process with dimension-scaled length scales (Hvarfner, Hellsten and Nardi 2024)."""

    def own(self) -> dict[str, Parameter]:
        """Return a level, a height and the length scales."""
        size = len(self.frame.numeric)
        return {
            "level": Parameter(-0.5, 1.0),
            "height": Parameter(0.3, 0.6),
            "length": Parameter(math.sqrt(2) + 0.5 * math.log(size), math.sqrt(3), size),
        }

    def mean(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the mean of settings, (draws, n)."""
        return np.repeat(p["level"], len(x.doublings), axis=1)

    def covariance(self, p: Mapping[str, Array], x: Features, y: Features) -> Array:
        """Return the covariance of settings, (draws, n, m)."""
        squared = _squared(x.unit, y.unit, np.exp(p["length"])) + self._apart(p, x, y)
        # Rounding may make the distance of equal settings negative.
        return np.exp(2 * p["height"])[:, :, None] * matern52(np.maximum(squared, 0))

    def variance(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the variance of settings, (draws, n)."""
        return np.repeat(np.exp(2 * p["height"]), len(x.doublings), axis=1)


class Hump(Rival):
    """The properties of all kinds of training, and a Matern 5/2 process for the rest."""

    def own(self) -> dict[str, Parameter]:
        """Return the parameters in the README's table."""
        others, values = len(self.frame.others), sum(n - 1 for n in self.frame.values)
        found = {
            "level": Parameter(0.7, 0.7),
            "growth": Parameter(-0.2, 0.4),
            "bend": Parameter(math.log(0.05), 1.2),
            "height": Parameter(math.log(0.4), 0.7),
            "length": Parameter(math.log(0.7), 0.5, others),
            "doubling": Parameter(math.log(2.5), 0.5),
            "best": Parameter(0.0, 0.4, others),
            "loss": Parameter(math.log(1.0), 1.2, others),
            "value": Parameter(0.0, 0.7, values),
            "alike": Parameter(1.0, 1.0, min(self.earlier, 1)),
            "other level": Parameter(0.0, 0.7, self.earlier),
            "other size": Parameter(0.0, 1.0, self.earlier),
            "other top": Parameter(0.0, 0.7, self.earlier),
        }
        if self.frame.space.rate_index is not None:
            found |= {
                "top": Parameter(0.0, 1.2),
                "narrow": Parameter(math.log(1.0), 1.0),
                "steep": Parameter(math.log(1.5), 0.4),
                "power": Parameter(0.5, 0.25),
                "scaled": Parameter(float(ndtri(SCALED_BY_SCRIPT)), 1.0),
                "memory": Parameter(1.0, 0.2),
                "efold": Parameter(math.log(1.5), 0.5),
                "shift": Parameter(0.0, 1.0, values),
            }
        return found

    def _values(self, x: Features) -> Array:
        """Return indicators of the values other than the known-good ones, (n, values)."""
        columns = []
        for at, (index, count) in enumerate(zip(self.frame.choices, self.frame.values, strict=True)):
            known = int(self.frame.origin[index])
            columns += [x.choice[:, at] == value for value in range(count) if value != known][: count - 1]
        return np.array(columns, dtype=float).T.reshape(len(x.doublings), len(columns))

    @cached_property
    def _shifts(self) -> tuple[Array, Array]:
        """E-folds that another value of a choice shifts the hump by: mean and deviation, (values,)."""
        mean, deviation = [], []
        for index in self.frame.choices:
            is_optimizer = index in self.frame.space.optimizers
            _, choice = self.frame.space.dimensions[index - 1]
            assert isinstance(choice, Choice)  # noqa: S101 (as the role says)
            known = int(self.frame.origin[index])
            others = [value for number, value in enumerate(choice.values) if number != known]
            mean += [usual_shift(choice.values[known], other) if is_optimizer else 0.0 for other in others]
            deviation += [_OPTIMIZER_DEVIATION if is_optimizer else _CHOICE_DEVIATION for _ in others]
        return np.array(mean), np.array(deviation)

    def _off(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the distance of the learning rate from the maximum of the hump, in e-folds, (draws, n)."""
        power = p["power"] - (p["scaled"] > 0)
        wanted = power * math.log(2) * x.doublings - p["memory"] * x.memory + p["top"]
        wanted = wanted + p["other top"] @ self._tasks(x).T
        usual, deviation = self._shifts
        return x.rate - wanted - (usual + p["shift"] * deviation) @ self._values(x).T

    def mean(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the mean of settings, (draws, n)."""
        doublings = self._doublings(p, x)
        found = p["level"] + p["growth"] * doublings - np.exp(p["bend"]) * np.maximum(doublings, 0) ** 2
        found = found + p["value"] @ self._values(x).T + p["other level"] @ self._tasks(x).T
        if "top" in p:
            off = self._off(p, x)
            found = found - np.arcsinh(
                np.exp(p["narrow"] + p["steep"] * np.where(off > 0, 0.5, -0.5)) * off**2
            )
        away = x.other[None] - p["best"][:, None]
        return np.asarray(found - np.arcsinh(np.exp(p["loss"])[:, None] * away**2).sum(axis=2))

    def _tasks(self, x: Features) -> Array:
        """Return indicators of the earlier study of a setting, (n, earlier)."""
        return np.asarray((x.task[:, None] == np.arange(1, self.earlier + 1)).astype(float))

    def _doublings(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the doublings of the batch; an earlier study has its own reference size, (draws, n)."""
        return np.asarray(x.doublings + p["other size"] @ self._tasks(x).T)

    def _inputs(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the inputs of the residual, divided by their length scales, (draws, n, k)."""
        parts = [(self._doublings(p, x) / np.exp(p["doubling"]))[:, :, None]]
        if "top" in p:
            parts.append((self._off(p, x) / np.exp(p["efold"]))[:, :, None])
        if self.frame.others:
            parts.append(x.other[None] / np.exp(p["length"])[:, None])
        return np.concatenate(parts, axis=2)

    def covariance(self, p: Mapping[str, Array], x: Features, y: Features) -> Array:
        """Return the covariance of settings, (draws, n, m)."""
        left, right = self._inputs(p, x), self._inputs(p, y)
        squared = (left**2).sum(axis=2)[:, :, None] + (right**2).sum(axis=2)[:, None]
        squared = squared - 2 * left @ right.transpose(0, 2, 1) + self._apart(p, x, y)
        found = np.exp(2 * p["height"])[:, :, None] * matern52(np.maximum(squared, 0))
        if self.earlier:
            # Studies share a part of the residual.
            differs = x.task[:, None] != y.task[None]
            found = np.where(differs, found / (1 + np.exp(-p["alike"][:, :, None])), found)
        return found

    def variance(self, p: Mapping[str, Array], x: Features) -> Array:
        """Return the variance of settings, (draws, n)."""
        return np.repeat(np.exp(2 * p["height"]), len(x.doublings), axis=1)
