"""What the controller tells the world: probes, metrics, log lines."""

import http.client
import io
import json
import logging
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from autotuner import log
from autotuner.controller.http import Response, Server, probes
from autotuner.controller.metrics import Metrics
from autotuner.trial import Outcome, Suggestion, Trial

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_say_what_is_wrong():
    respond = probes(
        is_healthy=lambda: (True, "ok"),
        is_ready=lambda: (False, "the watches have not listed"),
        metrics=lambda: b"",
    )
    with Server(("127.0.0.1", 0), respond) as server:
        assert get(server.port, "/healthz?verbose") == (200, "ok\n")
        assert get(server.port, "/readyz") == (503, "the watches have not listed\n")
        assert get(server.port, "/secret")[0] == 404


def test_a_response_that_cannot_be_made_is_an_error_and_is_logged(stream):
    log.configure("info", "json", stream)

    def fail(path):
        raise ValueError(path)

    with Server(("127.0.0.1", 0), fail) as server:
        assert get(server.port, "/page") == (500, "an error: see the controller's log\n")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["path"]) == ("request_failed", "/page")


NAMES = ("autotuner.tuning.svc", "tuner.example.com")


def status_for(port, host):
    """Return the status of a request with this Host header; None: without one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest("GET", "/", skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8081", 200),
        ("LocalHost.", 200),
        ("autotuner.localhost:80", 200),
        ("127.0.0.1:9000", 200),
        ("[::1]:8081", 200),
        ("[fd00::7]", 200),
        ("10.0.0.7", 200),
        ("autotuner.tuning.svc:8081", 200),
        ("Tuner.example.com.", 200),
        (None, 200),
        ("rebound.example.com:8081", 403),
        ("autotuner.tuning.svc.example.com", 403),
        ("localhost.example.com", 403),
        ("notlocalhost", 403),
        ("127.0.0.1.example.com", 403),
        ("user@localhost", 403),
        ("localhost:8081:80", 403),
        ("[::1", 403),
    ],
)
def test_a_web_site_cannot_have_its_own_name_stand_for_this_server(host, status):
    with Server(("127.0.0.1", 0), lambda _: Response(b"ok"), NAMES) as server:
        assert status_for(server.port, host) == status


def test_probes_and_metrics_are_answered_under_any_name():
    with Server(("127.0.0.1", 0), lambda _: Response(b"ok")) as server:
        assert status_for(server.port, "tuner-7d9f.monitoring.example.com") == 200


def has_ipv6_loopback():
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


on_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="this machine has no IPv6 loopback")


@on_ipv6
@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("::", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("localhost", "localhost"),
    ],
)
def test_the_default_address_serves_both_families_and_any_other_its_own(host, client):
    with (
        Server((host, 0), lambda _: Response(b"ok")) as server,
        urllib.request.urlopen(f"http://{client}:{server.port}/healthz", timeout=10) as answer,
    ):
        assert answer.status == 200


@on_ipv6
def test_an_address_of_one_family_is_closed_to_the_other():
    with (
        Server(("0.0.0.0", 0), lambda _: Response(b"ok")) as server,
        pytest.raises(urllib.error.URLError),
    ):
        urllib.request.urlopen(f"http://[::1]:{server.port}/healthz", timeout=10)


def test_metrics_follow_prometheus_names_and_units():
    metrics = Metrics()
    metrics.count_request("get", "200")
    metrics.note_phase("a/b", "Searching")
    metrics.count_trial(
        Trial(
            Suggestion(0, 256, {}, 1),
            outcome=Outcome.MISSED,
            started_at=NOW,
            ended_at=NOW + timedelta(seconds=90),
            devices=4,
        ),
        NOW,
    )
    text = metrics.exposition().decode()
    for line in (
        'autotuner_studies{phase="Searching"} 1.0',
        'autotuner_studies{phase="Done"} 0.0',
        'autotuner_trials_total{outcome="missed"} 1.0',
        "autotuner_gpu_seconds_total 360.0",
        'autotuner_api_requests_total{code="200",verb="get"} 1.0',
        "autotuner_queue_depth 0.0",
        "autotuner_reconcile_errors_total 0.0",
        "autotuner_reconcile_duration_seconds_count 0.0",
    ):
        assert line in text.splitlines()


def test_a_job_counts_in_one_phase_and_in_none_once_it_is_gone():
    metrics = Metrics()
    for phase in ("Waiting", "Searching", "Searching", "Done", None, None):
        metrics.note_phase("a/b", phase)
    samples = [s for m in metrics.registry.collect() for s in m.samples if s.name == "autotuner_studies"]
    assert {sample.value for sample in samples} == {0}


@pytest.fixture
def stream():
    before = logging.getLogger().handlers[:], logging.getLogger().level
    yield io.StringIO()
    logging.getLogger().handlers[:], level = before[0], before[1]
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_every_line_is_one_json_object_whoever_logs(stream):
    log.configure("info", "auto", stream)
    structlog.get_logger("controller").bind(job="a/b").info("reconciled", started=[1])
    logging.getLogger("library").warning("has %s", "said so")
    structlog.get_logger("controller").debug("nothing")
    ours, theirs = map(json.loads, stream.getvalue().splitlines())
    assert ours | {"timestamp": ""} == {
        "event": "reconciled",
        "job": "a/b",
        "started": [1],
        "level": "info",
        "logger": "controller",
        "timestamp": "",
    }
    assert (theirs["event"], theirs["level"]) == ("has said so", "warning")


def test_an_exception_is_one_line_too(stream):
    log.configure("info", "json", stream)
    try:
        int("two\nlines")
    except ValueError:
        structlog.get_logger("controller").warning("reconcile_failed", exc_info=True)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "reconcile_failed"
