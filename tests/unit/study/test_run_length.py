"""A `run-length` in another unit than the log's is noticed before it ends runs."""

from dataclasses import replace
from datetime import timedelta

import pytest

from autotuner import wording
from autotuner.decide import decide
from autotuner.decide.decision import Phase, Reason
from autotuner.study.run_length import overdue_runs
from autotuner.trial import Measurement, Outcome, Purpose
from tests.builders import NOON, spec, suggestion, trial

BEST = (0.4, 0.7, 0.8, 0.85, 0.93)


def baseline(distance=63.0, values=BEST, outcome=None):
    """Return a run of the unchanged job that reports every `distance` steps."""
    made = trial(0, values, outcome, suggestion(0, batch_size=32, purpose=Purpose.BASELINE))
    steps = tuple(Measurement(distance * m.step, m.value) for m in made.measurements)
    return replace(made, measurements=steps, is_complete=None if outcome is None else True)


@pytest.mark.parametrize("outcome", [None, Outcome.REACHED])
@pytest.mark.parametrize("reports", [1, 5])
def test_epochs_for_a_log_of_optimizer_steps_hold_the_study(outcome, reports):
    seen = baseline(values=BEST[:reports], outcome=outcome)
    asked = spec(run_length="5")
    decision = decide(asked, [seen], NOON)
    assert (decision.phase, decision.reason) == (Phase.INVALID, Reason.RUN_LENGTH_TOO_SHORT)
    assert not decision.is_final
    assert (decision.start, decision.stop) == ((), ())
    said = wording.message(decision, asked)
    assert "run-length is 5, but the first accuracy of trial 0 is at step 63 of its log" in said
    assert "set run-length to the last step" in said


@pytest.mark.parametrize("length", [None, "315"])
def test_the_study_continues_once_it_is_right(length):
    decision = decide(spec(run_length=length), [baseline(outcome=Outcome.REACHED)], NOON)
    assert decision.phase is Phase.SEARCHING
    assert [s.purpose for s in decision.start] == [Purpose.SEARCH]


def test_a_single_report_may_be_a_little_after_it():
    decision = decide(spec(run_length="10000"), [baseline(10009, (0.93,), Outcome.REACHED)], NOON)
    assert decision.phase is Phase.SEARCHING


@pytest.mark.parametrize(("length", "is_warned"), [("5000", True), ("8", False), ("5", False), (None, False)])
def test_optimizer_steps_for_a_log_of_epochs_are_warned_of(length, is_warned):
    decision = decide(spec(run_length=length), [baseline(1, outcome=Outcome.REACHED)], NOON)
    assert decision.phase is Phase.SEARCHING
    assert len(decision.start) == 1
    assert [("ended at step 5 of its log" in text) for text in decision.warnings] == [True] * is_warned


def test_an_interrupted_run_does_not_show_where_runs_end():
    stopped = replace(baseline(1, BEST[:2], Outcome.LOST), is_complete=False)
    assert decide(spec(run_length="5000"), [stopped], NOON).warnings == ()


def test_a_job_that_misses_its_target_by_run_length_is_told_so():
    asked = spec(run_length="20")
    runs = [baseline(10, (0.2, 0.3), Outcome.MISSED)]
    runs += [replace(runs[0], suggestion=replace(runs[0].suggestion, number=n)) for n in (1, 2, 3)]
    decision = decide(asked, runs, NOON)
    assert decision.reason is Reason.BASELINE_MISSES
    assert "its best is 0.3 up to step 20 of its log, which run-length says is the last" in wording.message(
        decision, asked
    )


@pytest.mark.parametrize(
    ("hours", "asked", "is_told"), [(4.9, {}, False), (5.1, {}, True), (5.1, {"trial_timeout": "1d"}, False)]
)
def test_a_run_that_takes_ten_times_as_long_as_any_other_is_told_to_hang(hours, asked, is_told):
    """Its processes wait for one that has died: nothing ended it, and nothing said so."""
    running = trial(1, (), None, suggestion(1, batch_size=512))
    now = NOON + timedelta(hours=hours)
    found = overdue_runs([baseline(outcome=Outcome.REACHED), running], spec(**asked), now)
    assert [f.trials for f in found] == [(1,)] * is_told
    assert all("at batch size 512 has run more than 10 times as long" in f.message for f in found)
    assert all("set trial-timeout" in f.message for f in found)


def test_quick_runs_and_waiting_ones_are_not_told_to_hang():
    quick = replace(baseline(outcome=Outcome.REACHED), ended_at=NOON + timedelta(seconds=5))
    assert overdue_runs([quick, trial(1, (), None)], spec(), NOON + timedelta(minutes=9)) == []
    ended = replace(trial(1, (), None), ended_at=NOON + timedelta(seconds=5))
    assert overdue_runs([quick, ended], spec(), NOON + timedelta(hours=9)) == []
    waiting = replace(trial(1, (), None), started_at=None)
    assert overdue_runs([quick, waiting], spec(), NOON + timedelta(hours=9)) == []
