"""Read a trial from its conditions, its pods, and the log of its rank 0.

The state between two polls is a cache: the followers of logs (a pod with another UID is another run, and a
new follower reads its log from the start), and the first observed pods of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.backends.kubernetes.assess import (
    NOTHING_SEEN,
    Conditions,
    PodStatus,
    TrialStanding,
    is_late,
)
from autotuner.backends.kubernetes.cluster_kind import on_cluster
from autotuner.backends.kubernetes.cluster_words import ClusterWords
from autotuner.backends.kubernetes.earlier_runs import EarlierRuns
from autotuner.backends.kubernetes.followers import Followed, LogFollowers
from autotuner.backends.kubernetes.logs import Checkpoint, LogFollower
from autotuner.backends.kubernetes.pods import (
    entries,
    name_of,
    queue_of,
    suggestion_of,
    uid_of,
)
from autotuner.backends.kubernetes.pushes import Pushed, Pushes
from autotuner.backends.kubernetes.train_jobs import with_gone
from autotuner.job.job import Job
from autotuner.job.lookup import mapping
from autotuner.spec import TuningSpec
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.log_tail import MAX_LOG
from autotuner.study.endings.outcome import Ending, classify, node_of
from autotuner.study.hold_up import HoldUp, HoldUpReason
from autotuner.study.logs.log_reader import with_reading
from autotuner.trial import Outcome, Trial

UNREADABLE_AFTER: Final = timedelta(minutes=10)
"""How long after its end a trial waits for its log, if its node does not answer, before it counts as lost;
and how long the log of a running trial cannot be read before the status says so."""
_TAIL_LINES: Final = 1000
_LOGS_READ: Final = 16
"""Maximum number of failed pods of a trial whose logs are read, the first to fail first."""


@dataclass(slots=True)
class _Run:
    """A trial's run since its master started: the first observed UIDs of its pods, by name."""

    since: datetime
    pods: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Unread:
    """The warning about a log that cannot be read, and the time from which it is shown."""

    shown_from: datetime
    said: str
    has_ended: bool = False


