"""Access to the parts of a PyTorchJob: replicas, the training container, GPUs and processes.

The shape of a PyTorchJob: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from autotuner.job.validation import CONTAINER, REPLICAS, replica_count

_GPU_SUFFIX: Final = "/gpu"
"""nvidia.com/gpu, amd.com/gpu: extended resources that count as GPUs."""


def devices(manifest: Mapping[str, Any]) -> int:
    """Return how many GPUs a PyTorchJob asks for, or how many processes it runs where it asks for none."""
    gpus = sum(replica_count(replica) * _gpus(replica) for _, replica in replicas(manifest))
    if gpus:
        return gpus
    return max(1, sum(replica_count(r) for _, r in replicas(manifest)) * processes_per_replica(manifest))


def mapping(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the mapping under a key, or an empty one."""
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def replicas(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the replica types of a validated job with their specs, the Master first."""
    replicas = mapping(mapping(manifest, "spec"), "pytorchReplicaSpecs")
    for kind in REPLICAS:
        if kind in replicas:
            yield kind, replicas[kind]


def container(replica: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training container of a replica of a validated job."""
    containers: list[dict[str, Any]] = replica["template"]["spec"]["containers"]
    return next(container for container in containers if container.get("name") == CONTAINER)


def _gpus(replica: Mapping[str, Any]) -> int:
    resources = mapping(container(replica), "resources")
    amounts = {**mapping(resources, "requests"), **mapping(resources, "limits")}
    gpus = (amount for name, amount in amounts.items() if str(name).endswith(_GPU_SUFFIX))
    return sum(int(str(amount)) for amount in gpus if str(amount).isdecimal())


def processes_per_replica(manifest: Mapping[str, Any]) -> int:
    """Return `nprocPerNode`; without one, a process a GPU under torchrun cannot be told from one a pod."""
    value = str(mapping(manifest, "spec").get("nprocPerNode", ""))
    if value.isdecimal():
        return max(1, int(value))
    if value in {"auto", "gpu"}:
        return max([1, *(_gpus(replica) for _, replica in replicas(manifest))])
    return 1
