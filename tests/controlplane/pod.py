"""The part of a Pod that a scheduler and a kubelet act on, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from kubernetes.utils.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

GPU = "nvidia.com/gpu"
PROCESSORS_A_NODE = 64
_JOB_NAME_LABEL = "training.kubeflow.org/job-name"
_JOBSET = "jobset.sigs.k8s.io/"


@dataclass(frozen=True)
class Container:
    """A container of a pod's specification."""

    name: str
    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    working_dir: str
    environment: tuple[Mapping[str, Any], ...]
    environment_sources: tuple[Mapping[str, Any], ...]
    falls_back_to_logs: bool
    gpus: int
    processors: int
    """The limit of `cpu`, rounded up as the downward API shows it; without one the node's."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Where volumes are mounted: their names, by path."""

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Container:
        limits = manifest.get("resources", {}).get("limits", {})
        return cls(
            name=manifest["name"],
            image=manifest.get("image", ""),
            command=tuple(manifest.get("command") or ()),
            arguments=tuple(manifest.get("args") or ()),
            working_dir=manifest.get("workingDir", ""),
            environment=tuple(manifest.get("env") or ()),
            environment_sources=tuple(manifest.get("envFrom") or ()),
            falls_back_to_logs=manifest.get("terminationMessagePolicy") == "FallbackToLogsOnError",
            gpus=int(limits.get(GPU, 0)),
            processors=ceil(parse_quantity(limits.get("cpu", PROCESSORS_A_NODE))),
            mounts={mount["mountPath"]: mount["name"] for mount in manifest.get("volumeMounts") or ()},
        )


@dataclass(frozen=True)
class Pod:
    """A pod as the API server showed it at one time."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node: str | None
    node_selector: Mapping[str, str]
    service_account: str
    restart_policy: str
    init_containers: tuple[Container, ...]
    containers: tuple[Container, ...]
    owner_uid: str | None
    phase: str
    grace_seconds: float | None
    """None until the pod is being deleted."""
    host_name: str
    volumes: Mapping[str, Mapping[str, Any]]
    """By name, as in the manifest."""

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Pod:
        """Read a Pod as the API server encodes it."""
        metadata, spec = manifest["metadata"], manifest["spec"]
        is_deleting = "deletionTimestamp" in metadata
        owners = (owner["uid"] for owner in metadata.get("ownerReferences", ()))
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            labels=metadata.get("labels") or {},
            annotations=metadata.get("annotations") or {},
            node=spec.get("nodeName"),
            node_selector=spec.get("nodeSelector") or {},
            service_account=spec.get("serviceAccountName", "default"),
            restart_policy=spec.get("restartPolicy", "Always"),
            init_containers=_containers(spec.get("initContainers")),
            containers=_containers(spec["containers"]),
            owner_uid=next(owners, None),
            phase=manifest.get("status", {}).get("phase", "Pending"),
            grace_seconds=metadata.get("deletionGracePeriodSeconds", 0) if is_deleting else None,
            host_name=spec.get("hostname", metadata["name"]),
            volumes={volume["name"]: volume for volume in spec.get("volumes") or ()},
        )

    @property
    def job_name(self) -> str | None:
        """The PyTorchJob or JobSet that it belongs to, if any: the names of its peers begin so."""
        return self.labels.get(_JOB_NAME_LABEL) or self.labels.get(f"{_JOBSET}jobset-name")

    @property
    def group(self) -> str | None:
        """What the pods that train together have in common, and no other pod.

        A PyTorchJob's UID; or a JobSet's, with the number of the attempt, for a JobSet that starts again
        may do so before the pods of its last attempt are gone.
        """
        if jobset := self.labels.get(f"{_JOBSET}jobset-uid"):
            return f"{jobset}/{self.labels.get(f'{_JOBSET}restart-attempt', '0')}"
        return self.owner_uid

    @property
    def gpus(self) -> int:
        return sum(container.gpus for container in self.containers)

    @property
    def is_over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_master(self) -> bool:
        return self.labels.get("training.kubeflow.org/replica-type") == "master"


def _containers(manifests: list[Mapping[str, Any]] | None) -> tuple[Container, ...]:
    return tuple(Container.from_manifest(manifest) for manifest in manifests or ())
