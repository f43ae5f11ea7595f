"""The posterior of learning curves, given runs and hyperparameters: exact inference in float64.

The prior is in `autotuner.search.kernel`, the hyperparameters come from `autotuner.search.fitting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from autotuner.search.data import Points
from autotuner.search.kernel import Kernel
from autotuner.search.space import Space
from autotuner.study.curve import Array

WIDTH: Final = 1.4
WIDENING: Final = 3.0
"""Factor of the predicted variances: the first, plus the second over the number of runs. Predictions with
fitted hyperparameters are overconfident (on the development problems, their errors had 1.26 times the
predicted deviation)."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of curves given the runs.

    Each row of V solves `L V = K(points, queries)`, so that a query costs one triangular solve.

    Attributes:
        kernel: The kernel at the fitted hyperparameters.
        data: The points of the runs.
        factor: L, the lower Cholesky factor of the covariance of the points, (points, points).
        white: `L^-1` times the residuals of the points, (points,).
        widening: Factor of the predicted variances; see `WIDTH`.
    """

    kernel: Kernel
    data: Points
    factor: Array
    white: Array
    widening: float

    @classmethod
    def of(cls, space: Space, theta: Array, data: Points) -> Posterior:
        """Return the posterior at the hyperparameters `theta`, in the order of `autotuner.search.kernel`.

        Raises:
            LinAlgError: If the covariance of the points is not positive definite.
        """
        kernel = Kernel(space, theta)
        factor = cholesky(_own(kernel, data), lower=True, check_finite=False)
        white = solve_triangular(factor, kernel.residual(data), lower=True, check_finite=False)
        return cls(kernel, data, factor, white, WIDTH + WIDENING / max(len(data.place), 1))

    def joined(self, more: Points) -> Posterior:
        """Return the posterior given more runs too; cheap if they are few.

        The factor is extended by the rows of the new points. The widening stays that of the first runs.
        """
        if not len(more):
            return self
        cross = solve_triangular(
            self.factor, _shared(self.kernel, self.data, more), lower=True, check_finite=False
        )
        corner = cholesky(_own(self.kernel, more) - cross.T @ cross, lower=True, check_finite=False)
        white = solve_triangular(
            corner, self.kernel.residual(more) - cross.T @ self.white, lower=True, check_finite=False
        )
        size, extra = len(self.data), len(more)
        factor = np.zeros((size + extra, size + extra))
        factor[:size, :size], factor[size:, :size], factor[size:, size:] = self.factor, cross.T, corner
        data = Points(
            np.concatenate([self.data.place, more.place]),
            np.concatenate([self.data.run, more.run + len(self.data.place)]),
            np.concatenate([self.data.time, more.time]),
            np.concatenate([self.data.margin, more.margin]),
        )
        return replace(self, data=data, factor=factor, white=np.concatenate([self.white, white]))

    @cached_property
    def _precision(self) -> Array:
        return np.asarray(cho_solve((self.factor, True), np.eye(len(self.data)), check_finite=False))

    def end_without(self, run: int) -> tuple[float, float]:
        """Return mean and variance of the noise-free end of a run, given the other runs only.

        The variance includes that of the run's offset. The run's block is removed from the inverse of the
        covariance (Rasmussen & Williams 2006, section 5.4.2, for one point).
        """
        place, end = self.data.place[[run]], np.ones(1)
        own = self.data.run == run
        bends = self.kernel.bends(self.data.place, place)[self.data.run, 0]
        cross = self.kernel.join(bends, self.kernel.times(self.data.time, end)[:, 0])
        cross[own] = 0.0
        solved = self._precision @ cross
        removed = np.linalg.solve(self._precision[np.ix_(own, own)], solved[own])
        solved -= self._precision[:, own] @ removed
        mean = self.kernel.mean(place)[0] + solved @ self.kernel.residual(self.data)
        prior = self.kernel.join(self.kernel.own_bends(place), np.ones(1)) + self.kernel.of_run(np.ones(1))
        return float(mean), self.widening * float(prior[0] - cross @ solved)

    def _whitened(self, places: Array, times: Array, runs: Sequence[int | None] | None = None) -> Array:
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
        solved = self._whitened(places, times, runs)
        mean = self.kernel.mean(places)[:, None] + np.einsum("i,ijk->jk", self.white, solved)
        prior = self.kernel.join(
            self.kernel.own_bends(places)[:, None, None], self.kernel.times(times, times)
        )
        if runs is not None:
            prior = prior + self.kernel.of_run(self.kernel.times(times, times))
        by_setting = np.ascontiguousarray(solved.transpose(1, 0, 2))
        return mean, self.widening * (prior - by_setting.transpose(0, 2, 1) @ by_setting)


def _shared(kernel: Kernel, left: Points, right: Points) -> Array:
    """Return the covariance of points of different runs, (left, right)."""
    bends = kernel.bends(left.place, right.place)[np.ix_(left.run, right.run)]
    return kernel.join(bends, kernel.times(left.time, right.time))


def _own(kernel: Kernel, data: Points) -> Array:
    """Return the covariance of points among themselves, noise included, (points, points)."""
    same = data.run[:, None] == data.run[None]
    runs = same * kernel.of_run(kernel.times(data.time, data.time))
    return np.asarray(_shared(kernel, data, data) + runs + np.diag(kernel.noise(data)))
