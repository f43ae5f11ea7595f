"""Pods and PyTorchJobs, as the API server returns them, read into the plain values of `assess`.

Every field may be absent: lists without entries and counts of zero are omitted, and a pod that was never
scheduled has almost no status at all. What cannot be read counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from autotuner import keys
from autotuner.backends.kubernetes.assess import Conditions, PodStatus
from autotuner.errors import InvalidRecord
from autotuner.job.validation import CONTAINER
from autotuner.study.outcome import MAX_TAIL
from autotuner.study.suggestions import decode_suggestion
from autotuner.trial import Suggestion

_LABEL: Final = "training.kubeflow.org/"
JOB_NAME_LABEL: Final = _LABEL + "job-name"
_ROLE_LABEL: Final = _LABEL + "job-role"
_TYPE_LABEL: Final = _LABEL + "replica-type"
_INDEX_LABEL: Final = _LABEL + "replica-index"

_MAX_HOLD_UP: Final = 500
_OWN_REASONS: Final = frozenset({"", "DeadlineExceeded"})
"""Pod-level reasons that are the user's own doing; any other (Evicted, NodeLost, ...) is a node's."""
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
"""Waiting reasons that every pod passes through."""


def read_conditions(job: Mapping[str, Any]) -> Conditions:
    """Read a trial's PyTorchJob."""
    status = mapping(job.get("status"))
    conditions = {str(c.get("type")): c for c in entries(status.get("conditions"))}

    def since(kind: str) -> datetime | None:
        condition = mapping(conditions.get(kind))
        return moment(condition.get("lastTransitionTime")) if condition.get("status") == "True" else None

    failed, succeeded = since("Failed"), since("Succeeded")
    running = since("Running")
    if failed or succeeded:
        # At the end the operator turns Running to False, and leaves its time as it was.
        running = moment(mapping(conditions.get("Running")).get("lastTransitionTime"))
    # The operator notes `Created` after the API server has made the object: an earlier time shows its clock.
    made, noted = moment(mapping(job.get("metadata")).get("creationTimestamp")), since("Created")
    behind = max(made - noted, timedelta(0)) if made and noted else timedelta(0)
    spec = mapping(job.get("spec"))
    replicas = mapping(spec.get("pytorchReplicaSpecs")).values()
    return Conditions(
        replicas=sum(_count(replica) for replica in replicas),
        failed={
            str(role).lower(): failures
            for role, counts in mapping(status.get("replicaStatuses")).items()
            if isinstance(failures := mapping(counts).get("failed"), int)
        },
        has_succeeded=succeeded is not None,
        has_failed=failed is not None,
        is_suspended=mapping(spec.get("runPolicy")).get("suspend") is True,
        running_since=running,
        ended_at=moment(status.get("completionTime")) or succeeded or failed,
        clock_behind=behind,
        message=str(mapping(conditions.get("Failed")).get("message", "")),
    )


def _count(replica: object) -> int:
    count = mapping(replica).get("replicas", 1)
    return count if isinstance(count, int) else 1


def read_pod(pod: Mapping[str, Any], container_name: str = CONTAINER) -> PodStatus:
    """Read a pod; `container_name` is its training container."""
    metadata, status = mapping(pod.get("metadata")), mapping(pod.get("status"))
    labels = mapping(metadata.get("labels"))
    container = _training_container(status, container_name)
    state = mapping(container.get("state"))
    terminated = mapping(state.get("terminated")) or mapping(
        mapping(container.get("lastState")).get("terminated")
    )
    if not terminated:
        terminated = _failed_init(status)
    started_at = moment(mapping(state.get("running")).get("startedAt")) or moment(terminated.get("startedAt"))
    finished_at = moment(terminated.get("finishedAt"))
    exit_code = terminated.get("exitCode")
    return PodStatus(
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        role=str(labels.get(_TYPE_LABEL, "")),
        node=str(mapping(pod.get("spec")).get("nodeName") or ""),
        is_rank_zero=_is_rank_zero(labels),
        created_at=moment(metadata.get("creationTimestamp")),
        started_at=started_at,
        finished_at=finished_at,
        exit_code=exit_code if isinstance(exit_code, int) else None,
        reason=str(terminated.get("reason", "")),
        log_tail=str(terminated.get("message", ""))[-2 * MAX_TAIL :],
        disruption=_disruption(status),
        is_deleted_first=_is_deleted_first(metadata, finished_at),
        hold_up=_hold_up(status)[:_MAX_HOLD_UP],
    )


