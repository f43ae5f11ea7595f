"""Where pods go: a pure stand-in for kube-scheduler.

It knows node selectors, cordoned and lost nodes, and GPUs, and prefers the node with the fewest
pods. Its messages follow kube-scheduler's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.controlplane.pod import GPU

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.controlplane.pod import Pod


@dataclass
class Node:
    """What a scheduler knows of a node."""

    name: str
    gpus: int
    labels: Mapping[str, str]
    is_cordoned: bool = False
    is_lost: bool = False
    pods: dict[str, Pod] = field(default_factory=dict)
    """The pods that hold its resources, by UID."""

    def refusal(self, pod: Pod) -> str | None:
        """Return why the node cannot take the pod; None if it can."""
        if self.is_lost:
            return "node(s) had untolerated taint(s)"
        if self.is_cordoned:
            return "node(s) were unschedulable"
        if not pod.node_selector.items() <= self.labels.items():
            return "node(s) didn't match Pod's node affinity/selector"
        if pod.gpus > self.gpus - sum(held.gpus for held in self.pods.values()):
            return f"Insufficient {GPU}"
        return None


def choose(pod: Pod, nodes: Iterable[Node]) -> Node | str:
    """Return the node for a pod, or why there is none."""
    refusals = {node.name: (node, node.refusal(pod)) for node in nodes}
    fitting = [node for node, refusal in refusals.values() if refusal is None]
    if fitting:
        return min(fitting, key=lambda node: len(node.pods))
    reasons = Counter(refusal for _, refusal in refusals.values())
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"0/{len(refusals)} nodes are available: {listed}."
