"""Kueue: queues of jobs, with quotas. And a queue as a test wants one.

Kueue manages every job of a namespace that has a LocalQueue named ``default``: see
``tests/cluster/trainer/test_kueue.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes import client

from tests.controlplane import releases
from tests.controlplane.controller import CERTIFICATES, QUIET, Controller, Deployment, accepts
from tests.controlplane.pod import GPU
from tests.controlplane.waiting import eventually

if TYPE_CHECKING:
    from tests.controlplane.plane import ControlPlane

GROUP = "kueue.x-k8s.io"
VERSION = "v1beta2"
QUEUE_LABEL = f"{GROUP}/queue-name"
PRIORITY_LABEL = f"{GROUP}/priority-class"
_METRICS_CERTIFICATES = "etc/kueue/metrics/certs"
_FLAVOR = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "ResourceFlavor", "metadata": {"name": "default"}}

KUEUE = Deployment(
    release=releases.KUEUE,
    namespace="kueue-system",
    kinds="crd/bases",
    rights=("rbac/role.yaml", "rbac/manager_secrets_role.yaml"),
    webhooks="webhook/manifests.yaml",
    # Those for pods, deployments and the like are for integrations that are off.
    admitted=frozenset(
        {
            "clusterqueues",
            "cohorts",
            "jobs",
            "jobsets",
            "pytorchjobs",
            "resourceflavors",
            "trainjobs",
            "workloads",
            "workloads/status",
        }
    ),
    configuration={
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": "kueue-system",
        "internalCertManagement": {"enable": False},
        "integrations": {
            "frameworks": [
                "batch/job",
                "jobset.x-k8s.io/jobset",
                "kubeflow.org/pytorchjob",
                "trainer.kubeflow.org/trainjob",
            ]
        },
        **QUIET,
    },
    # It would serve an additional API, which the tests do not use.
    arguments=("--feature-gates=VisibilityOnDemand=false",),
    certificates=(CERTIFICATES, _METRICS_CERTIFICATES),
)


class Kueue:
    """Kueue on a running control plane. Make one with `start`."""

    def __init__(self, plane: ControlPlane) -> None:
        self.controller = Controller(KUEUE, plane)

    @classmethod
    def start(cls, plane: ControlPlane) -> Kueue:
        """Install and start it, and return once jobs may be queued."""
        kueue = cls(plane)
        with client.ApiClient(plane.configuration()) as admin:
            kueue.controller.install(admin)
            # A deleted job's quota is free once the garbage collector has deleted its Workload.
            plane.restart_controller_manager()
            kueue.controller.start(lambda: accepts(admin, "resourceflavors", _FLAVOR))
            client.CustomObjectsApi(admin).create_cluster_custom_object(
                GROUP, VERSION, "resourceflavors", _FLAVOR
            )
        return kueue


class Queue:
    """A LocalQueue with a ClusterQueue of its own, of some GPUs."""

    def __init__(self, admin: client.ApiClient, namespace: str, name: str = "gpus", gpus: int = 2) -> None:
        """Create it."""
        self.name, self._namespace = name, namespace
        self._api = client.CustomObjectsApi(admin)
        self._cluster_queue = f"{namespace}-{name}"
        self._create("clusterqueues", "ClusterQueue", self._cluster_queue, self._quota(gpus))
        self._create("localqueues", "LocalQueue", name, {"clusterQueue": self._cluster_queue})
        eventually(self._is_active)

    def workloads(self, status: str = "True") -> dict[str, dict[str, str]]:
        """Return the conditions of the namespace's workloads that hold, or do not, by their jobs' names."""
        found: Any = self._api.list_namespaced_custom_object(GROUP, VERSION, self._namespace, "workloads")
        return {
            item["metadata"]["ownerReferences"][0]["name"]: {
                each["type"]: each["reason"]
                for each in item.get("status", {}).get("conditions", ())
                if each["status"] == status
            }
            for item in found["items"]
            if item["metadata"].get("ownerReferences")
        }

    def resize(self, gpus: int) -> None:
        """Give the queue another quota."""
        self._api.patch_cluster_custom_object(
            GROUP, VERSION, "clusterqueues", self._cluster_queue, {"spec": self._quota(gpus)}
        )

    def close(self) -> None:
        """Delete the ClusterQueue, which does not go with the namespace."""
        self._api.delete_cluster_custom_object(GROUP, VERSION, "clusterqueues", self._cluster_queue)

    def _is_active(self) -> bool:
        found: Any = self._api.get_namespaced_custom_object(
            GROUP, VERSION, self._namespace, "localqueues", self.name
        )
        conditions = found.get("status", {}).get("conditions", ())
        return any(each["type"] == "Active" and each["status"] == "True" for each in conditions)

    def _create(self, plural: str, kind: str, name: str, spec: dict[str, Any]) -> None:
        manifest = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        if kind == "LocalQueue":
            self._api.create_namespaced_custom_object(GROUP, VERSION, self._namespace, plural, manifest)
        else:
            self._api.create_cluster_custom_object(GROUP, VERSION, plural, manifest)

    @staticmethod
    def _quota(gpus: int) -> dict[str, Any]:
        flavor = {"name": "default", "resources": [{"name": GPU, "nominalQuota": gpus}]}
        return {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [{"coveredResources": [GPU], "flavors": [flavor]}],
        }


def create_priority(admin: client.ApiClient, name: str, value: int) -> None:
    """Create a WorkloadPriorityClass, once."""
    manifest = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "WorkloadPriorityClass",
        "metadata": {"name": name},
        "value": value,
    }
    client.CustomObjectsApi(admin).create_cluster_custom_object(
        GROUP, VERSION, "workloadpriorityclasses", manifest
    )
