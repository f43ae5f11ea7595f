"""The requests that the stand-ins for scheduler and kubelets make, as plain JSON over HTTPS.

They block, so they belong into threads. The Kubernetes client's models are avoided on purpose: with
a hundred jobs it would be they that take the time.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

import urllib3

from tests.controlplane.pod import GPU, PROCESSORS_A_NODE, Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.controlplane.status import JSON

_PATCH = "application/strategic-merge-patch+json"
_CONNECTIONS = 16
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 3600.0
_RETRY_SECONDS = 0.2
_IS_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status


class PodApi:
    """Pods, nodes, and what pods refer to."""

    def __init__(self, url: str, certificate_authority: Path, token: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            ca_certs=str(certificate_authority),
            headers={"Authorization": f"Bearer {token}"},
            retries=False,
        )
        self._is_closed = threading.Event()

    def close(self) -> None:
        """Give up what is being tried again."""
        self._is_closed.set()

    def register_node(self, name: str, labels: Mapping[str, str], gpus: int, port: int) -> None:
        """Create a Node whose kubelet serves on a port of loopback."""
        node = {"kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}
        self._request("POST", "/api/v1/nodes", node)
        resources = {"cpu": str(PROCESSORS_A_NODE), "memory": "512Gi", "pods": "1000", GPU: str(gpus)}
        status = {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        self.patch_node_status(name, status)

    def patch_node(self, name: str, spec: JSON) -> None:
        """Change a node's specification."""
        self._request("PATCH", f"/api/v1/nodes/{name}", {"spec": spec})

    def patch_node_status(self, name: str, status: JSON) -> None:
        """Change a node's status, conditions by their type."""
        self._request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status})

    def bind(self, pod: Pod, node: str) -> bool:
        """Bind a pod to a node; say whether that was still possible."""
        binding = {
            "kind": "Binding",
            "metadata": {"name": pod.name, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        }
        return self._unless_gone("POST", f"{_path(pod)}/binding", binding)

    def patch_status(self, pod: Pod, status: JSON) -> bool:
        """Change a pod's status, conditions by their type; say whether the pod still exists."""
        body = {"metadata": {"uid": pod.uid}, "status": status}
        return self._unless_gone("PATCH", f"{_path(pod)}/status", body)

    def delete(self, pod: Pod, grace_seconds: int | None = None) -> bool:
        """Delete a pod, by default with its own grace period; say whether it still existed."""
        options: JSON = {"kind": "DeleteOptions", "preconditions": {"uid": pod.uid}}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return self._unless_gone("DELETE", _path(pod), options)

    def read_object(self, kind: str, namespace: str, name: str) -> JSON | None:
        """Read a ConfigMap or Secret; None if it does not exist."""
        plural = f"{kind.lower()}s"
        try:
            return self._request("GET", f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def request_token(self, pod: Pod, audience: str | None, seconds: int) -> str | None:
        """Return a token of the pod's service account that is bound to the pod; None if one is gone."""
        path = f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.service_account}/token"
        reference = {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": reference,
            },
        }
        try:
            return str(self._request("POST", path, body)["status"]["token"])
        except ApiError as error:
            # Nothing is made in a namespace that is going, and the pod goes with it.
            if error.status in _IS_GONE or "being terminated" in str(error):
                return None
            raise

    def follow_pods(self, on_all: Callable[[list[Pod]], None], on_change: Callable[[str, Pod], None]) -> None:
        """Report the existing pods, then each change, until closed.

        All pods are reported again whenever changes may have been missed.
        """
        version = ""
        while not self._is_closed.is_set():
            try:
                if not version:
                    listed = self._request("GET", "/api/v1/pods")
                    on_all([Pod.from_manifest(item) for item in listed["items"]])
                    version = listed["metadata"]["resourceVersion"]
                version = self._follow_from(version, on_change)
            except (ApiError, urllib3.exceptions.HTTPError):
                version = ""
                self._is_closed.wait(_RETRY_SECONDS)

    def _follow_from(self, version: str, on_change: Callable[[str, Pod], None]) -> str:
        """Tell changes until the API server ends the watch; return where to go on, or nothing."""
        response = self._pool.request(
            "GET",
            f"{self._url}/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion={version}",
            timeout=urllib3.Timeout(connect=_REQUEST_SECONDS, read=_WATCH_SECONDS),
            preload_content=False,
        )
        with response:
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR" or response.status != HTTPStatus.OK:
                    return ""
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    on_change(event["type"], Pod.from_manifest(event["object"]))
        return version

    def _unless_gone(self, method: str, path: str, body: JSON) -> bool:
        """Make a request; say whether what it is about still exists."""
        try:
            self._request(method, path, body)
        except ApiError as error:
            if error.status in _IS_GONE:
                return False
            if error.status == HTTPStatus.FORBIDDEN and "NamespaceTerminating" in str(error):
                return False  # a binding is new content, which a namespace on its way out refuses
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE and self._is_closed.is_set():
                return False
            raise
        return True

    def _request(self, method: str, path: str, body: JSON | None = None) -> JSON:
        """Make a request until the API server has answered it, for it may be away or busy for a while.

        Raises:
            ApiError: it refused the request, or was away until the stand-in was closed.
        """
        reason = "closed"
        while not self._is_closed.is_set():
            try:
                return self._request_once(method, path, body)
            except ApiError as error:
                is_busy = error.status == HTTPStatus.TOO_MANY_REQUESTS
                if not is_busy and error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                reason = str(error)
            except urllib3.exceptions.HTTPError as error:
                reason = str(error)
            self._is_closed.wait(_RETRY_SECONDS)
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    def _request_once(self, method: str, path: str, body: JSON | None) -> JSON:
        response = self._pool.request(
            method,
            f"{self._url}{path}",
            body=None if body is None else json.dumps({"apiVersion": "v1", **body}),
            headers={
                **self._pool.headers,
                "Content-Type": _PATCH if method == "PATCH" else "application/json",
            },
            timeout=_REQUEST_SECONDS,
        )
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ApiError(response.status, response.data.decode(errors="replace"))
        answer: JSON = json.loads(response.data)
        return answer


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
