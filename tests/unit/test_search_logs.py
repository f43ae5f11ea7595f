"""The ways in which scripts log and run, as the benchmark of the search plays them."""

import pytest

from tests.benchmarks.search.families import load
from tests.benchmarks.search_logs import SAMPLES, WAYS, Logged, Way

CURVE = (0.5, 0.7, 0.8, 0.85, 0.84, 0.83, 0.82, 0.9)


@pytest.mark.parametrize(
    ("way", "steps"),
    [
        ("epochs", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("from-zero", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("optimizer-steps", [20, 40, 60, 80, 100, 120, 140, 160]),
        ("every-fifth", [5, 8]),
        ("every-100-steps", [100]),
        ("every-tenth-of-an-epoch", [1 + tenth / 10 for tenth in range(71)]),
        ("printed-ten-times", [1 + tenth / 10 for tenth in range(71)]),
    ],
)
def test_a_way_has_its_steps(way: str, steps: list[int]):
    assert SAMPLES == 20 * 100
    measured = list(WAYS[way].measured(CURVE, len(CURVE), 100))
    assert [m.step for m in measured] == pytest.approx(steps)
    assert measured[-1].value == (CURVE[4] if way == "every-100-steps" else CURVE[-1])


def test_an_evaluation_is_printed_again_until_the_next_one():
    values = [m.value for m in WAYS["printed-ten-times"].measured(CURVE, len(CURVE), 100)]
    assert values == [value for value in CURVE[:-1] for _ in range(10)] + [CURVE[-1]]


def test_evaluations_within_an_epoch_lie_between_those_of_its_ends():
    values = [m.value for m in WAYS["every-tenth-of-an-epoch"].measured(CURVE, len(CURVE), 100)]
    assert values[::10] == pytest.approx(CURVE)
    assert values[5] == pytest.approx((CURVE[0] + CURVE[1]) / 2)


def test_a_batch_that_is_too_large_is_never_evaluated():
    assert list(WAYS["every-100-steps"].measured(CURVE, len(CURVE), 1000)) == []


@pytest.mark.parametrize(("patience", "sign", "length"), [(0, 1, 8), (3, 1, 7), (4, 1, 8), (3, -1, 4)])
def test_a_script_stops_after_some_epochs_without_a_better_value(patience: int, sign: int, length: int):
    assert len(Way(patience=patience).shortened(CURVE, sign)) == length


def test_a_script_multiplies_the_learning_rate_by_the_batch_size():
    problem = load("language-models")[0]
    size, rate = problem.baseline["batch_size"], problem.baseline["learning_rate"]
    script = Logged(problem, WAYS["rate-times-batch"])
    for factor in (1, 4):
        given, used = {"learning_rate": rate / factor}, {"learning_rate": rate}
        assert script.run(factor * size, given, 0) == problem.run(factor * size, used, 0)
        assert script.is_feasible(factor * size, given) == problem.is_feasible(factor * size, used)
