"""The log posterior density of the model's hyperparameters, and its gradient in closed form.

Settings are evaluated per run and progress per distinct step, so the kernel's matrices are small, and the
main cost is one Cholesky factor of some hundreds of points.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.linalg.lapack import dpotri

from autotuner.search.data import Points
from autotuner.search.kernel import (
    COMMON,
    DRIFT,
    EPOCH,
    GROWTH,
    HEADROOM,
    JITTER,
    LOG_TIME,
    MAIN,
    MEAN,
    NUGGET,
    RUN,
    SCALES,
    SHARED,
    TIME,
    Kernel,
    Prior,
)
from autotuner.search.matern import matern32, matern32_slope, matern52, matern52_slope, progress
from autotuner.search.shortfall import slope
from autotuner.search.space import Space
from autotuner.study.curve import Array


def objective(space: Space, prior: Prior, data: Points, theta: Array) -> tuple[float, Array]:
    """Return the negative log posterior density of hyperparameters, up to a constant, and its gradient.

    The log marginal likelihood is eq. 5.8 of Rasmussen & Williams 2006, its derivatives are eq. 5.9.

    Args:
        space: The search space, of d coordinates.
        prior: The prior of the hyperparameters.
        data: The points of the runs' curves.
        theta: The hyperparameters, (12 + 2 d,), in the order of `autotuner.search.kernel`.

    Raises:
        LinAlgError: If the covariance of the points is not positive definite.
    """
    kernel = Kernel(space, theta)
    moments, inverse_time = np.unique(data.time, return_inverse=True)
    moment = progress(moments)
    gaps = (moment[:, None] - moment[None]) ** 2 / kernel.time_scale**2
    gap = gaps.sum(axis=2)
    time = matern52(gap)
    difference = kernel.differences(data.place, data.place)
    apart = (difference**2).sum(axis=0)
    setting = matern32(apart)
    grid_run, grid_time = np.ix_(data.run, data.run), np.ix_(inverse_time, inverse_time)
    trend = kernel.trends(data.place) * kernel.trend_deviation
    # Sums over points are first taken per run: there are a hundred times as many pairs of points.
    times, bends = time[grid_time], (kernel.main * setting + trend @ trend.T)[grid_run]
    same = (data.run[:, None] == data.run[None]).astype(np.float64)
    covariance = kernel.join(bends, times) + same * kernel.of_run(times)
    weight = slope(data.margin, kernel.headroom)
    measured = (kernel.epoch_noise * kernel.headroom * weight) ** 2
    covariance[np.diag_indices_from(covariance)] += measured + kernel.nugget**2 + JITTER
    factor = cholesky(covariance, lower=True, check_finite=False)
    residual = kernel.residual(data)
    solved = cho_solve((factor, True), residual, check_finite=False)
    value = 0.5 * residual @ solved + np.log(np.diagonal(factor)).sum() - np.log(weight).sum()

    inverse, _ = dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    outer = 0.5 * (inverse - np.outer(solved, solved))  # derivative of the value by the covariance
    diagonal = np.diagonal(outer)
    gradient = np.zeros_like(theta)
    gradient[MEAN] = -solved.sum()
    gradient[GROWTH] = -solved @ space.doublings(data.place)[data.run]
    bent, weighted = outer * times, outer * (kernel.shared + bends + kernel.drift * same)
    gradient[COMMON] = 2 * kernel.common * outer.sum()
    runs = _indicator(data.run, len(data.place))
    bent_by_run = runs.T @ bent @ runs
    gradient[SHARED] = 2 * kernel.shared * bent_by_run.sum()
    gradient[MAIN] = 2 * kernel.main * (bent_by_run * setting).sum()
    own, own_bent = np.vdot(outer, same), np.vdot(outer, same * times)
    gradient[RUN], gradient[DRIFT] = 2 * kernel.offset * own, 2 * kernel.drift * own_bent
    from_runs, of_nugget = gradient[RUN] + gradient[DRIFT], (kernel.nugget / kernel.value_noise) ** 2
    gradient[NUGGET] = 2 * kernel.nugget**2 * diagonal.sum() + of_nugget * from_runs
    gradient[EPOCH] = 2 * (measured * diagonal).sum() + (1 - of_nugget) * from_runs
    by_run = bent_by_run * kernel.main * matern32_slope(apart)
    gradient[SCALES:] = _distance_gradient(kernel, data.place, difference, by_run)
    at = _indicator(inverse_time, len(moments))
    by_time = (at.T @ weighted @ at) * matern52_slope(gap)
    gradient[LOG_TIME] = -2 * (by_time * gaps[:, :, 0]).sum()
    gradient[TIME] = -2 * (by_time * gaps[:, :, 1]).sum()
    gradient[HEADROOM] = _headroom_gradient(kernel, data, solved, diagonal, measured)

    away = (theta - prior.mean) / prior.deviation
    return float(value + 0.5 * away @ away), gradient + away / prior.deviation


def _distance_gradient(kernel: Kernel, place: Array, difference: Array, by_run: Array) -> Array:
    """Return the derivatives of the value by the length scales and by the exponents, (2 d,).

    `difference` are the scaled differences of the runs' settings, (d, n, n), and `by_run` the derivative of
    the value by their squared distances, (n, n).
    """
    space = kernel.space
    by_scale = [-2 * (by_run * scaled**2).sum() for scaled in difference]
    by_exponent = np.zeros(space.size)
    for index, moved in space.rate_slopes(place).items():
        along = by_run * difference[space.rate_index] / kernel.scale[space.rate_index]
        by_exponent[index] = 2 * (along * moved).sum()
    return np.concatenate([by_scale, by_exponent])


def _headroom_gradient(
    kernel: Kernel, data: Points, solved: Array, diagonal: Array, measured: Array
) -> float:
    """Return the derivative of the value by log headroom through levels, weights and their Jacobian."""
    head, margin = kernel.headroom, data.margin
    far = margin < head / 2  # on the logarithmic side
    level_slope = np.where(far, -margin / (head - np.minimum(margin, head / 2)), -2 * margin / head)
    weight_slope = np.where(far, -head / (head - np.minimum(margin, head / 2)), -1.0)  # of log weight
    from_noise = 2 * measured * diagonal * (weight_slope + 1)
    return float(solved @ level_slope + from_noise.sum() - weight_slope.sum())


def _indicator(labels: np.ndarray, count: int) -> Array:
    """Return the matrix (n, count) with ones where label and column are equal."""
    matrix = np.zeros((len(labels), count))
    matrix[np.arange(len(labels)), labels] = 1
    return matrix
