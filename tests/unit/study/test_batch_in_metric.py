"""Metrics that are computed with the batch size, so that a larger batch meets any target."""

from __future__ import annotations

import pytest

from autotuner.spec import Target
from autotuner.study.batch_in_metric import in_proportion_to_batch
from autotuner.study.finding import Reason
from autotuner.trial import Purpose
from tests.builders import suggestion, trial

LOSS = Target(metric="val_loss", comparison="<=", threshold=0.005)
SIZES = [64, 128, 256, 512, 1024, 2048]


def runs(values, sizes=SIZES):
    """Return one run of each batch size, the job's own first; its second value is half of its first."""
    return [
        trial(
            number,
            (value, value / 2),
            tried=suggestion(number, batch_size=size, purpose=Purpose.SEARCH if number else Purpose.BASELINE),
        )
        for number, (size, value) in enumerate(zip(sizes, values, strict=True))
    ]


@pytest.mark.parametrize("learning", [[1.0] * 6, [1.4, 1.5, 1.3, 1.7, 1.9, 2.2]])
def test_a_mean_loss_that_is_divided_by_the_samples_is_not_a_metric(learning):
    # Learning rates and fewer updates change the loss of the first epoch a little, too.
    (found,) = in_proportion_to_batch(runs([v / b for v, b in zip(learning, SIZES, strict=True)]), LOSS)
    assert found.reason is Reason.NOT_WIRED
    assert "divide it by the number of batches" in found.message
    assert f"{learning[0] / 64:.3g} at 64" in found.message


def test_an_accuracy_near_chance_may_grow_with_the_samples():
    target = Target(metric="accuracy", comparison=">=", threshold=0.7)
    assert in_proportion_to_batch(runs([0.01 * size / 64 for size in SIZES]), target) == []


@pytest.mark.parametrize(
    "values",
    [
        [2.0] * 6,
        [0.005] * 6,
        [1.2, 1.4, 1.1, 1.8, 2.0, 2.3],  # a larger batch has had fewer updates
        [0.02, 0.04, 0.08, 0.16, 0.32, 0.64],  # and may be as much worse
        [2.0, 1.5, 1.1, 0.9, 0.7, 0.6],  # more samples in as many steps
        [2.0, 1.0, 2.0, 0.3, 0.6, 0.05],
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
        [-1.0, -2.0, -4.0, -8.0, -16.0, -32.0],
    ],
)
def test_what_training_does_to_a_loss_is_no_finding(values):
    assert in_proportion_to_batch(runs(values), LOSS) == []


def test_few_or_similar_batch_sizes_show_nothing():
    assert in_proportion_to_batch(runs([1 / 64, 1 / 512, 1 / 2048], [64, 512, 2048]), LOSS) == []
    near = [64, 80, 100, 128, 256]
    assert in_proportion_to_batch(runs([1 / size for size in near], near), LOSS) == []
