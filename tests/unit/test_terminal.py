"""The live table and the plain lines: what a person sees of a tuning as it runs."""

from __future__ import annotations

import io

from rich.console import Console

from autotuner.decide.decision import Decision, Facts, Phase, Reason
from autotuner.report.terminal import described, live_table
from autotuner.trial import Trial
from tests.builders import NOON, spec, suggestion, trial


def shown(*trials: Trial) -> str:
    decision = Decision(Phase.SEARCHING, Reason.SEARCHING, Facts(batch_size=32))
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(live_table("toy", spec(), decision, trials, NOON))
    return console.export_text()


def test_a_trial_with_a_layout_shows_it_beside_its_batch_size():
    tried = suggestion(1, batch_size=64, workers=3, micro_batch_size=8, accumulation_steps=2)
    lines = shown(trial(0), trial(1, outcome=None, tried=tried)).splitlines()
    assert lines[1].split()[:5] == ["trial", "purpose", "batch", "size", "layout"]
    assert lines[2].split()[:4] == ["0", "search", "32", "learning_rate"]
    assert "64  workers 3, micro-batch 8 x 2  learning_rate 0.1" in lines[3]
    assert described(trial(1, tried=tried)).endswith("learning_rate 0.1, workers 3, micro-batch 8 x 2")


def test_a_micro_batch_that_is_taken_once_says_no_more_than_its_size():
    tried = suggestion(1, micro_batch_size=8, accumulation_steps=1)
    assert described(trial(1, tried=tried)).endswith("learning_rate 0.1, micro-batch 8")


def test_where_no_trial_has_a_layout_there_is_no_column_for_it():
    assert "layout" not in shown(trial(0), trial(1))
