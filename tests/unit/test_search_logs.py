"""The ways in which scripts log and run, as the benchmark of the search plays them."""

import pytest

from tests.benchmarks.search_logs import SAMPLES, WAYS, Way

CURVE = (0.5, 0.7, 0.8, 0.85, 0.84, 0.83, 0.82, 0.9)


@pytest.mark.parametrize(
    ("way", "steps"),
    [
        ("epochs", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("from-zero", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("optimizer-steps", [20, 40, 60, 80, 100, 120, 140, 160]),
        ("every-fifth", [5, 8]),
        ("every-100-steps", [100]),
    ],
)
def test_a_way_has_its_steps(way: str, steps: list[int]):
    assert SAMPLES == 20 * 100
    measured = list(WAYS[way].measured(CURVE, len(CURVE), 100))
    assert [m.step for m in measured] == steps
    assert measured[-1].value == (CURVE[4] if way == "every-100-steps" else CURVE[-1])


def test_a_batch_that_is_too_large_is_never_evaluated():
    assert list(WAYS["every-100-steps"].measured(CURVE, len(CURVE), 1000)) == []


@pytest.mark.parametrize(("patience", "sign", "length"), [(0, 1, 8), (3, 1, 7), (4, 1, 8), (3, -1, 4)])
def test_a_script_stops_after_some_epochs_without_a_better_value(patience: int, sign: int, length: int):
    assert len(Way(patience=patience).shortened(CURVE, sign)) == length
