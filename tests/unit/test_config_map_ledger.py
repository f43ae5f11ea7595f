"""The ledger ConfigMap: one key a trial, ours alone, and never full."""

import json

import pytest

from autotuner import keys
from autotuner.backends.kubernetes.ledger import Ledger
from autotuner.errors import Conflict, Unwritable
from autotuner.job.job import Job
from autotuner.study.ledger import decode_trial
from autotuner.trial import Measurement, Outcome, Suggestion, Trial
from tests.unit.fake_api_server import FakeServer

JOB = Job("digits", "ns", "uid-1", {}, {})


class ConfigMaps:
    """Keeps one ConfigMap as an API server does; `refuse` answers in its place where it returns something."""

    def __init__(self, data=None, owner="uid-1", refuse=lambda _method, _size: None):
        self.data = data
        self.owner = owner
        self.refuse = refuse
        self.server = FakeServer(self.answer)

    def answer(self, method, _path, _query):
        body = self.server.requests[-1][4]
        refused = self.refuse(method, len(body))
        if refused is not None:
            return refused, {}, b'{"message": "refused"}'
        if method == "POST":
            if self.data is not None:
                return 409, {}, b'{"message": "exists"}'
            sent = json.loads(body)
            self.data, self.owner = sent["data"], sent["metadata"]["ownerReferences"][0]["uid"]
        elif self.data is None:
            return 404, {}, b'{"message": "not found"}'
        elif method == "PATCH":
            self.data |= json.loads(body)["data"]
        shown = {"metadata": {"ownerReferences": [{"uid": self.owner}]}, "data": self.data}
        return 200, {}, json.dumps(shown).encode()

    @property
    def methods(self):
        return [request[0] for request in self.server.requests]


@pytest.fixture
def config_maps():
    made = []

    def make(*arguments, **fields):
        made.append(ConfigMaps(*arguments, **fields))
        return made[-1]

    yield make
    for each in made:
        each.server.close()


def trial(number=0, points=3):
    curve = tuple(Measurement(step, 0.123456789 + step) for step in range(points))
    return Trial(Suggestion(number, 256, {}, 1), curve, Outcome.MISSED)


def test_the_first_trial_makes_the_ledger_and_the_next_adds_one_key(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0))
    ledger.write(trial(1))
    assert world.methods == ["GET", "POST", "PATCH"]
    assert world.owner == "uid-1"
    assert list(json.loads(world.server.requests[-1][4])["data"]) == [keys.ledger_key(1)]
    assert [t.number for t in ledger.trials()[0]] == [0, 1]


def test_a_trial_that_is_recorded_is_not_written_again(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0))
    ledger.write(trial(0, points=9))
    assert world.methods == ["GET", "POST"]


def test_a_ledger_that_was_made_meanwhile_is_added_to(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    Ledger.read(world.server.api(), JOB).write(trial(0))
    ledger.write(trial(1))
    assert set(world.data) == {keys.ledger_key(0), keys.ledger_key(1)}


def test_a_ledger_that_a_stranger_made_meanwhile_is_left_alone(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    world.data, world.owner = {"theirs": "x"}, "uid-2"
    with pytest.raises(Conflict, match="does not belong to this job"):
        ledger.write(trial(0))
    assert world.data == {"theirs": "x"}


def test_a_ledger_that_was_deleted_by_hand_is_written_again_whole(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0))
    world.data = None
    ledger.write(trial(1))
    assert set(world.data) == {keys.ledger_key(0), keys.ledger_key(1)}


def test_a_ledger_of_an_earlier_job_of_this_name_is_not_taken_for_ours(config_maps):
    with pytest.raises(Conflict):
        Ledger.read(config_maps({}, owner="uid-0").server.api(), JOB)


def test_a_full_ledger_loses_points_and_no_results(config_maps):
    world = config_maps(refuse=lambda method, size: 422 if method == "PATCH" and size > 3000 else None)
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0, points=4))
    ledger._data |= {f"theirs-{n}": "x" * 60_000 for n in range(8)}
    ledger.write(trial(1, points=2000))
    recorded = decode_trial(world.data[keys.ledger_key(1)])
    assert len(recorded.measurements) < 200
    assert recorded.measurements[-1] == trial(1, points=2000).measurements[-1]


def test_a_ledger_that_takes_nothing_says_so(config_maps):
    world = config_maps({}, refuse=lambda method, _size: 422 if method == "PATCH" else None)
    with pytest.raises(Unwritable, match="cannot take trial 0"):
        Ledger.read(world.server.api(), JOB).write(trial(0))


def test_entries_that_are_not_ours_are_told_and_passed_over(config_maps):
    world = config_maps({keys.ledger_key(0): "{", "notes": "mine"})
    trials, problems = Ledger.read(world.server.api(), JOB).trials()
    assert not trials
    assert len(problems) == 1
