"""Access to the parts of a PyTorchJob: replicas, the training container, GPUs and processes.

The shape of a PyTorchJob: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autotuner.job import processes
from autotuner.job.accelerators import accelerators
from autotuner.job.validation import CONTAINER, REPLICAS, replica_count


def devices(manifest: Mapping[str, Any]) -> int:
    """Return how many GPUs a PyTorchJob asks for, or how many processes it runs where it asks for none."""
    gpus = sum(
        replica_count(replica) * accelerators(container(replica)).devices for _, replica in replicas(manifest)
    )
    return gpus or max(1, processes.shape(manifest, {}).processes)


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
