"""The edge to the API server, against a small HTTP server that answers as one: well, badly, or not at all."""

import json

import pytest

from autotuner import __version__, keys
from autotuner.backends.kubernetes import RequestFailed
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.controller.informers import Informers
from autotuner.job.kinds import KINDS
from autotuner.job.pytorchjob import PYTORCHJOB
from tests.controlplane.waiting import eventually
from tests.unit.fake_api_server import FakeServer


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        servers.append(FakeServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def always(status, body=b"{}", **headers):
    return lambda *_: (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_requests_carry_our_name_and_our_credentials(serve):
    server = serve(always(200))
    server.api().get(jobs_path("ns", "job"))
    _, path, _, headers, _ = server.requests[0]
    assert path == "/apis/kubeflow.org/v1/namespaces/ns/pytorchjobs/job"
    assert headers["User-Agent"] == f"autotuner/{__version__}"
    assert headers["authorization"] == "Bearer secret"


def test_a_patch_is_a_merge_patch_whatever_its_body(serve):
    server = serve(always(200))
    server.api().patch(jobs_path("ns", "job"), {"a": None})
    method, _, _, headers, body = server.requests[0]
    assert method == "PATCH"
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(body) == {"a": None}


def test_a_name_cannot_leave_its_place_in_the_path(serve):
    server = serve(always(200))
    server.api().get(jobs_path("ns", "../../secrets/x?y=1"))
    assert (
        server.requests[0][1]
        == "/apis/kubeflow.org/v1/namespaces/ns/pytorchjobs/..%2F..%2Fsecrets%2Fx%3Fy%3D1"
    )


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422, 429, 500, 503])
def test_a_refusal_says_what_the_server_said(serve, status):
    counts = []
    server = serve(always(status, json.dumps({"message": "because"}).encode(), Retry_After="7"))
    with pytest.raises(RequestFailed, match="because") as failed:
        server.api(counts).create(jobs_path("ns"), {})
    assert failed.value.status == status
    assert failed.value.retry_after == 7
    assert counts == [("create", str(status))]
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_time_is_not_asked_again_at_once(serve, status):
    """urllib3 would take a repeatable request with Retry-After for its own to repeat."""
    server = serve(always(status, b'{"message": "storage is initializing"}', Retry_After="7"))
    with pytest.raises(RequestFailed, match="storage is initializing") as failed:
        server.api().get(jobs_path("ns"))
    assert (failed.value.status, failed.value.retry_after) == (status, 7)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>gateway</html>", b"[]", b'"text"', b"", b"\xff\xfe"])
def test_an_answer_that_is_no_object_is_a_failure_to_repeat(serve, body):
    with pytest.raises(RequestFailed):
        serve(always(200, body)).api().get("/x")


def test_an_answer_that_breaks_off_is_a_failure_to_repeat(serve):
    with pytest.raises(RequestFailed, match="broke off"):
        serve(always(200, b"{", Content_Length="100", Connection="close")).api().get("/x")


def test_a_server_that_is_not_there_is_a_failure_to_repeat(serve):
    counts = []
    server = serve(always(200))
    api = server.api(counts)
    server.close()
    with pytest.raises(RequestFailed, match="refused"):
        api.get("/x")
    assert counts == [("get", "error")]


def test_a_log_is_text_whatever_its_bytes(serve):
    assert serve(always(200, b"a\xffb\n")).api().log("ns", "pod") == "a\ufffdb\n"


@pytest.mark.parametrize(
    "said",
    [
        b"unable to retrieve container logs for containerd://b91ca08d41b0",
        b'failed to open log file "/var/log/pods/x/pytorch/0.log": no such file or directory',
        b"2026-01-01T11:59:00Z epoch 1\nunable to retrieve container logs for cri-o://b91c",
    ],
)
def test_a_node_that_sends_its_refusal_in_the_place_of_a_log_has_sent_no_log(serve, said):
    with pytest.raises(RequestFailed, match=r"log /api/v1/namespaces/ns/pods/pod/log: (unable|failed) to"):
        serve(always(200, said)).api().log("ns", "pod", timestamps="true")


def test_a_program_that_prints_such_words_has_a_log(serve):
    printed = b"2026-01-01T11:59:00Z unable to retrieve container logs for containerd://b91c"
    assert serve(always(200, printed)).api().log("ns", "pod", timestamps="true") == printed.decode()


# --- watches -------------------------------------------------------------------------------------------


def listing(version):
    item = {"metadata": {"name": "job", "namespace": "ns", "annotations": {keys.TARGET: "x"}}}
    return json.dumps({"metadata": {"resourceVersion": version}, "items": [item]}).encode()


def gone():
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


@pytest.mark.parametrize("how", ["event", "status"])
def test_a_watch_that_is_too_old_is_listed_again(serve, how):
    def answer(_method, _path, query):
        if "watch" not in query:
            return 200, {}, listing("5")
        return (200, {}, gone()) if how == "event" else (410, {}, b'{"message": "too old"}')

    server, seen = serve(answer), []
    watches = Informers(
        server.api(),
        (),
        lambda _kind, change, item: seen.append((change, item)),
        lambda *_: None,
        [PYTORCHJOB],
    )
    watches.start()
    try:
        eventually(lambda: len([r for r in server.requests if "watch" not in r[2]]) >= 4)
        assert watches.have_synced
        assert seen[0][0] == "ADDED"
    finally:
        watches.stop()


