"""TrainJobs for tests: built from a few values, and asked about by those."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubernetes import client

from tests.controlplane.pod import GPU
from tests.controlplane.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

API = ("trainer.kubeflow.org", "v1alpha1")
PLURAL = "trainjobs"


@dataclass(frozen=True)
class Runtime:
    """A TrainingRuntime for PyTorch, as `torch-distributed` but for what is done about failures."""

    name: str = "own"
    restart_policy: str = "Never"
    """Of the pods. JobSet's default, which `torch-distributed` has, is OnFailure."""
    backoff_limit: int = 0
    """How often the Job makes failed pods again; Kubernetes' default is 6."""
    max_restarts: int = 0
    """How often JobSet makes a failed Job again."""

    @property
    def reference(self) -> dict[str, str]:
        return {"name": self.name, "kind": "TrainingRuntime"}

    def manifest(self) -> dict[str, Any]:
        """Return the object to create."""
        containers = [{"name": "node", "image": "example/training"}]
        job = {
            "backoffLimit": self.backoff_limit,
            "template": {"spec": {"restartPolicy": self.restart_policy, "containers": containers}},
        }
        label = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
        policy = {"failurePolicy": {"maxRestarts": self.max_restarts}} if self.max_restarts else {}
        replicated = {"name": "node", "template": {"metadata": {"labels": label}, "spec": job}}
        return {
            "apiVersion": "/".join(API),
            "kind": "TrainingRuntime",
            "metadata": {"name": self.name, "labels": {"trainer.kubeflow.org/framework": "torch"}},
            "spec": {
                "mlPolicy": {"numNodes": 1, "torch": {}},
                "template": {"spec": {**policy, "replicatedJobs": [replicated]}},
            },
        }

    def create(self, api: client.ApiClient, namespace: str) -> Runtime:
        """Create it, and return it for the next call."""
        client.CustomObjectsApi(api).create_namespaced_custom_object(
            *API, namespace, "trainingruntimes", self.manifest()
        )
        return self


@dataclass(frozen=True)
class TrainJob:
    """A TrainJob as a user would write it; vary it by `dataclasses.replace`."""

    name: str
    command: tuple[str, ...] = ()
    nodes: int = 1
    image: str = "example/training"
    runtime: str | Runtime = "torch-distributed"
    """The name of a ClusterTrainingRuntime, or one of the job's own namespace."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    """Of each node."""
    suspend: bool = False
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `spec.trainer`."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of `spec`."""

    def manifest(self) -> dict[str, Any]:
        """Return the object to create."""
        runtime = self.runtime
        trainer: dict[str, Any] = {
            "image": self.image,
            "numNodes": self.nodes,
            **self.trainer,
        }
        if self.environment:
            trainer["env"] = [{"name": name, "value": value} for name, value in self.environment.items()]
        if self.command:
            trainer["command"] = list(self.command)
        if self.gpus:
            trainer["resourcesPerNode"] = {"limits": {GPU: self.gpus}, "requests": {GPU: self.gpus}}
        return {
            "apiVersion": "/".join(API),
            "kind": "TrainJob",
            "metadata": {
                "name": self.name,
                "annotations": dict(self.annotations),
                "labels": dict(self.labels),
            },
            "spec": {
                "runtimeRef": runtime.reference if isinstance(runtime, Runtime) else {"name": runtime},
                "suspend": self.suspend,
                "trainer": trainer,
                **self.spec,
            },
        }

    def create(self, api: client.ApiClient, namespace: str) -> TrainJob:
        """Create it, and return it for the next call."""
        client.CustomObjectsApi(api).create_namespaced_custom_object(*API, namespace, PLURAL, self.manifest())
        return self

    def delete(self, api: client.ApiClient, namespace: str) -> None:
        client.CustomObjectsApi(api).delete_namespaced_custom_object(*API, namespace, PLURAL, self.name)

    def read(self, api: client.ApiClient, namespace: str) -> dict[str, Any]:
        """Return the object as it stands."""
        found: dict[str, Any] = client.CustomObjectsApi(api).get_namespaced_custom_object(
            *API, namespace, PLURAL, self.name
        )
        return found

    def patch(self, api: client.ApiClient, namespace: str, patch: Mapping[str, Any]) -> None:
        client.CustomObjectsApi(api).patch_namespaced_custom_object(
            *API, namespace, PLURAL, self.name, dict(patch)
        )

    def conditions(self, api: client.ApiClient, namespace: str) -> dict[str, str]:
        """Return the conditions that hold, each with its reason."""
        return {
            condition["type"]: condition["reason"]
            for condition in self.read(api, namespace).get("status", {}).get("conditions", ())
            if condition["status"] == "True"
        }

    def wait_until(self, api: client.ApiClient, namespace: str, condition: str) -> None:
        """Wait until a condition of the job holds.

        Raises:
            AssertionError: the job has ended otherwise.
        """
        ended = {"Complete", "Failed"} - {condition}
        held = eventually(lambda: self.conditions(api, namespace).keys() & {condition, *ended})
        assert condition in held, self.read(api, namespace)["status"]

    def pods(self, api: client.ApiClient, namespace: str) -> list[Any]:
        """Return its nodes' pods that are not being deleted, the one of index 0 first."""
        selector = f"jobset.sigs.k8s.io/jobset-name={self.name},jobset.sigs.k8s.io/replicatedjob-name=node"
        found = client.CoreV1Api(api).list_namespaced_pod(namespace, label_selector=selector).items
        there = [pod for pod in found if pod.metadata.deletion_timestamp is None]
        return sorted(there, key=lambda pod: pod.metadata.annotations[_INDEX])

    def running(self, api: client.ApiClient, namespace: str) -> list[str]:
        """Return the names of its pods once all of them run."""

        def all_run() -> list[str]:
            pods = self.pods(api, namespace)
            is_whole = len(pods) == self.nodes and all(pod.status.phase == "Running" for pod in pods)
            return [pod.metadata.name for pod in pods] if is_whole else []

        return eventually(all_run)


_INDEX = "batch.kubernetes.io/job-completion-index"
