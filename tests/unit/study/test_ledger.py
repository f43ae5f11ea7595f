"""The ledger's entries survive every round, and what is not ours costs one trial only."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.errors import InvalidRecord
from autotuner.study.ledger import MAX_POINTS, decode_ledger, decode_trial, encode_trial
from autotuner.trial import Judged, Measurement, Outcome, Trial
from tests.builders import NOON, suggestion, trial

MOMENTS = st.integers(0, 10**9).map(lambda seconds: NOON + timedelta(seconds=seconds, microseconds=1))
TRIALS = st.builds(
    Trial,
    suggestion=st.builds(suggestion, st.integers(0, 10**6)),
    measurements=st.lists(
        st.builds(Measurement, st.floats(allow_nan=False, allow_infinity=False), st.floats()), max_size=20
    ).map(tuple),
    outcome=st.sampled_from(Outcome),
    started_at=st.none() | MOMENTS,
    devices=st.integers(1, 4096),
    message=st.text(max_size=50),
    extras=st.dictionaries(st.sampled_from(["noise_scale", "samples_per_second"]), st.floats(0, 1e9)),
    judged=st.none() | st.builds(Judged, st.floats(0, 1e9), st.text(max_size=20)),
    loops=st.lists(st.integers(1, 10**7), max_size=8).map(tuple),
    losses=st.lists(st.floats(), max_size=16).map(tuple),
    earlier_seconds=st.floats(0, 1e9),
)


@given(TRIALS)
def test_a_finished_trial_round_trips(finished):
    text = encode_trial(finished)
    assert "\n" not in text
    # By text, for NaN is not equal to itself.
    assert repr(decode_trial(text)) == repr(finished)
    assert encode_trial(decode_trial(text)) == text


def test_an_entry_is_json_that_every_reader_takes():
    text = encode_trial(trial(values=[float("nan"), float("inf"), 0.5]))
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def test_a_long_curve_is_thinned_and_keeps_its_best():
    values = [0.1] * 5_000
    values[1234] = 0.99
    read = decode_trial(encode_trial(trial(values=values)))
    assert len(read.measurements) <= MAX_POINTS + 1
    assert max(m.value for m in read.measurements) == 0.99
    assert read.measurements[-1].step == 5_000


def test_a_message_is_bounded():
    assert len(encode_trial(trial(message="x" * 100_000))) < 10_000


GOOD = json.loads(encode_trial(trial()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "won"},
        {"outcome": None},
        {"outcome": "None"},
        {"suggestion": None},
        {"suggestion": {}},
        {"curve": None},
        {"curve": [[1]]},
        {"curve": [[1, 2, 3]]},
        {"curve": [["a", 1]]},
        {"curve": [[float("nan"), 1]]},
        {"curve": [[1, 10**400]]},
        {"devices": 0},
        {"devices": -1},
        {"devices": "many"},
        {"devices": float("inf")},
        {"started_at": "yesterday"},
        {"started_at": 12},
        {"started_at": "2030-01-01T12:00:00"},
        {"extras": []},
        {"extras": {"noise_scale": "high"}},
        {"judged": 3},
        {"judged": [1]},
        {"judged": ["a", "b"]},
        {"judged": [float("inf"), "b"]},
        {"judged": [1, None]},
    ],
    ids=str,
)
def test_an_entry_that_we_did_not_write_is_refused(wrong):
    with pytest.raises(InvalidRecord):
        decode_trial(json.dumps({**GOOD, **wrong}))


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_whatever_the_text_an_entry_is_read_or_refused(text):
    with pytest.raises(InvalidRecord):
        decode_trial(text)


def ledger(*trials: Trial) -> dict[str, str]:
    return {keys.ledger_key(finished.number): encode_trial(finished) for finished in trials}


def test_an_entry_that_cannot_be_read_costs_its_trial_not_the_tuning():
    entries = ledger(trial(0), trial(2)) | {
        keys.ledger_key(1): '{"half',
        "job": "not a trial",
        "trial-x": "?",
    }
    trials, problems = decode_ledger(entries)
    assert [finished.number for finished in trials] == [0, 2]
    assert len(problems) == 1
    assert problems[0].startswith("trial-00001")


def test_an_entry_under_anothers_key_is_no_second_trial():
    entries = ledger(trial(0)) | {keys.ledger_key(5): encode_trial(trial(0))}
    trials, problems = decode_ledger(entries)
    assert [finished.number for finished in trials] == [0]
    assert problems == ["trial-00005: it is the record of trial 0"]


# --- cost ---------------------------------------------------------------------------------------------------


def test_waiting_costs_nothing_and_running_costs_its_devices():
    assert trial(started_at=None, outcome=None).gpu_hours(NOON) == 0
    assert trial(minutes=30, devices=4).gpu_hours(NOON) == 2
    assert trial(outcome=None, devices=4).gpu_hours(NOON.replace(hour=14)) == 8
    assert trial(minutes=-30).gpu_hours(NOON) == 0
