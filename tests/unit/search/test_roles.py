"""What is expected of a hyperparameter by its name and range."""

import math

import numpy as np
import pytest

from autotuner.search.data import Points
from autotuner.search.kernel import Kernel, Prior
from autotuner.search.prior import Role, usual_shift
from autotuner.search.rivals import Frame, Hump
from autotuner.search.space import Space
from autotuner.study.setting import Setting
from tests.builders import spec


def space(text: str, **known: float | str) -> Space:
    given = {"batch_size": 32, "learning_rate": 0.1, **known}
    rate = "learning_rate: {min: 0.001, max: 1, log: true}\n"
    return Space.of(spec(baseline=given, search_space=rate + text))


def kernel(found: Space) -> Kernel:
    """The kernel before anything is known."""
    data = Points(np.zeros((1, found.size)), np.zeros(2, dtype=int), np.ones(2), np.array([-0.1, 0.0]))
    return Kernel(found, Prior.of(found, data).mean)


def expected(found: Space, **values: float | str) -> float:
    """The prior mean at the known-good setting with other values."""
    assert found.origin is not None
    place = found.coordinates(Setting.of(32, {**found.origin.parameters, **values}))
    return float(kernel(found).mean(place[None])[0])


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("momentum: {min: 0, max: 0.99}", Role.MOMENTUM),
        ("sgd_momentum: {min: 0.5, max: 1}", Role.MOMENTUM),
        ("momentum: {min: 0, max: 10}", Role.OTHER),
        ("bn_momentum: {min: 0.01, max: 0.5}", Role.OTHER),
        ("batch_norm_momentum: {min: 0.01, max: 0.5}", Role.OTHER),
        ("teacher_momentum: {min: 0.9, max: 0.999}", Role.OTHER),
        ("ema_decay: {min: 0.9, max: 0.9999, log: true}", Role.OTHER),
        ("lr_decay: {min: 0.01, max: 1, log: true}", Role.OTHER),
        ("head_weight_decay: {min: 1.0e-6, max: 0.1, log: true}", Role.WEIGHT_DECAY),
        ("decay: {min: 1.0e-6, max: 0.1, log: true}", Role.WEIGHT_DECAY),
        ("momentum: [0, 0.9]", Role.CHOICE),
        ("beta1: {min: 0.8, max: 0.99}", Role.OTHER),
        ("weight_decay: {min: 1.0e-6, max: 0.1, log: true}", Role.WEIGHT_DECAY),
        ("wd: {min: 1.0e-6, max: 0.1, log: true}", Role.WEIGHT_DECAY),
        ("weight_decay: {min: 0, max: 0.1}", Role.OTHER),
        ("layers: {min: 1, max: 9, type: int}", Role.OTHER),
    ],
)
def test_roles_go_by_name_and_range(line: str, role: Role):
    assert sorted(space(line).roles) == sorted([Role.BATCH_SIZE, Role.LEARNING_RATE, role])


def test_no_direction_is_promising_beforehand():
    momentum = space("momentum: {min: 0.1, max: 0.99}", momentum=0.5)
    rate = 0.1 * (0.1 / 0.5) ** 0.9  # of which the same is left beside the longer memory
    assert expected(momentum, momentum=0.9, learning_rate=rate) <= expected(momentum)
    assert expected(momentum, learning_rate=0.05) == pytest.approx(expected(momentum, learning_rate=0.2))
    other = space("dropout: {min: 0, max: 1}", dropout=0.5)
    assert expected(other, dropout=0.8) == pytest.approx(expected(other, dropout=0.2))
    assert expected(other, dropout=0.8) < expected(other)


def test_the_same_step_is_expected_to_do_the_same_in_a_wide_range_and_in_a_narrow_one():
    wide = space("weight_decay: {min: 1.0e-7, max: 0.1, log: true}", weight_decay=1e-3)
    narrow = space("weight_decay: {min: 1.0e-4, max: 0.01, log: true}", weight_decay=1e-3)
    lost = [expected(s) - expected(s, weight_decay=4e-3) for s in (wide, narrow)]
    assert lost[0] == pytest.approx(lost[1])
    assert lost[0] > 0


def test_the_learning_rate_gives_way_to_momentum():
    found = space("momentum: {min: 0.1, max: 0.99}", momentum=0.5)

    def apart(rate: float) -> float:
        assert found.origin is not None
        there = found.coordinates(Setting.of(32, {"learning_rate": rate, "momentum": 0.9}))
        gap = kernel(found).differences(found.coordinates(found.origin)[None], there[None])
        return abs(float(gap[1, 0, 0]))

    assert apart(0.05) < apart(0.1) < apart(0.2)


@pytest.mark.parametrize("high", [0.9999, 1])
def test_momenta_close_to_one_are_distinguished(high: float):
    found = space(f"momentum: {{min: 0.9991, max: {high}}}", momentum=0.9991)
    places = [
        found.coordinates(Setting.of(32, {"learning_rate": 0.1, "momentum": m})) for m in (0.9991, 0.9997)
    ]
    gap = kernel(found).differences(places[0][None], places[1][None])[:, 0, 0]
    # A third of the distance to 1 is left.
    assert abs(gap[1:]).min() > 0.1
    features = Frame(found).features(np.array(places))
    assert features.memory[1] - features.memory[0] == pytest.approx(math.log(3))


def test_a_narrow_range_of_momentum_is_tried_in_fine_steps():
    found = space("momentum: {min: 0.9991, max: 0.9999}", momentum=0.9991)
    places = found.scattered(np.linspace(0, 1, 200)[:, None] * np.ones(found.size))
    assert len({found.setting(place).parameters["momentum"] for place in places}) == 200


def test_another_optimizer_is_neither_a_slope_nor_a_distance():
    found = space("optimizer: [sgd, lars]", optimizer="sgd")
    assert expected(found, optimizer="lars") == expected(found)


@pytest.mark.parametrize(
    ("known", "other", "times"),
    [
        ("sgd", "adamw", 0.1),
        ("AdamW", "SGD", 10),
        ("adam", "rmsprop", 1),
        ("sgd", "nesterov", 1),
        ("sgd", "lars", 1),
        ("mine", "yours", 1),
    ],
)
def test_an_optimizer_that_normalises_the_gradient_is_expected_to_want_a_lower_rate(
    known: str, other: str, times: float
):
    assert math.exp(usual_shift(known, other)) == pytest.approx(times)


def test_the_hump_of_another_optimizer_is_where_such_optimizers_have_theirs():
    found = space("optimizer: [sgd, adamw]", optimizer="sgd")
    hump = Hump(Frame(found))
    rates = np.geomspace(0.001, 1, 61)

    def top(optimizer: str) -> float:
        settings = [Setting.of(32, {"learning_rate": rate, "optimizer": optimizer}) for rate in rates]
        features = hump.frame.features(np.array([found.coordinates(s) for s in settings]))
        return float(rates[hump.mean(hump.read(np.zeros((1, hump.size))), features)[0].argmax()])

    assert top("sgd") == pytest.approx(0.1, rel=0.1)
    assert top("adamw") == pytest.approx(0.01, rel=0.1)
