"""The Gaussian process of learning curves: over a setting and the progress of its training.

With the log-shortfall `y` of `autotuner.search.data`, a setting's coordinates `x` and the progress `t`,

    y(x, t) = m(x) + f(x, t) + offset of the run + drift of the run + noise of the measurement
    m(x) = m + g doublings(x) + sum_j (b_j d_j + c_j d_j^2)
    k((x, t), (x', t')) = c^2 + (s^2 + a^2 X(x, x') + sum_j (v_j d_j d_j' + w_j (d_j d_j')^2)) T(t, t')

The first two terms of the kernel are common to all curves; the others depend on the setting. T is a Matern
5/2 and X a Matern 3/2 kernel (Rasmussen & Williams 2006, eq. 4.17) with one length scale per dimension:
accuracy is rougher in hyperparameters than in time, and a smoother X is overconfident. Progress has two
dimensions, log step and fraction of the run: with log step only, schedules that gain late would be
underestimated.

With `d` the distance from the known-good value, each hyperparameter has a slope and a curvature with normal
priors by its role (`autotuner.search.prior`): mean b, c and variance v, w, integrated out (eq. 2.39-2.42).
The coordinate of the learning rate is corrected for the batch size, the momentum and the others, `log lr -
sum_j e_j x_j`; the exponents e are learned with the length scales.

A measurement has noise in the metric's unit and noise in log-shortfall, because real accuracies vary more the
further they are from the target. A run differs by a constant offset and by a drift with the kernel T, whose
start says little about its end.

Hyperparameters are fitted by maximum a posteriori. The priors are log-normal around the values for curves of
tabular networks (LCBench), a factor of 1.5 to 2.5 wide (3 for the noise, which differs most between jobs):
with a dozen runs in five dimensions the likelihood alone overfits. Quantities with a unit are relative to the
observed runs, so that percent, fractions and losses are treated alike.

Exact inference, float64, gradients in closed form. Settings are evaluated per run and progress per distinct
step, so the kernel's matrices are small, and the main cost is one Cholesky factor of some hundreds of points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from autotuner.search.data import Points, indicator
from autotuner.search.matern import matern, progress, rough
from autotuner.search.prior import EXPECTED, Role
from autotuner.search.shortfall import level, slope
from autotuner.search.space import Space
from autotuner.study.curve import Array

JITTER: Final = 1e-8
WIDTH: Final = 1.4
WIDENING: Final = 3.0
"""Factor of the predicted variances: the first, plus the second over the number of runs. Predictions with
fitted hyperparameters are overconfident (on the development problems, their errors had 1.26 times the
predicted deviation)."""
OTHER_OPTIMIZER: Final = -1.0
"""Logarithm of the length scale between optimizers: a priori, one says almost nothing about another."""
_ITERATIONS: Final = 30
_BOUND: Final = 4.0
"""Bound of the hyperparameters, in standard deviations of the prior."""

# Positions in the vector of hyperparameters, which are followed by the length scales of the coordinates and
# their exponents.
MEAN, LOG_TIME, TIME, COMMON, SHARED, MAIN, NUGGET, EPOCH, RUN, DRIFT, HEADROOM, GROWTH = range(12)
SCALES: Final = 12


@dataclass(frozen=True, eq=False)
class Prior:
    """Independent normal priors of the hyperparameters (logs of all but mean and alpha)."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, space: Space, data: Points) -> Prior:
        """Return the prior for a space and the observed runs; only the overall size depends on the runs."""
        first = data.margin[data.run == 0]
        spread = float(np.ptp(first)) or float(np.abs(first).max()) or 1.0
        expected = [EXPECTED[found] for found in space.roles]
        # In many dimensions all points are far apart: distances grow with the square root of the dimensions.
        wide = 0.5 * math.log(max(space.size - 1, 4) / 4)
        narrow = {Role.BATCH_SIZE, Role.LEARNING_RATE}
        scales = [
            (e.scale.mean + (0.0 if found in narrow else wide), e.scale.deviation)
            for found, e in zip(space.roles, expected, strict=True)
        ]
        for index in space.optimizers:
            scales[index] = (OTHER_OPTIMIZER, scales[index][1])
        pairs = [
            (-1.4, 0.8),  # mean
            (-0.8, 0.25),  # length scale of log step
            (0.9, 0.3),  # length scale of the fraction
            (-0.6, 0.3),  # constant
            (-1.1, 0.5),  # common to all curves
            (-1.05, 0.4),  # depending on the setting
            (-4.0, 1.2),  # noise of a measurement, in log-shortfall
            (-3.7, 1.0),  # and in the metric's unit, in headrooms
            (math.log(2.0), 0.6),  # noise of a run, relative to that of a measurement
            (math.log(0.7), 0.7),  # and its drift
            (math.log(0.15 * spread), 0.9),  # headroom
            (-0.05, 0.08),  # trend of the mean per doubling
            *scales,
            *((e.exponent.mean, e.exponent.deviation) for e in expected),
        ]
        return cls(np.array([m for m, _ in pairs]), np.array([s for _, s in pairs]))