def is_owned_by(item: Mapping[str, Any], uid: str) -> bool:
    """Return whether an object has an ownerReference to `uid`; a name or a label can be anybody's."""
    owners = entries(mapping(item.get("metadata")).get("ownerReferences"))
    return any(owner.get("uid") == uid for owner in owners)


def name_of(item: Mapping[str, Any]) -> str:
    """Return an object's name."""
    return str(mapping(item.get("metadata")).get("name"))


def uid_of(item: Mapping[str, Any]) -> str:
    """Return an object's UID."""
    return str(mapping(item.get("metadata")).get("uid"))


def suggestion_of(trial: Mapping[str, Any]) -> Suggestion:
    """Return what a trial's PyTorchJob tries.

    Raises:
        InvalidRecord: If its annotation is not ours, or not whole.
    """
    metadata = mapping(trial.get("metadata"))
    text = mapping(metadata.get("annotations")).get(keys.SUGGESTION)
    suggestion = decode_suggestion(str(text))
    if mapping(metadata.get("labels")).get(keys.TRIAL_NUMBER) != str(suggestion.number):
        raise InvalidRecord(f"{metadata.get('name')}: label and annotation name two numbers")
    return suggestion


def moment(text: object) -> datetime | None:
    """Read a timestamp of the API, RFC 3339 in UTC; one without a time zone counts as absent."""
    try:
        read = datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
    return read if read is not None and read.tzinfo is not None else None


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def entries(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a list; anything else is an empty one."""
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, Mapping):
            yield entry


def _is_rank_zero(labels: Mapping[str, Any]) -> bool:
    # The operator gives the role to worker-0 itself where a job has no Master.
    return labels.get(_ROLE_LABEL) == "master" or (
        labels.get(_TYPE_LABEL) == "master" and labels.get(_INDEX_LABEL) == "0"
    )


def _training_container(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    named = (c for c in entries(status.get("containerStatuses")) if c.get("name") == name)
    return next(named, {})


def _failed_init(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the end of an init container that failed: then the training container never starts."""
    for container in entries(status.get("initContainerStatuses")):
        terminated = mapping(mapping(container.get("state")).get("terminated"))
        if terminated.get("exitCode", 0) != 0:
            return {key: value for key, value in terminated.items() if key != "startedAt"}
    return {}


def _disruption(status: Mapping[str, Any]) -> str:
    """Return why the cluster ended a pod: a condition (preempted, node lost) or a reason (evicted)."""
    for condition in entries(status.get("conditions")):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _sentence(condition)
    if status.get("phase") == "Failed" and str(status.get("reason") or "") not in _OWN_REASONS:
        return _sentence(status)
    return ""


def _is_deleted_first(metadata: Mapping[str, Any], finished_at: datetime | None) -> bool:
    """Return whether the pod was told to go before its process ended.

    deletionTimestamp is when the grace period ends, not when the deletion was asked for.
    """
    deadline = moment(metadata.get("deletionTimestamp"))
    if deadline is None:
        return False
    grace = metadata.get("deletionGracePeriodSeconds")
    asked = deadline - timedelta(seconds=grace if isinstance(grace, int) else 0)
    return finished_at is None or asked <= finished_at


def _hold_up(status: Mapping[str, Any]) -> str:
    """Return what keeps a pod from starting, in the cluster's words."""
    if status.get("phase", "Pending") != "Pending":
        return ""
    containers = [*entries(status.get("initContainerStatuses")), *entries(status.get("containerStatuses"))]
    for container in containers:
        waiting = mapping(mapping(container.get("state")).get("waiting"))
        if waiting.get("reason") and waiting["reason"] not in _STARTING:
            return _sentence(waiting)
    for condition in entries(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _sentence(condition)
    return ""


def _sentence(value: Mapping[str, Any]) -> str:
    reason, message = str(value.get("reason") or ""), str(value.get("message") or "")
    return f"{reason}: {message}" if reason and message else reason or message
