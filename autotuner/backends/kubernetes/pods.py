"""Parse pods and PyTorchJobs into the plain values of `assess`.

Every field may be absent: empty lists and zero counts are omitted, and a pod that was never scheduled has
almost no status. Unreadable values count as absent.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from autotuner import keys
from autotuner.backends.kubernetes.assess import OOM_KILLED, Conditions, Exceeded, PodStatus
from autotuner.backends.kubernetes.hold_ups import Stuck
from autotuner.errors import InvalidRecord
from autotuner.job.lookup import mapping
from autotuner.job.validation import CONTAINER
from autotuner.study.endings.outcome import MAX_TAIL
from autotuner.study.hold_up import HoldUpReason
from autotuner.study.suggestions import decode_suggestion
from autotuner.trial import Suggestion

_LABEL: Final = "training.kubeflow.org/"
JOB_NAME_LABEL: Final = _LABEL + "job-name"
_ROLE_LABEL: Final = _LABEL + "job-role"
_TYPE_LABEL: Final = _LABEL + "replica-type"
_INDEX_LABEL: Final = _LABEL + "replica-index"

_MAX_HOLD_UP: Final = 500
_DEADLINE: Final = "DeadlineExceeded"
"""The reason of a pod that ran longer than the `activeDeadlineSeconds` of its own template."""
_FORGOTTEN: Final = (255, "Unknown")
"""Exit code and reason of a container whose end containerd has not observed, as after a restart of the node.

https://github.com/containerd/containerd/blob/v2.1.0/internal/cri/server/restart.go
"""
_OWN_LIMIT: Final = re.compile(
    r'Usage of EmptyDir volume "([^"]{1,253})" exceeds|exceeds the total limit of containers'
    r"|exceeded its local ephemeral storage limit"
)
"""The kubelet's messages for an eviction that another node would repeat.

https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/eviction/helpers.go
"""
_IMAGE: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
"""Waiting reasons that every pod passes through."""
_GANG: Final = re.compile(r"pod ?group|gang|min(?:Available|Member|Resources)", re.IGNORECASE)
"""Messages of Volcano, coscheduling and KAI about a group that does not fit yet."""


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
        # At the end the operator sets Running to False, and does not change its time.
        running = moment(mapping(conditions.get("Running")).get("lastTransitionTime"))
    # The operator sets `Created` after the object exists: an earlier time shows that its clock is behind.
    made, noted = moment(mapping(job.get("metadata")).get("creationTimestamp")), since("Created")
    behind = max(made - noted, timedelta(0)) if made and noted else timedelta(0)
    spec = mapping(job.get("spec"))
    is_suspended = mapping(spec.get("runPolicy")).get("suspend") is True
    replicas = mapping(spec.get("pytorchReplicaSpecs"))
    return Conditions(
        replicas=sum(_count(replica) for replica in replicas.values()),
        failed={
            str(role).lower(): failures
            for role, counts in mapping(status.get("replicaStatuses")).items()
            if isinstance(failures := mapping(counts).get("failed"), int)
        },
        has_succeeded=succeeded is not None,
        has_failed=failed is not None,
        is_suspended=is_suspended,
        waiting_since=waiting_since(job, is_suspended=is_suspended),
        queue=queue_of(job),
        running_since=running,
        ended_at=moment(status.get("completionTime")) or succeeded or failed,
        clock_behind=behind,
        message=str(mapping(conditions.get("Failed")).get("message", "")),
        ends_with_first=isinstance(spec.get("elasticPolicy"), Mapping) and "Master" not in replicas,
    )


def waiting_since(job: Mapping[str, Any], *, is_suspended: bool) -> datetime | None:
    """Return when a job of any kind was created, or was suspended or admitted last."""
    found = (c for c in entries(mapping(job.get("status")).get("conditions")) if c.get("type") == "Suspended")
    suspended = next(found, None)
    if suspended is None:
        return moment(mapping(job.get("metadata")).get("creationTimestamp"))
    # The condition is True during a suspension; it changes a moment after the spec.
    is_settled = (suspended.get("status") == "True") == is_suspended
    return moment(suspended.get("lastTransitionTime")) if is_settled else None


def queue_of(job: Mapping[str, Any]) -> str:
    """Return the queue that admits a job of any kind; empty without one."""
    return str(mapping(mapping(job.get("metadata")).get("labels")).get(keys.QUEUE_LABEL) or "")


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
    spec, created_at = mapping(pod.get("spec")), moment(metadata.get("creationTimestamp"))
    restartable = _restartable(spec)
    init_container = ""
    if not terminated:
        init_container, terminated = _failed_init(status, restartable)
    started_at = moment(mapping(state.get("running")).get("startedAt")) or moment(terminated.get("startedAt"))
    finished_at = moment(terminated.get("finishedAt"))
    exit_code = terminated.get("exitCode")
    return PodStatus(
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        role=str(labels.get(_TYPE_LABEL, "")),
        node=str(spec.get("nodeName") or ""),
        is_rank_zero=_is_rank_zero(labels),
        created_at=created_at,
        started_at=started_at,
        finished_at=finished_at,
        exit_code=exit_code if isinstance(exit_code, int) else None,
        reason=str(terminated.get("reason", "")),
        log_tail=str(terminated.get("message", ""))[-2 * MAX_TAIL :],
        disruption=_disruption(status) or _forgotten(mapping(state.get("terminated"))),
        exceeded=_exceeded(status, spec),
        is_deleted_first=_is_deleted_first(metadata, finished_at),
        stuck=_stuck(pod, created_at),
        init_container=init_container,
        has_sidecars=bool(restartable) or sum(1 for _ in entries(status.get("containerStatuses"))) > 1,
    )


def is_owned_by(item: Mapping[str, Any], uid: str) -> bool:
    """Return whether an object has an ownerReference to `uid`; anyone can copy a name or a label."""
    owners = entries(mapping(item.get("metadata")).get("ownerReferences"))
    return any(owner.get("uid") == uid for owner in owners)


def name_of(item: Mapping[str, Any]) -> str:
    """Return an object's name."""
    return str(mapping(item.get("metadata")).get("name"))


