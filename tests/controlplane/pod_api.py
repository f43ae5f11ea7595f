"""The requests that the stand-ins for scheduler and kubelets make, as plain JSON.

They block, so they belong into threads. The client's models are avoided on purpose: for a hundred
jobs it would be they that take the time.
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import urllib3
from kubernetes import client

from tests.controlplane.pod import Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.controlplane.status import JSON

_STRATEGIC = "application/strategic-merge-patch+json"
_REQUEST_SECONDS = 30.0
_WATCH_SECONDS = 3600.0
_RETRY_SECONDS = 0.2
_CONNECTIONS = 16
_IS_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)


class PodApi:
    """Pods, nodes, and what pods refer to."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._client = client.ApiClient(configuration)
        self._core = client.CoreV1Api(self._client)
        self._raw = {"_preload_content": False, "_request_timeout": _REQUEST_SECONDS}
        self._is_closed = threading.Event()

    def close(self) -> None:
        """Give up what is being tried again, and every connection."""
        self._is_closed.set()
        self._client.close()

    def register_node(self, name: str, labels: Mapping[str, str], gpus: int, port: int) -> None:
        """Create a Node whose kubelet serves on a port of loopback, and report it ready."""
        self._core.create_node({"metadata": {"name": name, "labels": dict(labels)}}, **self._raw)
        resources = {"cpu": "64", "memory": "512Gi", "pods": "1000", "nvidia.com/gpu": str(gpus)}
        status = {
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        self.patch_node_status(name, status)

    def patch_node(self, name: str, spec: JSON) -> None:
        self._core.patch_node(name, {"spec": spec}, _content_type=_STRATEGIC, **self._raw)

    def patch_node_status(self, name: str, status: JSON) -> None:
        body = {"status": status}
        self._core.patch_node_status(name, body, _content_type=_STRATEGIC, **self._raw)

    def bind(self, pod: Pod, node: str) -> bool:
        """Bind a pod to a node; say whether that was still possible."""
        target = {"kind": "Node", "name": node}
        body = {"metadata": {"name": pod.name, "uid": pod.uid}, "target": target}
        return self._unless_gone(
            lambda: self._core.create_namespaced_pod_binding(
                pod.name, pod.namespace, body, **self._raw
            )
        )

    def patch_status(self, pod: Pod, status: JSON) -> bool:
        """Write to a pod's status, conditions by their type; say whether the pod is still there."""
        body = {"metadata": {"uid": pod.uid}, "status": status}
        return self._unless_gone(
            lambda: self._core.patch_namespaced_pod_status(
                pod.name, pod.namespace, body, _content_type=_STRATEGIC, **self._raw
            )
        )

    def delete(self, pod: Pod, grace_seconds: int | None = None) -> bool:
        """Delete a pod, by default with its own grace period; say whether it was still there."""
        body: JSON = {"preconditions": {"uid": pod.uid}}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        return self._unless_gone(
            lambda: self._core.delete_namespaced_pod(
                pod.name, pod.namespace, body=body, **self._raw
            )
        )

    def read_object(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Read a ConfigMap or Secret; None if it does not exist."""
        read = {
            "ConfigMap": self._core.read_namespaced_config_map,
            "Secret": self._core.read_namespaced_secret,
        }[kind]
        try:
            found: Mapping[str, Any] = json.loads(read(name, namespace, **self._raw).data)
        except client.ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return found

    def follow_pods(
        self, on_all: Callable[[list[Pod]], None], on_change: Callable[[str, Pod], None]
    ) -> None:
        """Tell all pods there are, then each change, until closed.

        All pods are told again whenever changes may have been missed.
        """
        version = ""
        while not self._is_closed.is_set():
            try:
                if not version:
                    listed = json.loads(self._core.list_pod_for_all_namespaces(**self._raw).data)
                    on_all([Pod.from_manifest(item) for item in listed["items"]])
                    version = listed["metadata"]["resourceVersion"]
                version = self._follow_from(version, on_change)
            except (client.ApiException, urllib3.exceptions.HTTPError):
                version = ""
                self._is_closed.wait(_RETRY_SECONDS)

    def _follow_from(self, version: str, on_change: Callable[[str, Pod], None]) -> str:
        stream = self._core.list_pod_for_all_namespaces(
            watch=True,
            resource_version=version,
            allow_watch_bookmarks=True,
            _preload_content=False,
            _request_timeout=(_REQUEST_SECONDS, _WATCH_SECONDS),
        )
        for line in stream:
            event = json.loads(line)
            if event["type"] == "ERROR":
                return ""
            version = event["object"]["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                on_change(event["type"], Pod.from_manifest(event["object"]))
        return version

    def _unless_gone(self, request: Callable[[], object]) -> bool:
        """Make a request again until the API server has answered it, for it may be away."""
        while not self._is_closed.is_set():
            try:
                request()
            except client.ApiException as error:
                if error.status in _IS_GONE:
                    return False
                if error.status is not None and error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
            except urllib3.exceptions.HTTPError:
                pass
            else:
                return True
            self._is_closed.wait(_RETRY_SECONDS)
        return False
