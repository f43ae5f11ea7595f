"""One trial as the cluster shows it: its conditions, its pods, and the log of its rank 0.

What is kept between two polls is a cache: the followers of logs (a pod of another UID is another run, and a
follower that is lost reads its log from the start), and which pods a run was first seen with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
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
from autotuner.backends.kubernetes.logs import Checkpoint, LogFollower
from autotuner.backends.kubernetes.pods import (
    entries,
    mapping,
    name_of,
    suggestion_of,
    uid_of,
)
from autotuner.backends.kubernetes.train_jobs import with_gone
from autotuner.job.job import Job
from autotuner.spec import TuningSpec
from autotuner.study.cause import MAX_LOG, ProcessLog
from autotuner.study.log_reader import LogReader, with_reading
from autotuner.study.outcome import Ending, classify
from autotuner.trial import Outcome, Trial

UNREADABLE_AFTER: Final = timedelta(minutes=10)
"""How long after its end a trial's log may stay unreadable (no answer from its node) before it is lost."""
_TAIL_LINES: Final = 1000
_LOGS_READ: Final = 16
"""Failed pods of a trial whose logs are read, those that failed first."""


@dataclass(slots=True)
class _Run:
    """A trial's run since its master began: its pods' UIDs as first seen, by name."""

    since: datetime
    pods: dict[str, str] = field(default_factory=dict)