def uid_of(item: Mapping[str, Any]) -> str:
    """Return an object's UID."""
    return str(mapping(item.get("metadata")).get("uid"))


def suggestion_of(trial: Mapping[str, Any]) -> Suggestion:
    """Return the suggestion of a trial's object.

    Raises:
        InvalidRecord: If its annotation is missing or invalid.
    """
    metadata = mapping(trial.get("metadata"))
    text = mapping(metadata.get("annotations")).get(keys.SUGGESTION)
    suggestion = decode_suggestion(str(text))
    if mapping(metadata.get("labels")).get(keys.TRIAL_NUMBER) != str(suggestion.number):
        raise InvalidRecord(f"{metadata.get('name')}: label and annotation have different numbers")
    return suggestion


def moment(text: object) -> datetime | None:
    """Read a timestamp of the API, RFC 3339 in UTC; one without a time zone counts as absent."""
    try:
        read = datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
    return read if read is not None and read.tzinfo is not None else None


def entries(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the mappings of a list; anything else is an empty one."""
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, Mapping):
            yield entry


def _is_rank_zero(labels: Mapping[str, Any]) -> bool:
    # In a job without a Master the operator gives this role to worker 0.
    return labels.get(_ROLE_LABEL) == "master" or (
        labels.get(_TYPE_LABEL) == "master" and labels.get(_INDEX_LABEL) == "0"
    )


def _training_container(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    named = (c for c in entries(status.get("containerStatuses")) if c.get("name") == name)
    return next(named, {})


def _restartable(spec: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the init containers that are sidecars: they run next to the training container.

    The kubelet restarts them after any exit code, and ends them after the pod's other containers
    (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/).
    """
    return frozenset(
        str(container.get("name"))
        for container in entries(spec.get("initContainers"))
        if container.get("restartPolicy") == "Always"
    )


def _failed_init(status: Mapping[str, Any], restartable: Collection[str]) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the end of a failed init container, after which no training container starts."""
    for container in entries(status.get("initContainerStatuses")):
        name = str(container.get("name"))[:_MAX_HOLD_UP]
        if name in restartable:
            continue
        terminated = mapping(mapping(container.get("state")).get("terminated"))
        if terminated.get("exitCode", 0) != 0:
            found = {key: value for key, value in terminated.items() if key != "startedAt"}
            is_killed = found.get("reason") == OOM_KILLED
            where = f"{OOM_KILLED} in init container {name}"
            return name, {**found, "reason": where} if is_killed else found
    return "", {}


def _disruption(status: Mapping[str, Any]) -> str:
    """Return why the cluster ended a pod: a condition (preempted, node lost) or a reason (evicted)."""
    for condition in entries(status.get("conditions")):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return sentence(condition)
    return sentence(status) if status.get("phase") == "Failed" and status.get("reason") else ""


def _forgotten(terminated: Mapping[str, Any]) -> str:
    """Return a message if the node does not know how the container ended; empty if it does."""
    if (terminated.get("exitCode"), terminated.get("reason")) != _FORGOTTEN:
        return ""
    return "its node does not know how the container ended, as after a restart of the node"


def _exceeded(status: Mapping[str, Any], spec: Mapping[str, Any]) -> Exceeded:
    """Return which of its own limits an ended pod has exceeded; shared memory is a volume, too."""
    if status.get("phase") == "Failed" and status.get("reason") == _DEADLINE:
        return "time"
    said = _OWN_LIMIT.search(str(status.get("message") or "")) if status.get("reason") == "Evicted" else None
    if said is None:
        return ""
    volumes = (
        mapping(volume.get("emptyDir"))
        for volume in entries(spec.get("volumes"))
        if volume.get("name") == said[1]
    )
    return "memory" if any(volume.get("medium") == "Memory" for volume in volumes) else "storage"


def _is_deleted_first(metadata: Mapping[str, Any], finished_at: datetime | None) -> bool:
    """Return whether the pod's deletion began before its process ended.

    deletionTimestamp is the end of the grace period, not the time of the request.
    """
    deadline = moment(metadata.get("deletionTimestamp"))
    if deadline is None:
        return False
    grace = metadata.get("deletionGracePeriodSeconds")
    asked = deadline - timedelta(seconds=grace if isinstance(grace, int) else 0)
    return finished_at is None or asked <= finished_at


def _stuck(pod: Mapping[str, Any], created: datetime | None) -> Stuck | None:
    """Return the state in which a pod waits; None if its containers run or have run."""
    status, spec = mapping(pod.get("status")), mapping(pod.get("spec"))
    if status.get("phase", "Pending") != "Pending" or not status:
        return None
    scheduled = next((c for c in entries(status.get("conditions")) if c.get("type") == "PodScheduled"), {})
    if scheduled.get("status") != "True" and not spec.get("nodeName"):
        return Stuck(*_unscheduled(scheduled, spec), created)
    since = moment(scheduled.get("lastTransitionTime")) or created
    found = _waiting(status) or _initializing(status, _restartable(spec))
    return None if found is None else Stuck(*found, since)


def _unscheduled(scheduled: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[HoldUpReason, str]:
    """Return why a pod has no node."""
    said = sentence(scheduled)
    if not said:
        scheduler = str(spec.get("schedulerName") or "default-scheduler")[:_MAX_HOLD_UP]
        return HoldUpReason.UNSCHEDULABLE, f"no scheduler has considered it ({scheduler})"
    if scheduled.get("reason") == "SchedulingGated":
        return HoldUpReason.QUEUED, said
    return HoldUpReason.GANG if _GANG.search(said) else HoldUpReason.UNSCHEDULABLE, said


def _waiting(status: Mapping[str, Any]) -> tuple[HoldUpReason, str] | None:
    """Return why a container waits, unless every container passes through the state."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in entries(status.get(key)):
            waiting = mapping(mapping(container.get("state")).get("waiting"))
            reason = str(waiting.get("reason") or "")
            if reason and reason not in _STARTING:
                kind = HoldUpReason.IMAGE if reason in _IMAGE else HoldUpReason.CONFIGURATION
                return kind, sentence(waiting)
    return None


def _initializing(status: Mapping[str, Any], restartable: Collection[str]) -> tuple[HoldUpReason, str] | None:
    """Return a message about the container that has not started, or the init container that has not ended."""
    for container in entries(status.get("initContainerStatuses")):
        name, state = str(container.get("name") or ""), mapping(container.get("state"))
        if state.get("terminated") or (name in restartable and container.get("started") is True):
            continue
        if state.get("running"):
            what = "sidecar" if name in restartable else "init container"
            return HoldUpReason.INITIALIZING, f"its {what} {name[:_MAX_HOLD_UP]} still runs"
        break
    for container in entries(status.get("containerStatuses")):
        waiting = mapping(mapping(container.get("state")).get("waiting"))
        if waiting.get("reason"):
            return HoldUpReason.STARTING, sentence(waiting)
    return None


def sentence(value: Mapping[str, Any]) -> str:
    """Return the reason and the message of a condition, a state or an Event, bounded."""
    reason, message = str(value.get("reason") or ""), str(value.get("message") or "")
    return (f"{reason}: {message}" if reason and message else reason or message)[:_MAX_HOLD_UP]
