"""No batch is confirmed that holds the whole data set."""

from dataclasses import replace

import pytest

from autotuner.decide import decide
from autotuner.decide.decision import Reason, StopReason
from autotuner.errors import InvalidJob
from autotuner.study.findings.data_size import batches_larger_than_data, largest_batch
from autotuner.trial import Outcome, Purpose
from tests.builders import NOON, spec, suggestion, trial

RISING = (0.5, 0.8, 0.93)


def baseline(**extras):
    made = trial(0, RISING, Outcome.REACHED, suggestion(0, batch_size=32, purpose=Purpose.BASELINE))
    return replace(made, extras=extras, is_complete=True)


def tried(number, batch_size, outcome=Outcome.REACHED, purpose=Purpose.SEARCH, **extras):
    made = trial(number, RISING, outcome, suggestion(number, batch_size=batch_size, purpose=purpose))
    return replace(made, extras=extras)


@pytest.mark.parametrize(("steps", "is_found"), [(0, True), (1, True), (2, False), (-1, False)])
def test_a_run_of_one_step_an_epoch_or_none_is_noticed(steps, is_found):
    found = batches_larger_than_data([baseline(), tried(1, 256, steps_per_epoch=steps)], spec())
    assert bool(found) is is_found
    if found:
        assert "holds the whole data set" in found[0].message


def test_the_jobs_own_batch_size_is_its_owners_affair():
    assert batches_larger_than_data([baseline(steps_per_epoch=1)], spec()) == []


@pytest.mark.parametrize(
    ("runs", "most"),
    [
        ([baseline()], None),
        ([baseline(samples_per_epoch=100)], 100),
        ([baseline(samples_per_epoch=100, steps_per_epoch=4)], 100),
        # Steps of 32 samples make 800: the 100 are those of one process of eight.
        ([baseline(samples_per_epoch=100, steps_per_epoch=25)], None),
        ([baseline(), tried(1, 256, steps_per_epoch=1)], 128),
        ([baseline(), tried(1, 256, steps_per_epoch=0), tried(2, 128, steps_per_epoch=1)], 64),
    ],
)
def test_runs_tell_the_largest_batch_that_the_data_set_fills(runs, most):
    assert largest_batch(runs, spec()) == most


def test_no_batch_is_proposed_that_is_larger_than_the_data_set():
    runs = [baseline(samples_per_epoch=100, steps_per_epoch=4)]
    for number in range(1, 6):
        (suggested, *_) = decide(spec(), runs, NOON).start
        assert suggested.batch_size <= 100
        runs.append(replace(trial(number, RISING, Outcome.REACHED, suggested), is_complete=True))


def test_a_run_whose_batch_holds_the_data_set_is_stopped_and_does_not_count():
    running = tried(1, 256, None, steps_per_epoch=1)
    decision = decide(spec(), [baseline(), running], NOON)
    (stop,) = decision.stop
    assert (stop.outcome, stop.reason) == (Outcome.DOMINATED, StopReason.LARGER_THAN_DATA)
    assert any("holds the whole data set" in warning for warning in decision.warnings)
    assert all(suggested.batch_size <= 128 for suggested in decision.start)


def test_confirmations_whose_batch_holds_the_data_set_confirm_nothing():
    runs = [
        baseline(),
        *(tried(n, 256, purpose=Purpose.CONFIRM, steps_per_epoch=1) for n in range(1, 6)),
    ]
    decision = decide(spec(), runs, NOON)
    assert decision.answer is None or decision.answer.batch_size <= 128
    assert decision.reason is not Reason.PROGRAM_FAILS


def test_samples_bound_the_batch_size():
    assert spec(samples="100").batch_size.maximum == 100
    assert spec(samples="10000").batch_size.maximum == 256


def test_samples_below_the_smallest_batch_size_are_a_mistake():
    with pytest.raises(
        InvalidJob, match=r"samples is '10': must be at least the smallest batch size of .*16"
    ):
        spec(samples="10")
