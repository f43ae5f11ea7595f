"""Metrics that are computed with the batch size, so that a larger batch meets any target."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.spec import Target
from autotuner.study.batch_in_metric import in_proportion_to_batch
from autotuner.study.finding import Reason
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
