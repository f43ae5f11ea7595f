"""What rival priors say of settings that were not tried."""

from dataclasses import replace

import numpy as np
import pytest

from autotuner.search.ensemble import Earlier, Ends, Ensemble, _log_likelihood, rivals, unit
from autotuner.search.rivals import Frame, Plain
from autotuner.search.space import Space
from autotuner.study.setting import Setting
from tests.builders import spec

WIDE = "learning_rate: {min: 0.001, max: 10, log: true}"


def space(text: str = WIDE, **known: float | str) -> Space:
    given = {"batch_size": 32, "learning_rate": 0.1, **known}
    return Space.of(spec(baseline=given, batch_size="16..1024", search_space=text))


def ends(found: Space, runs: list[tuple[int, dict[str, float | str], float]]) -> Ends:
    places = np.array([found.coordinates(Setting.of(size, values)) for size, values, _ in runs])
    return Ends.own(places, np.array([margin for _, _, margin in runs]), np.zeros(len(runs)))


def chances(
    found: Space, told: Ends, asked: list[tuple[int, dict]], earlier: tuple[Earlier, ...] = ()
) -> np.ndarray:
    members, evidence = rivals(found, told, earlier)
    places = np.array([found.coordinates(Setting.of(size, values)) for size, values in asked])
    return Ensemble(members, evidence, unit(told)).chance(places)[0]


def rated(size: int, rate: float, margin: float) -> tuple[int, dict[str, float | str], float]:
    return size, {"learning_rate": rate}, margin


def test_no_learning_rate_is_likelier_beforehand_on_one_side_than_far_off():
    told = ends(space(), [rated(32, 0.1, 0.02)])
    near, far = chances(space(), told, [(32, {"learning_rate": 0.11}), (32, {"learning_rate": 5.0})])
    assert near > 0.8 > far


def test_the_hump_is_found_between_two_misses():
    told = ends(
        space(), [rated(32, 0.1, 0.02), rated(64, 0.1, 0.015), rated(64, 0.02, -0.05), rated(64, 0.6, -0.05)]
    )
    low, top, high = chances(space(), told, [(64, {"learning_rate": r}) for r in (0.02, 0.12, 0.6)])
    assert top > 0.7
    assert max(low, high) < 0.1


def test_a_script_that_multiplies_the_learning_rate_by_the_batch_size_is_noticed():
    def run(size: int, rate: float) -> tuple[int, dict[str, float | str], float]:
        off = np.log(rate * size / 32 / (0.1 * (size / 32) ** 0.5))
        return rated(size, rate, 0.03 - 0.02 * off**2)

    wide = space("learning_rate: {min: 0.0001, max: 10, log: true}")
    tried = [(32, 0.1), (64, 0.12), (64, 0.05), (128, 0.1), (128, 0.03), (256, 0.2), (256, 0.02)]
    told = ends(wide, [run(size, rate) for size, rate in tried])
    falling, same, rising = chances(
        wide, told, [(1024, {"learning_rate": 0.1 * 32**power}) for power in (-0.5, 0.0, 0.5)]
    )
    assert falling > 0.5
    assert max(same, rising) < 0.1


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_metric_does_not_matter(scale: float):
    runs = [rated(32, 0.1, 0.02), rated(64, 0.15, 0.01), rated(128, 0.2, -0.01), rated(128, 0.1, -0.03)]
    told = ends(space(), runs)
    scaled = ends(space(), [(size, values, scale * margin) for size, values, margin in runs])
    asked = [(96, {"learning_rate": 0.17}), (256, {"learning_rate": 0.3})]
    np.testing.assert_allclose(chances(space(), told, asked), chances(space(), scaled, asked), atol=1e-6)


def test_an_optimizer_is_not_given_up_for_its_learning_rate():
    text = "{learning_rate: {min: 0.0001, max: 1, log: true}, optimizer: [sgd, adamw]}"
    found = space(text, optimizer="sgd")
    told = ends(
        found,
        [
            (32, {"learning_rate": 0.1, "optimizer": "sgd"}, 0.02),
            (64, {"learning_rate": 0.1, "optimizer": "adamw"}, -0.2),
        ],
    )
    same, other = chances(
        found,
        told,
        [
            (64, {"learning_rate": 0.1, "optimizer": "adamw"}),
            (64, {"learning_rate": 0.003, "optimizer": "adamw"}),
        ],
    )
    assert other > 2 * same


def study(top: float) -> list[tuple[int, dict[str, float | str], float]]:
    """Runs whose best learning rate is `top` times the square root of the batch size over 32."""
    return [
        rated(
            size,
            rate,
            0.02 - 0.01 * np.log2(size / 32) - 0.02 * np.log(rate / (top * (size / 32) ** 0.5)) ** 2,
        )
        for size in (32, 64, 128)
        for rate in (0.03, 0.1, 0.3, 1.0)
    ]


def test_an_earlier_study_that_is_alike_tells_and_one_that_is_not_is_not_believed():
    own = ends(space(), study(0.1)[:2])
    alike, unlike = (Earlier(ends(space(), study(top)), None) for top in (0.1, 3.0))
    far, near = [(64, {"learning_rate": 0.9})], [(64, {"learning_rate": 0.14})]
    alone, told, misled = (chances(space(), own, near + far, e) for e in ((), (alike,), (unlike,)))
    assert told[0] > alone[0] - 0.05
    assert told[1] < alone[1]
    assert abs(misled[0] - alone[0]) < 0.35


def test_the_same_training_is_known_whatever_its_target_was():
    before = ends(space(), study(0.1))
    # At 128 its best run missed its target by 0.007, which was higher by 0 or by 0.014 than this study's.
    before = replace(before, margin=before.margin - 0.004)
    asked = [(128, {"learning_rate": 0.25})]
    # What a few dozen samples say differs by 0.2 from one set of samples to another.
    own = [ends(space(), study(0.1)[:count]) for count in range(1, 6)]
    misses, meets = (
        np.mean([chances(space(), one, asked, (Earlier(before, shift),)) for one in own])
        for shift in (0.0, 0.014)
    )
    assert misses < 0.3
    assert meets > 0.5


def test_what_confirmation_still_owes_decides_the_chance_to_be_confirmed():
    told = ends(space(), [rated(32, 0.1, 0.02), rated(64, 0.14, 0.005)])
    members, evidence = rivals(space(), told)
    ensemble = Ensemble(members, evidence, unit(told))
    places = np.repeat(told.place[1:], 4, axis=0)
    found = ensemble.confirmable(places, np.array([[3, 1], [1, 1], [0, 1], [1, -1]]))
    assert found[0] < found[1] < found[2] == 1
    assert found[3] == 0


def test_a_draw_is_as_likely_beside_one_whose_covariance_has_no_root():
    plain, told = Plain(Frame(space())), ends(space(), [rated(32, 0.1, 0.02)] * 3)
    values = np.zeros((2, plain.size))
    values[1, [name for name, p in plain.parameters.items() if p.count].index("height")] = 40.0
    good, without_root = _log_likelihood(plain, plain.frame.features(told.place), told, values)
    (alone,) = _log_likelihood(plain, plain.frame.features(told.place), told, values[:1])
    assert good == pytest.approx(alone)
    assert without_root < alone
