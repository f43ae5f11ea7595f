"""What the cluster says of an object that holds a trial up, and what happens where it may not be asked."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from autotuner.backends.kubernetes.cluster_words import ClusterWords
from tests.unit.fake_api_server import FakeServer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class World:
    """An API server that answers with these objects, and a clock."""

    def __init__(self):
        self.now = NOON
        self.status, self.items = 200, []
        self.server = FakeServer(self._answer)
        self.words = ClusterWords(self.server.api(), lambda: self.now)

    def _answer(self, *_):
        return self.status, {}, json.dumps({"items": self.items}).encode()


@pytest.fixture
def world():
    world = World()
    yield world
    world.server.close()


def test_the_newest_warning_event_of_the_object_is_shown(world):
    world.items = [
        {"reason": "FailedCreatePod", "message": "exceeded quota", "lastTimestamp": "2026-01-01T11:59:00Z"},
        {"reason": "Older", "message": "m", "lastTimestamp": "2026-01-01T11:00:00Z"},
        {"reason": "Series", "message": "m", "series": {"lastObservedTime": "2026-01-01T11:30:00.000000Z"}},
        {"reason": "NeverSeen"},
    ]
    assert world.words.warning("ns", "uid") == "FailedCreatePod: exceeded quota"
    (_, path, query, *_) = world.server.requests[0]
    assert path == "/api/v1/namespaces/ns/events"
    assert query["fieldSelector"] == "involvedObject.uid=uid,type=Warning"


def test_the_message_of_kueue_is_shown(world):
    waiting = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "no quota"}
    world.items = [{"status": {"conditions": [waiting]}}]
    assert world.words.admission("ns", "uid") == "Pending: no quota"
    assert world.server.requests[0][2]["labelSelector"] == "kueue.x-k8s.io/job-uid=uid"


GIVEN_UP = {"type": "Finished", "status": "True", "reason": "FailedToStart", "message": "conflict"}
RESERVED = {"type": "QuotaReserved", "status": "True", "reason": "QuotaReserved"}
CHECK = {"name": "nodes", "state": "Retry", "message": "none"}
KIND = "kubeflow.org/pytorchjob"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"conditions": [RESERVED, GIVEN_UP]}, "FailedToStart: conflict"),
        ({"conditions": [RESERVED], "admissionChecks": [CHECK]}, "admission check nodes is Retry: none"),
        ({"conditions": [RESERVED], "admissionChecks": [{**CHECK, "state": "Ready"}]}, ""),
    ],
)
def test_a_job_that_has_its_quota_and_does_not_start_is_reported_with_the_reason(world, status, said):
    world.items = [{"status": status}]
    assert world.words.admission("ns", "uid", KIND) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, f"Kueue has made no Workload for it: {KIND} must be in its integrations.frameworks"),
        (403, "for the reason: kubectl describe workloads -n ns -l kueue.x-k8s.io/job-uid=uid"),
        (404, "the cluster has no Kueue"),
        (500, ""),
    ],
)
def test_a_queued_job_without_a_workload_is_reported_with_what_to_do(world, status, said):
    world.status = status
    for _ in range(2):
        assert world.words.admission("ns", "uid", KIND).startswith(said)
    assert bool(world.words.admission("ns", "uid", KIND)) == bool(said)
    assert world.words.admission("ns", "uid") == "", "without a queue, it may wait for something else"


@pytest.mark.parametrize("items", [[], [None, 3], [{"status": {"conditions": [{"type": "Admitted"}]}}]])
def test_where_nothing_is_said_nothing_is_reported(world, items):
    world.items = items
    assert world.words.admission("ns", "uid") == ""
    assert world.words.warning("ns", "uid") == ""


@pytest.mark.parametrize(("status", "asked"), [(403, 1), (404, 1), (500, 2)])
def test_a_refusal_costs_no_pass_and_one_request_an_hour(world, status, asked):
    world.status = status
    assert [world.words.warning("ns", "uid") for _ in range(2)] == ["", ""]
    assert len(world.server.requests) == asked
    assert world.words.admission("ns", "uid") == ""
    world.now += timedelta(hours=1)
    world.status, world.items = 200, [{"reason": "FailedMount"}]
    assert world.words.warning("ns", "uid") == "FailedMount"
