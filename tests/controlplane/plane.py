"""A real control plane: etcd, kube-apiserver, kube-controller-manager and the training operator.

All of it listens on loopback, on free ports, with data that is thrown away, and with RBAC on. The
`Nodes` beside it stand in for scheduler and kubelets, so pods run; see `tests.controlplane.nodes`.
"""

from __future__ import annotations

import secrets
import ssl
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import yaml
from kubernetes import client

from tests.controlplane.nodes import Nodes
from tests.controlplane.pod_api import PodApi
from tests.controlplane.processes import Family, Program, free_port
from tests.controlplane.training_operator import TrainingOperator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.controlplane.build import Programs

_START_SECONDS = 120.0  # an upper bound for a machine under heavy load; 10 is usual

# The node life-cycle and scheduling controllers stay out: `Nodes` plays their part, on demand.
_CONTROLLERS = (
    "deployment-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
)


class ControlPlane:
    """The running whole. Make one with `start`; `close` ends it."""

    def __init__(self, programs: Programs) -> None:
        self._closing = ExitStack()
        self.family = Family()
        self._closing.callback(self.family.close)
        self.folder = self.family.folder
        self.url = f"https://127.0.0.1:{free_port()}"
        self._token = secrets.token_hex(16)
        self.etcd, self._etcd_url = self._make_etcd(programs)
        self.api_server = self._make_api_server(programs)
        self.controller_manager = self._make_controller_manager(programs)
        self.operator = TrainingOperator(programs.training_operator, programs.operator_manifests, self)
        self.nodes: Nodes
        self._added: list[Program] = []

    @classmethod
    def start(cls, programs: Programs) -> ControlPlane:
        """Start everything and return once pods would run.

        Raises:
            StartError: a program did not come up.
        """
        plane = cls(programs)
        try:
            plane._start()
        except BaseException:
            plane.close()
            raise
        return plane

    def close(self) -> None:
        """End all programs and pods, and delete their data."""
        self._closing.close()
        own = (self.etcd, self.api_server, self.controller_manager, self.operator.program)
        for program in (*own, *self._added):
            program.stop()  # dead already, but not yet waited for

    def add(self, program: Program) -> None:
        """Let a program end with the control plane."""
        self._added.append(program)

    def restart_controller_manager(self) -> None:
        """Let the garbage collector learn of new kinds at once; by itself it looks every 30 s."""
        self.controller_manager.stop()
        self.controller_manager.start()

    @property
    def certificate_authority(self) -> Path:
        """The file with the certificate that the API server shows, which is its own authority."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def certificate_key(self) -> Path:
        return self.folder / "certificates" / "apiserver.key"

    def configuration(self, token: str | None = None) -> client.Configuration:
        """Return what a Kubernetes client needs to act as the token's user, or as the admin."""
        configuration = client.Configuration()
        configuration.host = self.url
        configuration.ssl_ca_cert = str(self.certificate_authority)
        configuration.api_key = {"authorization": token or self._token}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        return configuration

    def write_kubeconfig(self, path: Path, token: str | None = None, namespace: str = "default") -> Path:
        """Write a kubeconfig for the token's user, or for the admin, and return its path."""
        cluster = {"server": self.url, "certificate-authority": str(self.certificate_authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self._token}}],
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": "test", "namespace": namespace},
                }
            ],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    @contextmanager
    def without_api_server(self) -> Iterator[None]:
        """Kill the API server for the length of a block, and bring it back with its data."""
        self.api_server.stop()
        try:
            yield
        finally:
            self._start_api_server()

    @contextmanager
    def without_operator(self) -> Iterator[None]:
        """Kill the training operator for the length of a block."""
        self.operator.program.stop()
        try:
            yield
        finally:
            self.operator.start(_START_SECONDS)

    def _start(self) -> None:
        self.etcd.start()
        self.etcd.wait_until(lambda: _answers(f"{self._etcd_url}/health"), _START_SECONDS)
        self._start_api_server()
        self.write_kubeconfig(self.folder / "admin.kubeconfig")
        # After the CRDs: the garbage collector looks for new kinds only every 30 s.
        self.operator.install()
        self.controller_manager.start()
        with ThreadPoolExecutor() as threads:
            operator = threads.submit(self.operator.start, _START_SECONDS)
            self.nodes = Nodes(
                PodApi(self.url, self.certificate_authority, self._token),
                certificate=self.certificate_authority,
                key=self.certificate_key,
                folder=self.folder / "pods",
                environment=self.family.mark,
            )
            self._closing.callback(self.nodes.close)
            operator.result()

    def _start_api_server(self) -> None:
        self.api_server.start()
        self.api_server.wait_until(
            lambda: _answers(f"{self.url}/readyz", self.certificate_authority, self._token),
            _START_SECONDS,
        )

    def _make_etcd(self, programs: Programs) -> tuple[Program, str]:
        clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        arguments = [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",  # the data need not survive the machine
            "--log-level=warn",
        ]
        return Program(programs.etcd, arguments, self.family), clients

    def _make_api_server(self, programs: Programs) -> Program:
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{self._token},admin,admin,"system:masters"\n')
        arguments = [
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--cert-dir={self.certificate_key.parent}",
            # Loopback is no valid address for the `kubernetes` Service's endpoint: write none.
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            f"--token-auth-file={tokens}",
            # Trainer's status server looks up here who signs tokens, so the names must lead to this server.
            f"--service-account-issuer={self.url}",
            f"--service-account-jwks-uri={self.url}/openid/v1/jwks",
            # The server makes its TLS key at its start, before it reads these. One key is enough.
            f"--service-account-key-file={self.certificate_key}",
            f"--service-account-signing-key-file={self.certificate_key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--v=1",
        ]
        return Program(programs.kube_apiserver, arguments, self.family)

    def _make_controller_manager(self, programs: Programs) -> Program:
        arguments = [
            f"--kubeconfig={self.folder / 'admin.kubeconfig'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            f"--root-ca-file={self.certificate_authority}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false",
        ]
        return Program(programs.kube_controller_manager, arguments, self.family)


def _answers(url: str, authority: Path | None = None, token: str = "") -> bool:
    """Say whether a GET of ``url`` succeeds; it may as well be refused while a server starts."""
    try:
        context = ssl.create_default_context(cafile=authority) if authority else None
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=5, context=context):
            return True
    except OSError:
        return False
