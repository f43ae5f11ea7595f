"""Derive the end of a trial from the conditions of its job and from its pods. Pure.

The job's conditions show that it ended; only its pods show why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

from autotuner.backends.kubernetes.hold_ups import Stuck, Waiting, first, is_over
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.outcome import Ending
from autotuner.study.hold_up import HoldUpReason

CLOCK_ALLOWANCE: Final = timedelta(minutes=1)
"""How much two clocks may differ, in addition to `Conditions.clock_behind`."""
SIDECAR_GRACE: Final = timedelta(seconds=30)
"""Time for the pod's other containers, and the job, to end after the training container."""
REST_GRACE: Final = timedelta(minutes=10)
"""Time for an elastic job's other workers to end after its first success: torchrun allows five minutes."""
OOM_KILLED: Final = "OOMKilled"
"""The reason of a container that the kernel killed for its memory."""
_OOM_EXIT_CODE: Final = 137
"""128 + SIGKILL."""
_ON_PURPOSE: Final = re.compile(r"preempt|EvictionByEvictionAPI|evicted by", re.IGNORECASE)
"""Disruptions that say nothing about the node."""
Exceeded = Literal["", "memory", "storage", "time"]
"""The resource whose limit a pod has exceeded; empty if there is none."""
NOTHING_SEEN: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PodStatus:
    """One pod of a trial, as plain values.

    `role` is `master` or `worker`, `node` is where it runs. `started_at`, `finished_at`, `exit_code`,
    `reason` and `log_tail` are of its training container; `log_tail` is the termination message, which
    outlives the log. `disruption` is the cluster's reason if the cluster ended the pod: preempted, evicted,
    node lost. `exceeded` says that the kubelet ended the pod for a limit of its own. `is_deleted_first` says
    that the pod's deletion began before its process ended. `stuck` says what keeps a pod from starting.
    `has_sidecars` says that the pod has other containers, which may continue after the end of the training
    container. `restarts` and `attempt` are how often Kubernetes has restarted its container and the whole
    trial. A pod that `is_gone` is as it was last observed. `is_initializer` marks a pod of a TrainJob that
    prepares the data or the model before the nodes train. `init_container` is the name of an init container
    that has failed. In both cases the fields of the training container are those of the failed container.
    """

    name: str
    uid: str
    role: str = ""
    node: str = ""
    is_rank_zero: bool = False
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    reason: str = ""
    log_tail: str = ""
    disruption: str = ""
    exceeded: Exceeded = ""
    is_deleted_first: bool = False
    stuck: Stuck | None = None
    has_sidecars: bool = False
    restarts: int = 0
    attempt: int = 0
    is_gone: bool = False
    is_initializer: bool = False
    init_container: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether its training container has ended with a code other than 0."""
        return self.exit_code not in {None, 0}

    @property
    def preparer(self) -> str:
        """What has failed in it, if it is not the training container; else empty."""
        if self.init_container:
            return f"init container {self.init_container}"
        return f"initializer {self.role}" if self.is_initializer else ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a trial's job.

    `running_since` is when its master started, None while it does not run (or waits in a queue); the
    condition Running does not cover workers. `replicas` is the expected number of pods, and `failed` the
    number of failed ones of each role at the end. `clock_behind` is how much at least the operator's clock,
    which dates the conditions, is behind the API server's, which dates pods. `waiting_since` is when the job
    was created, or was suspended or admitted last. `queue` is the queue that admits it.
    `ends_with_first` means that the operator ends the job when its first worker succeeds, whatever the others
    do.
    """

    replicas: int
    failed: Mapping[str, int] = field(default_factory=dict)
    has_succeeded: bool = False
    has_failed: bool = False
    is_suspended: bool = False
    running_since: datetime | None = None
    ended_at: datetime | None = None
    clock_behind: timedelta = timedelta(0)
    message: str = ""
    waiting_since: datetime | None = None
    queue: str = ""
    ends_with_first: bool = False


@dataclass(frozen=True, slots=True)
class TrialStanding:
    """Where a trial stands on the cluster.

    `started_at` is None until all pods have run, so that waiting does not count towards the timeout. `ending`
    is None while the trial runs. `hold_up` is what keeps it from starting, after the patience is over.
    """

    started_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None
    hold_up: Waiting | None = None


