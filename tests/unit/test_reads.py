"""The line that the first measurement was read from: in the status, in an Event, and on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from autotuner import keys
from autotuner.decide.decision import Decision, Facts, Phase, Reason
from autotuner.reconcile import Reconciliation, reconcile
from autotuner.report.live_view import LiveTable, LiveView
from autotuner.report.terminal import PlainView
from autotuner.status import MAX_READS, Event, Status, describe, events
from autotuner.study.ledger import decode_trial, encode_trial
from autotuner.study.logs.log_reader import LogReader, with_reading
from autotuner.trial import Outcome
from autotuner.wording import log_warnings
from tests.builders import NOON, job, spec, trial
from tests.unit.running_trial import JOB, Cluster

FIRST = "accuracy=0.5 at step 1 from: Acc@1 0.5 (epoch 1)"
SEARCHING = Decision(Phase.SEARCHING, Reason.SEARCHING)


def read(number=0, line="Acc@1 0.5 (epoch 1)", **changed):
    return trial(number, reads=line, **changed)


def status(*trials) -> Status:
    return describe(SEARCHING, spec(), trials, "f")


def test_the_first_trial_that_measured_tells_what_is_read_and_stays():
    assert keys.READS not in status(trial(0, values=(), outcome=None)).annotations
    assert status(read(outcome=None)).annotations[keys.READS] == FIRST
    assert status(read(1, line="other"), read(0)).annotations[keys.READS] == FIRST


def test_the_line_of_the_first_measurement_survives_in_the_ledger():
    kept = decode_trial(encode_trial(read()))
    assert status(kept).annotations[keys.READS] == FIRST


def test_a_line_of_any_length_takes_a_bounded_annotation():
    assert len(status(read(line="x" * 9000)).annotations[keys.READS]) == MAX_READS


def test_an_event_shows_the_first_measurement_once():
    before = {keys.PHASE: "Searching"}
    now = status(read())
    assert events(before, now) == [Event("Normal", "MetricRead", f"reads {FIRST}")]
    assert events(now.annotations, now) == []
    assert [event.reason for event in events({}, now)] == ["MetricRead", "StudyStarted"]


def test_both_views_show_the_line_of_the_first_measurement_once():
    console = Console(file=io.StringIO(), width=100, height=24, record=True)
    console.print(LiveTable("toy", spec(), SEARCHING, (read(),), NOON))
    assert f"reads {FIRST}" in console.export_text()
    view = PlainView(console)
    seen = Reconciliation(job(), status(read()), SEARCHING, (read(),))
    view.show(seen, spec())
    view.show(seen, spec())
    assert console.export_text().count(f"reads {FIRST}") == 1


def test_a_notice_about_the_study_is_shown_once():
    said = "the search starts without nosuch: there is no other job of this name"
    for view in (PlainView, lambda console: LiveView(console, "toy", lambda: NOON)):
        console = Console(file=io.StringIO(), width=60, height=24, record=True)
        with view(console) as shown:
            for _ in range(2):
                seen = Reconciliation(job(), status(read()), SEARCHING, (read(),), notices=(said,))
                shown.show(seen, spec())
        assert console.export_text().replace("\n", " ").count(said) == 1


def test_the_unit_of_the_step_is_said_where_the_log_names_one():
    reader = LogReader(spec().target)
    reader.feed("accuracy=0.2 epoch=1\naccuracy=0.3 epoch=2\n")
    seen = with_reading(trial(0, values=(), outcome=None), reader)
    said = "accuracy=0.2 at epoch 1 from: accuracy=0.2 epoch=1"
    assert status(seen).annotations[keys.READS] == said
    assert (
        status(decode_trial(encode_trial(replace(seen, outcome=Outcome.MISSED)))).annotations[keys.READS]
        == said
    )


def test_a_warning_about_the_reading_is_said_once_wherever_the_line_is():
    reader = LogReader(spec().target)
    reader.feed("sanity check: accuracy=1.0\nepoch 1: accuracy=0.2\nepoch 2: accuracy=0.3\n")
    seen = with_reading(trial(0, values=(), outcome=None), reader)
    (warning,) = log_warnings([seen])
    assert "'sanity check: accuracy=1.0' comes before the first epoch" in warning
    console = Console(file=io.StringIO(), width=100, height=24, record=True)
    view = PlainView(console)
    for _ in range(2):
        view.show(Reconciliation(job(), status(seen), SEARCHING, (seen, replace(seen))), spec())
    assert console.export_text().count(warning) == 1
    console.print(LiveTable("toy", spec(), SEARCHING, (seen,), NOON))
    assert "warning: the log of trial 0" in console.export_text()


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: batch size 2048 is too large, using 512",
        "CUDA out of memory, retrying with batch size 32",
        "Decreasing batch size to: 64.",
        "INFO reducing the train batch size from 256 to 128",
        "batch_size (2048) larger than the data set (1000)",
        "Rounding global batch size down to 96",
    ],
)
def test_a_line_that_says_that_another_batch_is_trained_is_reported_also_of_a_later_trial(line: str):
    """On a GPU two runs never measure the same, so their values cannot show it."""
    first, second = LogReader(spec().target), LogReader(spec().target)
    first.feed("sanity check: accuracy=1.0\nepoch 1: accuracy=0.2\nepoch 2: accuracy=0.3\n")
    second.feed(f"{line}\nepoch 1: accuracy=0.2\nepoch 2: accuracy=0.3\n")
    seen = [with_reading(trial(n, values=(), outcome=None), r) for n, r in enumerate((first, second, second))]
    told = log_warnings(seen)
    assert len(told) == 2
    said = line.removeprefix("WARNING: ").removeprefix("INFO ")
    assert told[1].startswith(f"the log of trial 1: {said!r} seems to say that another batch is trained")


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.93 GiB total capacity)",
        "CUDA out of memory, trying again",
    ],
)
def test_values_after_an_error_of_memory_may_be_of_a_smaller_batch(line: str):
    """`python train.py --batch-size=$B || python train.py --batch-size=64` in a script of the image."""
    reader = LogReader(spec().target)
    reader.feed(f"epoch 1: accuracy=0.1\n{line}\n")
    assert reader.warnings == ()  # which may be the end of the run
    reader.feed("epoch 2: accuracy=0.2\nepoch 3: accuracy=0.3\n")
    assert reader.warnings == (f"values after {line!r} may be of a smaller batch than the one asked for",)


@pytest.mark.parametrize(
    "line",
    [
        "| WARNING: OOM, skipping batch: CUDA out of memory. Tried to allocate 2.00 GiB",
        "skipping batch: CUDA out of memory.",
        "autotuning config 3: OutOfMemoryError: out of resource",
        "peak memory 7 GiB, 1 GiB of CUDA memory free",
    ],
)
def test_a_batch_that_is_left_out_for_its_memory_is_no_smaller_one(line: str):
    reader = LogReader(spec().target)
    reader.feed(f"{line}\nepoch 1: accuracy=0.2\nepoch 2: accuracy=0.3\n")
    assert reader.warnings == ()


@pytest.mark.parametrize(
    "line",
    [
        "batch size 256, lr 0.1",
        "using batch size 512",
        "reduced micro-batch size to 8",
        "eval batch size 64 is too large",
        "lower_bound=1 batch_size=32",
        "reducing learning rate of group 0 to 1.0000e-02, batch size 32",
        "batch_size=32 rounds=4",
    ],
)
def test_a_line_that_names_a_batch_size_says_nothing_else_of_it(line: str):
    reader = LogReader(spec().target)
    reader.feed(f"{line}\nepoch 1: accuracy=0.2\nepoch 2: accuracy=0.3\n")
    assert reader.warnings == ()


def test_the_status_and_one_event_tell_a_warning_about_the_reading():
    cluster = Cluster()
    for text in ("sanity check: accuracy=1.0", "epoch=1 accuracy=0.2", "epoch=2 accuracy=0.3"):
        cluster.now += timedelta(seconds=1)
        cluster.lines.append(f"{cluster.now:%Y-%m-%dT%H:%M:%S}.5Z {text}\n")
    seen = reconcile(cluster.backend, JOB, cluster.now)
    again = reconcile(
        cluster.backend, replace(JOB, annotations={**JOB.annotations, **seen.status.annotations}), cluster.now
    )
    said = "the log of trial 0: 'sanity check: accuracy=1.0' comes before the first epoch or step"
    assert said in again.status.annotations[keys.MESSAGE]
    told = [r for r in cluster.server.requests if r[0] == "POST" and b"JobWarning" in r[4]]
    assert [said.encode() in r[4] for r in told] == [True]
    cluster.server.close()


def test_warnings_of_any_number_and_length_take_bounded_room_in_the_ledger():
    kept = decode_trial(encode_trial(read(warnings=("x" * 9000,) * 100)))
    assert len(kept.warnings) == 5
    assert max(map(len, kept.warnings)) == 300


def test_a_line_of_the_sdk_counts_at_once():
    reader = LogReader(spec().target)
    reader.feed('{"autotuner": 1, "step": 3, "accuracy": 0.95}\n')
    assert [(m.step, m.value) for m in reader.measurements] == [(3, 0.95)]


def test_a_trial_that_ended_in_doubt_is_not_said_to_have_printed_nothing():
    said = "the run ended well, but no line of its log carries accuracy"
    ended = trial(0, values=(), outcome=Outcome.FAILED, doubt="65 cannot be accuracy", message=said)
    console = Console(file=io.StringIO(), width=200, record=True)
    PlainView(console).show(Reconciliation(job(), status(ended), SEARCHING, (ended,)), spec())
    shown = console.export_text()
    assert "trial 0 ended, and its metric is in doubt" in shown
    console.print(LiveTable("toy", spec(), SEARCHING, (ended,), NOON))
    assert "in doubt" in console.export_text()
    assert said not in shown


def test_a_warning_that_the_message_of_the_end_repeats_is_said_once():
    said = "trial 3 begins at step 1 with 0.97, where trial 2 ended"
    facts = Facts(number=3, outcome=Outcome.FAILED, batch_size=64, count=3, detail=said)
    ended = Decision(Phase.FAILED, Reason.PROGRAM_FAILS, facts, warnings=(said, "another"), is_final=True)
    text = describe(ended, spec(), (), "f").annotations[keys.MESSAGE]
    assert text.count(said) == 1
    assert text.endswith("; warning: another")


def test_a_long_reason_of_a_failed_run_that_the_study_repeats_is_printed_once():
    reason = (
        "no line of its log carries accuracy;\n  add autotuner.dev/metric-pattern\n  the log ends: loss 0.5"
    )
    failed = trial(0, values=(), outcome=Outcome.FAILED, message=reason)
    facts = Facts(number=0, outcome=Outcome.FAILED, batch_size=64, count=1, detail=reason)
    ended = Decision(Phase.FAILED, Reason.METRIC_NOT_FOUND, facts, is_final=True)
    console = Console(file=io.StringIO(), width=200, record=True)
    PlainView(console).show(Reconciliation(job(), status(failed), ended, (failed,)), spec())
    lines = console.export_text().splitlines()
    assert lines[0].startswith("trial 0 failed (no line of its log carries accuracy; ...): ")
    assert sum("the log ends" in line for line in lines) == 1
