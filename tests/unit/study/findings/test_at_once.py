"""Runs that met the target at their first value, as if it were measured before the training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.spec import Target
from autotuner.study.finding import Reason
from autotuner.study.findings.at_once import met_at_once, met_at_once_but_first, never_worse
from autotuner.trial import Measurement, Purpose
from tests.builders import suggestion, trial

TARGET = Target(metric="accuracy", comparison=">=", threshold=0.9)


def runs(values, batches, later=0.5):
    """Return one run of each batch size, the job's own first, with a first value and later ones."""
    return [
        trial(
            number,
            tried=suggestion(
                number,
                batch_size=batch,
                seed=number,
                purpose=Purpose.SEARCH if number else Purpose.BASELINE,
            ),
            measurements=(
                Measurement(0.0, value),
                *(
                    Measurement(
                        float(step), value if later is None else round(later + number * 0.0123 + step / 71, 4)
                    )
                    for step in range(1, 5)
                ),
            ),
        )
        for number, (value, batch) in enumerate(zip(values, batches, strict=True))
    ]


DOUBLINGS = [32, 64, 128, 256, 512, 1024]


def test_a_first_value_that_no_training_changes_is_a_warning_or_with_enough_digits_a_proof():
    (warned,) = met_at_once(runs([0.9312] * 6, DOUBLINGS), TARGET)
    assert warned.reason is Reason.MET_AT_ONCE
    assert "before the training" in warned.message
    (proven,) = met_at_once(runs([0.9312] * 8, [*DOUBLINGS, 1024, 1024]), TARGET)
    assert proven.reason is Reason.NOT_WIRED


@pytest.mark.parametrize("value", [0.9917, 1.0])
def test_a_small_validation_set_proves_nothing(value):
    # 119 of 120 samples are right in all runs, first and last; or all are, as in an easy task.
    found = met_at_once(runs([value] * 20, [32 * 2**i for i in range(20)], later=None), TARGET)
    assert [finding.reason for finding in found] == [Reason.MET_AT_ONCE]


EACH_ITS_OWN = [0.9312, 0.9297, 0.9353, 0.9288, 0.9341, 0.9305]


def test_a_first_value_that_meets_the_target_in_every_run_is_a_warning_though_it_differs():
    # As where a pre-trained model is evaluated on a random part of the validation set before the training.
    (warned,) = met_at_once(runs(EACH_ITS_OWN, DOUBLINGS), TARGET)
    assert warned.reason is Reason.MET_AT_ONCE
    assert "before the training" in warned.message


def test_the_confirmations_of_one_setting_are_enough_for_the_warning():
    (warned,) = met_at_once(runs(EACH_ITS_OWN, [32, *[64] * 5]), TARGET)
    assert warned.reason is Reason.MET_AT_ONCE


def test_runs_that_print_their_metric_only_at_their_end_have_no_first_value_that_differs_from_the_last():
    once = [replace(run, measurements=run.measurements[:1]) for run in runs(EACH_ITS_OWN, DOUBLINGS)]
    assert met_at_once(once, TARGET) == []


@pytest.mark.parametrize(
    ("values", "batches"),
    [
        ([0.931] * 5 + [0.894], DOUBLINGS),  # one misses: it is measured after some training
        ([0.851234567] * 6, DOUBLINGS),  # the target is not met
        ([0.931234567] * 6, [32] * 6),  # one setting only
        ([0.931234567] * 3, DOUBLINGS[:3]),  # too few
    ],
)
def test_other_first_values_are_no_finding(values, batches):
    assert met_at_once(runs(values, batches), TARGET) == []


def test_without_the_jobs_own_run_nothing_is_found():
    assert met_at_once(runs([0.931234567] * 6, DOUBLINGS)[1:], TARGET) == []


def once(values):
    """Return ended runs with one value each, the first of which is the job's own."""
    batches = [32 * 2**i for i in range(len(values))]
    return [replace(run, measurements=run.measurements[:1]) for run in runs(values, batches)]


def test_runs_with_one_value_may_all_show_a_file_of_another_trial():
    (warned,) = met_at_once(once([0.9312] * 6), TARGET)
    assert "a file that another trial has left" in warned.message


def test_the_best_checkpoint_of_all_trials_is_told_by_values_that_never_fall():
    (warned,) = never_worse(once([0.9674, 0.9674, 0.9674, 0.9681, 0.9681, 0.9681, 0.9681]), TARGET)
    assert warned.reason is Reason.NEVER_WORSE
    assert "the best of all trials so far" in warned.message


@pytest.mark.parametrize(
    "values",
    [
        [0.9674, 0.9674, 0.9681, 0.9681, 0.9681, 0.9681],  # too few
        [0.9674, 0.9674, 0.9681, 0.9681, 0.9681, 0.9681, 0.9672],  # the last one is worse
        [0.951, 0.952, 0.953, 0.954, 0.955, 0.956, 0.956],  # hardly any are the same
        [0.9674] * 7,
    ],
)
def test_values_of_their_own_are_no_finding(values):
    assert never_worse(once(values), TARGET) == []


def test_curves_are_no_single_values():
    assert never_worse(runs([0.5, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6], [*DOUBLINGS, 2048]), TARGET) == []


def of_epochs(values, batches=DOUBLINGS):
    """Return runs with a value after each epoch, which the log names so."""
    return [replace(run, unit="epoch") for run in runs(values, batches)]


LEFT = [0.695, 0.931, 0.929, 0.935, 0.928, 0.934]
"""First values of runs that start from the weights of the one before."""


def test_runs_that_all_begin_where_the_jobs_own_run_had_to_learn_are_a_warning():
    (warned,) = met_at_once_but_first(of_epochs(LEFT), TARGET)
    assert warned.reason is Reason.MET_AT_ONCE
    assert warned.trials == (1, 2, 3, 4, 5)
    assert "trial 0, began with 0.695" in warned.message
    assert "$(AUTOTUNER_OUTPUT_DIR)" in warned.message


@pytest.mark.parametrize(
    ("values", "batches"),
    [
        ([*LEFT[:-1], 0.894], DOUBLINGS),  # one had to learn, too
        ([0.931, *LEFT[1:]], DOUBLINGS),  # the job's own did not have to learn either
        (LEFT, [32, 16, 24, 40, 48, 64]),  # no batch is much larger
        (LEFT[:4], [32, 64, 256, 512]),  # too few
    ],
)
def test_runs_that_may_learn_faster_than_the_jobs_own_are_no_finding(values, batches):
    assert met_at_once_but_first(of_epochs(values, batches), TARGET) == []


def test_an_evaluation_every_so_many_steps_comes_after_more_samples_of_a_larger_batch():
    assert met_at_once_but_first(runs(LEFT, DOUBLINGS), TARGET) == []
