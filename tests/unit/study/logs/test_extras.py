"""What a log says besides its metric, and whom it believes."""

from __future__ import annotations

import time

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.finding import Reason
from autotuner.study.findings.reported_batch import batch_doubts
from autotuner.study.ledger import decode_trial, encode_trial
from autotuner.study.logs.extras import MAX_VARIABLES
from autotuner.study.logs.log_reader import LogReader, with_reading
from autotuner.trial import Measurement
from tests.builders import suggestion, trial

READS = '{"autotuner": 1, "reads": ["batch_size", "learning_rate"]}\n'
REPORT = '{"autotuner": 1, "step": 1, "accuracy": 0.5, "batch_size": 64, "steps_per_epoch": 157}\n'


def read(*lines):
    reader = LogReader(parse_target("accuracy >= 0.9"))
    for line in lines:
        reader.feed(line)
    reader.close()
    return reader


def test_the_variables_that_the_sdk_has_read_are_kept_with_the_trial():
    reader = read(READS, REPORT)
    assert reader.variables == ("batch_size", "learning_rate")
    assert reader.measurements == (Measurement(1, 0.5),)
    kept = decode_trial(encode_trial(with_reading(trial(1), reader)))
    assert kept.variables == ("batch_size", "learning_rate")
    assert decode_trial(encode_trial(trial(1))).variables is None


def test_what_is_read_later_is_added():
    more = '[rank0]: {"autotuner": 1, "reads": ["seed", "batch_size"]}\n'
    assert read(READS, REPORT, more).variables == ("batch_size", "learning_rate", "seed")
    assert read('{"autotuner": 1, "reads": []}\n').variables == ()


def test_a_list_of_variables_is_no_measurement_whatever_their_names():
    reader = read('{"autotuner": 1, "reads": ["accuracy", "0.95"], "accuracy": 0.95}\n')
    assert reader.measurements == ()
    assert reader.doubt is None


def test_a_metric_may_be_named_reads():
    reader = read('{"autotuner": 1, "step": 1, "accuracy": 0.95, "reads": 3000.0}\n')
    assert reader.measurements == (Measurement(1, 0.95),)
    assert reader.variables is None


def test_the_trained_batch_counts_where_the_sdk_says_it_and_nowhere_else():
    assert read(REPORT).extras == {"batch_size": 64, "steps_per_epoch": 157}
    for line in ("batch_size=8\n", '{"batch_size": 8, "steps_per_epoch": 3}\n', "Namespace(batch_size=8)\n"):
        assert read(line, "accuracy=0.5 epoch=1\n").extras == {}


@pytest.mark.parametrize(("asked", "reason"), [(64, None), (256, Reason.NOT_WIRED)])
def test_a_trained_batch_that_was_not_asked_for_is_a_finding(asked, reason):
    found = batch_doubts([with_reading(trial(1, tried=suggestion(1, batch_size=asked)), read(REPORT))])
    assert [finding.reason for finding in found] == ([reason] if reason else [])


@pytest.mark.parametrize(
    "line",
    [
        '{"autotuner": 2, "reads": ["a"], "batch_size": 8}',
        '{"autotuner": 1, "reads": "a"}',
        '{"autotuner": 1, "reads": [1, null, {"a": 1}]}',
        '{"autotuner": 1, "batch_size": [8], "steps_per_epoch": NaN}',
        '{"autotuner": 1, "batch_size": "8' + "9" * 1000,
        '{"autotuner"' + "[" * 60_000,
        '{"autotuner": ' * 4_000,
    ],
)
def test_a_hostile_line_says_nothing(line):
    started = time.process_time()
    reader = read(line + "\n")
    assert not reader.variables
    assert reader.extras == {}
    assert time.process_time() - started < 2


def test_variables_are_bounded():
    names = ", ".join(f'"v{n}"' for n in range(5_000))
    assert len(read(f'{{"autotuner": 1, "reads": [{names}]}}\n').variables) == MAX_VARIABLES
    assert read(f'{{"autotuner": 1, "reads": ["{"v" * 999}"]}}\n').variables == ()
