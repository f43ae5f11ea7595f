"""Follow the logs of a trial's pods, and find the one that carries the metric.

The operator gives rank 0 to one pod: the Master's, or worker 0's. With a dynamic rendezvous (c10d, etcd),
torchrun assigns ranks in order of arrival, so in an elastic job any pod may have rank 0 and print. Then all
logs are followed until one has the metric. In every other job the other logs are read only if the trial has
ended without the metric.

The followers are a cache: a new follower reads its log from the start. The follower that read a metric is
also kept by trial, because a pod can be deleted before its end is read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.backends.kubernetes.api import Api, RequestFailed
from autotuner.backends.kubernetes.assess import PodStatus
from autotuner.backends.kubernetes.logs import Checkpoint, LogFollower
from autotuner.job.job import Job
from autotuner.spec import TuningSpec
from autotuner.study.logs.log_reader import LogReader

MOST_PODS: Final = 16
"""Maximum number of pods of a trial whose logs are searched for the metric."""
MOST_BYTES: Final = 16 * 1024 * 1024
"""Maximum bytes that are read of a log without the metric, except for that of the operator's rank 0."""

Reading = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """The log that counts for a trial.

    `follower` is None if no pod has run. `is_whole` says that all logs that matter were read to their current
    end.
    """

    follower: LogFollower | None
    is_whole: bool = True