def assess(
    job: Conditions,
    pods: Sequence[PodStatus],
    now: datetime,
    patience: timedelta,
    first_seen: Mapping[str, str] = NOTHING_SEEN,
) -> TrialStanding:
    """Return where a trial stands.

    The job's conditions show that it ended. Only its pods show why: the job's own message is always
    "... replica(s) failed".

    Args:
        job: The trial's conditions.
        pods: Its existing pods.
        now: The current time.
        patience: How long a pod may be held up before this is reported.
        first_seen: The first observed UIDs of this run's pods, by name.
    """
    starts = [pod.started_at for pod in pods if pod.started_at is not None]
    started_at = max(starts) if starts and len(starts) >= job.replicas else None
    if job.has_succeeded or job.has_failed:
        finishes = [pod.finished_at for pod in pods if pod.finished_at is not None]
        ended_at = job.ended_at or max(finishes, default=now)
        if _goes_on(job, pods) and now - ended_at < REST_GRACE:
            return TrialStanding(started_at or job.running_since)
        is_partial = job.ends_with_first and any(pod.has_failed for pod in pods)
        is_success = job.has_succeeded and not is_partial
        ending = _success(pods) if is_success else _failure(job, pods, first_seen)
        # A job shows when its master started, even without its pods.
        return TrialStanding(started_at or job.running_since, ended_at, ending)
    if not job.is_suspended and (replaced := _replaced(job, pods, first_seen)):
        return TrialStanding(job.running_since, now, Ending(None, disruption=replaced))
    if not job.is_suspended and (ended := _ended_beside_sidecars(job, pods, now, first_seen)) is not None:
        return replace(ended, started_at=started_at or job.running_since)
    held = None if started_at is not None else _hold_up(job, pods, now, patience)
    return TrialStanding(started_at, hold_up=held)


def _goes_on(job: Conditions, pods: Sequence[PodStatus]) -> bool:
    """Return whether workers run on although the operator has called the job a success.

    It does so when the first worker of an elastic job succeeds. Another one may have rank 0, and may still
    evaluate and print the metric.
    """
    if not (job.has_succeeded and job.ends_with_first):
        return False
    return any(pod.finished_at is None and not pod.disruption and not pod.is_deleted_first for pod in pods)


def _has_trained_beside_others(pod: PodStatus) -> bool:
    return pod.is_rank_zero and pod.has_sidecars and pod.exit_code == 0


def _ended_beside_sidecars(
    job: Conditions, pods: Sequence[PodStatus], now: datetime, first_seen: Mapping[str, str]
) -> TrialStanding | None:
    """Return the end of a trial whose job still runs because of a sidecar (a mesh proxy, a log shipper).

    The operator uses a pod's phase, which is Running as long as any container runs. So the training
    containers decide: a failed one fails the trial; the trial succeeds with the Master, and without a Master
    if all succeed.
    """
    failed = [pod.finished_at for pod in pods if pod.has_failed and pod.finished_at is not None]
    if failed:
        ended_at = min(failed)
        ending = _failure(job, pods, first_seen)
    else:
        deciding = [pod for pod in pods if pod.role == "master"] or list(pods)
        finishes = [pod.finished_at for pod in deciding if pod.exit_code == 0 and pod.finished_at is not None]
        is_whole = len(deciding) >= (1 if deciding and deciding[0].role == "master" else job.replicas)
        if not finishes or len(finishes) < len(deciding) or not is_whole:
            return None
        ended_at, ending = max(finishes), _success(pods)
    if now - ended_at < SIDECAR_GRACE:
        return None
    return TrialStanding(ended_at=ended_at, ending=ending)


def _success(pods: Sequence[PodStatus]) -> Ending:
    """Return the end of a job that has succeeded.

    If a pod is being deleted and its program exits with 0, it is a disruption. A worker that was disrupted
    after rank 0 had finished does not matter.
    """
    finishes = [pod.finished_at for pod in pods if pod.is_rank_zero and pod.finished_at is not None]
    for pod in pods:
        is_before = bool(finishes) and pod.finished_at is not None and pod.finished_at <= max(finishes)
        if pod.disruption and (pod.is_rank_zero or is_before):
            return Ending(0, disruption=f"pod {pod.name}: {pod.disruption}", node=_at_fault(pod))
        if pod.is_rank_zero and pod.is_deleted_first:
            return Ending(0, disruption=f"pod {pod.name} was deleted while it ran")
    return Ending(exit_code=0)


def is_late(job: Conditions, pod: PodStatus) -> bool:
    """Return whether a pod was certainly created after the master had started."""
    if job.running_since is None or pod.created_at is None:
        return False
    return pod.created_at > job.running_since + job.clock_behind + CLOCK_ALLOWANCE


