"""The time of the runs that a queue has ended is kept with the trial."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner import keys
from autotuner.backends.kubernetes.assess import Conditions
from autotuner.backends.kubernetes.earlier_runs import EarlierRuns
from autotuner.job.trial_manifest import trial_manifest
from autotuner.trial import Suggestion
from tests.unit.fake_api_server import FakeServer
from tests.unit.running_trial import JOB

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def after(minutes):
    return NOON + timedelta(minutes=minutes)


class World:
    """A trial that a queue admits and evicts, and what is written to it."""

    def __init__(self):
        self.status = 200
        self.manifest = trial_manifest(JOB, Suggestion(0, 256, {"learning_rate": 0.1}, 1))
        self.manifest["metadata"]["uid"] = "t"
        self.server = FakeServer(lambda *_: (self.status, {}, b"{}"))
        self.conditions = Conditions(replicas=1, waiting_since=NOON)
        self.restart()

    def restart(self):
        self.runs = EarlierRuns(self.server.api())

    def see(self, minute, *, began=None, **changed):
        """Return the seconds of earlier runs, as seen this many minutes after noon."""
        self.conditions = replace(self.conditions, **changed)
        started_at = None if began is None else after(began)
        return self.runs.seconds(JOB, self.manifest, self.conditions, started_at, after(minute))

    @property
    def written(self):
        sent = [json.loads(body) for method, *_, body in self.server.requests if method == "PATCH"]
        return [each["metadata"]["annotations"][keys.EARLIER_SECONDS] for each in sent]


@pytest.fixture
def world():
    world = World()
    yield world
    world.server.close()


def test_a_run_that_is_evicted_counts_until_its_suspension(world):
    world.see(1, began=1)
    world.see(10, began=1)
    assert world.see(12, began=1, is_suspended=True, waiting_since=after(11)) == 600
    assert world.see(30) == 600
    assert world.see(31, began=31, is_suspended=False, waiting_since=after(30)) == 600
    assert world.see(40, is_suspended=True, waiting_since=after(36)) == 900
    assert world.written == ["600", "900"]


def test_a_run_that_is_evicted_and_admitted_between_two_polls_counts(world):
    world.see(1, began=1)
    world.see(10, began=1)
    assert world.see(20, began=19, waiting_since=after(18)) == 540


def test_a_trial_that_is_never_evicted_has_no_earlier_run(world):
    for minute in range(2, 20):
        assert world.see(minute, began=1) == 0
    # A worker is replaced: the trial was not suspended.
    world.see(21)
    assert world.see(22, began=22) == 0
    assert not world.server.requests


def test_the_next_controller_continues_counting(world):
    world.see(1, began=1)
    world.see(11, is_suspended=True, waiting_since=after(11))
    world.manifest["metadata"]["annotations"][keys.EARLIER_SECONDS] = world.written[0]
    world.restart()
    assert world.see(20, began=20, is_suspended=False, waiting_since=after(20)) == 600
    assert world.see(30, is_suspended=True, waiting_since=after(30)) == 1200


def test_an_annotation_that_cannot_be_written_now_is_written_later(world):
    world.status = 503
    world.see(1, began=1)
    world.see(11, is_suspended=True, waiting_since=after(11))
    world.status = 200
    assert world.see(12) == 600
    assert world.written == ["600", "600"]
    world.see(13)
    assert len(world.written) == 2


@pytest.mark.parametrize("text", ["-5", "nan", "inf", "many", "1e300"])
def test_an_annotation_that_somebody_has_changed_counts_nothing(world, text):
    world.manifest["metadata"]["annotations"][keys.EARLIER_SECONDS] = text
    assert world.see(1) == 0
