"""Fit the hyperparameters of the model of curves by maximum a posteriori."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.optimize import minimize

from autotuner.search.data import Points
from autotuner.search.kernel import Prior
from autotuner.search.objective import objective
from autotuner.search.space import Space
from autotuner.study.curve import Array

_ITERATIONS: Final = 30
_BOUND: Final = 4.0
"""Bound of the hyperparameters, in standard deviations of the prior."""


def fit(space: Space, data: Points) -> Array:
    """Return the maximum a posteriori hyperparameters, in the order of `kernel`.

    If the covariance cannot be factorised at the prior's mean, the result is that mean.
    """
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
