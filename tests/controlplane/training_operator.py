"""The Kubeflow training operator, with its CRD, its own RBAC rules and its validating webhook.

Two things that a cluster's network and kubelet do for it are done here:

- The API server calls the webhook through Service ``training-operator``. That is made one of type
  ExternalName ``localhost``, and the webhook configuration names the operator's port; the API
  server still checks the certificate for the Service's name.
- The operator writes the webhook's certificate into a Secret, which a kubelet would mount. It looks
  for *a* certificate in a fixed place under ``/tmp``, but serves the one under ``$TMPDIR``; so that
  control planes of several sessions do not share a certificate, the former is left empty.
"""

from __future__ import annotations

import base64
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from kubernetes import client

from tests.controlplane import rbac
from tests.controlplane.objects import create
from tests.controlplane.processes import Program, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controlplane.plane import ControlPlane

_NAMESPACE = "kubeflow"
_NAME = "training-operator"
_WEBHOOK = "validator.training-operator.kubeflow.org"
_SECRET = "training-operator-webhook-cert"
_CERTIFICATES = "k8s-webhook-server/serving-certs"


class TrainingOperator:
    """The operator for PyTorchJobs: `install` its objects, then `start` it."""

    def __init__(self, program: Path, manifests: Path, plane: ControlPlane) -> None:
        self._manifests = manifests
        self._plane = plane
        temporary = plane.folder / _NAME
        self._served_certificates = temporary / _CERTIFICATES
        self._kubeconfig = plane.folder / f"{_NAME}.kubeconfig"
        self._webhook_port = free_port()
        arguments = [
            "--enable-scheme=pytorchjob",
            f"--webhook-server-port={self._webhook_port}",
            "--health-probe-bind-address=0",
            "--metrics-bind-address=0",
            # Its default of 20 requests a second would be what a benchmark of many jobs measures.
            "--kube-api-qps=200",
            "--kube-api-burst=300",
            "--controller-threads=4",
        ]
        environment = {"KUBECONFIG": str(self._kubeconfig), "TMPDIR": str(temporary)}
        self.program = Program(program, arguments, plane.family, environment)

    def install(self) -> None:
        """Create its CRD, its account and rights, its webhook and the Service of that."""
        with client.ApiClient(self._plane.configuration()) as admin:
            for manifest in self._objects():
                create(admin, manifest, _NAMESPACE)
            token = rbac.create_user(admin, self._released("rbac"), _NAMESPACE)
        self._plane.write_kubeconfig(self._kubeconfig, token, _NAMESPACE)

    def start(self, seconds: float) -> None:
        """Start it and return once the API server accepts PyTorchJobs by its webhook's word.

        Raises:
            StartError: that took more than ``seconds``.
        """
        fixed_place = Path("/tmp", _CERTIFICATES)
        fixed_place.mkdir(parents=True, exist_ok=True)
        (fixed_place / "tls.crt").touch()
        self._served_certificates.parent.mkdir(parents=True, exist_ok=True)
        self.program.start()
        with client.ApiClient(self._plane.configuration()) as admin:
            # It may look for its certificate before that is there, and ends then.
            self.program.wait_until(lambda: self._mount_certificate(admin), seconds, restarts=True)
            self.program.wait_until(lambda: self._accepts_jobs(admin), seconds, restarts=True)

    def _mount_certificate(self, admin: client.ApiClient) -> bool:
        """Copy the Secret's files to where the operator reads them, all at once, once there."""
        if self._served_certificates.exists():  # it starts again
            return True
        secret = client.CoreV1Api(admin).read_namespaced_secret(_SECRET, _NAMESPACE)
        if not secret.data:
            return False
        aside = Path(tempfile.mkdtemp(dir=self._served_certificates.parent))
        for name, content in secret.data.items():
            (aside / name).write_bytes(base64.b64decode(content))
        aside.rename(self._served_certificates)
        return True

    def _accepts_jobs(self, admin: client.ApiClient) -> bool:
        container = {"name": "pytorch", "image": "none"}
        replicas = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
        job = {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {"name": "webhook-answers"},
            "spec": {"pytorchReplicaSpecs": {"Master": replicas}},
        }
        try:
            client.CustomObjectsApi(admin).create_namespaced_custom_object(
                "kubeflow.org", "v1", "default", "pytorchjobs", job, dry_run="All"
            )
        except client.ApiException as error:
            if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:  # the webhook does not answer
                return False
            raise
        return True

    def _objects(self) -> Iterator[dict[str, Any]]:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}
        (crd,) = self._released("crds/kubeflow.org_pytorchjobs.yaml")
        yield crd
        # The operator may fill this Secret, but not create it.
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _SECRET}}
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _NAME},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }
        (webhook,) = self._released("webhook/manifests.yaml")
        webhook["metadata"]["name"] = _WEBHOOK
        webhook["webhooks"] = [
            rule for rule in webhook["webhooks"] if rule["rules"][0]["resources"] == ["pytorchjobs"]
        ]
        webhook["webhooks"][0]["clientConfig"]["service"] |= {
            "name": _NAME,
            "namespace": _NAMESPACE,
            "port": self._webhook_port,
        }
        yield webhook

    def _released(self, place: str) -> list[dict[str, Any]]:
        """Return the objects of a released manifest, or of all in a folder."""
        path = self._manifests / place
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        return [document for file in files for document in yaml.safe_load_all(file.read_text())]
