"""Jobs with one mistake each: what the API server or the webhook refuses, and what only the tuner does."""

from __future__ import annotations

import copy
from typing import Any

from tests.builders import container, manifest, replica

IMAGELESS = {"name": "pytorch", "command": ["python", "train.py"]}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return a job with a Master and a Worker, changed at one place; None removes what stands there."""
    made = copy.deepcopy(manifest(worker=replica()))
    *way, last = path.split("/")
    node = made
    for step in way:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    key = int(last) if isinstance(node, list) else last
    if value is None:
        del node[key]
    elif isinstance(node, list) and key == len(node):
        node.append(value)
    else:
        node[key] = value
    return made


REPLICAS = "spec/pytorchReplicaSpecs"
CONTAINERS = f"{REPLICAS}/Worker/template/spec/containers"


REFUSED: list[tuple[dict[str, Any], str]] = [
    (changed(f"{REPLICAS}/Master/replicas", None), "Master.replicas is ''.*must be 1.*be given"),
    (changed(f"{REPLICAS}/Master/replicas", 2), "Master.replicas is '2'.*must be 1"),
    (changed(f"{REPLICAS}/Worker/replicas", 0), "Worker.replicas is '0'.*at least 1"),
    (changed(f"{REPLICAS}/Worker/replicas", "2"), "Worker.replicas is '2'.*whole number.*without quotes"),
    (changed(f"{REPLICAS}/worker", replica()), "must be Master or Worker.*for example Worker"),
    (changed(f"{CONTAINERS}/0", IMAGELESS), "Worker container pytorch.image.*webhook"),
    (changed(f"{CONTAINERS}/0/image", ""), "container pytorch.image"),
    (changed("spec/nprocPerNode", 2), "spec.nprocPerNode is '2': must be a string, in quotes.*\"2\""),
    (changed("spec/elasticPolicy", {"minReplicas": "1"}),
         "elasticPolicy.minReplicas is '1': must be a whole"),
    (changed("spec/elasticPolicy", []), "spec.elasticPolicy is .*must be a mapping"),
    (changed("spec/runPolicy/suspend", "true"), "runPolicy.suspend is 'true'.*without quotes"),
    (manifest(elasticPolicy={"rdzvBackend": "c10d"}), "elasticPolicy.*come with a Worker"),
    (
            manifest(worker=replica(), nprocPerNode="2", elasticPolicy={"nProcPerNode": 2}),
            "must not be given with spec.nprocPerNode",
        ),
    (changed(f"{REPLICAS}/Worker/replica", 4), "Worker.replica is '4': must be an existing field.*replicas"),
    (changed("spec/nProcPerNode", "2"), "spec.nProcPerNode is '2'.*nearest is nprocPerNode"),
    (changed("spec/runpolicy", {}), "spec.runpolicy.*nearest is runPolicy"),
    (changed(f"{CONTAINERS}/0/arg", []), r"containers\[0\].arg.*nearest is args"),
]  # fmt: skip
"""Jobs that the cluster refuses, with what `validate` says of them."""

UNFIT: list[tuple[dict[str, Any], str]] = [
    (
        changed("spec/runPolicy/managedBy", "kueue.x-k8s.io/multikueue"),
        "managedBy.*pods and logs would be in another",
    ),
    (changed("metadata", {"generateName": "resnet-"}),
         "metadata.name.*generateName 'resnet-'.*for example resnet"),
    (
            manifest(master=replica(container(args=["--master_addr=toy-master-0"]))),
            r"toy-master-0.*\$\(MASTER_ADDR\)",
        ),
    (changed(f"{CONTAINERS}/0/args", ["--master_addr=toy-worker-0"]), r"toy-worker-0.*\$\(MASTER_ADDR\)"),
    (
            manifest(worker=replica(container(args=["--rdzv=toy-worker-0"])), elasticPolicy={}),
            r"toy-worker-0.*\$\(MASTER_ADDR\)",
        ),
    (changed(f"{CONTAINERS}/0/env", [{"name": "HEAD", "value": "tcp://toy-master-0:1"}]),
         r"pytorch env HEAD is 'toy-master-0'.*env cannot refer.*\$\(MASTER_ADDR\)"),
    (changed(f"{CONTAINERS}/1", {"name": "proxy", "image": "a", "args": ["toy-master-0"]}),
         "container proxy.args is 'toy-master-0'"),
    (
            changed(
                f"{REPLICAS}/Worker/template/spec/initContainers",
                [{"name": "wait", "image": "a", "args": ["until nslookup toy-master-0; do sleep 1; done"]}],
            ),
            "container wait.args is 'toy-master-0'.*leave it out",
        ),
    (manifest(master=replica(container(args=["--lr=${trialParameters.lr}"]))), "AUTOTUNER_LR"),
]  # fmt: skip
"""Jobs that the cluster takes, and that cannot be tuned."""
