"""The line that the first measurement was read from: in the status, in an Event, and on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from autotuner import keys
from autotuner.decide.decision import Decision, Phase, Reason
from autotuner.reconcile import Reconciliation
from autotuner.report.live_view import LiveTable
from autotuner.report.terminal import PlainView
from autotuner.status import MAX_READS, Event, Status, describe, events
from autotuner.study.ledger import decode_trial, encode_trial
from tests.builders import NOON, job, spec, trial

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


def test_it_survives_in_the_ledger():
    kept = decode_trial(encode_trial(read()))
    assert status(kept).annotations[keys.READS] == FIRST


def test_a_line_of_any_length_takes_a_bounded_annotation():
    assert len(status(read(line="x" * 9000)).annotations[keys.READS]) == MAX_READS


def test_an_event_tells_it_once():
    before = {keys.PHASE: "Searching"}
    now = status(read())
    assert events(before, now) == [Event("Normal", "MetricRead", f"reads {FIRST}")]
    assert events(now.annotations, now) == []
    assert [event.reason for event in events({}, now)] == ["MetricRead", "StudyStarted"]


def test_both_views_show_it():
    console = Console(file=io.StringIO(), width=100, height=24, record=True)
    console.print(LiveTable("toy", spec(), SEARCHING, (read(),), NOON))
    assert f"reads {FIRST}" in console.export_text()
    view = PlainView(console)
    seen = Reconciliation(job(), status(read()), SEARCHING, (read(),))
    view.show(seen, spec())
    view.show(seen, spec())
    assert console.export_text().count(f"reads {FIRST}") == 1
