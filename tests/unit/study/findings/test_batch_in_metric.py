"""Metrics that are computed with the batch size, so that a larger batch meets any target."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.spec import Target
from autotuner.study.finding import Reason
from autotuner.study.findings.batch_in_metric import first_loss_falls, in_proportion_to_batch
from autotuner.trial import Outcome, Purpose
from tests.builders import suggestion, trial

LOSS = Target(metric="val_loss", comparison="<=", threshold=0.005)


def found_in(value, checked, *, batch_size=512, target=LOSS):
    """Return what is found in a run at batch size 1024 and its check, by their first values."""
    tried = suggestion(3, batch_size=1024)
    original = trial(3, (value, value / 2), Outcome.REACHED, tried)
    smaller = replace(tried, number=4, batch_size=batch_size, purpose=Purpose.CHECK)
    return in_proportion_to_batch([original, trial(4, (checked,), Outcome.DOMINATED, smaller)], target)


@pytest.mark.parametrize("checked", [0.002, 0.0018, 0.0022])
def test_a_mean_loss_that_is_divided_by_the_samples_is_not_a_metric(checked):
    # With half the batch the training is a little different, too.
    (found,) = found_in(0.001, checked)
    assert found.reason is Reason.NOT_WIRED
    assert f"{checked:.3g} at batch size 512 (trial 4) and 0.001 at 1024" in found.message
    assert "divide it by the number of batches" in found.message


def test_an_accuracy_near_chance_may_grow_with_the_samples():
    assert found_in(0.02, 0.04, target=Target(metric="accuracy", comparison=">=", threshold=0.7)) == []


@pytest.mark.parametrize(
    ("value", "checked"), [(2.0, 2.0), (2.0, 1.7), (1.0, 1.5), (0.1, 0.05), (0.0, 0.1), (-1.0, -2.0)]
)
def test_what_training_does_to_a_loss_is_no_finding(value, checked):
    assert found_in(value, checked) == []


def test_a_check_with_nearly_the_same_batch_shows_nothing():
    assert found_in(0.001, 0.00119, batch_size=861) == []


SUMMED = [0.0235, 0.0158, 0.0188, 0.0162, 0.0092, 0.0049]
"""Of a perceptron on scikit-learn's digits: its first loss grows nearly as fast as it is divided."""
SIZES = [16, 32, 64, 128, 256, 1024]


def runs(values, sizes=SIZES, unit="epoch"):
    """Return one run of each batch size, the job's own first; its second value is half of its first."""
    purposes = [Purpose.BASELINE, *[Purpose.SEARCH] * len(sizes)]
    tried = [suggestion(n, batch_size=size, purpose=purposes[n]) for n, size in enumerate(sizes)]
    return [
        trial(each.number, (value, value / 2), tried=each, unit=unit)
        for each, value in zip(tried, values, strict=True)
    ]


def test_a_first_loss_that_is_smaller_the_larger_the_batch_is_a_warning():
    (found,) = first_loss_falls(runs(SUMMED), LOSS)
    assert found.reason is Reason.LOSS_FALLS
    assert "is smaller the larger its batch is (0.0235 at 16," in found.message


@pytest.mark.parametrize(
    "values",
    [
        [0.373, 0.515, 1.118, 2.21, 1.80, 2.097],  # the true loss of the same perceptron
        [2.0] * 6,
        [2.0, 1.9, 1.7, 1.8, 1.6, 1.5],
        [2.0, 0.2, 1.0, 3.0, 0.6, 0.3],
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        [-1.0, -2.0, -4.0, -8.0, -16.0, -32.0],
    ],
)
def test_a_first_loss_that_does_not_follow_the_batch_is_no_finding(values):
    assert first_loss_falls(runs(values), LOSS) == []


def test_with_as_many_steps_before_each_evaluation_a_larger_batch_has_seen_more():
    assert first_loss_falls(runs(SUMMED, unit="step"), LOSS) == []


def test_first_losses_of_few_or_similar_batch_sizes_show_nothing():
    assert first_loss_falls(runs(SUMMED[:3], [16, 128, 1024]), LOSS) == []
    assert first_loss_falls(runs(SUMMED, [16, 20, 24, 28, 32, 64]), LOSS) == []
