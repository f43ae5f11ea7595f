"""PyTorchJobs for tests: built from a few values, and asked about by those."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubernetes import client

if TYPE_CHECKING:
    from collections.abc import Mapping

API = ("kubeflow.org", "v1")
PLURAL = "pytorchjobs"


@dataclass(frozen=True)
class Job:
    """A PyTorchJob with one master, as a user would write it; vary it by `dataclasses.replace`."""

    name: str
    command: tuple[str, ...] = ()
    workers: int = 0
    image: str = "example/training"
    restart_policy: str = "Never"
    clean_pod_policy: str = "Running"
    annotations: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the container."""
    worker_container: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the workers' container where they differ from the master's."""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the pods' specification."""

    @property
    def master(self) -> str:
        """The master's pod."""
        return f"{self.name}-master-0"

    def worker(self, index: int = 0) -> str:
        """Return a worker's pod."""
        return f"{self.name}-worker-{index}"

    @property
    def pods(self) -> tuple[str, ...]:
        """All its pods, the master's first."""
        return (self.master, *(self.worker(index) for index in range(self.workers)))

    def manifest(self) -> dict[str, Any]:
        """Return the object to create."""
        container = {
            "name": "pytorch",
            "image": self.image,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "env": [{"name": name, "value": value} for name, value in self.environment.items()],
            **self.container,
        }
        if self.command:
            container["command"] = list(self.command)

        def replicas(count: int, container: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "replicas": count,
                "restartPolicy": self.restart_policy,
                "template": {"spec": {"containers": [container], **self.pod}},
            }

        specs = {"Master": replicas(1, container)}
        if self.workers:
            specs["Worker"] = replicas(self.workers, {**container, **self.worker_container})
        return {
            "apiVersion": "/".join(API),
            "kind": "PyTorchJob",
            "metadata": {"name": self.name, "annotations": dict(self.annotations)},
            "spec": {
                "runPolicy": {"cleanPodPolicy": self.clean_pod_policy},
                "pytorchReplicaSpecs": specs,
            },
        }

    def create(self, api: client.ApiClient, namespace: str) -> Job:
        """Create it, and return it for the next call."""
        client.CustomObjectsApi(api).create_namespaced_custom_object(*API, namespace, PLURAL, self.manifest())
        return self

    def delete(self, api: client.ApiClient, namespace: str) -> None:
        client.CustomObjectsApi(api).delete_namespaced_custom_object(*API, namespace, PLURAL, self.name)

    def conditions(self, api: client.ApiClient, namespace: str) -> dict[str, str]:
        """Return the conditions that hold, each with its reason."""
        job: Any = client.CustomObjectsApi(api).get_namespaced_custom_object(
            *API, namespace, PLURAL, self.name
        )
        return {
            condition["type"]: condition["reason"]
            for condition in job.get("status", {}).get("conditions", ())
            if condition["status"] == "True"
        }
