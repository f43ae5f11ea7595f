"""The ledger ConfigMap: one key a trial, ours alone, and never full."""

import json
from dataclasses import replace

import pytest

from autotuner import keys
from autotuner.backends.kubernetes import RequestFailed
from autotuner.backends.kubernetes.ledger import Ledger
from autotuner.errors import BackendError, Conflict, Unwritable
from autotuner.job.job import Job
from autotuner.study.ledger import encode_trial
from autotuner.trial import Measurement, Outcome, Suggestion, Trial
from tests.unit.fake_api_server import FakeServer

JOB = Job("digits", "ns", "uid-1", {}, {})


class ConfigMaps:
    """Keeps ConfigMaps as an API server does; an answer of `refuse`, if there is one, replaces its own."""

    def __init__(self, data=None, owner="uid-1", refuse=lambda _method, _size: None):
        self.kept = {}
        if data is not None:
            self.put("digits-tuning", data, owner)
        self.refuse = refuse
        self.server = FakeServer(self.answer)

    def put(self, name, data, owner="uid-1", job="other", kind="PyTorchJob"):
        reference = {"kind": kind, "name": job, "uid": owner}
        metadata = {"name": name, "ownerReferences": [reference], "resourceVersion": "0"}
        self.kept[name] = {"metadata": metadata, "data": data}

    def answer(self, method, path, _query):
        body = self.server.requests[-1][4]
        refused = self.refuse(method, len(body))
        if refused is not None:
            return refused, {}, b'{"message": "refused"}'
        sent = json.loads(body or "{}")
        name = sent["metadata"]["name"] if method == "POST" else path.rpartition("/")[2]
        if method == "POST":
            if name in self.kept:
                return 409, {}, b'{"message": "exists"}'
            self.kept[name] = sent
            sent["metadata"]["resourceVersion"] = "0"
        elif name not in self.kept:
            return 404, {}, b'{"message": "not found"}'
        elif method == "PATCH":
            found = self.kept[name]
            version = found["metadata"]["resourceVersion"]
            if sent.get("metadata", {}).get("resourceVersion") not in {None, version}:
                return 409, {}, b'{"message": "the object has been modified"}'
            found["metadata"]["resourceVersion"] = str(int(version) + 1)
            merged = {**found["data"], **sent.get("data", {})}
            found["data"] = {key: value for key, value in merged.items() if value is not None}
            annotations = sent.get("metadata", {}).get("annotations", {})
            found["metadata"]["annotations"] = {**found["metadata"].get("annotations", {}), **annotations}
            if sum(map(len, found["data"].values())) > 1_048_576:
                return 422, {}, b'{"message": "too long"}'
        return 200, {}, json.dumps(self.kept[name]).encode()

    @property
    def data(self):
        return self.kept["digits-tuning"]["data"]

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
    assert world.kept["digits-tuning"]["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert list(json.loads(world.server.requests[-1][4])["data"]) == [keys.ledger_key(1)]
    assert [t.number for t in ledger.trials()[0]] == [0, 1]


def test_a_trial_that_is_recorded_is_not_written_again(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0))
    ledger.write(trial(0, points=9))
    assert world.methods == ["GET", "POST"]


@pytest.mark.parametrize("wrong", ["{}", "not json", encode_trial(trial(5))])
def test_a_trial_that_ran_again_for_an_entry_that_cannot_be_read_replaces_it(config_maps, wrong):
    first = encode_trial(trial())
    server = config_maps({keys.ledger_key(0): first, keys.ledger_key(1): wrong})
    ledger = Ledger.read(server.server.api(), JOB)
    assert [found.number for found in ledger.trials()[0]] == [0]
    ledger.write(trial(1))
    assert [found.number for found in ledger.trials()[0]] == [0, 1]
    assert ledger.trials()[1] == []
    assert server.data[keys.ledger_key(0)] == first
    assert [found.number for found in Ledger.read(server.server.api(), JOB).trials()[0]] == [0, 1]


def test_a_record_that_another_controller_has_written_meanwhile_stays(config_maps):
    server = config_maps({})
    ours, theirs = (Ledger.read(server.server.api(), JOB) for _ in range(2))
    theirs.write(trial(0))
    theirs.write(trial(1))
    there = dict(server.data)
    with pytest.raises(RequestFailed, match="has been modified"):
        ours.write(replace(trial(0), outcome=Outcome.LOST))
    assert server.data == there
    again = Ledger.read(server.server.api(), JOB)
    again.write(replace(trial(0), outcome=Outcome.LOST))
    assert server.data == there
    again.write(trial(2))
    assert set(server.data) == {keys.ledger_key(number) for number in range(3)}