class TrialReader:
    """Reads trials; safe to use from many threads, one at a time for each job.

    Args:
        api: The API server.
        clock: Returns the present, in UTC.
        start_patience: How long a trial may wait to start before the job's status says why.
        max_log_bytes: Bytes that one request reads of a log.
    """

    def __init__(
        self, api: Api, clock: Callable[[], datetime], *, start_patience: timedelta, max_log_bytes: int
    ) -> None:
        self._api = api
        self._clock = clock
        self._start_patience = start_patience
        self._max_log_bytes = max_log_bytes
        self._followers: dict[str, dict[tuple[str | None, ...], LogFollower]] = {}
        self._runs: dict[str, dict[str, _Run]] = {}
        self._seen: dict[str, dict[str, list[PodStatus]]] = {}

    def forget(self, uid: str) -> None:
        """Drop all that is remembered of a job's trials."""
        self._followers.pop(uid, None)
        self._runs.pop(uid, None)
        self._seen.pop(uid, None)

    def forget_others(self, job: Job, trials: Collection[str], pods: Collection[PodStatus]) -> None:
        """Drop what is remembered of a job's trials and pods that are gone; `trials` are UIDs."""
        followers, uids = self._followers.get(job.uid, {}), {pod.uid for pod in pods}
        for key in [key for key in followers if key[0] not in uids]:
            del followers[key]
        runs = self._runs.get(job.uid, {})
        for uid in [uid for uid in runs if uid not in trials]:
            del runs[uid]
        seen = self._seen.get(job.uid, {})
        for uid in [uid for uid in seen if uid not in trials]:
            del seen[uid]

    def read_pods(
        self, job: Job, trials: Sequence[Mapping[str, Any]], known: Mapping[str, Sequence[PodStatus]]
    ) -> dict[str, list[PodStatus]]:
        """Return, by trial, the pods of those of which `known` does not say all yet; one request."""
        kind, wanted = on_cluster(job.kind), dict[str, Mapping[str, Any]]()
        for manifest in trials:
            conditions, pods = kind.read_conditions(manifest), known.get(name_of(manifest))
            all_run = pods is not None and sum(p.started_at is not None for p in pods) >= conditions.replicas
            # Nothing but its pods shows that a node was started again.
            if not conditions.is_suspended and not (all_run and not job.kind.may_retry):
                wanted[name_of(manifest)] = manifest
        if not wanted:
            return {}
        selector = f"{kind.JOB_NAME_LABEL} in ({','.join(sorted(wanted))})"
        found = self._api.list(core_path(job.namespace, "pods"), labelSelector=selector)
        pods_of: dict[str, list[PodStatus]] = {name: [] for name in wanted}
        for item in entries(found.get("items")):
            name = str(mapping(mapping(item.get("metadata")).get("labels")).get(kind.JOB_NAME_LABEL))
            # A pod of an earlier trial of this name may still be on its way out.
            if name in wanted and kind.is_pod_of(item, wanted[name]):
                pods_of[name].append(kind.read_pod(item))
        if kind.KEEPS_GONE_PODS:
            seen = self._seen.setdefault(job.uid, {})
            for name, manifest in wanted.items():
                uid = uid_of(manifest)
                seen[uid] = pods_of[name] = with_gone(manifest, seen.get(uid, ()), pods_of[name])
        return pods_of

    def follower(self, job: Job, spec: TuningSpec, pods: Sequence[PodStatus]) -> LogFollower | None:
        """Return the follower of the log of a trial that runs."""
        first = on_cluster(job.kind).first(pods)
        key = next((_reading(pod, spec) for pod in first if pod.is_rank_zero), ())
        return self._followers.get(job.uid, {}).get(key)

    def read(
        self,
        job: Job,
        spec: TuningSpec,
        manifest: Mapping[str, Any],
        pods: Sequence[PodStatus],
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Trial, str]:
        """Return a trial as it stands, and what holds it up.

        A log that is not followed yet, and lacks its start, is read from the checkpoint on.

        Raises:
            BackendError: If the log of an ended trial cannot be read now; its end is not known before.
        """
        kind, now = on_cluster(job.kind), self._clock()
        conditions = kind.read_conditions(manifest)
        first_seen = self._first_seen(job, uid_of(manifest), conditions, pods)
        standing = kind.stand(conditions, pods, now, self._start_patience, first_seen)
        trial = Trial(
            suggestion_of(manifest),
            started_at=standing.started_at,
            devices=job.kind.devices(manifest),
            template=spec.attempt(_template(manifest) or ""),
        )
        if standing.ending is None and standing.started_at is None and _is_outdated(manifest, job):
            lost = "the job was changed before the trial had started"
            return replace(trial, outcome=Outcome.LOST, ended_at=now, message=lost), ""
        rank_zero = next((pod for pod in kind.first(pods) if pod.is_rank_zero), None)
        follower, is_whole = None, True
        try:
            if rank_zero is not None and rank_zero.started_at is not None:
                follower = self._follower(job, spec, rank_zero, checkpoint)
                # What is left of a pod that is gone is what was read of it.
                is_whole = rank_zero.is_gone or self._follow(job, rank_zero, follower)
            if standing.ending is not None:
                again = {pod.name for pod in pods if pod.restarts}
                ended = self._ended(
                    job, spec, trial, standing=standing, follower=follower, is_whole=is_whole, again=again
                )
                return ended, ""
        except RequestFailed as error:
            # What is measured does not change because a node does not answer for a while.
            if standing.ending is None:
                return _with_log(trial, follower), ""
            if not standing.ending.disruption and now - (standing.ended_at or now) < UNREADABLE_AFTER:
                raise
            unread = Ending(None, disruption=standing.ending.disruption or f"its log cannot be read: {error}")
            read = _with_log(trial, follower)
            outcome, message = classify(unread, read.measurements, spec.target)
            ended = replace(read, outcome=outcome, message=message)
            return replace(ended, ended_at=standing.ended_at, is_complete=False), ""
        return _with_log(trial, follower), standing.hold_up

    def _ended(  # noqa: PLR0913 (all that is known of an end)
        self,
        job: Job,
        spec: TuningSpec,
        trial: Trial,
        *,
        standing: TrialStanding,
        follower: LogFollower | None,
        is_whole: bool,
        again: Collection[str],
    ) -> Trial:
        """Return an ended trial with its outcome; one whose log is longer than a look goes on for now.

        `again` are the pods whose container was started again: the log of the end is that before.
        """
        if not is_whole:
            return _with_log(trial, follower)
        if follower is not None:
            follower.close()
        ending = standing.ending or Ending(None)
        if follower is None and ending.exit_code == 0:
            ending = Ending(None, disruption="its pods, and their logs, were gone before they could be read")
        elif ending.exit_code not in {None, 0}:
            ending = self._with_logs(job, ending, follower, again)
        if follower is not None:
            ending = replace(ending, near_misses=follower.parser.near_misses)
        read = _with_log(trial, follower)
        outcome, message = classify(ending, read.measurements, spec.target)
        if outcome is Outcome.MISSED and follower is not None and follower.has_gap:
            outcome = Outcome.LOST
            message = "its node cut its log while no controller read it: whether it met the target is unknown"
        return replace(
            read,
            outcome=outcome,
            ended_at=standing.ended_at,
            message=message,
            is_complete=ending.is_complete,
        )

    def _first_seen(
        self, job: Job, trial: str, conditions: Conditions, pods: Sequence[PodStatus]
    ) -> Mapping[str, str]:
        """Return the UIDs of a run's pods as first seen, by name; a run that is resumed has new pods."""
        if conditions.running_since is None:
            return NOTHING_SEEN
        runs = self._runs.setdefault(job.uid, {})
        if trial not in runs or runs[trial].since != conditions.running_since:
            runs[trial] = _Run(conditions.running_since)
        first_seen = runs[trial].pods
        for pod in pods:
            # One that was made late is a replacement already, and no witness.
            if not is_late(conditions, pod):
                first_seen.setdefault(pod.name, pod.uid)
        return first_seen

    def _follower(
        self, job: Job, spec: TuningSpec, pod: PodStatus, checkpoint: Checkpoint | None
    ) -> LogFollower:
        followers = self._followers.setdefault(job.uid, {})
        key = _reading(pod, spec)
        if key not in followers:
            reader = LogReader(spec.target, log_format=spec.log_format, pattern=spec.metric_pattern)
            resumed = checkpoint if checkpoint is not None and checkpoint.reading == key else None
            followers[key] = LogFollower(reader, self._max_log_bytes, key, resumed)
        return followers[key]

    def _follow(self, job: Job, pod: PodStatus, follower: LogFollower) -> bool:
        """Read what is new of a log; return whether its present end was reached."""

        def read(since: str | None, limit: int) -> str:
            return self._api.log(
                job.namespace,
                pod.name,
                container=job.kind.container,
                # Where it was started again, the log is that of the run before.
                previous="true" if pod.restarts else None,
                timestamps="true",
                sinceTime=since,
                limitBytes=limit,
            )

        follower.look(read)
        return follower.is_whole

    def _with_logs(
        self, job: Job, ending: Ending, follower: LogFollower | None, again: Collection[str]
    ) -> Ending:
        """Return the ending with the ends of the failed pods' own logs, where they can still be read.

        A termination message is 2,048 bytes, which a launcher's own table of failures fills.
        """
        logs = [self._with_log(job, log, is_previous=log.pod in again) for log in ending.logs[:_LOGS_READ]]
        last = follower.tail if follower is not None else ""
        if len(logs) == 1 and not logs[0].text:
            logs = [replace(logs[0], text=last)]
        return replace(ending, logs=(*logs, *ending.logs[_LOGS_READ:]), log_tail=ending.log_tail or last)

    def _with_log(self, job: Job, log: ProcessLog, *, is_previous: bool) -> ProcessLog:
        try:
            text = self._api.log(
                job.namespace,
                log.pod,
                container=job.kind.container,
                previous="true" if is_previous else None,
                tailLines=_TAIL_LINES,
                limitBytes=self._max_log_bytes,
            )
        except RequestFailed:
            return log
        return replace(log, text=text[-MAX_LOG:] or log.text)


def _is_outdated(manifest: Mapping[str, Any], job: Job) -> bool:
    """Return whether a trial was made from a template that its owner has changed since."""
    made_from = _template(manifest)
    return made_from is not None and made_from != job.template


def _template(manifest: Mapping[str, Any]) -> str | None:
    made_from = mapping(mapping(manifest.get("metadata")).get("annotations")).get(keys.TRIAL_TEMPLATE)
    return None if made_from is None else str(made_from)


def _reading(pod: PodStatus, spec: TuningSpec) -> tuple[str | None, ...]:
    # A pod of another UID is another run; another target, format or pattern reads the log from its start.
    return (pod.uid, str(spec.target), spec.log_format, spec.metric_pattern)


def _with_log(trial: Trial, follower: LogFollower | None) -> Trial:
    """Return a trial with what its log says, before a restart of the controller too."""
    if follower is None:
        return trial
    return replace(with_reading(trial, follower.parser), measurements=follower.measurements)
