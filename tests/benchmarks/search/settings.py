"""Draw hyperparameters from the ranges that an owner writes on a job, as brute force does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Parameters = Mapping[str, Any]


def drawn(space: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return a random setting."""
    return {name: _at(one, float(rng.random())) for name, one in space.items()}


def near(
    space: Mapping[str, Any], parameters: Parameters, width: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Return a setting some way from another one."""
    moved = {}
    for name, one in space.items():
        value = parameters[name]
        if isinstance(one, list):
            moved[name] = one[int(rng.integers(len(one)))] if rng.random() < width else value
        else:
            moved[name] = _at(one, min(max(_unit(one, value) + width * float(rng.normal()), 0.0), 1.0))
    return moved


def _unit(one: Any, value: float) -> float:
    low, high = one["min"], one["max"]
    return math.log(value / low) / math.log(high / low) if one.get("log") else (value - low) / (high - low)


def _at(one: Any, unit: float) -> Any:
    if isinstance(one, list):
        return one[min(int(unit * len(one)), len(one) - 1)]
    low, high = one["min"], one["max"]
    value = low * (high / low) ** unit if one.get("log") else low + unit * (high - low)
    return min(max(float(f"{value:.4g}"), low), high)
