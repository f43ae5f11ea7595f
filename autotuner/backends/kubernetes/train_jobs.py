"""TrainJobs of Trainer as trials: conditions and pods.

A TrainJob shows that it has ended, and its pods show why. Unlike the training operator, Kubernetes restarts a
failed node: its container in its pod (restartPolicy OnFailure), its pod (backoffLimit) or all pods (JobSet's
maxRestarts), depending on the runtime. One attempt is one trial, so the first sign of a second attempt ends
the trial with the end of the first. When a node has failed for good, the Job removes the pods of the other
nodes, so pods are cached as they were last observed (`PodStatus.is_gone`).

The role may not read JobSets and Jobs; pods have their labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from autotuner.backends.kubernetes import pods as pods_of
from autotuner.backends.kubernetes.assess import OOM_KILLED, Conditions, PodStatus, TrialStanding, assess
from autotuner.backends.kubernetes.hold_ups import Waiting, is_over
from autotuner.backends.kubernetes.hold_ups import first as first_of
from autotuner.backends.kubernetes.pods import (
    entries,
    moment,
    name_of,
    queue_of,
    waiting_since,
)
from autotuner.job.lookup import mapping
from autotuner.job.training_runtime import CONTAINER
from autotuner.study.hold_up import HoldUpReason
from autotuner.study.logs.pushed import MAX_CHARACTERS, MAX_METRICS, Push

JOB_NAME_LABEL: Final = "jobset.sigs.k8s.io/jobset-name"
KEEPS_GONE_PODS: Final = True
_ATTEMPT_LABEL: Final = "jobset.sigs.k8s.io/restart-attempt"
_INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
_REPLICATED_LABEL: Final = "jobset.sigs.k8s.io/replicatedjob-name"


def read_conditions(trial: Mapping[str, Any]) -> Conditions:
    """Read a trial's TrainJob. Only its pods show when it has started."""
    status, spec = mapping(trial.get("status")), mapping(trial.get("spec"))
    held = {str(c.get("type")): c for c in entries(status.get("conditions")) if c.get("status") == "True"}
    ended = held.get("Complete") or held.get("Failed") or {}
    # A trial's own manifest always has it.
    nodes = mapping(spec.get("trainer")).get("numNodes")
    is_suspended = spec.get("suspend") is True
    return Conditions(
        replicas=nodes if isinstance(nodes, int) else 1,
        has_succeeded="Complete" in held,
        has_failed="Failed" in held,
        is_suspended=is_suspended,
        waiting_since=waiting_since(trial, is_suspended=is_suspended),
        queue=queue_of(trial),
        ended_at=moment(ended.get("lastTransitionTime")),
        message=str(mapping(held.get("Failed")).get("message", "")),
    )


def has_begun(trial: Mapping[str, Any]) -> bool:
    """Return whether all nodes of a replicated job run."""
    return any(job.get("ready") for job in entries(mapping(trial.get("status")).get("jobsStatus")))


def pushed(trial: Mapping[str, Any]) -> Push | None:
    """Return the metrics of `status.trainerStatus`: the latest that the process pushed (KEP-2779).

    Those that an evicted run pushed stay there while it waits, and after it is admitted again until the next.
    """
    status = mapping(mapping(trial.get("status")).get("trainerStatus"))
    values = {
        str(metric.get("name"))[:MAX_CHARACTERS]: str(metric.get("value"))[:MAX_CHARACTERS]
        for metric in list(entries(status.get("metrics")))[:MAX_METRICS]
    }
    at, resumed = moment(status.get("lastUpdatedTime")), resumed_at(trial)
    if not values or mapping(trial.get("spec")).get("suspend") is True:
        return None
    if at is not None and resumed is not None and at < resumed:
        return None
    return Push(values, at, run="" if resumed is None else resumed.isoformat())


def resumed_at(trial: Mapping[str, Any]) -> datetime | None:
    """Return when a trial's suspension ended; None if it was never suspended."""
    for condition in entries(mapping(trial.get("status")).get("conditions")):
        if condition.get("type") == "Suspended" and condition.get("status") == "False":
            return moment(condition.get("lastTransitionTime"))
    return None


