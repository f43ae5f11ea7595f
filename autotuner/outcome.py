"""How a trial ended, and whose fault it was.

A backend says what it saw of the end as an `Ending`; `classify` names the outcome and says why in words for
the user. Out of memory is told apart from failure because it is knowledge about the micro-batch; what the
cluster did is told apart because it is run again. On a cluster the end itself must be found first: `assess`
reads it off the job's conditions and its pods, given as plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from autotuner.annotations import Target
from autotuner.measure import ESCAPE
from autotuner.study.cause import Cause, ProcessLog, find_cause
from autotuner.trial import Measurement, Outcome

TAIL_LINES: Final = 8
"""Lines of a failed program's log that its message repeats."""
MAX_TAIL: Final = 1500
"""Characters of them; an annotation that repeats them must stay small."""

OOM_KILLED: Final = "OOMKilled"
"""A container's reason where the kernel killed it for its memory."""
_OOM_EXIT_CODE: Final = 137
"""128 + SIGKILL."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What a backend saw of a trial's end.

    `exit_code` is that of the first process that failed, 0 where all succeeded, None where none ended by
    itself. `log_tail` is the end of its log, and `logs` are the ends of the logs of all processes that
    failed, the first to fail first; without them `log_tail` alone is read. `killed_for_memory` is the
    kernel's word (OOMKilled). `disruption` is the cluster's own reason where the end was its doing
    (preempted, evicted, node lost); `logs` then are of processes that failed no later. `never_started` names
    pods that had not run yet.
    """

    exit_code: int | None
    log_tail: str = ""
    killed_for_memory: bool = False
    disruption: str = ""
    logs: tuple[ProcessLog, ...] = ()
    never_started: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the program ran to its own end: only such a run says how long a run is."""
        return self.exit_code == 0 and not self.disruption and not self.killed_for_memory


def classify(ending: Ending, measurements: Sequence[Measurement], target: Target) -> tuple[Outcome, str]:
    """Return how a trial ended, and why, in words.

    A run that met the target has reached it, however it ended afterwards (`Ending.is_complete` says whether
    it ran to its own end). Then what the cluster did decides, whatever the exit code: a program that is told
    to go may well exit with 0.
    """
    if any(target.is_met(measurement.value) for measurement in measurements):
        return Outcome.REACHED, ""
    cause = _cause(ending)
    lacked_memory = cause is not None and cause.outcome is Outcome.OUT_OF_MEMORY
    if ending.disruption and not (lacked_memory and ending.logs):
        return Outcome.LOST, ending.disruption
    if ending.killed_for_memory:
        return Outcome.OUT_OF_MEMORY, "the kernel killed the process for its memory (OOMKilled)"
    if cause is not None and lacked_memory:
        return Outcome.OUT_OF_MEMORY, _told(cause)
    if measurements and not measurements[-1].is_finite:
        return Outcome.DIVERGED, f"{target.metric} became {measurements[-1].value}"
    if cause is not None and ending.never_started and not cause.is_sure_to_repeat:
        waiting = ", ".join(ending.never_started)
        return Outcome.LOST, f"it failed while pod {waiting} had not started: {_told(cause)}".rstrip(": ")
    if cause is not None and cause.outcome is not Outcome.FAILED:
        return cause.outcome, _told(cause)
    if ending.exit_code != 0:
        return Outcome.FAILED, f"exit code {ending.exit_code}: {_end(ending, cause) or 'the log is empty'}"
    if not measurements:
        return Outcome.FAILED, (
            f"the run ended well, but no line of its log carries {target.metric}: print it from rank 0, such"
            f' as "{target.metric}=0.5 epoch=1", or set the annotation metric-pattern;'
            f" the log ends: {tail(ending.log_tail) or '(empty)'}"
        )
    return Outcome.MISSED, ""


def _cause(ending: Ending) -> Cause | None:
    """Return why the processes failed; None where none did."""
    if ending.logs:
        return find_cause(ending.logs)
    if ending.exit_code == 0 or ending.disruption:
        return None
    return find_cause([ProcessLog(ending.log_tail, ending.exit_code)])


def _told(cause: Cause) -> str:
    """Return the deciding line with the pod and the node where it was said."""
    where = f"pod {cause.pod}" if cause.pod else ""
    if cause.node:
        where = f"{where} on node {cause.node}".strip()
    return f"{where}: {cause.line}" if where else cause.line


def _end(ending: Ending, cause: Cause | None) -> str:
    """Return the last lines of the log that decided, headed by the deciding line where they lack it."""
    logs = [log.text for log in ending.logs if cause is not None and log.pod == cause.pod]
    last = tail(logs[0] if logs else ending.log_tail)
    line = "" if cause is None or cause.line in last else cause.line
    return "\n".join(part for part in (line, last) if part)


def tail(log: str) -> str:
    """Return the last lines of a log that say something, bounded in number and length.

    Colours and whatever else moves a terminal's cursor go: the lines are repeated in annotations and pages.
    """
    lines = [line for written in log.splitlines() if (line := _printable(written))]
    return "\n".join(lines[-TAIL_LINES:])[-MAX_TAIL:]


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in ESCAPE.sub("", line)).rstrip()


# --- from what a cluster shows of a trial to an Ending -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a trial, as plain values.

    `role` is `master` or `worker`, `node` is where it runs. `started_at`, `finished_at`, `exit_code`,
    `reason` and `log_tail` are of its training container; `log_tail` is the termination message, which
    outlives the log. `disruption` is the cluster's own reason where it ended the pod: preempted, evicted,
    node lost. `is_deleted_first` says that the pod was told to go before its process ended. `hold_up` says
    what keeps a pod from starting, since `created_at`.
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
    is_deleted_first: bool = False
    hold_up: str = ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a trial's PyTorchJob says of itself.

    `running_since` is when its master began to run, None while it does not (or waits in a queue); Running
    says nothing about workers. `replicas` is how many pods it is to have, and `failed` how many of each role
    had failed when it ended.
    """

    replicas: int
    failed: Mapping[str, int] = field(default_factory=dict)
    has_succeeded: bool = False
    has_failed: bool = False
    is_suspended: bool = False
    running_since: datetime | None = None
    ended_at: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a trial stands on the cluster.

    `started_at` is None until all pods have run, so that waiting costs no deadline. `ending` is None while
    the trial goes on. `hold_up` is what keeps it from starting, once patience has run out.
    """

    started_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Ending | None = None
    hold_up: str = ""


def assess(job: Conditions, pods: Sequence[Pod], now: datetime, patience: timedelta) -> Standing:
    """Return where a trial stands.

    The job's conditions say *that* it ended, and only its pods say *why*: the job's own message is always
    "... replica(s) failed".

    Args:
        job: The trial's conditions.
        pods: Its pods, those that still exist.
        now: The present.
        patience: How long a pod may be held up before the user is told.
    """
    starts = [pod.started_at for pod in pods if pod.started_at is not None]
    started_at = max(starts) if len(starts) >= job.replicas else None
    if job.has_succeeded or job.has_failed:
        finishes = [pod.finished_at for pod in pods if pod.finished_at is not None]
        ended_at = job.ended_at or max(finishes, default=now)
        ending = _success(pods) if job.has_succeeded else _failure(job, pods)
        # Without its pods a job still says when its master began.
        return Standing(started_at or job.running_since, ended_at, ending)
    if not job.is_suspended and (replaced := _replaced(job, pods)):
        return Standing(job.running_since, now, Ending(None, disruption=replaced))
    return Standing(started_at, hold_up=_hold_up(pods, now, patience))


def _success(pods: Sequence[Pod]) -> Ending:
    """Return the end of a job that has succeeded, which a program that was told to go may have ended well.

    A worker that was disrupted after rank 0 had finished changes nothing.
    """
    finishes = [pod.finished_at for pod in pods if pod.is_rank_zero and pod.finished_at is not None]
    for pod in pods:
        is_before = bool(finishes) and pod.finished_at is not None and pod.finished_at <= max(finishes)
        if pod.disruption and (pod.is_rank_zero or is_before):
            return Ending(0, disruption=f"pod {pod.name}: {pod.disruption}")
        if pod.is_rank_zero and pod.is_deleted_first:
            return Ending(0, disruption=f"pod {pod.name} was deleted while it ran")
    return Ending(exit_code=0)


def _failure(job: Conditions, pods: Sequence[Pod]) -> Ending:
    """Say why a trial failed: the cluster first, then the process that failed first.

    When one process goes, the others fail of its absence a moment later; their exit codes say nothing. Within
    one second, the finest that a pod tells, those come first of whose role the job counted a failure: the
    operator deletes what still runs only after that.
    """
    failed = sorted(
        (pod for pod in pods if pod.exit_code not in {None, 0}),
        key=lambda pod: (
            pod.finished_at is None,
            pod.finished_at,
            job.failed.get(pod.role, 0) == 0,
            not pod.is_deleted_first,
        ),
    )
    for pod in pods:
        if pod.disruption:
            earlier = [p for p in failed if p.name != pod.name and _is_no_later(p, pod)]
            return Ending(None, disruption=f"pod {pod.name}: {pod.disruption}", logs=_logs(earlier))
    if any(pod.reason == OOM_KILLED for pod in failed):
        return Ending(_OOM_EXIT_CODE, killed_for_memory=True)
    if failed and failed[0].is_deleted_first:
        return Ending(None, disruption=f"pod {failed[0].name} was deleted while it ran")
    if vanished := _replaced(job, pods) or _vanished(job, failed):
        return Ending(None, disruption=vanished)
    if failed:
        waiting = tuple(pod.name for pod in pods if pod.started_at is None and pod.exit_code is None)
        logs = _logs([pod for pod in failed if not pod.is_deleted_first])
        return Ending(failed[0].exit_code, failed[0].log_tail, logs=logs, never_started=waiting)
    names = ", ".join(pod.name for pod in pods if pod.is_deleted_first)
    gone = f"pod {names} was deleted" if names else "its pods are gone"
    return Ending(
        None, disruption=f"{gone}, and no process of it has failed; {job.message}".removesuffix("; ")
    )


def _logs(pods: Sequence[Pod]) -> tuple[ProcessLog, ...]:
    return tuple(ProcessLog(pod.log_tail, pod.exit_code, pod.name, pod.node) for pod in pods)


def _is_no_later(pod: Pod, other: Pod) -> bool:
    return other.finished_at is None or (pod.finished_at is not None and pod.finished_at <= other.finished_at)


def _replaced(job: Conditions, pods: Sequence[Pod]) -> str:
    """Return which pod the operator has silently created anew, or nothing.

    A pod that was made after the master began to run stands in for one that was deleted before the
    operator saw it: the run starts again from nothing, under the same name.
    """
    since = job.running_since
    for pod in pods:
        is_newer = since is not None and pod.created_at is not None and pod.created_at > since
        if is_newer and (pod.is_rank_zero or job.has_failed):
            return f"pod {pod.name} was deleted, and replaced by a new one"
    return ""


def _vanished(job: Conditions, failed: Sequence[Pod]) -> str:
    """Return of which role a failed pod is gone, or nothing.

    Nobody but the cluster, or a human, deletes a failed pod: the operator clears up running ones only.
    """
    for role, count in job.failed.items():
        if count > sum(pod.role == role for pod in failed):
            return f"a {role} pod was ended and removed by the cluster"
    return ""


def _hold_up(pods: Sequence[Pod], now: datetime, patience: timedelta) -> str:
    for pod in pods:
        if pod.hold_up and pod.created_at is not None and now - pod.created_at >= patience:
            return f"pod {pod.name} cannot start: {pod.hold_up}"
    return ""
