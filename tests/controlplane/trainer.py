"""Kubeflow Trainer, with the JobSet controller that it builds on: TrainJobs.

The gate TrainJobStatus is on, so the status server runs: training processes push their metrics to it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from kubernetes import client

from tests.controlplane import releases
from tests.controlplane.controller import QUIET, Controller, Deployment, accepts
from tests.controlplane.objects import create
from tests.controlplane.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.controlplane.plane import ControlPlane

API = ("trainer.kubeflow.org", "v1alpha1")
RUNTIMES = "clustertrainingruntimes"
_SECRET = "kubeflow-trainer-webhook-cert"

JOBSET = Deployment(
    release=releases.JOBSET,
    namespace="jobset-system",
    kinds="crd/bases",
    rights=("rbac/role.yaml",),
    webhooks="webhook/manifests.yaml",
    # Those for pods only matter to exclusive placement.
    admitted=frozenset({"jobsets"}),
    configuration={
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "internalCertManagement": {"enable": False},
        **QUIET,
    },
)


def trainer_deployment() -> Deployment:
    """Return how Trainer is installed, with a free port for its status server."""
    return Deployment(
        release=releases.TRAINER,
        namespace="kubeflow-system",
        kinds="crds",
        rights=("rbac/role.yaml",),
        webhooks="webhook/manifests.yaml",
        admitted=frozenset({"trainjobs", "trainingruntimes", RUNTIMES}),
        configuration={
            "apiVersion": "config.trainer.kubeflow.org/v1alpha1",
            "kind": "Configuration",
            "certManagement": {"enable": False},
            "featureGates": {"TrainJobStatus": True},
            "statusServer": {"port": free_port(), "qps": 200, "burst": 300},
            **QUIET,
        },
        is_told_certificates=False,
    )


class Trainer:
    """TrainJobs on a running control plane, with the runtime `torch-distributed`. Make one with `start`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.jobset = Controller(JOBSET, plane)
        self.trainer = Controller(trainer_deployment(), plane)

    @classmethod
    def start(cls, plane: ControlPlane) -> Trainer:
        """Install and start both controllers, and return once a TrainJob would run."""
        trainer = cls(plane)
        with client.ApiClient(plane.configuration()) as admin:
            trainer.jobset.install(admin)
            trainer.trainer.install(admin)
            create(admin, _secret(plane), trainer.trainer.deployment.namespace)
            plane.restart_controller_manager()
            trainer._start_controllers(admin)
            for runtime in trainer.trainer.released("runtimes/torch_distributed.yaml"):
                trainer.add_runtime(admin, runtime)
        return trainer

    def _start_controllers(self, admin: client.ApiClient) -> None:
        self.jobset.program.start()
        (runtime,) = self.trainer.released("runtimes/torch_distributed.yaml")
        runtime["metadata"]["name"] = "webhook-answers"
        self.trainer.start(lambda: accepts(admin, RUNTIMES, runtime))
        self.jobset.start(lambda: accepts(admin, "jobsets", _JOBSET, "default"))

    def add_runtime(self, admin: client.ApiClient, manifest: Mapping[str, Any]) -> None:
        """Create a ClusterTrainingRuntime."""
        client.CustomObjectsApi(admin).create_cluster_custom_object(*API, RUNTIMES, dict(manifest))


_JOBSET = {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {"name": "webhook-answers"},
    "spec": {
        "replicatedJobs": [
            {
                "name": "node",
                "template": {
                    "spec": {
                        "template": {
                            "spec": {
                                "restartPolicy": "Never",
                                "containers": [{"name": "node", "image": "none"}],
                            }
                        }
                    }
                },
            }
        ]
    },
}


def _secret(plane: ControlPlane) -> dict[str, Any]:
    """Return the Secret from which Trainer tells the pods by what they know the status server."""
    certificate = base64.b64encode(plane.certificate_authority.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _SECRET},
        "data": {"ca.crt": certificate},
    }
