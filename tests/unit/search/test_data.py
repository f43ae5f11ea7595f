"""What the model is fed: runs as points, with what their end says."""

import math

import numpy as np
import pytest

from autotuner.search.data import MAX_POINTS, Seen, points
from autotuner.search.space import Space
from autotuner.study.curve import Curve
from tests.builders import spec


def told(values, *, has_diverged=False, steps=None):
    made = spec()
    space = Space.of(made)
    steps = np.arange(1.0, len(values) + 1) if steps is None else steps
    return space, made.target, Seen(space.origin, Curve(steps, np.array(values)), has_diverged)


def test_a_diverged_run_is_worth_the_worst_margin_at_its_end():
    space, target, whole = told([0.2, 0.5, 0.8, 0.95])
    *_, diverged = told([0.6], has_diverged=True)
    data = points(space, target, 4, [whole, diverged])
    assert data.run.tolist().count(1) == 2
    assert data.time[-1] == 1
    assert data.margin[-1] == pytest.approx(0.2 - target.threshold)


def test_a_run_that_diverged_before_its_first_value_is_as_far_below_the_target_as_any_was_from_it():
    space, target, good = told([0.95])
    *_, diverged = told([], has_diverged=True, steps=np.empty(0))
    data = points(space, target, 4, [good, diverged])
    assert data.run.tolist() == [0, 1]
    assert data.time.tolist() == [0.25, 1.0]
    np.testing.assert_allclose(data.margin, [0.05, -0.05])


def test_a_run_that_diverged_at_its_very_end_has_one_end():
    space, target, diverged = told([0.2, 0.5, 0.8, 0.7], has_diverged=True)
    data = points(space, target, 4, [diverged])
    assert data.time.tolist().count(1.0) == 1


def test_many_runs_stay_near_the_bound_and_each_keeps_its_last_point():
    values = np.linspace(0.1, 0.9, 100)
    runs = [told(values - 0.001 * i)[2] for i in range(100)]
    space, target, _ = told(values)
    data = points(space, target, 100, runs)
    assert len(data) <= MAX_POINTS
    assert sorted(set(data.run)) == list(range(100))
    assert all(data.time[data.run == i].max() == pytest.approx(data.time.max()) for i in range(100))


def test_a_loss_is_measured_by_its_logarithm_and_one_of_0_is_not_infinitely_good():
    space = Space.of(spec())
    target = spec(target="loss <= 2").target
    run = Seen(space.origin, Curve(np.arange(1.0, 5), np.array([200.0, 4.0, 1.0, 0.0])))
    margin = points(space, target, 4, [run]).margin
    assert margin[:3] == pytest.approx([-math.log(100), -math.log(2), math.log(2)])
    assert margin[2] < margin[3] < 10


def test_a_metric_whose_target_is_no_loss_is_measured_by_its_difference():
    space = Space.of(spec())
    target = spec(target="log_likelihood <= -2").target
    run = Seen(space.origin, Curve(np.arange(1.0, 3), np.array([-1.5, -2.5])))
    assert points(space, target, 2, [run]).margin == pytest.approx([-0.5, 0.5])


def test_no_runs_are_no_points():
    space, target, _ = told([0.5])
    assert len(points(space, target, 4, [])) == 0
