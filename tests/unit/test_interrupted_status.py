"""The status of a local study whose tuner has ended before the study did."""

from __future__ import annotations

import fcntl
import json

import pytest

from autotuner import keys
from autotuner.backends.local.study_folder import LOCK, is_in_use
from autotuner.status import describe_interrupted


def status(phase: str, **counts: int) -> dict[str, str]:
    return {
        keys.PHASE: phase,
        keys.REASON: phase,
        keys.MESSAGE: "searches for a larger batch size",
        keys.TRIALS: json.dumps({"total": sum(counts.values()), **counts}),
        keys.ANSWER: "{}",
    }


@pytest.mark.parametrize("phase", ["Waiting", "Searching", "Confirming"])
def test_a_study_that_no_tuner_runs_is_interrupted_and_counts_no_running_trial(phase: str):
    before = status(phase, running=1, reached=2)
    after = describe_interrupted(before)
    assert (after[keys.PHASE], after[keys.REASON]) == ("Paused", "Interrupted")
    assert "`autotuner tune` with the same file continues" in after[keys.MESSAGE]
    assert before[keys.MESSAGE] in after[keys.MESSAGE]
    assert json.loads(after[keys.TRIALS]) == {"total": 2, "reached": 2}
    assert after[keys.ANSWER] == before[keys.ANSWER]


@pytest.mark.parametrize("phase", ["Done", "Failed", "Invalid", "Paused"])
def test_a_study_that_has_ended_or_is_held_keeps_its_status(phase: str):
    before = status(phase, reached=2)
    assert describe_interrupted(before) == before


def test_a_paused_study_whose_last_trial_was_interrupted_does_not_count_it():
    after = describe_interrupted(status("Paused", running=1))
    assert after[keys.REASON] == "Interrupted"
    assert json.loads(after[keys.TRIALS]) == {"total": 0}


@pytest.mark.parametrize("text", ["{", "[]", '{"running": "many", "total": 1}', "[" * 50_000])
def test_a_count_that_somebody_has_edited_breaks_nothing(text: str):
    assert describe_interrupted({**status("Searching"), keys.TRIALS: text})[keys.PHASE] == "Paused"


def test_interrupted_before_the_first_status_it_says_so():
    assert describe_interrupted({})[keys.REASON] == "Interrupted"


def test_a_folder_is_in_use_while_its_lock_is_held(tmp_path):
    assert not is_in_use(tmp_path)
    with (tmp_path / LOCK).open("w") as held:
        assert not is_in_use(tmp_path)
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