@pytest.mark.parametrize("status", [500, 200])
def test_a_server_that_fails_or_ends_each_watch_is_not_asked_in_a_busy_loop(serve, status):
    server = serve(
        lambda _m, _p, query: (200, {}, listing("5")) if "watch" not in query else (status, {}, b"")
    )
    watches = Informers(server.api(), (), lambda *_: None, lambda *_: None, [PYTORCHJOB])
    watches.start()
    try:
        eventually(lambda: len([r for r in server.requests if "watch" in r[2]]) >= 4)
    finally:
        watches.stop()
    # Two watches, with pauses of 1 s, 2 s, ... between their attempts.
    assert len([r for r in server.requests if "watch" in r[2]]) <= 8


def test_a_list_that_is_refused_is_reported_as_the_reason_for_not_being_ready(serve):
    allowed = []

    def answer(_method, _path, query):
        if not allowed:
            return 403, {}, b'{"message": "cannot list resource pytorchjobs"}'
        return (200, {}, listing("5")) if "watch" not in query else (500, {}, b"{}")

    watches = Informers(serve(answer).api(), (), lambda *_: None, lambda *_: None, [PYTORCHJOB])
    assert watches.problem == ""
    watches.start()
    try:
        eventually(lambda: "403 cannot list resource pytorchjobs" in watches.problem)
        allowed.append(True)
        eventually(lambda: watches.have_synced)
        assert watches.problem == ""
    finally:
        watches.stop()


def test_a_watch_that_is_refused_is_a_reason_for_not_being_ready(serve):
    status = [403]

    def answer(_method, _path, query):
        if "watch" not in query:
            return 200, {}, listing("5")
        return status[0], {}, b'{"message": "cannot watch resource pytorchjobs"}'

    watches = Informers(serve(answer).api(), (), lambda *_: None, lambda *_: None, [PYTORCHJOB])
    watches.start()
    try:
        eventually(lambda: "403 cannot watch resource pytorchjobs" in watches.problem)
        assert watches.have_synced
        status[0] = 500  # for a while: what is watched again goes on from there
        eventually(lambda: watches.problem == "")
    finally:
        watches.stop()


@pytest.mark.parametrize("first", ["listed", "absent"])
def test_a_list_that_is_refused_later_is_a_reason_for_not_being_ready(serve, first):
    answers = []

    def answer(_method, _path, query):
        if "watch" in query:
            return 410, {}, b'{"message": "too old"}'
        if answers:
            return 403, {}, b'{"message": "cannot list resource pytorchjobs"}'
        return (200, {}, listing("5")) if first == "listed" else (404, {}, b'{"message": "no such kind"}')

    watches = Informers(serve(answer).api(), (), lambda *_: None, lambda *_: None, [PYTORCHJOB])
    watches.start()
    try:
        eventually(lambda: watches.have_synced)
        assert not watches.problem
        answers.append(403)
        eventually(lambda: "403 cannot list resource pytorchjobs" in watches.problem, 20)
    finally:
        watches.stop()


def test_a_kind_that_is_not_served_holds_nothing_up_and_is_picked_up_once_it_is(serve):
    served = []

    def answer(_method, path, query):
        if "trainjobs" in path and not served:
            return 404, {}, b'{"message": "the server could not find the requested resource"}'
        return (200, {}, listing("5")) if "watch" not in query else (500, {}, b"{}")

    seen = []
    watches = Informers(
        serve(answer).api(), (), lambda kind, *_: seen.append(kind.name), lambda *_: None, KINDS
    )
    watches.start()
    try:
        eventually(lambda: watches.have_synced and "PyTorchJob" in seen)
        assert [kind.name for kind in watches.absent] == ["TrainJob"]
        served.append(True)
        eventually(lambda: "TrainJob" in seen)
        eventually(lambda: not watches.absent)
    finally:
        watches.stop()


def test_jobs_are_watched_by_their_metadata_and_trials_whole(serve):
    server = serve(
        lambda _m, _p, query: (200, {}, listing("5")) if "watch" not in query else (500, {}, b"{}")
    )
    watches = Informers(server.api(), ("a",), lambda *_: None, lambda *_: None, [PYTORCHJOB])
    watches.start()
    try:
        eventually(lambda: len(server.requests) >= 4)
    finally:
        watches.stop()
    accepted = {query["labelSelector"]: headers["Accept"] for _, _, query, headers, _ in server.requests}
    assert "PartialObjectMetadata" in accepted[f"!{keys.TRIAL_JOB_UID}"]
    assert accepted[keys.TRIAL_JOB_UID] == "application/json"
    assert {path for _, path, *_ in server.requests} == {"/apis/kubeflow.org/v1/namespaces/a/pytorchjobs"}
