"""The pods of a TrainJob, described without a cluster: what a laptop runs as processes.

What Trainer's torch plug-in does to the training container is done here: the job's trainer overrides the
runtime's container, and each node gets torchrun's variables. The address and the port at which node 0
listens are arguments, for a laptop resolves no names of pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from autotuner.errors import InvalidJob, Mistake
from autotuner.job.training_runtime import CONTAINER, TrainingRuntime
from autotuner.job.trainjob import nodes, processes_per_node, variables

MAX_PODS: Final = 256
"""Pods of one job that a machine stands in for; a cluster's hundreds would bring a laptop down."""


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod: its name, its training container, and the variables that the operator adds to those of it."""

    name: str
    container: Mapping[str, Any]
    environment: Mapping[str, str]


def pod_plans(
    manifest: Mapping[str, Any], runtime: TrainingRuntime, address: str, port: int
) -> list[PodPlan]:
    """Return the pods of a validated TrainJob, node 0 first.

    Args:
        manifest: A TrainJob that `TrainJob.from_manifest` accepts, or a trial of one.
        runtime: The runtime that it refers to.
        address: Where node 0 can be reached, for PET_MASTER_ADDR.
        port: A free port there, one a trial, for PET_MASTER_PORT.

    Raises:
        InvalidJob: If they are more than a machine can stand in for.
    """
    count = nodes(manifest, runtime)
    if count > MAX_PODS:
        rule = f"must be at most {MAX_PODS} on one machine; write fewer, or tune on a cluster"
        raise InvalidJob([Mistake("spec.trainer.numNodes", str(count), rule, "1")])
    trainer = manifest["spec"]["trainer"]
    overridden = {key: trainer[key] for key in ("image", "command", "args") if trainer.get(key) is not None}
    container = {
        **runtime.container,
        **overridden,
        "name": CONTAINER,
        "env": variables(manifest, runtime),
    }
    shared = {
        "PET_NNODES": str(count),
        # On a cluster `auto` may be there, which is as many as there are GPUs: here there may be others.
        "PET_NPROC_PER_NODE": str(processes_per_node(manifest, runtime)),
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": str(port),
    }
    return [
        PodPlan(
            name=f"{manifest['metadata']['name']}-{runtime.replicated_job}-0-{index}",
            container=container,
            environment={
                "JOB_COMPLETION_INDEX": str(index),
                **({**shared, "PET_NODE_RANK": str(index)} if runtime.is_torch else {}),
            },
        )
        for index in range(count)
    ]
