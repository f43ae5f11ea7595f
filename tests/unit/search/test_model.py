"""The model against what is known exactly: derivatives, conditioning, and curves that it has seen."""

import numpy as np
import pytest

from autotuner.search.data import Points, windows
from autotuner.search.fitting import fit
from autotuner.search.kernel import DRIFT, MAIN, RUN, Kernel, Prior
from autotuner.search.model import Posterior
from autotuner.search.objective import objective
from autotuner.search.shortfall import level, slope
from autotuner.search.space import Space
from autotuner.study.curve import Curve
from autotuner.study.setting import Setting
from tests.builders import spec


def space() -> Space:
    text = "{learning_rate: {min: 0.01, max: 10, log: true}, momentum: {min: 0, max: 1}, optimizer: [a, b]}"
    given = {"batch_size": 32, "learning_rate": 0.1, "momentum": 0.9, "optimizer": "a"}
    return Space.of(spec(baseline=given, search_space=text))


def data(runs: int = 6, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    place = space().scattered(rng.random((runs, 4)))
    times = np.array([0.05, 0.2, 0.5, 0.8, 1.0])
    count = len(times)
    margin = -0.3 + 0.35 * np.tile(1 - np.exp(-4 * times), runs) - 0.1 * np.repeat(place[:, 0], count)
    margin += rng.normal(0, 0.003, len(margin))
    return Points(place, np.repeat(np.arange(runs), count), np.tile(times, runs), margin)


def runs_of(points: Points, start: int, stop: int) -> Points:
    kept = (start <= points.run) & (points.run < stop)
    return Points(
        points.place[start:stop],
        points.run[kept] - start,
        points.time[kept],
        points.margin[kept],
    )


def test_the_gradient_is_that_of_the_objective():
    points = data()
    prior = Prior.of(space(), points)
    theta = prior.mean + 0.3 * prior.deviation * np.random.default_rng(1).normal(size=len(prior.mean))
    _, gradient = objective(space(), prior, points, theta)
    step = 1e-5
    numeric = [
        (
            objective(space(), prior, points, theta + step * unit)[0]
            - objective(space(), prior, points, theta - step * unit)[0]
        )
        / (2 * step)
        for unit in np.eye(len(theta))
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4)


def test_conditioning_in_two_parts_is_conditioning_on_all():
    points = data()
    theta = Prior.of(space(), points).mean
    first, rest = runs_of(points, 0, 4), runs_of(points, 4, 6)
    whole, joined = Posterior.of(space(), theta, points), Posterior.of(space(), theta, first).joined(rest)
    where, when = space().scattered(np.random.default_rng(2).random((5, 4))), np.array([0.3, 1.0])
    np.testing.assert_allclose(whole.curves(where, when)[0], joined.curves(where, when)[0], atol=1e-8)
    np.testing.assert_allclose(
        whole.curves(where, when)[1] / whole.widening,
        joined.curves(where, when)[1] / joined.widening,
        atol=1e-8,
    )


def test_the_end_of_a_run_without_its_own_curve_is_that_of_its_setting_given_the_others():
    points = data()
    theta = Prior.of(space(), points).mean
    whole, others = Posterior.of(space(), theta, points), Posterior.of(space(), theta, runs_of(points, 0, 5))
    mean, covariance = others.curves(points.place[[5]], np.ones(1))
    found, variance = whole.end_without(5)
    assert found == pytest.approx(mean.item(), rel=1e-6)
    offset = whole.widening * float(whole.kernel.of_run(np.ones(1)).item())
    noise_free = covariance.item() * whole.widening / others.widening
    assert variance == pytest.approx(noise_free + offset, rel=1e-6)


def test_the_start_of_a_run_tells_its_end_by_what_stays_of_its_offset_not_by_what_drifts():
    points = data()
    # The last run has only begun.
    early = Points(points.place, points.run[:-3], points.time[:-3], points.margin[:-3])
    left = []
    for staying, drifting in [(2.0, -4.0), (-4.0, 2.0)]:
        theta = Prior.of(space(), points).mean.copy()
        theta[[RUN, DRIFT, MAIN]] = staying, drifting, -4.0  # nothing is uncertain but the run
        _, covariance = Posterior.of(space(), theta, early).curves(points.place[-1:], np.ones(1), [5])
        left.append(covariance.item())
    assert left[0] < 0.8 * left[1]


def ends(posterior: Posterior, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of where the curves of settings end."""
    mean, covariance = posterior.curves(places, np.ones(1))
    return mean[:, 0], covariance[:, 0, 0]


def test_a_run_that_was_seen_is_predicted_as_it_was():
    points = data()
    posterior = Posterior.of(space(), fit(space(), points), points)
    mean, variance = ends(posterior, points.place)
    seen = level(points.margin[points.time == 1.0], posterior.kernel.headroom)
    assert np.all(np.abs(mean - seen) < 4 * np.sqrt(variance) + 0.05)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_unit_of_the_metric_does_not_matter(scale: float):
    points = data()
    scaled = Points(points.place, points.run, points.time, scale * points.margin)
    where = space().scattered(np.random.default_rng(3).random((8, 4)))
    one = ends(Posterior.of(space(), fit(space(), points), points), where)
    other = ends(Posterior.of(space(), fit(space(), scaled), scaled), where)
    np.testing.assert_allclose(one[0] / np.sqrt(one[1]), other[0] / np.sqrt(other[1]), rtol=0.05, atol=0.05)


def test_the_level_is_0_at_the_target_and_continues_smoothly():
    margin = np.linspace(-3, 3, 601)
    values = level(margin, 1.0)
    assert level(np.zeros(1), 1.0)[0] == 0
    np.testing.assert_allclose(np.gradient(values, margin)[1:-1], slope(margin, 1.0)[1:-1], rtol=0.02)


def test_windows_average_what_was_measured_and_end_where_it_ends():
    time, value = windows(Curve(np.arange(1.0, 1001.0), np.linspace(0, 1, 1000)), 1000.0)
    assert time[-1] > 0.97
    assert np.all(np.diff(time) > 0)
    np.testing.assert_allclose(value, time, atol=0.002)


def test_an_equal_setting_has_kernel_one_whatever_its_learning_rate_is_called():
    here = space().coordinates(Setting.of(64, {"learning_rate": 0.2, "momentum": 0.5, "optimizer": "b"}))
    kernel = Kernel(space(), Prior.of(space(), data()).mean)
    np.testing.assert_allclose(kernel.settings(here[None], here[None]), 1.0)
