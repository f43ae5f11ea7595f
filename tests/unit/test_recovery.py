"""What a study knows about its runs, and how it recovers from failures and losses."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from autotuner.cli.retry import retried_at
from autotuner.decide import decide
from autotuner.decide.decision import Phase, Reason
from autotuner.study.history import History
from autotuner.study.ledger import decode_trial, encode_trial
from autotuner.trial import Outcome, Purpose
from autotuner.wording import message
from tests.builders import NOON, spec, suggestion, trial

RISING = (0.5, 0.8, 0.93)
LOW = (0.5, 0.8, 0.88)


def baseline(outcome=Outcome.REACHED, values=RISING, number=0, **changed):
    return trial(number, values, outcome, suggestion(number, purpose=Purpose.BASELINE), **changed)


def confirm(number, values, outcome, batch_size=64, **changed):
    tried = suggestion(number, purpose=Purpose.CONFIRM, batch_size=batch_size)
    return trial(number, values, outcome, tried, **changed)


# --- complete runs ---


@pytest.mark.parametrize("outcome", [Outcome.REACHED, Outcome.MISSED, Outcome.LOST])
def test_an_interrupted_baseline_does_not_fix_the_length_of_a_run(outcome):
    interrupted = baseline(outcome, RISING, is_complete=False)
    assert not History.of(spec(), [interrupted]).is_length_known


def test_a_baseline_that_met_the_target_and_was_interrupted_is_run_again_at_no_cost_to_the_budget():
    (again,) = decide(spec(), [baseline(is_complete=False)], NOON).start
    assert (again.purpose, again.rerun_of) == (Purpose.BASELINE, 0)


def test_without_a_known_length_no_run_is_stopped_for_having_run_it():
    interrupted = [baseline(is_complete=False), baseline(is_complete=False, number=1)]
    longer = trial(2, (0.3, 0.5, 0.7, 0.8), None)
    assert not decide(spec(), [*interrupted, longer], NOON).stop


def test_a_run_stopped_by_its_timeout_is_a_miss_and_no_whole_run():
    trials = [baseline(values=RISING * 2), trial(1, LOW, Outcome.MISSED, is_complete=False)]
    history = History.of(spec(), trials)
    assert history.run_length == 6
    assert history.has_missed(trials[1])


def test_completion_and_template_are_in_the_ledger():
    kept = decode_trial(encode_trial(trial(1, is_complete=False, template="t/r")))
    assert (kept.is_complete, kept.template) == (False, "t/r")


def test_old_ledgers_without_completion_are_read():
    assert decode_trial(encode_trial(trial(1))).is_complete is None


# --- divergence ---


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_running_trial_whose_metric_is_no_number_any_more_is_stopped(bad):
    (stop,) = decide(spec(), [baseline(), trial(1, (0.5, bad), None)], NOON).stop
    assert (stop.number, stop.outcome) == (1, Outcome.DIVERGED)


def test_a_run_that_shows_nan_before_its_first_evaluation_continues():
    assert not decide(spec(), [baseline(), trial(1, (math.nan,), None)], NOON).stop
    stops = decide(spec(), [baseline(), trial(1, (math.nan, 0.8), None)], NOON).stop
    assert all(stop.outcome is not Outcome.DIVERGED for stop in stops)


def test_a_run_of_nothing_but_nan_is_stopped_before_its_end():
    (stop,) = decide(spec(), [baseline(), trial(1, (math.nan,) * 3, None)], NOON).stop
    assert stop.outcome is Outcome.DIVERGED


# --- failures and losses ---


def test_a_lost_trial_is_run_again_with_the_layout_that_it_had():
    lost = trial(
        1, (), Outcome.LOST, suggestion(1, batch_size=64, workers=3, micro_batch_size=4, accumulation_steps=5)
    )
    (again,) = decide(spec(workers="1..8", micro_batch_size="1..64"), [baseline(), lost], NOON).start
    assert (again.workers, again.micro_batch_size, again.accumulation_steps) == (3, 4, 5)


def test_a_lost_baseline_is_run_again_unchanged():
    asked = spec(workers="1..8", micro_batch_size="1..4")
    (again,) = decide(asked, [baseline(Outcome.LOST, ())], NOON).start
    assert (again.workers, again.micro_batch_size, again.accumulation_steps) == (None, None, None)


def test_a_run_that_ended_well_without_the_metric_ends_the_study_at_once():
    silent = baseline(Outcome.FAILED, (), is_complete=True, message="no line carries accuracy")
    decision = decide(spec(), [silent], NOON)
    assert (decision.phase, decision.reason, decision.is_final) == (
        Phase.FAILED,
        Reason.METRIC_NOT_FOUND,
        True,
    )
    assert "no line carries accuracy" in message(decision, spec())


def test_a_silent_run_where_others_have_measured_is_one_failure_among_others():
    silent = trial(1, (), Outcome.FAILED, is_complete=True)
    assert decide(spec(), [baseline(), silent], NOON).phase is Phase.SEARCHING


def test_failures_count_for_the_template_that_they_happened_with():
    old = [baseline(Outcome.FAILED, (), n, template="old/x") for n in range(3)]
    today = spec().model_copy(update={"template": "new"})
    decision = decide(today, old, NOON)
    assert not decision.is_final
    assert decision.start[0].purpose is Purpose.BASELINE
    same = [replace(t, template=today.attempt("new")) for t in old]
    assert decide(today, same, NOON).reason is Reason.PROGRAM_FAILS


def test_another_way_to_read_the_log_starts_afresh():
    first = spec().model_copy(update={"template": "t"})
    second = spec(metric_pattern="top1 ([0-9.]+)").model_copy(update={"template": "t"})
    silent = baseline(Outcome.FAILED, (), is_complete=True, template=first.attempt("t"))
    assert decide(first, [silent], NOON).is_final
    assert not decide(second, [silent], NOON).is_final


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_retry_counts_whatever_the_clock_of_the_machine_that_asks_for_it_says(hours):
    failed = [baseline(Outcome.FAILED, (), n, message="no such file") for n in range(3)]
    assert decide(spec(), failed, NOON).phase is Phase.FAILED
    moment = retried_at(failed, NOON + timedelta(hours=hours))
    assert moment >= NOON + timedelta(hours=hours)
    (again,) = decide(spec(retried_at=moment.isoformat()), failed, NOON).start
    assert again.purpose is Purpose.BASELINE


def test_a_retry_clears_what_held_the_study():
    failed = [baseline(Outcome.FAILED, (), n) for n in range(3)]
    asked = spec(retried_at=(NOON + timedelta(hours=1)).isoformat())
    later = NOON + timedelta(hours=2)
    assert decide(spec(), failed, later).is_final
    assert not decide(asked, failed, later).is_final


def losses(hours):
    tried = [suggestion(1, batch_size=64)]
    tried += [suggestion(n, batch_size=64, rerun_of=n - 1) for n in range(2, len(hours) + 1)]
    return [
        trial(t.number, (), Outcome.LOST, t, ended_at=NOON + timedelta(hours=h))
        for t, h in zip(tried, hours, strict=True)
    ]


def test_losses_of_one_trial_count_within_a_window_of_time():
    close, apart = [0, 1, 2, 3], [0, 24, 48, 72]
    now = NOON + timedelta(hours=73)
    assert decide(spec(), [baseline(), *losses(close)], NOON + timedelta(hours=3)).reason is (
        Reason.CLUSTER_LOSES_TRIALS
    )
    assert not decide(spec(), [baseline(), *losses(apart)], now).is_final


def test_a_trial_that_is_lost_for_ever_ends_the_study():
    days = [24 * day for day in range(11)]
    decision = decide(spec(), [baseline(), *losses(days)], NOON + timedelta(hours=days[-1]))
    assert decision.reason is Reason.CLUSTER_LOSES_TRIALS


def test_the_clusters_fault_is_not_called_the_programs():
    asked = spec()
    decision = decide(asked, [baseline(), *losses([0, 0, 0, 0])], NOON)
    assert "the cluster lost" in message(decision, asked)


def test_lost_trials_use_up_no_gpu_hours():
    lost = trial(1, (), Outcome.LOST, minutes=600)
    assert not decide(spec(max_gpu_hours="5"), [baseline(), lost], NOON).is_final


# --- the answer ---


def test_a_miss_of_a_search_run_at_the_same_setting_counts():
    asked = spec(run_length="3", max_trials="5")
    found = suggestion(1, batch_size=64)
    # Far below the target, so that it was not stopped before its end as promising.
    missed = trial(2, (0.2, 0.3, 0.4), Outcome.MISSED, suggestion(2, batch_size=64))
    runs = [confirm(n, RISING, Outcome.REACHED) for n in (3, 4, 5)]
    answer = decide(asked, [baseline(), trial(1, RISING, tried=found), missed, *runs], NOON).answer
    assert answer is not None
    assert (answer.batch_size, answer.confirmed, answer.missed, answer.tally) == (64, 3, 1, "3 of 4")


def test_a_confirmed_answer_stays_until_a_better_one_is_confirmed():
    asked = spec(run_length="3", max_trials="10")
    runs = [confirm(n, RISING, Outcome.REACHED) for n in (2, 3, 4)]
    larger = [trial(n, (0.6, 0.9, 0.97), tried=suggestion(n, batch_size=128)) for n in (5, 6)]
    decision = decide(asked, [baseline(), trial(1, RISING), *runs, *larger], NOON)
    assert decision.answer is not None
    assert (decision.answer.batch_size, decision.answer.is_confirmed) == (64, True)
    assert decision.candidate is not None
    assert (decision.candidate.batch_size, decision.candidate.confirmed) == (128, 0)


def test_of_settings_of_one_batch_size_the_one_with_the_better_runs_is_the_answer():
    asked = spec(run_length="3", max_trials="7")
    good, weak = {"learning_rate": 0.1}, {"learning_rate": 0.9}
    trials = [baseline()]
    for n, (rate, values) in enumerate([(good, (0.5, 0.8, 0.97))] * 3 + [(weak, (0.5, 0.8, 0.901))] * 3, 1):
        tried = suggestion(n, batch_size=64, parameters=rate, purpose=Purpose.CONFIRM)
        trials.append(trial(n, values, tried=tried))
    answer = decide(asked, trials, NOON).answer
    assert answer is not None
    assert answer.parameters == good


# --- doubt ---


@pytest.mark.parametrize("outcome", [None, Outcome.MISSED])
def test_while_the_reading_of_a_log_is_in_doubt_nothing_starts_and_nothing_is_stopped(outcome):
    doubtful = baseline(outcome, (), doubt="two values at a step: set log-format")
    decision = decide(spec(), [doubtful], NOON)
    assert (decision.phase, decision.reason) == (Phase.INVALID, Reason.METRIC_IN_DOUBT)
    assert not decision.start
    assert not decision.stop
    assert not decision.is_final
    assert "set log-format" in message(decision, spec())
