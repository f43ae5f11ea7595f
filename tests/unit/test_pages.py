"""The controller's web pages: the list of all studies and the report of each, from hostile metadata, too."""

from __future__ import annotations

import copy
import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.backends.kubernetes import Api
from autotuner.backends.kubernetes.readers import unread_job
from autotuner.controller.pages import Pages
from autotuner.job.kinds import KINDS
from tests.builders import NOON, manifest, trial
from tests.hostile import JSON, with_value
from tests.unit.fake_api_server import FakeServer

(PYTORCH,) = (kind for kind in KINDS if kind.name == "PyTorchJob")
JOBS = "/apis/kubeflow.org/v1/namespaces/team-a/pytorchjobs/"
ANSWER = {
    "batch_size": 512,
    "parameters": {"learning_rate": 0.3},
    "confirmed": 3,
    "confirmations": 3,
    "metric": 0.93,
    "probability_larger": 0.06,
    "gpu_hours": 61.2,
    "reason": "LargerUnlikely",
}


def registered(name="toy", namespace="team-a", phase="Searching", **status):
    """Return a PyTorchJob with its status, as the API server has it."""
    made = copy.deepcopy(manifest(name, metadata={"uid": f"uid-of-{name}", "namespace": namespace}))
    said = {"phase": phase, "message": "trial 3 runs", **status}
    made["metadata"]["annotations"].update({keys.STATUS_PREFIX + key: value for key, value in said.items()})
    return made


def pages(*jobs, api=None, running=(), ticks=lambda: 0.0):
    """Return pages of these jobs, which the watches hold."""
    held = [unread_job(PYTORCH, job, "") for job in jobs]
    return Pages(api or unused(), lambda: held, lambda *_: running, clock=lambda: NOON, ticks=ticks)


@functools.cache
def unused() -> Api:
    """Return an API server that must not be asked."""
    server = FakeServer(lambda *_: (500, {}, b"{}"))
    api = server.api()
    server.close()
    return api


@pytest.fixture
def cluster():
    """Give a function that makes an API server which has these jobs, and no ledgers."""
    servers = []

    def serve(*jobs):
        found = {JOBS + job["metadata"]["name"]: json.dumps(job).encode() for job in jobs}

        def answer(_method, path, _query):
            return (200, {}, found[path]) if path in found else (404, {}, b'{"reason": "NotFound"}')

        servers.append(FakeServer(answer))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def text_of(response):
    return response.body.decode()


def test_the_list_has_what_needs_its_owner_first_and_what_is_over_last():
    response = pages(
        registered("done", phase="Done", answer=json.dumps(ANSWER), trials='{"total":28,"reached":5}'),
        registered("searching"),
        registered("invalid", phase="Invalid", message="target is 'high': must be ..."),
    ).respond("/")
    text = text_of(response)
    assert response.status == 200
    rows = [text.index(f'href="/team-a/pytorchjobs/{name}"') for name in ("invalid", "searching", "done")]
    assert rows == sorted(rows)
    for shown in (">512<", "3 of 3", ">28<", "1 Searching", "must be ..."):
        assert shown in text


def test_a_list_of_one_namespace_has_its_jobs_only():
    made = pages(registered("ours"), registered("theirs", namespace="team-b"))
    assert "theirs" in text_of(made.respond("/"))
    text = text_of(made.respond("/team-a"))
    assert "ours" in text
    assert "theirs" not in text


def test_a_list_that_may_not_be_complete_says_why():
    made = Pages(unused(), list, lambda *_: (), is_ready=lambda: (False, "jobs cannot be listed: 403"))
    text = text_of(made.respond("/"))
    assert "may not be complete: jobs cannot be listed: 403" in text
    assert "No job is registered" not in text


def test_an_empty_list_says_how_a_job_is_registered():
    assert "autotuner.dev/target" in text_of(pages().respond("/"))


@pytest.mark.parametrize(
    "path",
    ["/..", "/team-a/pytorchjobs/other", "/team-b/pytorchjobs/toy", "/team-a/secrets/toy", "//x", "/a/b/c/d"],
)
def test_there_are_pages_of_registered_jobs_only_and_nothing_else_is_asked_for(path):
    assert pages(registered()).respond(path).status == 404


def test_a_report_has_finished_and_running_trials_and_is_loaded_again(cluster):
    job = registered()
    server = cluster(job)
    response = pages(job, api=server.api(), running=[trial(3, outcome=None)]).respond(
        "/team-a/pytorchjobs/toy"
    )
    text = text_of(response)
    assert response.status == 200
    assert "</span>running" in text
    assert 'http-equiv="refresh"' in text
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]


def test_a_report_is_drawn_again_only_after_some_seconds(cluster):
    job, now = registered(), [0.0]
    server = cluster(job)
    made = pages(job, api=server.api(), ticks=lambda: now[0])
    asked = []
    for now[0] in (100.0, 101.0, 110.0):
        made.respond("/team-a/pytorchjobs/toy")
        asked.append(sum(path == JOBS + "toy" for _, path, *_ in server.requests))
    assert asked == [1, 1, 2]


def test_a_job_that_is_gone_or_has_mistakes_has_a_page_that_says_so(cluster):
    job = registered()
    gone = pages(job, api=cluster().api()).respond("/team-a/pytorchjobs/toy")
    assert gone.status == 503
    assert "cannot be read" in text_of(gone)

    job["metadata"]["annotations"][keys.TARGET] = "high <b>"
    wrong = text_of(pages(job, api=cluster(job).api()).respond("/team-a/pytorchjobs/toy"))
    assert "has mistakes" in wrong
    assert "high &lt;b&gt;" in wrong


@given(st.sampled_from(sorted(registered(answer="", trials="")["metadata"]["annotations"])), JSON)
def test_the_list_is_shown_whatever_the_annotations_are(key, value):
    job = with_value(registered(), ["metadata", "annotations", key], value)
    text = text_of(pages(job, registered("other")).respond("/"))
    assert "/team-a/pytorchjobs/other" in text
    assert "<script" not in text
