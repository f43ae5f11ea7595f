"""The lock of the leader election: how long it is valid, and what it says where its requests fail."""

import json
import threading

import pytest
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord

from autotuner.backends.kubernetes import RequestFailed
from autotuner.controller.leader_election import Lock, elect
from tests.unit.fake_api_server import FakeServer

LEASE = {"metadata": {"name": "autotuner", "namespace": "ns"}, "spec": {"holderIdentity": "other"}}


@pytest.fixture
def ask():
    """Return a function that reads the lease once, where the server answers so, and returns the lock."""
    servers = []

    def once(status, said):
        servers.append(FakeServer(lambda *_: (status, {"Content-Type": "application/json"}, said)))
        lock = Lock(servers[-1].api(), "autotuner", "ns", "me")
        lock.get("autotuner", "ns")
        return lock

    yield once
    for server in servers:
        server.close()


def test_a_lease_is_valid_for_its_time_after_the_renewal_was_sent():
    now = [100.0]

    def answer(method, _path, _query):
        now[0] += 4  # the answer takes its time
        if method == "GET":
            return 404, {}, b'{"code": 404}'
        return 201, {"Content-Type": "application/json"}, json.dumps(LEASE).encode()

    server = FakeServer(answer)
    lock = Lock(server.api(), "autotuner", "ns", "me", ticks=lambda: now[0])
    assert not lock.is_valid(30)
    record = LeaderElectionRecord("me", "30", "2026-01-01 12:00:00", "2026-01-01 12:00:00")
    assert lock.create("autotuner", "ns", record)
    now[0] = 129
    assert lock.is_valid(30)
    now[0] = 130
    assert not lock.is_valid(30)
    assert lock.update("autotuner", "ns", record)
    assert lock.is_valid(30)
    server.close()


def test_a_lease_that_another_controller_holds_is_not_valid_any_more():
    holder = ["me"]

    def answer(method, _path, _query):
        if method == "GET" and holder[0] is None:
            return 404, {}, b'{"code": 404}'
        spec = {"holderIdentity": holder[0] or "me"}
        return 200, {"Content-Type": "application/json"}, json.dumps({**LEASE, "spec": spec}).encode()

    server = FakeServer(answer)
    lock = Lock(server.api(), "autotuner", "ns", "me")
    lock.get("autotuner", "ns")
    record = LeaderElectionRecord("me", "30", "2026-01-01 12:00:00", "2026-01-01 12:00:00")
    assert lock.update("autotuner", "ns", record)
    for holder[0] in ("me", None):  # deleted by hand: it can still be made again
        lock.get("autotuner", "ns")
        assert lock.is_valid(30)
    holder[0] = "other"
    lock.get("autotuner", "ns")
    assert not lock.is_valid(30)
    server.close()


def test_a_controller_without_a_valid_lease_changes_nothing():
    server = FakeServer(lambda *_: (200, {}, b"{}"))
    api = server.api()
    api.may_change = lambda: False
    for change in (api.create, api.patch, api.delete):
        with pytest.raises(RequestFailed, match="another controller may lead"):
            change("/api/v1/namespaces/ns/configmaps", {})
    api.get("/api/v1/namespaces/ns/configmaps/digits-tuning")
    assert [method for method, *_ in server.requests] == ["GET"]
    server.close()


def test_a_lease_that_may_not_be_read_is_reported(ask):
    lock = ask(403, b'{"code": 403, "message": "cannot get resource leases"}')
    assert lock.problem == "get lease: 403 cannot get resource leases"


def test_an_answer_of_a_proxy_is_reported_too(ask):
    assert ask(502, b"<html>bad gateway").problem.startswith("get lease: 502 ")


@pytest.mark.parametrize("body", [b"<html>please log in", b"[]"])
def test_an_answer_that_is_no_lease_is_a_failed_request(ask, body):
    lock = ask(200, body)
    assert lock.get("autotuner", "ns")[0] is False
    assert lock.problem.startswith("get lease: ")
    lock.release()


def test_an_election_that_breaks_off_is_lost():
    class Broken(Lock):
        def get(self, *_):
            raise RuntimeError("nobody expected it")

    server, lost = FakeServer(lambda *_: (200, {}, b"{}")), threading.Event()
    lock = Broken(server.api(), "autotuner", "ns", "me")
    elect(
        lock, lease_seconds=30, renew_seconds=20, retry_seconds=5, on_elected=lambda: None, on_lost=lost.set
    )
    assert lost.wait(10)
    server.close()


@pytest.mark.parametrize("answer", [(200, json.dumps(LEASE).encode()), (404, b'{"code": 404}')])
def test_a_lease_of_another_or_none_yet_is_no_problem(ask, answer):
    assert ask(*answer).problem == ""