def is_pod_of(pod: Mapping[str, Any], trial: Mapping[str, Any]) -> bool:
    """Return whether a pod belongs to this trial, and not to an earlier one with its name.

    Its owner is a Job of the trial's JobSet, which the role may not read: the Job's name and the time decide.
    """
    metadata, name = mapping(pod.get("metadata")), name_of(trial)
    owners = entries(metadata.get("ownerReferences"))
    is_of_job = any(o.get("kind") == "Job" and str(o.get("name")).startswith(f"{name}-") for o in owners)
    made = moment(metadata.get("creationTimestamp"))
    created = moment(mapping(trial.get("metadata")).get("creationTimestamp"))
    return is_of_job and (made is None or created is None or made >= created)


def read_pod(pod: Mapping[str, Any]) -> PodStatus:
    """Read a pod; if its container was restarted, with its first end that is still known."""
    labels = mapping(mapping(pod.get("metadata")).get("labels"))
    names = [str(each.get("name")) for each in entries(mapping(pod.get("spec")).get("containers"))]
    is_initializer = bool(names) and CONTAINER not in names
    attempt, role = str(labels.get(_ATTEMPT_LABEL, "0")), str(labels.get(_REPLICATED_LABEL, ""))
    # Trainer calls the container of an initializer as its job; others may be injected.
    own = role if role in names else next(iter(names), CONTAINER)
    read = replace(
        pods_of.read_pod(_before_restart(pod), own if is_initializer else CONTAINER),
        role=role,
        # Each replicated job numbers its own pods, so an initializer has an index 0, too.
        is_rank_zero=labels.get(_INDEX_LABEL) == "0" and not is_initializer,
        restarts=0 if is_initializer else _restarts(pod),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        is_initializer=is_initializer,
    )
    if not is_initializer:
        return read
    # It does not hold a batch, so its lack of memory says nothing about the batch size.
    reason = f"{OOM_KILLED} in {role}" if read.reason == OOM_KILLED else read.reason
    # A Job removes a pod whose container it has restarted often enough.
    said = read.log_tail or f"the initializer {role} failed, and its log is gone"
    return replace(read, started_at=None, reason=reason, log_tail=said)


def stand(
    conditions: Conditions,
    pods: Sequence[PodStatus],
    now: datetime,
    patience: timedelta,
    first_seen: Mapping[str, str],
) -> TrialStanding:
    """Return the state of a trial: that of its first attempt if there is a sign of a second one."""
    del first_seen  # `pods` has the deleted pods too
    initializers = [pod for pod in pods if pod.is_initializer]
    pods = [pod for pod in pods if not pod.is_initializer]
    has_ended = conditions.has_succeeded or conditions.has_failed
    if not pods and not has_ended and not conditions.is_suspended and _prepares(initializers, now, patience):
        # Nothing has been trained yet, so Kubernetes may start a failed one again.
        return TrialStanding(hold_up=_initializing(initializers, now, patience))
    if conditions.has_failed:
        pods += [pod for pod in initializers if pod.has_failed or pod.disruption]
    attempt, is_again = first(pods), _is_again(pods)
    starts = [pod.started_at for pod in attempt if pod.started_at is not None]
    if not (conditions.has_succeeded or conditions.is_suspended) and (
        is_again or conditions.has_failed or any(pod.disruption for pod in attempt)
    ):
        if not conditions.has_failed:
            finishes = [pod.finished_at for pod in attempt if pod.finished_at is not None]
            message = "Kubernetes restarted it" if is_again else ""
            conditions = replace(
                conditions, has_failed=True, ended_at=min(finishes, default=now), message=message
            )
        standing = assess(conditions, attempt, now, patience)
        # The Job may have removed pods that were never observed.
        return replace(standing, started_at=standing.started_at or max(starts, default=None))
    return assess(conditions, attempt, now, patience)


