"""What an installation tells its user, and the pod with which `helm test` checks it."""

import functools
import http.server
import subprocess
import sys
import threading

import pytest

from tests.helm.chart import FULLNAME, NAMESPACE, RELEASE, find, notes, one, render


def test_test_pod_is_no_endpoint_of_the_service():
    documents = render()
    selector = one(documents, "Service")["spec"]["selector"]
    assert not selector.items() <= one(documents, "Pod", f"{FULLNAME}-test")["metadata"]["labels"].items()


def test_notes_name_the_next_commands():
    text = notes()
    assert f"kubectl -n {NAMESPACE} rollout status deployment/{FULLNAME}" in text
    assert f"helm test {RELEASE} -n {NAMESPACE}" in text
    assert "autotuner.dev/target=" in text
    assert "every namespace" in text
    assert "WARNING: this cluster does not serve PyTorchJobs" in text


def test_notes_of_a_namespaced_release_use_its_namespace():
    text = notes(namespaces=["team-a", "team-b"], test={"enabled": False})
    assert "the namespaces team-a, team-b" in text
    assert "kubectl -n team-a annotate pytorchjob" in text
    assert "helm test" not in text


def test_notes_name_the_kind_that_is_tuned():
    text = notes(kinds=["TrainJob"])
    assert "annotate trainjob JOB" in text
    assert "describe trainjob JOB" in text
    assert "(spec.suspend: true)" in text
    assert "annotate pytorchjob JOB" in notes()


def test_notes_warn_of_replicas_without_a_budget():
    assert "podDisruptionBudget" in notes(replicaCount=2, podDisruptionBudget={"enabled": False})
    assert "podDisruptionBudget" not in notes(replicaCount=2)


def test_notes_ask_for_the_host_name_of_a_proxy_before_the_pages():
    assert "pages.hosts is empty" in notes(pages={"service": True})
    assert "pages.hosts" not in notes(pages={"service": True, "hosts": ["tuner.example.com"]})
    assert "pages.hosts" not in notes()


class _Daemon(http.server.BaseHTTPRequestHandler):
    def __init__(self, *arguments, answers):
        self.answers = answers
        super().__init__(*arguments)

    def do_GET(self):
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("answers", "passes"),
    [
        ({"/readyz": (200, b"ok"), "/metrics": (200, b"autotuner_queue_depth 0\n")}, True),
        ({"/readyz": (503, b"no"), "/metrics": (200, b"autotuner_queue_depth 0\n")}, False),
        ({"/readyz": (200, b"ok"), "/metrics": (200, b"python_info 1\n")}, False),
    ],
)
def test_program_of_the_test_pod_tells_a_ready_daemon_from_another(answers, passes):
    (pod,) = find(render(), "Pod", f"{FULLNAME}-test")
    (asker,) = pod["spec"]["containers"]
    assert asker["command"] == ["python", "-c"]
    program, address = asker["args"]
    assert address == f"http://{FULLNAME}.{NAMESPACE}.svc:8080"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Daemon, answers=answers))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        here = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [sys.executable, "-c", program, here], check=False, capture_output=True, timeout=60
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (done.returncode == 0) is passes, done.stderr
