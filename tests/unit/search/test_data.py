"""What the model is fed: runs as points, with what their end says."""

import numpy as np
import pytest

from autotuner.search.curve import Curve
from autotuner.search.data import MAX_POINTS, Seen, points
from autotuner.search.space import Space
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


def test_no_runs_are_no_points():
    space, target, _ = told([0.5])
    assert len(points(space, target, 4, [])) == 0
