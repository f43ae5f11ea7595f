"""Metrics that a process pushes to its job's status: what they measure, and whether the log agrees."""

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.logs.pushed import SOURCE, Push, PushReader, with_pushes
from autotuner.trial import Measurement
from tests.builders import trial

EVALUATED = parse_target("eval_accuracy >= 0.9")
PLAIN = parse_target("accuracy >= 0.9")


def read(*pushed, target=EVALUATED, has_ended=False):
    reader = PushReader(target)
    for values in pushed:
        reader.take(values if isinstance(values, Push) else Push({k: str(v) for k, v in values.items()}))
    if has_ended:
        reader.close()
    return reader


def face(accuracy, epoch, evaluated=None, **more):
    """Return what Hugging Face's Trainer pushes: the last evaluation, and the newest training values."""
    runtime = evaluated if evaluated is not None else accuracy
    return {
        "loss": 0.3 / epoch,
        "eval_accuracy": accuracy,
        "eval_runtime": runtime,
        "epoch": epoch,
        "current_step": 10 * epoch,
        "current_epoch": epoch,
        **more,
    }


def measured(*pairs):
    return tuple(Measurement(float(step), value) for step, value in pairs)


def with_log(logged, reader, *, has_ended=True, is_log_whole=True, target=EVALUATED, unit="epoch"):
    read = trial(0, (), None, measurements=measured(*logged), reads="eval_accuracy=... of the log", unit=unit)
    return with_pushes(read, reader, target, has_ended=has_ended, is_log_whole=is_log_whole)


# --- what a push measures -----------------------------------------------------------------------------------


def test_each_evaluation_is_one_measurement_however_often_it_is_pushed():
    reader = read(
        {"total_steps": 100},
        {"loss": 1.0, "epoch": 0.5},
        face(0.7, 1),
        face(0.7, 1.5),
        face(0.8, 2),
        face(0.8, 2.7),
        face(0.8, 3, evaluated=0.81),
    )
    assert reader.measurements == measured((1, 0.7), (2, 0.8), (3, 0.8))
    assert reader.reads.startswith(f'{SOURCE} {{"loss"')


def test_a_script_of_its_own_pushes_a_bare_name_with_a_step():
    pushed = [{"accuracy": 0.5, "step": 10}, {"accuracy": 0.6, "step": 20}]
    assert read(*pushed[:1], target=PLAIN).measurements == ()
    assert read(*pushed[:1], target=PLAIN, has_ended=True).measurements == measured((10, 0.5))
    assert read(*pushed, target=PLAIN).measurements == measured((10, 0.5), (20, 0.6))


def test_training_values_are_not_taken_for_the_metric():
    assert read({"accuracy": 0.99, "eval_accuracy": 0.7, "epoch": 1}, target=PLAIN).measurements == ()
    assert read({"loss": 0.1, "epoch": 1}, target=parse_target("eval_loss <= 0.2")).measurements == ()


def test_a_run_that_is_admitted_again_begins_anew():
    first = [Push({"eval_accuracy": "0.7", "epoch": "1"}), Push({"eval_accuracy": "0.8", "epoch": "2"})]
    again = Push({"eval_accuracy": "0.71", "epoch": "1"}, run="2030-01-01T13:00:00Z")
    assert read(*first, again).measurements == measured((1, 0.71))


@pytest.mark.parametrize(
    "values",
    [
        {"eval_accuracy": "", "epoch": "1"},
        {"eval_accuracy": "__import__('os')", "epoch": "1"},
        {'eval_accuracy": {"x': "0.99", "epoch": "1"},
        {"eval_accuracy": "0.9\n", "epoch\n": "1", "\x1b]0;": "\x00"},
        {"eval_accuracy": "9" * 64, "epoch": "9" * 64},
        {f"{number}" * 16: "x" * 64 for number in range(256)},
    ],
)
def test_hostile_pushes_do_no_harm(values):
    reader = read(Push(values), has_ended=True)
    assert not reader.measurements


def test_a_metric_that_became_nan_is_measured_as_such():
    (only,) = read({"eval_accuracy": "nan", "epoch": 1}, has_ended=True).measurements
    assert not only.is_finite


def test_other_metrics_that_were_pushed_are_named_where_this_one_was_not():
    (said,) = read({"eval_accuracy": 0.7, "epoch": 1}, target=PLAIN).near_misses
    assert "eval_accuracy, epoch" in said
    assert not read({"eval_accuracy": 0.7, "epoch": 1}).near_misses