class TrialReader:
    """Reads trials; safe to use from many threads, one at a time for each job.

    Args:
        api: The API server.
        clock: Returns the current time, in UTC.
        start_patience: How long a trial may wait to start before the job's status says why.
        max_log_bytes: Maximum bytes of a log in one request.
    """

    def __init__(
        self, api: Api, clock: Callable[[], datetime], *, start_patience: timedelta, max_log_bytes: int
    ) -> None:
        self._api = api
        self._clock = clock
        self._start_patience = start_patience
        self._max_log_bytes = max_log_bytes
        self._logs = LogFollowers(api, max_log_bytes)
        self._words = ClusterWords(api, clock)
        self._earlier = EarlierRuns(api)
        self.pushes = Pushes(clock)
        self._runs: dict[str, dict[str, _Run]] = {}
        self._seen: dict[str, dict[str, list[PodStatus]]] = {}
        self._unread: dict[str, dict[str, _Unread]] = {}

    def forget(self, uid: str) -> None:
        """Drop the cache of a job's trials."""
        self._logs.forget(uid)
        self._earlier.forget(uid)
        self.pushes.forget_job(uid)
        self._runs.pop(uid, None)
        self._seen.pop(uid, None)
        self._unread.pop(uid, None)

    def forget_others(self, job: Job, trials: Collection[str], pods: Collection[PodStatus]) -> None:
        """Drop the cache of a job's trials and pods that do not exist any more; `trials` are UIDs."""
        self._logs.forget_others(job, trials, {pod.uid for pod in pods})
        self._earlier.forget_others(job, trials)
        known: tuple[dict[str, Any], ...] = (
            self._runs.get(job.uid, {}),
            self._seen.get(job.uid, {}),
            self._unread.get(job.uid, {}),
        )
        for by_uid in known:
            for uid in by_uid.keys() - set(trials):
                del by_uid[uid]

    def unreadable(self, job: Job) -> list[str]:
        """Return a warning for each trial whose log cannot be read, if it runs for long; its text stays."""
        now = self._clock()
        return [each.said for each in self._unread.get(job.uid, {}).values() if each.shown_from <= now]

    def _note_unread(
        self,
        job: Job,
        manifest: Mapping[str, Any],
        trial: Trial,
        standing: TrialStanding,
        error: RequestFailed,
    ) -> None:
        """Record the warning about a trial whose log cannot be read, and when to show it."""
        uid, now, unread = uid_of(manifest), self._clock(), self._unread.setdefault(job.uid, {})
        if standing.ending is None:
            said = f"the log of trial {trial.number} cannot be read since {now:%Y-%m-%d %H:%M} UTC: {error}"
            unread.setdefault(uid, _Unread(now + UNREADABLE_AFTER, said))
        elif not unread.get(uid, _Unread(now, "")).has_ended:
            minutes = UNREADABLE_AFTER // timedelta(minutes=1)
            said = (
                f"trial {trial.number} has ended, and its log cannot be read: it is tried for {minutes}"
                f" minutes, before the trial counts as lost: {error}"
            )
            unread[uid] = _Unread(now, said, has_ended=True)

    def read_pods(
        self, job: Job, trials: Sequence[Mapping[str, Any]], known: Mapping[str, Sequence[PodStatus]]
    ) -> dict[str, list[PodStatus]]:
        """Return the pods by trial, of the trials whose pods in `known` may have changed; in one request."""
        kind, wanted = on_cluster(job.kind), dict[str, Mapping[str, Any]]()
        for manifest in trials:
            conditions, pods = kind.read_conditions(manifest), known.get(name_of(manifest))
            # With a sidecar, the pod and the job do not change when the training container ends. Only the
            # pods show that a node was restarted, or that the last workers of a job have ended.
            all_known = (
                pods is not None
                and sum(p.started_at is not None for p in pods) >= conditions.replicas
                and not any(p.has_sidecars for p in pods)
                and not job.kind.may_retry
                and not conditions.has_succeeded
            )
            if not conditions.is_suspended and not all_known:
                wanted[name_of(manifest)] = manifest
        if not wanted:
            return {}
        selector = f"{kind.JOB_NAME_LABEL} in ({','.join(sorted(wanted))})"
        found = self._api.list(core_path(job.namespace, "pods"), labelSelector=selector)
        pods_of: dict[str, list[PodStatus]] = {name: [] for name in wanted}
        for item in entries(found.get("items")):
            name = str(mapping(mapping(item.get("metadata")).get("labels")).get(kind.JOB_NAME_LABEL))
            # A pod of an earlier trial with this name may still be terminating.
            if name in wanted and kind.is_pod_of(item, wanted[name]):
                pods_of[name].append(kind.read_pod(item))
        if kind.KEEPS_GONE_PODS:
            seen = self._seen.setdefault(job.uid, {})
            for name, manifest in wanted.items():
                uid = uid_of(manifest)
                seen[uid] = pods_of[name] = with_gone(manifest, seen.get(uid, ()), pods_of[name])
        return pods_of

    def follower(
        self, job: Job, spec: TuningSpec, manifest: Mapping[str, Any], pods: Sequence[PodStatus]
    ) -> LogFollower | None:
        """Return the follower of the log of a running trial."""
        return self._logs.of(job, spec, uid_of(manifest), on_cluster(job.kind).first(pods))

    def read(
        self,
        job: Job,
        spec: TuningSpec,
        manifest: Mapping[str, Any],
        pods: Sequence[PodStatus],
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Trial, HoldUp | None]:
        """Return a trial, and what holds it up.

        A log that is not followed yet, and whose start is gone, is read from the checkpoint on.

        While the log of an ended trial cannot be read, its outcome is unknown: it counts as running.

        Raises:
            BackendError: If the role does not allow to read the log.
        """
        kind, now = on_cluster(job.kind), self._clock()
        conditions = kind.read_conditions(manifest)
        first_seen = self._first_seen(job, uid_of(manifest), conditions, pods)
        standing = kind.stand(conditions, pods, now, self._start_patience, first_seen)
        earlier = self._earlier.seconds(job, manifest, conditions, standing.started_at, now)
        trial = replace(_begun(job, spec, manifest, standing), earlier_seconds=earlier)
        if standing.ending is None and standing.started_at is None and _is_outdated(manifest, job):
            lost = "the job was changed before the trial had started"
            return replace(trial, outcome=Outcome.LOST, ended_at=now, message=lost), None
        followed, first = Followed(None), kind.first(pods)
        pushed = self.pushes.read(job.kind, manifest, spec)
        try:
            followed = self._logs.follow(
                job,
                spec,
                uid_of(manifest),
                first,
                checkpoint,
                is_by_arrival=kind.ranks_by_arrival(manifest),
                has_ended=standing.ending is not None,
            )
            self._unread.get(job.uid, {}).pop(uid_of(manifest), None)
            if standing.ending is not None:
                ended = self._ended(job, spec, manifest, trial, standing, followed, first, checkpoint, pushed)
                return ended, None
        except RequestFailed as error:
            follower = self._logs.of(job, spec, uid_of(manifest), first)
            # The measurements so far stay while a node does not answer.
            read = replace(_as_read(trial, follower, pushed), ended_at=standing.ended_at)
            if not _is_given_up(standing, now):
                # A missing permission does not come back by itself.
                if error.status == HTTPStatus.FORBIDDEN:
                    raise
                self._note_unread(job, manifest, trial, standing, error)
                return read, None
            return _without_log(read, standing, spec, error), None
        read = _as_read(trial, followed.follower, pushed)
        return read, self._held_up(job, manifest, trial, standing)

    def read_deleted(
        self,
        job: Job,
        spec: TuningSpec,
        manifest: Mapping[str, Any],
        pods: Sequence[PodStatus],
        checkpoint: Checkpoint | None,
    ) -> Trial:
        """Return a trial whose object somebody else has deleted: lost, unless it has met the target.

        It counts as lost, because what deletes trials may delete the next one, too.
        """
        kind, now, uid = on_cluster(job.kind), self._clock(), uid_of(manifest)
        conditions = kind.read_conditions(manifest)
        standing = kind.stand(conditions, pods, now, self._start_patience, NOTHING_SEEN)
        follower = self._logs.of(job, spec, uid, kind.first(pods))
        follower = follower or self._logs.printing(job, spec, uid, checkpoint)
        pushed = self.pushes.read(job.kind, manifest, spec)
        earlier = self._earlier.seconds(job, manifest, conditions, standing.started_at, now)
        begun = replace(_begun(job, spec, manifest, standing), earlier_seconds=earlier)
        read = _as_read(begun, follower, pushed)
        ending = Ending(None, disruption=f"somebody else has deleted its {job.kind.name}")
        outcome, message = classify(ending, read.measurements, spec.target)
        return replace(read, outcome=outcome, message=message, ended_at=now, is_complete=False, doubt="")

    def _held_up(
        self, job: Job, manifest: Mapping[str, Any], trial: Trial, standing: TrialStanding
    ) -> HoldUp | None:
        """Return what holds a trial up, with the cluster's explanation."""
        held = standing.hold_up
        if held is None:
            return None
        said = ""
        if held.reason is HoldUpReason.NO_POD:
            said = self._words.warning(job.namespace, uid_of(manifest))
            owner = job.kind.pods_owner(name_of(manifest))
            if not said and owner != name_of(manifest):
                said = self._words.warning(job.namespace, name=owner)
            if not said and not manifest.get("status"):
                said = "its operator has written no status: does it run, and watch this namespace?"
        elif held.reason in {HoldUpReason.STARTING, HoldUpReason.INITIALIZING}:
            said = self._words.warning(job.namespace, held.subject)
        elif held.reason is HoldUpReason.QUEUED:
            # A pod that is gated has no Workload of its own.
            is_asked = bool(queue_of(manifest)) and not held.subject
            said = self._words.admission(
                job.namespace, uid_of(manifest), job.kind.integration if is_asked else ""
            )
        return HoldUp(trial.number, held.reason, f"{held.text}; {said}" if said else held.text)

    def _ended(  # noqa: PLR0913, PLR0917 (all data about an end)
        self,
        job: Job,
        spec: TuningSpec,
        manifest: Mapping[str, Any],
        trial: Trial,
        standing: TrialStanding,
        followed: Followed,
        pods: Sequence[PodStatus],
        checkpoint: Checkpoint | None,
        pushed: Pushed,
    ) -> Trial:
        """Return an ended trial with its outcome; still running if its log is longer than one poll reads."""
        follower, ending = followed.follower, standing.ending or Ending(None)
        if not followed.is_whole:
            return replace(_as_read(trial, follower, pushed), ended_at=standing.ended_at)
        gone_pods = {pod.uid for pod in pods if pod.is_gone}
        # The log of a deleted pod may not have been read to its end.
        is_cut = follower is not None and follower.reading[0] in gone_pods
        has_rank_zero = any(pod.is_rank_zero and not pod.is_gone for pod in pods)
        has_measured = follower is not None and bool(follower.measurements)
        is_gone = is_cut or not (has_rank_zero or has_measured)
        if is_gone and ending.exit_code == 0:
            ending = Ending(None, disruption="its pods and their logs were deleted before they could be read")
        if is_gone or (ending.disruption and not has_measured):
            # The pod that measured was deleted or replaced, or is terminating.
            follower = self._logs.printing(job, spec, uid_of(manifest), checkpoint) or follower
        if ending.exit_code not in {None, 0}:
            ending = self._with_logs(job, ending, follower, pods)
        elif ending.exit_code == 0 and follower is not None:
            # Behind a pipe such as `| tee`, only the log shows that the program has failed.
            ending = replace(ending, log_tail=follower.tail)
        near = () if follower is None else follower.parser.near_misses
        uncounted = "" if follower is None else follower.parser.uncounted
        ending = replace(ending, near_misses=(*near, *pushed.reader.near_misses), uncounted=uncounted)
        read = _as_read(trial, follower, pushed, has_ended=True)
        outcome, message = classify(ending, read.measurements, spec.target)
        if outcome is Outcome.MISSED and follower is not None and follower.has_gap:
            outcome = Outcome.LOST
            message = (
                "its node rotated its log while no controller read it: whether it met the target is unknown"
            )
        elif outcome is Outcome.MISSED and pushed.may_lack(read):
            outcome = Outcome.LOST
            message = "it pushed metrics while no controller watched: whether it met the target is unknown"
        return replace(
            read,
            outcome=outcome,
            ended_at=standing.ended_at,
            message=message,
            is_complete=ending.is_complete,
            node=node_of(ending) if outcome is Outcome.LOST else "",
        )

    def _first_seen(
        self, job: Job, trial: str, conditions: Conditions, pods: Sequence[PodStatus]
    ) -> Mapping[str, str]:
        """Return the first observed UIDs of a run's pods, by name; a resumed run has new pods."""
        if conditions.running_since is None:
            return NOTHING_SEEN
        runs = self._runs.setdefault(job.uid, {})
        if trial not in runs or runs[trial].since != conditions.running_since:
            runs[trial] = _Run(conditions.running_since)
        first_seen = runs[trial].pods
        for pod in pods:
            # A pod that was created late is already a replacement.
            if not is_late(conditions, pod):
                first_seen.setdefault(pod.name, pod.uid)
        return first_seen

    def _with_logs(
        self, job: Job, ending: Ending, follower: LogFollower | None, pods: Sequence[PodStatus]
    ) -> Ending:
        """Return the ending with the ends of the failed pods' logs, if they can still be read.

        A termination message has 2,048 bytes, which a launcher's own table of failures fills.
        """
        by_name = {pod.name: pod for pod in pods}
        logs = [self._with_log(job, log, by_name.get(log.pod)) for log in ending.logs[:_LOGS_READ]]
        last = follower.tail if follower is not None else ""
        if len(logs) == 1 and not logs[0].text:
            logs = [replace(logs[0], text=last)]
        return replace(ending, logs=(*logs, *ending.logs[_LOGS_READ:]), log_tail=ending.log_tail or last)

    def _with_log(self, job: Job, log: ProcessLog, pod: PodStatus | None) -> ProcessLog:
        container: str | None = job.kind.container
        if pod is not None and pod.preparer:
            # Without a name, the log is that of an initializer's only container.
            container = pod.init_container or None
        try:
            text = self._api.log(
                job.namespace,
                log.pod,
                container=container,
                previous="true" if pod is not None and pod.restarts else None,
                tailLines=_TAIL_LINES,
                limitBytes=self._max_log_bytes,
            )
        except RequestFailed:
            return log
        return replace(log, text=text[-MAX_LOG:] or log.text)