class Kernel:
    """The kernel at one vector of hyperparameters."""

    def __init__(self, space: Space, theta: Array) -> None:
        self.space, self.theta = space, theta
        self.scale = np.exp(theta[SCALES : SCALES + space.size])
        self.exponents = theta[SCALES + space.size :]
        self.time_scale = np.exp(theta[[LOG_TIME, TIME]])
        self.common, self.shared, self.main = np.exp(2 * theta[[COMMON, SHARED, MAIN]])
        self.headroom = float(np.exp(theta[HEADROOM]))
        # Deviations at the target, in log-shortfall: of a measurement, and of where a run ends.
        self.epoch_noise, self.nugget = np.exp(theta[[EPOCH, NUGGET]])
        self.value_noise = math.hypot(self.epoch_noise, self.nugget)
        self.offset, self.drift = np.exp(2 * theta[[RUN, DRIFT]]) * self.value_noise**2
        self.run_noise = math.sqrt(self.offset + self.drift)
        expected = [EXPECTED[found] for found in space.roles[1:]]
        self.trend_mean = np.array([e.slope.mean for e in expected] + [e.curvature.mean for e in expected])
        self.trend_deviation = np.array(
            [e.slope.deviation for e in expected] + [e.curvature.deviation for e in expected]
        )

    def differences(self, left: Array, right: Array) -> Array:
        """Return the scaled differences of settings, (d, n, m)."""
        return self.space.differences(left, right, self.exponents) / self.scale[:, None, None]

    def settings(self, left: Array, right: Array) -> Array:
        """Return X for settings, (n, m)."""
        return rough((self.differences(left, right) ** 2).sum(axis=0))[0]

    def times(self, left: Array, right: Array) -> Array:
        """Return T for fractions of the run, (n, m)."""
        gap = progress(left)[:, None] - progress(right)[None]
        return matern(((gap / self.time_scale) ** 2).sum(axis=2))[0]

    def trends(self, places: Array) -> Array:
        """Return the features of the slopes and curvatures, (n, 2 (d - 1))."""
        away = self.space.displacements(places)
        return np.concatenate([away, away**2], axis=1)

    def bends(self, left: Array, right: Array) -> Array:
        """Return the covariance of settings, (n, m): a^2 X and the uncertainty of the trends."""
        trends = (self.trends(left) * self.trend_deviation) @ (self.trends(right) * self.trend_deviation).T
        return np.asarray(self.main * self.settings(left, right) + trends)

    def own_bends(self, places: Array) -> Array:
        """Return the diagonal of `bends`, (n,)."""
        return np.asarray(self.main + ((self.trends(places) * self.trend_deviation) ** 2).sum(axis=1))

    def join(self, bends: Array, times: Array) -> Array:
        """Return the kernel, given `bends` and T."""
        return np.asarray(self.common + (self.shared + bends) * times)

    def of_run(self, times: Array) -> Array:
        """Return the covariance of the points of one run beyond their setting, given T."""
        return np.asarray(self.offset + self.drift * times)

    def noise(self, data: Points) -> Array:
        """Return the variance of every point's noise."""
        measured = (self.epoch_noise * self.headroom * slope(data.margin, self.headroom)) ** 2
        return np.asarray((measured + self.nugget**2) / data.count + JITTER)

    def residual(self, data: Points) -> Array:
        """Return the points' log-shortfalls less the mean."""
        return np.asarray(level(data.margin, self.headroom) - self.mean(data.place)[data.run])

    def mean(self, places: Array) -> Array:
        """Return the prior mean at settings."""
        growth = self.theta[GROWTH] * self.space.doublings(places)
        return np.asarray(self.theta[MEAN] + growth + self.trends(places) @ self.trend_mean)