def first(pods: Sequence[PodStatus]) -> list[PodStatus]:
    """Return the pods of a trial's first attempt; of an initializer, the last one counts."""
    nodes = _by_place([pod for pod in pods if not pod.is_initializer]).values()
    initializers = _by_place([pod for pod in pods if pod.is_initializer]).values()
    return [*(found[0] for found in nodes if not found[0].attempt), *(found[-1] for found in initializers)]


def ranks_by_arrival(trial: Mapping[str, Any]) -> bool:
    """Return False: Trainer gives each node its rank, so only the first pod has rank 0."""
    del trial
    return False


def _is_again(pods: Sequence[PodStatus]) -> bool:
    """Return whether Kubernetes has restarted a container, a pod or the whole trial."""
    nodes = [pod for pod in pods if not pod.is_initializer]
    is_twice = any(len(found) > 1 for found in _by_place(nodes).values())
    return is_twice or any(pod.attempt or pod.restarts for pod in nodes)


def _by_place(pods: Sequence[PodStatus]) -> dict[str, list[PodStatus]]:
    by_place: dict[str, list[PodStatus]] = {}
    for pod in sorted(pods, key=lambda pod: (pod.attempt, str(pod.created_at or ""), not pod.is_gone)):
        # The name of a pod is <job>-<index>-<random>.
        by_place.setdefault(pod.name.rpartition("-")[0], []).append(pod)
    return by_place


def with_gone(
    trial: Mapping[str, Any], seen: Iterable[PodStatus], found: Sequence[PodStatus]
) -> list[PodStatus]:
    """Return the existing pods of a trial, and the cached ones that do not exist any more.

    A suspended trial has none, and pods from before its resumption belong to another run.
    """
    if read_conditions(trial).is_suspended:
        return list(found)
    there, since = {pod.uid for pod in found}, resumed_at(trial)

    def is_of_before(pod: PodStatus) -> bool:
        return since is not None and pod.created_at is not None and pod.created_at < since

    gone = (replace(pod, is_gone=True) for pod in seen if pod.uid not in there and not is_of_before(pod))
    # It is still being deleted because the trial was suspended.
    return [*(pod for pod in found if not (pod.is_deleted_first and is_of_before(pod))), *gone]


def _prepares(initializers: Sequence[PodStatus], now: datetime, patience: timedelta) -> bool:
    """Return whether an initializer runs or will run, or has just ended, so that the nodes start next."""
    if any(pod.exit_code is None and not pod.is_gone for pod in initializers):
        return True
    finishes = [pod.finished_at for pod in initializers if pod.finished_at is not None]
    return bool(finishes) and not is_over(max(finishes), now, patience)


def _initializing(initializers: Sequence[PodStatus], now: datetime, patience: timedelta) -> Waiting | None:
    """Return what keeps the nodes waiting for their initializers, after the patience is over."""
    going = [pod for pod in initializers if pod.exit_code is None and not pod.is_gone]
    stuck = [(pod.name, pod.uid, pod.stuck) for pod in going if pod.stuck is not None]
    if held := first_of([each for each in stuck if is_over(each[2].since, now, patience)]):
        return held
    late = [pod for pod in going if pod.stuck is None and is_over(pod.created_at, now, patience)]
    if not late:
        return None
    said = f"its nodes wait for the initializer {late[0].role}: pod {late[0].name} still runs"
    return Waiting(HoldUpReason.INITIALIZING, said, late[0].uid)


def _restarts(pod: Mapping[str, Any]) -> int:
    counts = (
        status.get("restartCount")
        for status in entries(mapping(pod.get("status")).get("containerStatuses"))
        if status.get("name") == CONTAINER
    )
    return max((count for count in counts if isinstance(count, int)), default=0)


def _before_restart(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a pod as it was before its training container was restarted."""
    status = mapping(pod.get("status"))
    containers = [
        {**container, "state": last}
        if container.get("restartCount") and (last := mapping(container.get("lastState"))).get("terminated")
        else container
        for container in entries(status.get("containerStatuses"))
    ]
    return {**pod, "status": {**status, "containerStatuses": containers}}
