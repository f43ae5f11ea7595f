"""Fit the hyperparameters of the model of curves by maximum a posteriori, and sample other likely ones."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.optimize import minimize

from autotuner.search.data import Points
from autotuner.search.kernel import (
    Prior,
)
from autotuner.search.objective import objective
from autotuner.search.space import Space
from autotuner.study.curve import Array

_ITERATIONS: Final = 30
_BOUND: Final = 4.0
"""Bound of the hyperparameters, in standard deviations of the prior."""


def fit(space: Space, data: Points) -> Array:
    """Return the maximum a posteriori hyperparameters; the prior's mean without runs."""
    prior = Prior.of(space, data)

    def standardised(unit: Array) -> tuple[float, Array]:
        try:
            value, gradient = objective(space, prior, data, prior.mean + prior.deviation * unit)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(unit)
        return value, gradient * prior.deviation

    found = minimize(
        standardised,
        np.zeros_like(prior.mean),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_BOUND, _BOUND)] * len(prior.mean),
        options={"maxiter": _ITERATIONS},
    )
    return np.asarray(prior.mean + prior.deviation * found.x)


def likely(space: Space, data: Points, theta: Array, count: int) -> list[Array]:
    """Return fitted hyperparameters and samples from the Laplace approximation around them.

    The curvature of the objective is computed from its gradients, in deviations of the prior; there the prior
    has curvature 1, which remains in directions without information from the runs.
    """
    prior = Prior.of(space, data)
    size, step = len(theta), 0.1
    try:
        here = objective(space, prior, data, theta)[1] * prior.deviation
        rows = [
            (objective(space, prior, data, theta + step * unit * prior.deviation)[1] * prior.deviation - here)
            / step
            for unit in np.eye(size)
        ]
    except np.linalg.LinAlgError:
        return [theta]
    curvature = np.array(rows)
    values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    root = vectors / np.sqrt(np.maximum(values, 1.0))
    normal = np.random.default_rng(0).normal(size=((count + 1) // 2, size))
    moved = np.concatenate([normal, -normal])[:count] @ root.T
    return [theta, *(theta + prior.deviation * np.clip(one, -_BOUND, _BOUND) for one in moved)]
