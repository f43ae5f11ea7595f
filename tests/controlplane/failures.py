"""What failures of pods and nodes look like in the API: conditions, taints and PyTorch's last words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.controlplane.status import disruption, now

if TYPE_CHECKING:
    from tests.controlplane.status import JSON

CUDA_OUT_OF_MEMORY = """\
Traceback (most recent call last):
  File "/workspace/train.py", line 83, in <module>
    loss = criterion(model(images), labels)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.53 GiB. GPU 0 has a total capacity \
of 15.77 GiB of which 1.12 GiB is free. Including non-PyTorch memory, this process has 14.65 GiB \
memory in use. Of the allocated memory 13.90 GiB is allocated by PyTorch, and 381.77 MiB is \
reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting \
PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation.
"""

UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


def preempted() -> JSON:
    """Return the condition of a pod that kube-scheduler deletes to make room."""
    message = "default-scheduler: preempting to accommodate a higher priority pod"
    return disruption("PreemptionByScheduler", message)


def lost() -> list[JSON]:
    """Return the conditions of a pod that is deleted because its node is gone."""
    taint = disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
    return [taint, {"type": "Ready", "status": "False", "lastTransitionTime": now()}]


def unschedulable(message: str) -> JSON:
    """Return the condition of a pod that no node takes."""
    return {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": now(),
    }


def readiness(status: str, reason: str) -> JSON:
    """Return the status of a node that is ready, or about which nothing is known."""
    condition = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now()}
    return {"conditions": [condition]}
