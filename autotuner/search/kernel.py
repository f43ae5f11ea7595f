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

The priors of the hyperparameters are log-normal around the values for curves of tabular networks (LCBench), a
factor of 1.5 to 2.5 wide (3 for the noise, which differs most between jobs): with a dozen runs in five
dimensions the likelihood alone overfits. Quantities with a unit are relative to the observed runs, so that
percent, fractions and losses are treated alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from autotuner.search.data import Points
from autotuner.search.matern import matern32, matern52, progress
from autotuner.search.prior import EXPECTED, Role
from autotuner.search.shortfall import level, slope
from autotuner.search.space import Space
from autotuner.study.curve import Array

JITTER: Final = 1e-8
_OPTIMIZER_SCALE: Final = -1.0
"""Logarithm of the length scale between optimizers: a priori, one says almost nothing about another."""

# Positions in the vector of hyperparameters, which are followed by the length scales of the coordinates and
# their exponents.
MEAN, LOG_TIME, TIME, COMMON, SHARED, MAIN, NUGGET, EPOCH, RUN, DRIFT, HEADROOM, GROWTH = range(12)
SCALES: Final = 12


@dataclass(frozen=True, eq=False)
class Prior:
    """Independent normal priors of the hyperparameters (count,).

    All but the mean, its trend and the exponents are logarithms.
    """

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
            scales[index] = (_OPTIMIZER_SCALE, scales[index][1])
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
    """The kernel at one vector of hyperparameters.

    Args:
        space: The search space, of d coordinates.
        theta: The hyperparameters, (12 + 2 d,): those that the constants above number, then the logarithms of
            the coordinates' length scales, then the exponents.
    """

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
        return matern32((self.differences(left, right) ** 2).sum(axis=0))

    def times(self, left: Array, right: Array) -> Array:
        """Return T for fractions of the run, (n, m)."""
        gap = progress(left)[:, None] - progress(right)[None]
        return matern52(((gap / self.time_scale) ** 2).sum(axis=2))

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
        """Return the variance of every point's noise, (points,)."""
        measured = (self.epoch_noise * self.headroom * slope(data.margin, self.headroom)) ** 2
        return np.asarray(measured + self.nugget**2 + JITTER)

    def residual(self, data: Points) -> Array:
        """Return the points' log-shortfalls less the prior mean, (points,)."""
        return np.asarray(level(data.margin, self.headroom) - self.mean(data.place)[data.run])

    def mean(self, places: Array) -> Array:
        """Return the prior mean at settings (n, d), (n,)."""
        growth = self.theta[GROWTH] * self.space.doublings(places)
        return np.asarray(self.theta[MEAN] + growth + self.trends(places) @ self.trend_mean)
