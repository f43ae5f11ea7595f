import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autotuner.search.space import Space
from autotuner.spec import Target
from autotuner.study.curve import clean
from autotuner.study.setting import Setting
from autotuner.trial import Measurement
from tests.builders import spec

TEXT = """
learning_rate: {min: 0.001, max: 10, log: true}
layers: {min: 2, max: 9, type: int}
optimizer: [sgd, lars, lamb]
decay: {min: 0, max: 0.5}
"""
GIVEN = {"batch_size": 32, "learning_rate": 0.1}


def space() -> Space:
    return Space.of(spec(baseline=GIVEN, search_space=TEXT))


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_a_place_is_a_setting_that_is_allowed_and_comes_back(numbers: list[float]):
    place = space().scattered(np.array([numbers]))[0]
    setting = space().setting(place)
    parameters = setting.parameters
    assert 16 <= setting.batch_size <= 256
    assert 0.001 <= parameters["learning_rate"] <= 10
    assert parameters["layers"] in range(2, 10)
    assert parameters["optimizer"] in {"sgd", "lars", "lamb"}
    assert 0 <= parameters["decay"] <= 0.5
    assert space().setting(space().coordinates(setting)) == setting


def test_what_the_job_leaves_unset_stands_at_the_centre_or_the_first_choice():
    assert space().complete({"learning_rate": 0.1}) == {
        "learning_rate": 0.1,
        "layers": 6,
        "optimizer": "sgd",
        "decay": 0.25,
    }


def test_carrying_a_setting_scales_the_learning_rate_and_stays_in_its_range():
    start = Setting.of(16, {"learning_rate": 8.0})
    assert space().scaled(start, 64, 1.0).parameters == {"learning_rate": 10.0}
    assert space().scaled(start, 32, 0.0).parameters == {"learning_rate": 8.0}


def test_carried_places_do_not_differ_but_in_batch_size():
    place = space().coordinates(Setting.of(16, {"learning_rate": 0.01}))[None]
    moved = space().carried(place, np.array([0.75]), 0.5)
    gap = space().differences(place, moved, np.array([0.5, 0, 0, 0, 0]))[:, 0, 0]
    np.testing.assert_allclose(gap[1:], 0, atol=1e-12)
    assert gap[0] == -0.75


def test_parameters_in_any_order_are_one_setting():
    assert Setting.of(16, {"a": 1, "b": 2}) == Setting.of(16, {"b": 2, "a": 1})


def test_of_two_values_at_a_step_the_last_counts_and_those_not_finite_go():
    points = [(2, 0.5), (1, 0.1), (2, 0.7), (3, float("nan")), (float("inf"), 1.0), (-1, 1.0)]
    curve = clean(tuple(Measurement(step, value) for step, value in points))
    assert curve.steps.tolist() == [1, 2]
    assert curve.values.tolist() == [0.1, 0.7]


def test_an_empty_curve_meets_nothing():
    target = Target(metric="loss", comparison="<=", threshold=1.0)
    assert not clean(()).meets(target)
    assert clean((Measurement(1, 0.5),)).meets(target)


def test_a_curve_meets_what_its_values_meet():
    target = Target(metric="accuracy", comparison=">=", threshold=0.94)
    for value in (0.9399999976158142, 0.9399999, 0.94):
        assert clean((Measurement(1, value),)).meets(target) == target.is_met(value)
