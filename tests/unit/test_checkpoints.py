"""What was measured of running trials survives a restart of the controller, at a bounded cost."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.backends.kubernetes.checkpoints import decode, encode
from autotuner.backends.kubernetes.logs import Checkpoint
from autotuner.trial import Measurement, Outcome
from tests.unit.running_trial import JOB

RUNNING = "contract-tuning-running"


@pytest.mark.parametrize(
    ("text", "last"), [("accuracy={value} epoch={step}", 59), ("accuracy={value}", 57)], ids=["steps", "none"]
)
def test_what_was_measured_before_a_rotation_survives_a_restart(cluster, text, last):
    # The last checkpoint has 28 values, and the log its last 29 lines: two without a step are lost.
    cluster.run(range(1, 37), text=text)
    cluster.restart()
    cluster.lines = cluster.lines[30:]
    cluster.run(range(37, 60), text=text)
    cluster.has_succeeded = True
    cluster.backend.forget_trials(JOB.uid)
    (trial,) = cluster.observe()
    assert trial.outcome is Outcome.REACHED
    assert Measurement(5, 0.95) in trial.measurements
    assert trial.reads == text.format(value=0.5, step=1)
    steps = [m.step for m in trial.measurements]
    assert steps == sorted(set(steps))
    assert steps[-1] == last


@pytest.mark.parametrize(("kept", "outcome"), [(30, Outcome.MISSED), (1, Outcome.LOST)])
def test_a_run_of_which_a_part_was_never_read_is_no_miss(cluster, kept, outcome):
    cluster.run(range(100, 137))
    cluster.restart()
    cluster.lines = cluster.lines[len(cluster.lines) - kept :]
    cluster.has_succeeded = True
    (trial,) = cluster.observe()
    assert trial.outcome is outcome
    assert trial.measurements[0].step == 100


def test_a_run_of_an_hour_costs_few_requests_and_a_short_one_none(cluster):
    cluster.run(range(1, 4), seconds=15)
    assert not cluster.writes()
    cluster.run(range(4, 241), seconds=15)
    assert 3 <= len(cluster.writes()) <= 4


def test_a_log_that_grows_fast_is_kept_up_with_before_its_node_cuts_it(cluster):
    cluster.run(range(1, 4), seconds=30)
    for _ in range(3):
        before = len(cluster.writes())
        stamp = f"{cluster.now:%Y-%m-%dT%H:%M:%S}.6Z "
        cluster.lines += [f"{stamp}{'x' * 4000}\n"] * 200
        cluster.run([len(cluster.lines)], seconds=60)
        assert len(cluster.writes()) == before + 1


def test_nothing_is_written_while_nothing_is_measured(cluster):
    cluster.run([1, 2])
    cluster.now += timedelta(minutes=5)
    cluster.observe()
    assert len(cluster.writes()) == 1
    cluster.now += timedelta(hours=5)
    cluster.observe()
    assert len(cluster.writes()) == 1


def test_a_checkpoint_of_another_pod_or_metric_is_not_used(cluster):
    cluster.run(range(1, 11))
    cluster.restart()
    other = replace(JOB, annotations={**JOB.annotations, keys.TARGET: "loss <= 0.5"})
    assert not cluster.backend.observe(other, other.spec()).live[0].measurements


def test_a_failure_to_write_costs_no_reconcile(cluster):
    cluster.run([1])
    before, cluster.config_map = cluster.config_map, lambda *_: (500, {}, b'{"message": "down"}')
    assert cluster.run(range(2, 6)).measurements
    cluster.config_map = before
    cluster.run([6])
    assert list(cluster.config_maps[RUNNING]["data"]) == [keys.running_key(0)]


def test_a_config_map_that_another_controller_has_made_meanwhile_is_written_into(cluster):
    cluster.run([1])
    cluster.config_maps[RUNNING] = {"metadata": {"ownerReferences": [{"uid": JOB.uid}]}, "data": {}}
    cluster.run(range(2, 12))
    assert list(cluster.config_maps[RUNNING]["data"]) == [keys.running_key(0)]


def test_a_checkpoint_is_read_back_as_it_was_written():
    measured = (Measurement(1, 0.5), Measurement(2, float("inf")))
    checkpoint = Checkpoint(("pod", "accuracy", None), "f", "2026-01-01T12:00:00Z", {"s": 2}, measured)
    assert decode(encode(checkpoint)) == checkpoint


@given(st.one_of(st.text(), st.just('{"reading": 1}'), st.just("[" * 10_000)))
def test_whatever_is_in_its_place_is_no_checkpoint(text):
    assert decode(text) is None