def _begun(job: Job, spec: TuningSpec, manifest: Mapping[str, Any], standing: TrialStanding) -> Trial:
    return Trial(
        suggestion_of(manifest),
        started_at=standing.started_at,
        devices=job.kind.devices(manifest, job.annotations),
        template=spec.attempt(_template(manifest) or ""),
    )


def _is_given_up(standing: TrialStanding, now: datetime) -> bool:
    """Return whether an ended trial no longer waits for its log: it was disrupted, or has waited too long."""
    if standing.ending is None:
        return False
    return bool(standing.ending.disruption) or now - (standing.ended_at or now) >= UNREADABLE_AFTER


def _without_log(read: Trial, standing: TrialStanding, spec: TuningSpec, error: RequestFailed) -> Trial:
    """Return an ended trial with the outcome that follows without the end of its log."""
    disruption = "" if standing.ending is None else standing.ending.disruption
    unread = Ending(None, disruption=disruption or f"its log cannot be read: {error}")
    outcome, message = classify(unread, read.measurements, spec.target)
    return replace(read, outcome=outcome, message=message, is_complete=False)


def _is_outdated(manifest: Mapping[str, Any], job: Job) -> bool:
    """Return whether the owner has changed the template since the trial was created."""
    made_from = _template(manifest)
    return made_from is not None and made_from != job.template


def _template(manifest: Mapping[str, Any]) -> str | None:
    made_from = mapping(mapping(manifest.get("metadata")).get("annotations")).get(keys.TRIAL_TEMPLATE)
    return None if made_from is None else str(made_from)


def _as_read(trial: Trial, follower: LogFollower | None, pushed: Pushed, *, has_ended: bool = False) -> Trial:
    """Return a trial with the results of its log, also from before a restart, and with its pushed metrics."""
    logged = trial
    if follower is not None:
        read = with_reading(trial, follower.parser)
        logged = replace(read, measurements=follower.measurements, reads=follower.reads, unit=follower.unit)
    is_whole = follower is not None and not follower.has_gap
    return pushed.added_to(logged, has_ended=has_ended, is_log_whole=is_whole)
