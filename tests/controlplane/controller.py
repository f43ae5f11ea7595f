"""A released controller beside the control plane: its kinds, rights, webhooks, configuration and process.

The API server calls its webhooks by URL, at a port of loopback, and they show the API server's own
certificate, which is good for that address and vouches for itself. So there are no Services, no authority of
our own and no certificate management; the controllers' own is switched off in their configuration.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import yaml
from kubernetes import client

from tests.controlplane import build, rbac, releases
from tests.controlplane.objects import create
from tests.controlplane.processes import Program, free_port
from tests.controlplane.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.plane import ControlPlane

JSON = dict[str, Any]
START_SECONDS = 120.0
CERTIFICATES = "tmp/k8s-webhook-server/serving-certs"
QUIET: Mapping[str, Any] = {
    "health": {"healthProbeBindAddress": "0"},
    "metrics": {"bindAddress": "0"},
    "leaderElection": {"leaderElect": False},
    # Else a benchmark of many jobs measures how few requests a second they allow themselves.
    "clientConnection": {"qps": 200, "burst": 300},
}
"""What the configuration files of all have in common."""
_TOKEN = "var/run/secrets/kubernetes.io/serviceaccount/token"


@dataclass(frozen=True)
class Deployment:
    """What of a released controller is installed, and how it is configured."""

    release: releases.Release
    namespace: str
    kinds: str
    """The folder of its CRDs."""
    rights: Sequence[str]
    """The files of its roles."""
    webhooks: str
    """The file of its webhooks."""
    admitted: frozenset[str]
    """The resources for which its webhooks are called; the others are left out."""
    configuration: Mapping[str, Any]
    """Its configuration file, without the port of its webhooks."""
    arguments: Sequence[str] = ()
    is_told_certificates: bool = True
    """Whether its configuration can say where the certificate of its webhooks is."""
    certificates: Sequence[str] = (CERTIFICATES,)
    """Where it reads its certificate, below the folder that stands for ``/``."""


class Controller:
    """A released controller: `install` its objects, then `start` it."""

    def __init__(self, deployment: Deployment, plane: ControlPlane) -> None:
        self.deployment = deployment
        self._plane = plane
        built = build.find_release(deployment.release)
        self._manifests = built.manifests
        self._port = free_port()
        self.root = plane.folder / deployment.release.name
        """The folder that stands for ``/`` where it reads what a kubelet mounts."""
        self._kubeconfig = self.root / "kubeconfig"
        configuration = self.root / "configuration.yaml"
        environment = {
            "KUBECONFIG": str(self._kubeconfig),
            "TMPDIR": str(self.root / "tmp"),
            releases.ROOT_VARIABLE: str(self.root),
        }
        arguments = [f"--config={configuration}", *deployment.arguments]
        self.program = Program(built.program, arguments, plane.family, environment)
        plane.add(self.program)
        for place in deployment.certificates:
            folder = self.root / place
            folder.mkdir(parents=True)
            shutil.copyfile(plane.certificate_authority, folder / "tls.crt")
            shutil.copyfile(plane.certificate_key, folder / "tls.key")
        webhook: JSON = {"port": self._port}
        if deployment.is_told_certificates:
            webhook["certDir"] = str(self.root / CERTIFICATES)
        configuration.write_text(yaml.safe_dump({**deployment.configuration, "webhook": webhook}))

    def install(self, admin: client.ApiClient) -> None:
        """Create its kinds, its account and rights, and its webhooks."""
        name, namespace = self.deployment.release.name, self.deployment.namespace
        create(admin, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, namespace)
        kinds = list(self._kinds())
        for kind in kinds:
            create(admin, kind, namespace)
        rules = [
            rule
            for place in self.deployment.rights
            for manifest in self.released(place)
            for rule in manifest.get("rules", ())
        ]
        rights = rbac.manifests_of_rules(rules, namespace, name=name, cluster_wide=True)
        token = rbac.create_user(admin, rights, namespace)
        self._plane.write_kubeconfig(self._kubeconfig, token, namespace)
        mounted = self.root / _TOKEN
        mounted.parent.mkdir(parents=True)
        mounted.touch(mode=0o600)
        mounted.write_text(token)
        extensions = client.ApiextensionsV1Api(admin)
        for kind in kinds:
            eventually(lambda kind=kind: _is_served(extensions, kind["metadata"]["name"]))
        for webhook in self._webhooks():
            create(admin, webhook, namespace)

    def start(self, answers: Callable[[], bool]) -> None:
        """Start it, and return once ``answers`` says that its webhooks answer.

        Raises:
            StartError: that took too long.
        """
        self.program.start()
        # It may ask for kinds that the API server does not serve yet, and ends then.
        self.program.wait_until(answers, START_SECONDS, restarts=True)

    def released(self, place: str) -> list[JSON]:
        """Return the objects of a released manifest."""
        return [each for each in yaml.safe_load_all((self._manifests / place).read_text()) if each]

    def _kinds(self) -> Iterator[JSON]:
        for file in sorted((self._manifests / self.deployment.kinds).glob("*.yaml")):
            kind: JSON = yaml.safe_load(file.read_text())
            if kind["kind"] == "CustomResourceDefinition":
                # The tests use only the version that is stored.
                kind["spec"].pop("conversion", None)
                yield kind

    def _webhooks(self) -> Iterator[JSON]:
        authority = base64.b64encode(self._plane.certificate_authority.read_bytes()).decode()
        for manifest in self.released(self.deployment.webhooks):
            manifest["metadata"] = {"name": f"{self.deployment.release.name}-{manifest['kind'].lower()}"}
            manifest["webhooks"] = [
                webhook
                for webhook in manifest["webhooks"]
                if set(webhook["rules"][0]["resources"]) <= self.deployment.admitted
            ]
            for webhook in manifest["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {
                    "url": f"https://127.0.0.1:{self._port}{path}",
                    "caBundle": authority,
                }
            yield manifest


def accepts(
    admin: client.ApiClient, plural: str, manifest: Mapping[str, Any], namespace: str | None = None
) -> bool:
    """Say whether the API server would create an object, asking the webhooks."""
    api = client.CustomObjectsApi(admin)
    group, version = manifest["apiVersion"].split("/")
    try:
        if namespace is None:
            api.create_cluster_custom_object(group, version, plural, dict(manifest), dry_run="All")
        else:
            api.create_namespaced_custom_object(
                group, version, namespace, plural, dict(manifest), dry_run="All"
            )
    except client.ApiException as error:
        # A webhook does not answer, or the kind is served only in a moment.
        if error.status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.NOT_FOUND):
            return False
        raise
    return True


def _is_served(extensions: client.ApiextensionsV1Api, name: str) -> bool:
    conditions = extensions.read_custom_resource_definition(name).status.conditions or ()
    return any(each.type == "Established" and each.status == "True" for each in conditions)