def objective(space: Space, prior: Prior, data: Points, theta: Array) -> tuple[float, Array]:
    """Return the negative log posterior density of hyperparameters, and its gradient."""
    kernel = Kernel(space, theta)
    moments, inverse_time = np.unique(data.time, return_inverse=True)
    moment = progress(moments)
    gaps = (moment[:, None] - moment[None]) ** 2 / kernel.time_scale**2
    time, time_slope = matern(gaps.sum(axis=2))
    difference = kernel.differences(data.place, data.place)
    setting, setting_slope = rough((difference**2).sum(axis=0))
    grid_run, grid_time = np.ix_(data.run, data.run), np.ix_(inverse_time, inverse_time)
    trend = kernel.trends(data.place) * kernel.trend_deviation
    # Sums over points are first taken per run: there are a hundred times as many pairs of points.
    times, bends = time[grid_time], (kernel.main * setting + trend @ trend.T)[grid_run]
    same = (data.run[:, None] == data.run[None]).astype(np.float64)
    covariance = kernel.join(bends, times) + same * kernel.of_run(times)
    weight = slope(data.margin, kernel.headroom)
    measured = (kernel.epoch_noise * kernel.headroom * weight) ** 2 / data.count
    nugget = kernel.nugget**2 / data.count
    covariance[np.diag_indices_from(covariance)] += measured + nugget + JITTER
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
    runs = indicator(data.run, len(data.place))
    bent_by_run = runs.T @ bent @ runs
    gradient[SHARED] = 2 * kernel.shared * bent_by_run.sum()
    gradient[MAIN] = 2 * kernel.main * (bent_by_run * setting).sum()
    own, own_bent = np.vdot(outer, same), np.vdot(outer, same * times)
    gradient[RUN], gradient[DRIFT] = 2 * kernel.offset * own, 2 * kernel.drift * own_bent
    from_runs, of_nugget = gradient[RUN] + gradient[DRIFT], (kernel.nugget / kernel.value_noise) ** 2
    gradient[NUGGET] = 2 * (nugget * diagonal).sum() + of_nugget * from_runs
    gradient[EPOCH] = 2 * (measured * diagonal).sum() + (1 - of_nugget) * from_runs
    by_run = bent_by_run * kernel.main * setting_slope
    for dimension, scaled in enumerate(difference):
        gradient[SCALES + dimension] = -2 * (by_run * scaled**2).sum()
    for index, moved in space.rate_slopes(data.place).items():
        along = by_run * difference[space.rate_index] / kernel.scale[space.rate_index]
        gradient[SCALES + space.size + index] = 2 * (along * moved).sum()
    at = indicator(inverse_time, len(moments))
    by_time = (at.T @ weighted @ at) * time_slope
    gradient[LOG_TIME] = -2 * (by_time * gaps[:, :, 0]).sum()
    gradient[TIME] = -2 * (by_time * gaps[:, :, 1]).sum()
    gradient[HEADROOM] = _headroom_gradient(kernel, data, solved, diagonal, measured)

    away = (theta - prior.mean) / prior.deviation
    return float(value + 0.5 * away @ away), gradient + away / prior.deviation


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


