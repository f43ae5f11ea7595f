"""PyTorchJobs of the training operator as trials: conditions and pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from autotuner.backends.kubernetes.assess import PodStatus
from autotuner.backends.kubernetes.assess import assess as stand
from autotuner.backends.kubernetes.pods import (
    JOB_NAME_LABEL,
    is_owned_by,
    read_conditions,
    read_pod,
    uid_of,
)
from autotuner.job.lookup import mapping

__all__ = [
    "JOB_NAME_LABEL",
    "KEEPS_GONE_PODS",
    "first",
    "has_begun",
    "is_pod_of",
    "pushed",
    "ranks_by_arrival",
    "read_conditions",
    "read_pod",
    "stand",
]

KEEPS_GONE_PODS: Final = False
"""The operator keeps ended pods."""


def first(pods: Sequence[PodStatus]) -> Sequence[PodStatus]:
    """Return all pods: the operator restarts none, and a recreated pod ends the trial."""
    return pods


def has_begun(trial: Mapping[str, Any]) -> bool:
    """Return whether the master runs."""
    return read_conditions(trial).running_since is not None


def pushed(trial: Mapping[str, Any]) -> None:
    """Return nothing: a PyTorchJob has no place for metrics."""
    del trial


def is_pod_of(pod: Mapping[str, Any], trial: Mapping[str, Any]) -> bool:
    """Return whether the trial owns the pod; an earlier trial with its name may still have pods."""
    return is_owned_by(pod, uid_of(trial))


def ranks_by_arrival(trial: Mapping[str, Any]) -> bool:
    """Return whether any pod may have rank 0: the operator fixes ranks only in jobs with a Master."""
    spec = mapping(trial.get("spec"))
    return isinstance(spec.get("elasticPolicy"), Mapping) or "Master" not in mapping(
        spec.get("pytorchReplicaSpecs")
    )