class LogFollowers:
    """The followers of the logs of all jobs; safe to use from many threads, one at a time for each job.

    Args:
        api: The API server.
        max_log_bytes: Maximum bytes of a log in one request.
    """

    def __init__(self, api: Api, max_log_bytes: int) -> None:
        self._api = api
        self._max_log_bytes = max_log_bytes
        self._followers: dict[str, dict[Reading, LogFollower]] = {}
        self._printing: dict[str, dict[str, LogFollower]] = {}

    def forget(self, uid: str) -> None:
        """Drop the cache of a job."""
        self._followers.pop(uid, None)
        self._printing.pop(uid, None)

    def forget_others(self, job: Job, trials: Collection[str], pods: Collection[str]) -> None:
        """Drop the cache of all trials and pods but these, given by their UIDs."""
        followers = self._followers.get(job.uid, {})
        for key in [key for key in followers if key[0] not in pods]:
            del followers[key]
        printing = self._printing.get(job.uid, {})
        for uid in [uid for uid in printing if uid not in trials]:
            del printing[uid]

    def printing(
        self, job: Job, spec: TuningSpec, trial: str, checkpoint: Checkpoint | None = None
    ) -> LogFollower | None:
        """Return the follower that last read a metric of a trial, or one restored from the checkpoint."""
        follower = self._printing.get(job.uid, {}).get(trial)
        if follower is not None and follower.reading[1:] == reading_of("", spec)[1:]:
            return follower
        if checkpoint is None or checkpoint.reading[1:] != reading_of("", spec)[1:]:
            return None
        return self._new(spec, checkpoint.reading, checkpoint)

    def of(self, job: Job, spec: TuningSpec, trial: str, pods: Sequence[PodStatus]) -> LogFollower | None:
        """Return the follower of the log that counts for a trial, if it is known."""
        followers = self._followers.get(job.uid, {})
        known = [f for pod in _ordered(pods) if (f := followers.get(reading_of(pod.uid, spec))) is not None]
        printed = (follower for follower in known if _has_printed(follower))
        return next(printed, None) or self.printing(job, spec, trial) or next(iter(known), None)

    def follow(  # noqa: PLR0913 (what a trial's logs depend on)
        self,
        job: Job,
        spec: TuningSpec,
        trial: str,
        pods: Sequence[PodStatus],
        checkpoint: Checkpoint | None,
        *,
        is_by_arrival: bool,
        has_ended: bool,
    ) -> Followed:
        """Read the new part of a trial's logs, and return the follower of the one that counts.

        Args:
            job: The registered job.
            spec: How its logs are read.
            trial: The trial's UID.
            pods: The trial's pods.
            checkpoint: The position and the measurements of an earlier process.
            is_by_arrival: Whether any pod may turn out to have rank 0.
            has_ended: Whether the trial has ended: then the logs that are whole are closed.

        Raises:
            RequestFailed: If the log that counts cannot be read now.
        """
        ordered = _ordered(pods)
        if not ordered:
            return Followed(None)
        chosen = self._chosen(job, spec, ordered, checkpoint)
        first = ordered[0] if chosen is None else chosen
        followed = self._poll(job, spec, first, checkpoint, has_ended=has_ended)
        if chosen is None and not _has_printed(followed.follower) and (is_by_arrival or has_ended):
            followed = self._search(
                job, spec, ordered[1:MOST_PODS], followed, checkpoint, has_ended=has_ended
            )
        if followed.follower is not None and followed.follower.measurements:
            self._printing.setdefault(job.uid, {})[trial] = followed.follower
        return followed

    def _search(  # noqa: PLR0913 (as `follow`)
        self,
        job: Job,
        spec: TuningSpec,
        others: Sequence[PodStatus],
        first: Followed,
        checkpoint: Checkpoint | None,
        *,
        has_ended: bool,
    ) -> Followed:
        """Return the first other log with the metric, or `first` where none has it."""
        is_whole = first.is_whole
        for pod in others:
            follower = self._follower(job, spec, pod, checkpoint)
            if follower.read_bytes >= MOST_BYTES:
                continue
            try:
                polled = self._poll(job, spec, pod, checkpoint, has_ended=has_ended)
            except RequestFailed as error:
                if error.is_not_found or not has_ended:
                    continue
                raise
            if _has_printed(follower):
                return polled
            is_whole = is_whole and (polled.is_whole or follower.read_bytes >= MOST_BYTES)
        return Followed(first.follower, is_whole)

    def _chosen(
        self, job: Job, spec: TuningSpec, ordered: Sequence[PodStatus], checkpoint: Checkpoint | None
    ) -> PodStatus | None:
        """Return the pod that has printed the metric, if it is known."""
        followers = self._followers.get(job.uid, {})
        for pod in ordered:
            if _has_printed(followers.get(reading_of(pod.uid, spec))):
                return pod
        kept = None if checkpoint is None else checkpoint.reading
        return next((pod for pod in ordered if reading_of(pod.uid, spec) == kept), None)

    def _poll(
        self, job: Job, spec: TuningSpec, pod: PodStatus, checkpoint: Checkpoint | None, *, has_ended: bool
    ) -> Followed:
        follower = self._follower(job, spec, pod, checkpoint)

        def read(since: str | None, limit: int) -> str:
            return self._api.log(
                job.namespace,
                pod.name,
                container=job.kind.container,
                # If the container was restarted, the log of the previous run counts.
                previous="true" if pod.restarts else None,
                timestamps="true",
                sinceTime=since,
                limitBytes=limit,
            )

        # The log of a deleted pod cannot be read any more.
        if not pod.is_gone:
            follower.poll(read)
            if has_ended and follower.is_whole:
                # If the connection to the node breaks, the API server ends its answer as if the log was
                # complete: two answers must agree.
                before = follower.end
                follower.poll(read)
                follower.is_whole &= follower.end == before
        is_whole = pod.is_gone or follower.is_whole
        if has_ended and is_whole:
            follower.close()
        return Followed(follower, is_whole)

    def _follower(
        self, job: Job, spec: TuningSpec, pod: PodStatus, checkpoint: Checkpoint | None
    ) -> LogFollower:
        followers = self._followers.setdefault(job.uid, {})
        key = reading_of(pod.uid, spec)
        if key not in followers:
            resumed = checkpoint if checkpoint is not None and checkpoint.reading == key else None
            followers[key] = self._new(spec, key, resumed)
        return followers[key]

    def _new(self, spec: TuningSpec, key: Reading, resumed: Checkpoint | None) -> LogFollower:
        reader = LogReader(spec.target, log_format=spec.log_format, pattern=spec.metric_pattern)
        return LogFollower(reader, self._max_log_bytes, key, resumed)


def reading_of(pod: str, spec: TuningSpec) -> Reading:
    """Return a key of the log of the pod with this UID, and of how it is read.

    A pod with another UID is another run; with another target, format or pattern the log is read from its
    start.
    """
    return (pod, str(spec.target), spec.log_format, spec.metric_pattern)


def _has_printed(follower: LogFollower | None) -> bool:
    return follower is not None and bool(follower.measurements or follower.parser.doubt)


def _ordered(pods: Sequence[PodStatus]) -> list[PodStatus]:
    """Return the pods that have run: the operator's rank 0 first, the others by role and index."""
    ran = [pod for pod in pods if pod.started_at is not None]
    return sorted(ran, key=lambda pod: (not pod.is_rank_zero, pod.role, len(pod.name), pod.name))
