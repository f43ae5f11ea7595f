"""Events on a job: one for each thing said, with how often it was said."""

import json
from datetime import UTC, datetime

import pytest

from autotuner.backends.kubernetes.events import emit
from autotuner.job.job import Job
from autotuner.status import Event
from tests.unit.fake_api_server import FakeServer

JOB = Job("digits", "ns", "uid-1", {}, {})


class Events:
    """Keeps Events as an API server does, for one who may create and patch them."""

    def __init__(self):
        self.kept = {}
        self.server = FakeServer(self.answer)

    def answer(self, method, path, _query):
        body = json.loads(self.server.requests[-1][4])
        name = body["metadata"]["name"] if method == "POST" else path.rpartition("/")[2]
        if method == "POST" and name in self.kept:
            return 409, {}, b'{"message": "exists"}'
        assert method in {"POST", "PATCH"}
        self.kept[name] = {**self.kept.get(name, {}), **body}
        return 200, {}, json.dumps(self.kept[name]).encode()


@pytest.fixture
def events():
    events = Events()
    yield events
    events.server.close()


def test_an_event_that_is_emitted_again_counts_up(events):
    for hour in (10, 11, 12):
        emit(
            events.server.api(), JOB, Event("Warning", "Held", "why"), datetime(2026, 1, 1, hour, tzinfo=UTC)
        )
    (kept,) = events.kept.values()
    assert kept["count"] == 3
    assert kept["firstTimestamp"] == "2026-01-01T10:00:00Z"
    assert kept["lastTimestamp"] == "2026-01-01T12:00:00Z"


def test_another_message_is_another_event(events):
    for message in ("one", "two"):
        emit(events.server.api(), JOB, Event("Normal", "Said", message), datetime(2026, 1, 1, tzinfo=UTC))
    assert [kept["count"] for kept in events.kept.values()] == [1, 1]