class Posterior:
    """The posterior of curves given the runs.

    Each row of V solves `L V = K(points, queries)`, so that a query costs one triangular solve.
    """

    def __init__(self, space: Space, theta: Array, data: Points) -> None:
        self.space, self.data = space, data
        self.kernel = Kernel(space, theta)
        covariance = self._own(data)
        self.factor = cholesky(covariance, lower=True, check_finite=False)
        self.white = solve_triangular(self.factor, self.kernel.residual(data), lower=True, check_finite=False)
        self.widening = WIDTH + WIDENING / max(len(data.place), 1)

    def _points(self, left: Points, right: Points) -> Array:
        bends = self.kernel.bends(left.place, right.place)[np.ix_(left.run, right.run)]
        return self.kernel.join(bends, self.kernel.times(left.time, right.time))

    def _own(self, data: Points) -> Array:
        """Return the covariance of points among themselves, noise included."""
        same = data.run[:, None] == data.run[None]
        runs = same * self.kernel.of_run(self.kernel.times(data.time, data.time))
        return np.asarray(self._points(data, data) + runs + np.diag(self.kernel.noise(data)))

    def joined(self, more: Points) -> Posterior:
        """Return the posterior given more runs too; cheap if they are few."""
        if not len(more):
            return self
        new = object.__new__(Posterior)
        new.space, new.kernel, new.widening = self.space, self.kernel, self.widening
        new.data = Points(
            np.concatenate([self.data.place, more.place]),
            np.concatenate([self.data.run, more.run + len(self.data.place)]),
            np.concatenate([self.data.time, more.time]),
            np.concatenate([self.data.margin, more.margin]),
            np.concatenate([self.data.count, more.count]),
        )
        cross = solve_triangular(self.factor, self._points(self.data, more), lower=True, check_finite=False)
        own = self._own(more)
        corner = cholesky(own - cross.T @ cross, lower=True, check_finite=False)
        size, extra = len(self.data), len(more)
        new.factor = np.zeros((size + extra, size + extra))
        new.factor[:size, :size], new.factor[size:, :size], new.factor[size:, size:] = (
            self.factor,
            cross.T,
            corner,
        )
        white = solve_triangular(
            corner, self.kernel.residual(more) - cross.T @ self.white, lower=True, check_finite=False
        )
        new.white = np.concatenate([self.white, white])
        return new

    def whitened(self, places: Array, times: Array, runs: Sequence[int | None] | None = None) -> Array:
        """Return V for settings at times, (points, settings, times); `runs` adds a run's own offset."""
        bends = self.kernel.bends(self.data.place, places)[self.data.run]
        moments = self.kernel.times(self.data.time, times)
        cross = self.kernel.join(bends[:, :, None], moments[:, None, :])
        if runs is not None:
            for column, run in enumerate(runs):
                if run is not None:
                    own = self.data.run == run
                    cross[own, column] += self.kernel.of_run(moments[own])
        flat = cross.reshape(len(self.data), -1)
        solved = solve_triangular(self.factor, flat, lower=True, check_finite=False)
        return np.asarray(solved.reshape(cross.shape))

    def curves(
        self, places: Array, times: Array, runs: Sequence[int | None] | None = None
    ) -> tuple[Array, Array]:
        """Return means (settings, times) and covariances (settings, times, times) of curves.

        They are noise-free; with `runs`, each is the curve of that run, including its offset.
        """
        solved = self.whitened(places, times, runs)
        mean = self.kernel.mean(places)[:, None] + np.einsum("i,ijk->jk", self.white, solved)
        prior = self.kernel.join(
            self.kernel.own_bends(places)[:, None, None], self.kernel.times(times, times)
        )
        if runs is not None:
            prior = prior + self.kernel.of_run(self.kernel.times(times, times))
        by_setting = np.ascontiguousarray(solved.transpose(1, 0, 2))
        return mean, self.widening * (prior - by_setting.transpose(0, 2, 1) @ by_setting)

    def ends(self, places: Array) -> tuple[Array, Array]:
        """Return mean and variance of the curves' ends, (settings,) each."""
        solved = self.whitened(places, np.ones(1))[:, :, 0]
        prior = self.kernel.join(self.kernel.own_bends(places), np.ones(1))
        mean = self.kernel.mean(places) + self.white @ solved
        variance = prior - np.einsum("ij,ij->j", solved, solved)
        return mean, self.widening * np.maximum(variance, 1e-10)

    def joint_ends(self, places: Array) -> tuple[Array, Array]:
        """Return mean (settings,) and covariance (settings, settings) of the curves' ends.

        It is not widened: the maximum over many jointly sampled settings decides, and would be too large.
        """
        solved = self.whitened(places, np.ones(1))[:, :, 0]
        kernel = self.kernel
        prior = kernel.join(kernel.bends(places, places), np.ones((1, 1)))
        return kernel.mean(places) + self.white @ solved, prior - solved.T @ solved