def test_a_ledger_that_was_made_meanwhile_is_added_to(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    Ledger.read(world.server.api(), JOB).write(trial(0))
    ledger.write(trial(1))
    assert set(world.data) == {keys.ledger_key(0), keys.ledger_key(1)}


def test_the_ledger_of_an_earlier_job_of_this_name_is_waited_for(config_maps):
    world = config_maps()
    world.put("digits-tuning", {"theirs": "x"}, "uid-0", job="digits")
    with pytest.raises(BackendError, match="is of an earlier PyTorchJob digits, and is deleted by") as told:
        Ledger.read(world.server.api(), JOB)
    assert not isinstance(told.value, Conflict)
    assert "remove" not in str(told.value)


def test_the_ledger_of_a_job_of_another_kind_is_not_to_be_removed(config_maps):
    world = config_maps()
    world.put("digits-tuning", {"theirs": "x"}, "uid-0", job="digits", kind="TrainJob")
    with pytest.raises(Conflict, match="has the results of TrainJob digits: two jobs of one name") as told:
        Ledger.read(world.server.api(), JOB)
    assert "remove" not in str(told.value)


def test_a_ledger_that_another_owner_created_meanwhile_is_left_alone(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    world.put("digits-tuning", {"theirs": "x"}, "uid-2")
    with pytest.raises(Conflict, match="does not belong to this job"):
        ledger.write(trial(0))
    assert world.data == {"theirs": "x"}


def test_a_ledger_that_was_deleted_by_hand_is_written_again_whole(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0))
    del world.kept["digits-tuning"]
    ledger.write(trial(1))
    assert set(world.data) == {keys.ledger_key(0), keys.ledger_key(1)}


def test_a_ledger_of_an_earlier_job_of_this_name_is_not_taken_for_ours(config_maps):
    with pytest.raises(Conflict):
        Ledger.read(config_maps({}, owner="uid-0").server.api(), JOB)


def wide(number):
    """Return a trial with as many hyperparameters as a search space may have."""
    parameters = {f"hyperparameter_number_{n}": 0.123456789012345 + n for n in range(32)}
    curve = tuple(Measurement(step, 0.123456789 + step) for step in range(300))
    return Trial(Suggestion(number, 256, parameters, 1), curve, Outcome.MISSED)


def test_a_full_ledger_continues_in_the_next_config_map_and_loses_nothing(config_maps):
    world = config_maps()
    ledger = Ledger.read(world.server.api(), JOB)
    for number in range(650):
        ledger.write(wide(number))
    first, second, third = (world.kept[name] for name in sorted(world.kept))
    assert [each["metadata"]["name"] for each in (first, second, third)] == [
        "digits-tuning",
        "digits-tuning-1",
        "digits-tuning-2",
    ]
    for each in (ledger, Ledger.read(world.server.api(), JOB)):
        trials, problems = each.trials()
        assert not problems
        assert [t.suggestion for t in trials] == [wide(n).suggestion for n in range(650)]
        assert all(t.measurements[-1] == wide(0).measurements[-1] for t in trials)


def test_a_ledger_that_others_keys_have_filled_continues_in_the_next(config_maps):
    world = config_maps({"theirs": "x" * 1_048_000})
    Ledger.read(world.server.api(), JOB).write(trial(0, points=200))
    assert list(world.kept["digits-tuning-1"]["data"]) == [keys.ledger_key(0)]
    assert [t.number for t in Ledger.read(world.server.api(), JOB).trials()[0]] == [0]


def test_a_successor_that_was_never_made_is_an_empty_one(config_maps):
    """As after a crash between naming it and making it."""
    world = config_maps({keys.ledger_key(0): encode_trial(trial(0))})
    world.kept["digits-tuning"]["metadata"]["annotations"] = {keys.LEDGER_SUCCESSOR: "digits-tuning-1"}
    ledger = Ledger.read(world.server.api(), JOB)
    assert [t.number for t in ledger.trials()[0]] == [0]
    ledger.write(trial(1))
    assert list(world.kept["digits-tuning-1"]["data"]) == [keys.ledger_key(1)]
    assert [t.number for t in Ledger.read(world.server.api(), JOB).trials()[0]] == [0, 1]


def test_a_successor_that_belongs_to_somebody_else_is_left_alone(config_maps):
    world = config_maps({"theirs": "x" * 999_999})
    world.put("digits-tuning-1", {"a": "b"}, "uid-2")
    with pytest.raises(Conflict):
        Ledger.read(world.server.api(), JOB).write(trial(0))
    assert world.kept["digits-tuning-1"]["data"] == {"a": "b"}


def test_a_ledger_of_which_the_first_config_map_was_deleted_by_hand_is_written_again_with_its_successor(
    config_maps,
):
    world = config_maps({"theirs": "x" * 999_999})
    ledger = Ledger.read(world.server.api(), JOB)
    ledger.write(trial(0))
    del world.kept["digits-tuning-1"]
    ledger.write(trial(1))
    assert [t.number for t in Ledger.read(world.server.api(), JOB).trials()[0]] == [0, 1]


def test_a_ledger_that_takes_nothing_says_so(config_maps):
    world = config_maps({}, refuse=lambda method, _size: 422 if method == "PATCH" else None)
    with pytest.raises(Unwritable, match="cannot take trial 0"):
        Ledger.read(world.server.api(), JOB).write(trial(0))


def test_entries_that_are_not_ours_are_reported_and_passed_over(config_maps):
    world = config_maps({keys.ledger_key(0): "{", "notes": "mine"})
    trials, problems = Ledger.read(world.server.api(), JOB).trials()
    assert not trials
    assert len(problems) == 1
