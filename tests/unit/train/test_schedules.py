"""Curves over a run, schedulers made of them, and scaling rules."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autotuner.train.scaling import AdamSettings, linear_rate, malladi, square_root_rate
from autotuner.train.schedules import (
    SCHEDULES,
    constant,
    cosine,
    final_collapse,
    make_curve,
    make_schedule,
    polynomial,
    warmup,
)


@pytest.mark.parametrize(
    ("curve", "points"),
    [
        (constant(), {0: 1, 0.5: 1, 1: 1}),
        (polynomial(1), {0: 1, 0.25: 0.75, 1: 0}),
        (polynomial(2), {0: 1, 0.5: 0.25, 1: 0}),
        (polynomial(1, final=0.2), {0: 1, 0.5: 0.6, 1: 0.2}),
        (cosine(), {0: 1, 0.5: 0.5, 2 / 3: 0.25, 1: 0}),
        (cosine(final=0.5), {0: 1, 0.5: 0.75, 1: 0.5}),
        (warmup(0.2, polynomial(1)), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        (warmup(0.5, constant(), start=0.5), {0: 0.5, 0.25: 0.75, 0.5: 1, 1: 1}),
        (final_collapse(0.5, polynomial(1)), {0: 1, 0.5: 0.5, 0.75: 0.125, 1: 0}),
        (final_collapse(0.1, constant(), power=1), {0.9: 1, 0.95: 0.5, 1: 0}),
    ],
)
def test_a_curve_goes_through_its_points(curve, points):
    assert {at: pytest.approx(curve(at)) for at in points} == points


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "schedule": st.sampled_from(SCHEDULES),
            "warmup": st.floats(0, 0.9),
            "collapse": st.floats(0, 0.9),
            "final_rate": st.floats(0, 1),
            "power": st.floats(0.5, 4),
        },
    ),
    st.floats(0, 1),
)
def test_no_curve_leaves_the_range_of_rates(hyperparameters, progress):
    assert -1e-9 <= make_curve(hyperparameters)(progress) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("hyperparameters", "points"),
    [
        ({}, {0: 1, 0.5: 0.5, 1: 0}),
        ({"schedule": "linear", "warmup": 0.5, "final_rate": 0.5}, {0.25: 0.5, 0.5: 1, 0.75: 0.75, 1: 0.5}),
        ({"schedule": "polynomial", "power": 3.0}, {0.5: 0.125}),
        ({"schedule": "constant", "collapse": 0.5, "warmup": 0.0}, {0.5: 1, 0.75: 0.25, 1: 0}),
    ],
)
def test_a_curve_is_made_by_name(hyperparameters, points):
    curve = make_curve(hyperparameters)
    assert {at: pytest.approx(curve(at)) for at in points} == points


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_curve({"schedule": "step"}),
        lambda: warmup(1.0, constant()),
        lambda: final_collapse(-0.1, constant()),
        lambda: polynomial(0.0),
        lambda: make_curve({"final_rate": -0.1}),
        lambda: make_curve({"schedule": "linear", "final_rate": 1.5}),
        lambda: make_curve({"schedule": "polynomial", "final_rate": float("nan")}),
        lambda: make_schedule(optimizer(), constant(), steps=0),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"must be|is a part of the run"):
        make()


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)


def rates(curve, steps, taken):
    sgd = optimizer()
    schedule = make_schedule(sgd, curve, steps=steps)
    found = []
    for _ in range(taken):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    return found


def test_a_run_has_the_same_shape_in_many_steps_and_in_few():
    curve = warmup(0.25, polynomial(1))
    small, large = rates(curve, 64, 64), rates(curve, 4, 4)
    assert [pytest.approx(sum(small[i : i + 16]) / 16) for i in range(0, 64, 16)] == large
    assert min(large) > 0


def test_a_run_that_continues_past_its_end_keeps_the_last_rate():
    assert rates(polynomial(1), 4, 6) == [
        pytest.approx(2 * f) for f in (0.875, 0.625, 0.375, 0.125, 0.125, 0.125)
    ]


def test_rates_follow_the_batch_size():
    assert linear_rate(0.1, batch_size=256, new_batch_size=8192) == pytest.approx(3.2)
    assert square_root_rate(0.1, batch_size=256, new_batch_size=1024) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="at least 1"):
        linear_rate(0.1, batch_size=0, new_batch_size=1)


def test_malladis_rule_keeps_the_time_constants_of_the_moments_in_samples():
    small = AdamSettings(learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8)
    large = malladi(small, batch_size=256, new_batch_size=1024)
    assert large.learning_rate == pytest.approx(2e-3)
    assert (large.beta1, large.beta2) == (pytest.approx(0.6), pytest.approx(0.996))
    assert large.epsilon == pytest.approx(5e-9)
    assert malladi(large, batch_size=1024, new_batch_size=256).beta2 == pytest.approx(0.999)


def test_malladis_rule_says_where_it_ends():
    with pytest.raises(ValueError, match="below 2560"):
        malladi(AdamSettings(1e-3), batch_size=256, new_batch_size=4096)
