"""The live table and the plain lines: what a person sees of a tuning as it runs."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from rich.console import Console

from autotuner.decide.decision import Answer, Decision, Facts, Phase, Reason
from autotuner.report.live_view import LiveTable
from autotuner.report.terminal import answer_lines, cost, described
from autotuner.trial import Trial
from autotuner.wording import message
from tests.builders import NOON, spec, suggestion, trial


def shown(*trials: Trial) -> str:
    decision = Decision(Phase.SEARCHING, Reason.SEARCHING, Facts(batch_size=32))
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(LiveTable("toy", spec(), decision, trials, NOON))
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


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 GPU-seconds"), (4, "4.0 GPU-seconds"), (3.24, "3.2 GPU-seconds"), (59.2, "59 GPU-seconds"),
     (90, "1.5 GPU-minutes"), (5400, "1.50 GPU-hours")],
)  # fmt: skip
def test_a_cost_has_two_digits_that_count(seconds: float, shown: str):
    assert cost(seconds / 3600) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "64 is not confirmed"), (1, "by 1 run only"), (2, "by 2 runs only")]
)
def test_an_answer_that_is_not_confirmed_says_how_many_runs_it_has(count: int, shown: str):
    answer = Answer(64, {"learning_rate": 0.1}, count, 3, 0.93)
    assert shown in message(Decision(Phase.DONE, Reason.TRIALS_SPENT, answer=answer), spec())


@pytest.mark.parametrize(
    ("most", "which"), [(1024, "a batch half a doubling larger"), (72, "the largest allowed batch, 72,")]
)
def test_the_probability_of_a_larger_batch_is_that_of_one_that_is_allowed(most: int, which: str):
    answer = Answer(64, {"learning_rate": 0.1}, 3, 3, 0.93, 0.25, reason=Reason.LARGER_UNLIKELY)
    lines = answer_lines(answer, spec(batch_size=f"16..{most}"), [], 1.0)
    assert f"  {which} would meet the target with probability 0.25" in lines


def test_where_no_trial_has_a_layout_there_is_no_column_for_it():
    assert "layout" not in shown(trial(0), trial(1))


def test_before_the_first_trial_the_state_of_the_study_is_shown():
    """A job that is paused, or has no layout, starts none."""
    assert "searches for a larger batch size" in shown()


def screen(
    width: int, height: int, *trials: Trial, space: str = "learning_rate: {min: 0.01, max: 10}"
) -> list[str]:
    answer = Answer(73, {"learning_rate": 0.31, "momentum": 0.9}, 1, 3, 0.93)
    decision = Decision(Phase.SEARCHING, Reason.SEARCHING, Facts(batch_size=73), answer=answer)
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    now = NOON + timedelta(seconds=41)
    console.print(LiveTable("a-job-with-a-long-name", spec(search_space=space), decision, trials, now))
    return console.export_text().splitlines()


def many(count: int, running: int) -> list[Trial]:
    tried = {"learning_rate": 0.1234567, "momentum": 0.91, "weight_decay": 0.0005, "optimizer": "lars"}
    ended = [trial(n, tried=suggestion(n, parameters=tried)) for n in range(count - running)]
    return [*ended, *(trial(n, outcome=None) for n in range(count - running, count))]


@pytest.mark.parametrize("count", [2, 6, 14, 40, 100])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 16), (80, 10), (60, 24), (132, 43)])
def test_running_trials_incumbent_and_message_stay_whatever_the_size(width: int, height: int, count: int):
    lines = screen(width, height, *many(count, running=2))
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for number in (count - 2, count - 1):
        # rich 14.1 begins each row with a space.
        (row,) = [line for line in lines if line.lstrip().startswith(f"{number}  ")]
        assert "runs, 41 s" in row
    assert "largest batch size 73" in text
    assert "searches for a larger batch size" in text


def test_the_history_shrinks_to_the_newest_trials_and_says_how_many_there_are():
    lines = screen(80, 24, *many(40, running=1))
    shown = [int(line.split()[0]) for line in lines if line.split()[0].isdecimal() and "more" not in line]
    assert shown == list(range(40 - len(shown), 40))
    assert len(shown) >= 10
    assert f"{40 - len(shown)} more trials" in "\n".join(lines)


def test_a_running_trial_that_is_older_than_the_history_stays():
    lines = screen(80, 16, trial(0, outcome=None), *many(40, running=0)[1:])
    assert any(line.split()[:1] == ["0"] and "runs" in line for line in lines)


def test_a_terminal_of_four_lines_keeps_incumbent_and_message():
    text = "\n".join(screen(80, 4, *many(9, running=1)))
    assert "largest batch size 73" in text
    assert "searches for a larger" in text
