"""What the commands need of a cluster: `status` and `retry` read no more of a job than its annotations."""

import json

import pytest
import yaml
from kubernetes.config import incluster_config
from typer.testing import CliRunner

from autotuner import keys
from autotuner.backends.kubernetes import connect
from autotuner.backends.kubernetes.api import current_namespace
from autotuner.cli import app
from autotuner.errors import InvalidConfiguration
from tests.unit.fake_api_server import FakeServer

UNREADABLE = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "TrainJob",
    "metadata": {
        "name": "digits",
        "namespace": "ns",
        "uid": "u",
        "annotations": {keys.TARGET: "accuracy >= 0.9", keys.PHASE: "Invalid", keys.MESSAGE: "no runtime"},
    },
    "spec": {"runtimeRef": {"name": "absent"}},
}


def use_kubeconfig(monkeypatch, path):
    monkeypatch.setenv("KUBECONFIG", str(path))
    # The client reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function from arguments to the result of a command, for a user who may read jobs alone."""

    def answer(method, path, _query):
        if method == "PATCH":
            return 200, {}, b"{}"
        if path.endswith("/trainjobs/digits"):
            return 200, {}, json.dumps(UNREADABLE).encode()
        if path.endswith("/trainjobs/plain"):
            return 200, {}, b'{"metadata": {"name": "plain", "namespace": "ns", "uid": "p"}}'
        if path.endswith("/trainjobs"):
            items = {"items": [UNREADABLE, {"metadata": {"name": "plain", "namespace": "ns"}}]}
            return 200, {}, json.dumps(items).encode()
        if "runtimes" in path:
            return 403, {}, b'{"message": "may not read runtimes"}'
        return 404, {}, b'{"message": "not found"}'

    server = FakeServer(answer)
    cluster = {"name": "c", "cluster": {"server": server.api().client.configuration.host}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}
    config = {"clusters": [cluster], "contexts": [context], "current-context": "c"}
    config["users"] = [{"name": "u", "user": {}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    use_kubeconfig(monkeypatch, tmp_path / "kubeconfig")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, arguments)
        return result, [json.loads(body) for method, *_, body in server.requests if method == "PATCH"]

    yield run
    server.close()


def test_the_status_of_a_job_that_cannot_be_parsed_is_shown(run):
    result, _ = run("status", "digits", "--json")
    assert json.loads(result.stdout)["message"] == "no runtime", result.output


def test_the_list_of_jobs_has_those_that_cannot_be_parsed_and_none_that_is_not_registered(run):
    result, _ = run("status", "--json")
    assert [(job["job"], job["phase"]) for job in json.loads(result.stdout)] == [("digits", "Invalid")]


def test_a_retry_needs_no_training_runtime(run):
    result, patches = run("retry", "digits")
    assert result.exit_code == 0, result.output
    assert [list(patch["metadata"]["annotations"]) for patch in patches] == [[keys.RETRIED_AT]]


def test_a_retry_of_a_job_that_is_not_registered_says_so(run):
    result, patches = run("retry", "plain")
    assert result.exit_code == 1
    assert "TrainJob ns/plain is not tuned: it has no annotation autotuner.dev/target" in result.output
    assert not patches


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """Make this process look like one of a pod in the namespace `team-a`, as that of a notebook."""
    for name, text in (("token", "t"), ("ca.crt", "c"), ("namespace", "team-a")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)


def test_in_a_pod_its_own_cluster_and_namespace_are_meant(pod):
    assert connect().client.configuration.host == "https://10.0.0.1:443"
    assert current_namespace() == "team-a"


def test_in_a_pod_too_a_kubeconfig_that_is_named_is_meant(pod, run, tmp_path):
    assert connect().client.configuration.host.startswith("http://127.0.0.1:")
    assert connect(context="c").client.configuration.host.startswith("http://127.0.0.1:")
    assert current_namespace() == current_namespace("c") == "ns"


@pytest.mark.parametrize(
    "text", ["clusters: [", "", "- a", "kind: Config", "\x00", "contexts: 5\ncurrent-context: c"]
)
def test_a_kubeconfig_that_cannot_be_read_is_reported(text, tmp_path, monkeypatch):
    (tmp_path / "kubeconfig").write_text(text)
    use_kubeconfig(monkeypatch, tmp_path / "kubeconfig")
    with pytest.raises(InvalidConfiguration, match=r"there is no cluster: .*; set KUBECONFIG to a"):
        connect()
    assert current_namespace() == "default"
