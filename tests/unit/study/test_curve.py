"""Curves: cleaned, compared by their content, computed once a trial, and dropped with it."""

import gc
import tracemalloc

import pytest

from autotuner.study.curve import CURVES, clean
from autotuner.study.history import curve
from autotuner.trial import Measurement, Suggestion, Trial

MEBIBYTE = 1024 * 1024


def trial(number=0, points=3):
    return Trial(Suggestion(number, 256, {}, 1), tuple(Measurement(s, 0.1 + s) for s in range(points)))


def test_a_curve_is_in_order_finite_and_has_the_last_value_of_a_step():
    said = [(3, 0.3), (1, 0.1), (2, float("nan")), (float("inf"), 1), (-1, 1), (3, 0.4)]
    drawn = clean([Measurement(step, value) for step, value in said])
    assert drawn.steps.tolist() == [1, 3]
    assert drawn.values.tolist() == [0.1, 0.4]
    assert len(clean([])) == 0


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([5, 5, 5, 3, 3, 3, 2, 2, 2], [0, 3, 6, 8]),
        ([5] * 5 + [3] * 4 + [2] * 5, [0, 5, 9, 13]),  # a line more or less, where steps do not divide evenly
        ([5, 5, 5, 3, 3, 3, 3, 3, 3, 2, 2, 2], [0, 3, 6, 9, 11]),  # two evaluations with one value
        ([5, 5, 5, 3, 3, 3, 2], [0, 3, 6]),  # the last evaluation, printed once
        ([5, 5, 5, 3], [0, 3]),
        ([5, 5, 5, 5], [0, 3]),  # the first evaluation, or nothing is learnt
        ([5, 3, 3, 3], [0, 1, 2, 3]),  # evaluated each time
        ([5, 5, 3, 3, 2, 4, 4], [0, 1, 2, 3, 4, 5, 6]),  # evaluated each time, and printed with few digits
    ],
)
def test_an_evaluation_that_is_printed_again_counts_once_and_the_last_line_shows_how_far_the_run_is(
    values: list[float], steps: list[float]
):
    drawn = clean([Measurement(step, value) for step, value in enumerate(values)])
    assert drawn.steps.tolist() == steps
    assert drawn.values.tolist() == [values[step] for step in steps]


def test_curves_of_the_same_points_are_equal_whoever_drew_them():
    assert clean(trial().measurements) == clean(trial().measurements)
    assert hash(clean(trial().measurements)) == hash(clean(trial().measurements))
    assert clean(trial().measurements) != clean(trial(points=4).measurements)
    assert clean(trial(points=1).measurements) != clean([])


def test_the_curves_of_any_number_of_trials_are_each_computed_once():
    trials = [trial(number) for number in range(10_000)]
    first = [curve(each) for each in trials]
    assert all(curve(each) is known for each, known in zip(trials, first, strict=True))


def test_a_trial_that_is_read_again_and_again_leaves_nothing_behind():
    """One run of 9,000 measurements, polled 4,000 times while it grows."""
    points = [Measurement(step, 0.5) for step in range(9000)]
    gc.collect()
    before = len(CURVES)
    tracemalloc.start()
    for poll in range(4000):
        curve(Trial(Suggestion(0, 256, {}, 1), tuple(points[: 5000 + poll])))
        if poll == 100:
            gc.collect()
            early = tracemalloc.get_traced_memory()[0]
    gc.collect()
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(CURVES) == before
    assert late - early < MEBIBYTE / 10
