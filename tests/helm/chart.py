"""Runs Helm on the chart, once for each set of values, and finds things in what comes out."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "autotuner"
RELEASE = "tuner"
NAMESPACE = "tuning"
FULLNAME = "tuner-autotuner"

Document = dict[str, Any]


@functools.cache
def helm_program() -> str:
    """Return the helm of $HELM or the PATH, else the one that the control plane's build made."""
    found = os.environ.get("HELM") or shutil.which("helm")
    if found:
        return found
    from tests.controlplane import build  # noqa: PLC0415 (only where there is no other)

    return str(build.find().helm)


def helm(*arguments: str, stdin: str = "", kubeconfig: str = os.devnull) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller looks at its exit code.

    It sees no cluster but that of `kubeconfig`, whatever the machine's own configuration says.
    """
    environment = {**os.environ, "KUBECONFIG": kubeconfig}
    return subprocess.run(
        [helm_program(), *arguments],
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def render(release: str = RELEASE, *, at: str = NAMESPACE, **values: Any) -> tuple[Document, ...]:
    """Return the objects of a release in the namespace `at`; parsed once for each set of values."""
    return _render(release, at, json.dumps(values, sort_keys=True))


def refusal(**values: Any) -> str:
    """Return what helm says of values that it must not accept."""
    done = _template(RELEASE, NAMESPACE, json.dumps(values, sort_keys=True))
    assert done.returncode != 0, f"accepted: {values}"
    return done.stderr


def notes(**values: Any) -> str:
    """Return what an installation with these values tells its user."""
    arguments = ("install", RELEASE, str(CHART), "-n", NAMESPACE, "--dry-run=client", "-o", "json", "-f", "-")
    done = helm(*arguments, stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["info"]["notes"])


def find(documents: tuple[Document, ...], kind: str, name: str = FULLNAME) -> list[Document]:
    """Return the objects of a kind and name."""
    return [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]


def one(documents: tuple[Document, ...], kind: str, name: str = FULLNAME) -> Document:
    """Return the only object of a kind and name."""
    (document,) = find(documents, kind, name)
    return document


def pod_spec(documents: tuple[Document, ...]) -> Document:
    """Return the spec of the controller's pod."""
    spec: Document = one(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(documents: tuple[Document, ...]) -> Document:
    """Return the controller's container."""
    first: Document = pod_spec(documents)["containers"][0]
    return first


def daemon_file(documents: tuple[Document, ...]) -> str:
    """Return the controller's file of settings, as text."""
    return str(one(documents, "ConfigMap")["data"]["config.yaml"])


def nested(path: str, value: Any) -> Document:
    """Return values with one of them set: `a.b` and 1 make `{a: {b: 1}}`."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return dict(value)


@functools.cache
def _template(release: str, namespace: str, values: str) -> subprocess.CompletedProcess[str]:
    return helm("template", release, str(CHART), "-n", namespace, "-f", "-", stdin=values)


@functools.cache
def _render(release: str, namespace: str, values: str) -> tuple[Document, ...]:
    done = _template(release, namespace, values)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)