def _failure(job: Conditions, pods: Sequence[PodStatus], first_seen: Mapping[str, str]) -> Ending:
    """Return why a trial failed: the cluster first, then the process that failed first.

    When one process ends, the others fail a moment later because it is missing; their exit codes say nothing.
    Within one second, the resolution of a pod's times, the pods of a role with a counted failure come first:
    the operator deletes running pods only after it has counted.
    """
    failed = sorted(
        (pod for pod in pods if pod.has_failed),
        key=lambda pod: (
            pod.finished_at is None,
            pod.finished_at,
            job.failed.get(pod.role, 0) == 0,
            not pod.is_deleted_first,
        ),
    )
    disrupted = next((pod for pod in pods if pod.disruption), None)
    if disrupted is not None:
        return _disruption(disrupted, failed)
    if any(pod.reason == OOM_KILLED for pod in failed):
        return Ending(_OOM_EXIT_CODE, killed_for_memory=True)
    for pod in failed:
        if pod.reason.startswith(f"{OOM_KILLED} in "):
            # It does not hold a batch, so its lack of memory says nothing about the batch size.
            said = f"pod {pod.name}: {pod.reason}: raise the memory limit of that container"
            return Ending(pod.exit_code, exceeded=said)
    if failed and failed[0].is_deleted_first:
        return Ending(None, disruption=f"pod {failed[0].name} was deleted while it ran")
    if replaced := _replaced(job, pods, first_seen):
        return Ending(None, disruption=replaced)
    if not failed and len(pods) >= job.replicas and any(map(_has_trained_beside_others, pods)):
        # A sidecar has failed, and with it the pod and the job.
        return _success(pods)
    if vanished := _vanished(job, failed):
        return Ending(None, disruption=vanished)
    if failed:
        waiting = tuple(pod.name for pod in pods if pod.started_at is None and pod.exit_code is None)
        logs = _logs([pod for pod in failed if not pod.is_deleted_first])
        return Ending(failed[0].exit_code, failed[0].log_tail, logs=logs, never_started=waiting)
    names = ", ".join(pod.name for pod in pods if pod.is_deleted_first)
    gone = f"pod {names} was deleted" if names else "its pods are gone"
    return Ending(
        None, disruption=f"{gone}, and none of its processes has failed; {job.message}".removesuffix("; ")
    )


def _disruption(pod: PodStatus, failed: Sequence[PodStatus]) -> Ending:
    """Return the end of a trial of which the cluster ended a pod."""
    earlier = [p for p in failed if p.name != pod.name and _is_no_later(p, pod)]
    said = f"pod {pod.name}: {pod.disruption}"
    if any(p.reason == OOM_KILLED for p in earlier):
        return Ending(_OOM_EXIT_CODE, killed_for_memory=True)
    if pod.exceeded == "time":
        said += ": raise the activeDeadlineSeconds of the pod template, or remove it"
    if pod.exceeded:
        return Ending(None, killed_for_memory=pod.exceeded == "memory", exceeded=said)
    return Ending(None, disruption=said, logs=_logs(earlier), node=_at_fault(pod))


def _at_fault(pod: PodStatus) -> str:
    """Return the node of a disrupted pod; empty after a preemption or a drain: the node is not at fault."""
    return "" if _ON_PURPOSE.search(pod.disruption) else pod.node


def _logs(pods: Sequence[PodStatus]) -> tuple[ProcessLog, ...]:
    return tuple(ProcessLog(p.log_tail, p.exit_code, p.name, p.node, p.preparer) for p in pods)


def _is_no_later(pod: PodStatus, other: PodStatus) -> bool:
    return other.finished_at is None or (pod.finished_at is not None and pod.finished_at <= other.finished_at)


def _replaced(job: Conditions, pods: Sequence[PodStatus], first_seen: Mapping[str, str]) -> str:
    """Return a message about a pod that the operator has recreated; empty if there is none.

    A pod that was deleted before the operator observed its end is replaced under the same name, and the run
    starts from the beginning. A changed UID is certain evidence. For a pod that was not observed before, the
    time of its creation is compared with that of the job, by two clocks.
    """
    for pod in pods:
        is_other = first_seen[pod.name] != pod.uid if pod.name in first_seen else is_late(job, pod)
        if is_other and (pod.is_rank_zero or job.has_failed):
            return f"pod {pod.name} was deleted, and replaced by a new one"
    return ""


def _vanished(job: Conditions, failed: Sequence[PodStatus]) -> str:
    """Return a message about a failed pod that does not exist any more; empty if there is none.

    Only the cluster or a person deletes a failed pod: the operator removes running pods only.
    """
    for role, count in job.failed.items():
        if count > sum(pod.role == role for pod in failed):
            return f"a {role} pod was ended and removed by the cluster"
    return ""


def _hold_up(
    job: Conditions, pods: Sequence[PodStatus], now: datetime, patience: timedelta
) -> Waiting | None:
    """Return what keeps a trial from starting, after the patience is over."""
    is_overdue = is_over(job.waiting_since, now, patience)
    if job.is_suspended:
        queue = f"it waits in queue {job.queue}" if job.queue else "it is suspended, and in no queue"
        return Waiting(HoldUpReason.QUEUED, queue) if is_overdue else None
    if len(pods) < job.replicas and is_overdue:
        return Waiting(HoldUpReason.NO_POD, f"{len(pods)} of {job.replicas} pods have been created")
    stuck = [(p.name, p.uid, p.stuck) for p in pods if p.stuck is not None]
    return first([each for each in stuck if is_over(each[2].since, now, patience)])
