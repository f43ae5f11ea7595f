"""Sequential Monte Carlo against a posterior that is known exactly."""

import math

import numpy as np
import pytest

from autotuner.search.monte_carlo import sample


def sampled(count: int = 2000, seed: int = 0):
    """Draws given one measurement of 2 with a deviation of 0.5, of the first of two parameters."""

    def log_likelihood(values):
        return -0.5 * ((values[:, 0] - 2) / 0.5) ** 2 - math.log(0.5 * math.sqrt(2 * math.pi))

    return sample(log_likelihood, count, 2, np.random.default_rng(seed))


def test_draws_have_the_mean_and_deviation_of_the_posterior():
    drawn = sampled().values
    assert drawn[:, 0].mean() == pytest.approx(2 / 1.25, abs=0.05)
    assert drawn[:, 0].std() == pytest.approx(math.sqrt(0.2), abs=0.05)
    assert drawn[:, 1].std() == pytest.approx(1, abs=0.1)


def test_the_evidence_is_the_probability_density_of_the_measurement():
    expected = -0.5 * 4 / 1.25 - 0.5 * math.log(2 * math.pi * 1.25)
    assert sampled().log_evidence == pytest.approx(expected, abs=0.1)


def test_equal_arguments_give_equal_draws():
    np.testing.assert_array_equal(sampled(64, 3).values, sampled(64, 3).values)


def test_parameters_without_a_likelihood_are_left():
    def log_likelihood(values):
        return np.where(values[:, 0] > 0, 0.0, -np.inf)

    drawn = sample(log_likelihood, 200, 1, np.random.default_rng(0))
    assert np.all(drawn.values > 0)
    assert drawn.log_evidence == pytest.approx(math.log(0.5), abs=0.2)