# --- next to the log ----------------------------------------------------------------------------------------


def test_a_silent_log_leaves_the_word_to_the_pushes():
    reader = read(face(0.7, 1), face(0.95, 2))
    found = with_log([], reader, has_ended=False)
    assert found.measurements == measured((1, 0.7), (2, 0.95))
    assert (found.reads, found.unit) == (reader.reads, "epoch")
    assert not found.doubt


def test_while_it_runs_a_first_push_waits_for_the_log():
    assert with_log([], read(face(0.7, 1)), has_ended=False).measurements == ()
    assert with_log([], read(face(0.7, 1))).measurements == measured((1, 0.7))


def test_where_both_speak_and_agree_the_log_counts():
    logged = [(1, 0.7012), (2, 0.8), (3, 0.8555)]
    found = with_log(logged, read(face(0.70119, 1), face(0.855512, 3.4)))
    assert found.measurements == measured(*logged)
    assert found.reads == "eval_accuracy=... of the log"
    assert not found.doubt


@pytest.mark.parametrize(
    ("logged", "pushed", "is_same"),
    [
        ((12.35, 0.9876), (12.3456, 0.98763), True),  # four significant digits, as Transformers prints
        ((12.35, 0.9876), (12.3612, 0.98763), False),
        ((12.3456, 0.9), (12.34561, 0.90004), True),  # four decimals
        ((12.3456, 0.9), (12.34561, 0.9004), False),
        ((0.5, 1e-7), (0.5, 1.02e-7), True),
        ((1234567.0, 2.0), (1234567.4, 2.0), True),
        ((0.0, 0.25), (0.0, 0.25), True),
        ((0.5, 0.25), (0.5, 0.75), False),
    ],
)
def test_a_log_may_round_what_was_pushed(logged, pushed, is_same):
    target = parse_target("eval_loss <= 0.001")
    reader = read(
        *({"eval_loss": value, "epoch": epoch} for epoch, value in enumerate(pushed, 1)), target=target
    )
    found = with_log(list(enumerate(logged, 1)), reader, target=target)
    assert bool(found.doubt) is not is_same


def test_a_pushed_value_that_the_whole_log_lacks_is_a_doubt_that_shows_both():
    found = with_log([(1, 0.7), (2, 0.8)], read(face(0.7, 1), face(0.95, 2.5)))
    assert found.measurements == ()
    assert "disagree on eval_accuracy" in found.doubt
    assert "0.8 from 'the log at step 2'; 0.95 from 'status.trainerStatus at step 2.5'" in found.doubt
    assert "add autotuner.dev/metric-pattern: '" in found.doubt


def test_a_log_that_is_behind_the_pushes_is_no_doubt():
    reader = read(face(0.7, 1), face(0.8, 2), face(0.85, 3))
    assert not with_log([(1, 0.7)], reader, has_ended=False).doubt
    assert not with_log([(1, 0.7)], reader, is_log_whole=False).doubt
    assert with_log([(1, 0.7)], reader).doubt


def test_another_value_at_the_same_step_is_a_doubt_at_once():
    assert with_log([(1, 0.7), (2, 0.8)], read(face(0.7, 1), face(0.9, 2)), has_ended=False).doubt


def test_the_same_number_of_another_unit_is_not_the_same_step():
    reader = read(face(0.7, 1), face(0.9, 2))
    assert not with_log([(1, 0.7), (2, 0.8)], reader, has_ended=False, unit="step").doubt
    assert not with_log([(1, 0.7), (2, 0.8)], reader, has_ended=False, unit="").doubt


def test_a_log_that_counts_another_unit_agrees_by_its_values():
    reader = read(face(0.7, 1), face(0.8, 2))
    assert not with_log([(500, 0.7), (1000, 0.8), (1500, 0.9)], reader).doubt


def test_pushes_that_are_in_doubt_by_themselves_do_not_touch_a_clear_log():
    odd = read({"eval_accuracy": 93, "epoch": 1})
    assert odd.doubt is not None
    assert with_log([(1, 0.93)], odd).measurements == measured((1, 0.93))
    assert "93" in with_log([], odd).doubt


def test_nan_agrees_with_nan():
    nan = float("nan")
    reader = read(face(0.7, 1), face(nan, 2))
    assert not with_log([(1, 0.7), (2, nan)], reader).doubt
    assert with_log([(1, 0.7), (2, 0.8)], reader).doubt
