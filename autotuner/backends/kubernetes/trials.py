"""One trial as the cluster shows it: its conditions, its pods, and the log of its rank 0.

What remains in here between two looks are the followers of logs, a cache: a pod of another UID is another
run, and a follower that is lost reads its log from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.backends.kubernetes.assess import PodStatus, TrialStanding, assess
from autotuner.backends.kubernetes.logs import LogFollower
from autotuner.backends.kubernetes.pods import (
    JOB_NAME_LABEL,
    entries,
    is_owned_by,
    mapping,
    name_of,
    read_conditions,
    read_pod,
    suggestion_of,
)
from autotuner.job.job import Job
from autotuner.job.pytorchjob import devices
from autotuner.job.validation import CONTAINER
from autotuner.spec import TuningSpec
from autotuner.study.cause import MAX_LOG, ProcessLog
from autotuner.study.log_reader import LogReader
from autotuner.study.outcome import Ending, classify
from autotuner.trial import Measurement, Outcome, Trial

UNREADABLE_AFTER: Final = timedelta(minutes=10)
"""How long after its end a trial's log may stay unreadable (no answer from its node) before it is lost."""
_TAIL_LINES: Final = 1000
_LOGS_READ: Final = 16
"""Failed pods of a trial whose logs are read, those that failed first."""


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
        self._followers: dict[str, dict[tuple[str, str, str | None], LogFollower]] = {}

    def forget(self, uid: str) -> None:
        """Drop the followers of a job's trials."""
        self._followers.pop(uid, None)

    def forget_others(self, job: Job, pods: Collection[PodStatus]) -> None:
        """Drop the followers of pods of a job that are gone."""
        followers, uids = self._followers.get(job.uid, {}), {pod.uid for pod in pods}
        for key in [key for key in followers if key[0] not in uids]:
            del followers[key]

    def read_pods(
        self, job: Job, trials: Sequence[Mapping[str, Any]], known: Mapping[str, Sequence[PodStatus]]
    ) -> dict[str, list[PodStatus]]:
        """Return, by trial, the pods of those of which `known` does not say all yet; one request."""
        wanted: dict[str, str] = {}
        for manifest in trials:
            conditions, pods = read_conditions(manifest), known.get(name_of(manifest))
            all_run = pods is not None and sum(p.started_at is not None for p in pods) >= conditions.replicas
            if not conditions.is_suspended and not all_run:
                wanted[name_of(manifest)] = str(mapping(manifest.get("metadata")).get("uid"))
        if not wanted:
            return {}
        selector = f"{JOB_NAME_LABEL} in ({','.join(sorted(wanted))})"
        found = self._api.list(core_path(job.namespace, "pods"), labelSelector=selector)
        pods_of: dict[str, list[PodStatus]] = {name: [] for name in wanted}
        for item in entries(found.get("items")):
            name = str(mapping(mapping(item.get("metadata")).get("labels")).get(JOB_NAME_LABEL))
            # A pod of an earlier trial of this name may still be on its way out.
            if name in wanted and is_owned_by(item, wanted[name]):
                pods_of[name].append(read_pod(item))
        return pods_of

    def read(
        self, job: Job, spec: TuningSpec, manifest: Mapping[str, Any], pods: Sequence[PodStatus]
    ) -> tuple[Trial, str]:
        """Return a trial as it stands, and what holds it up.

        Raises:
            BackendError: If the log of an ended trial cannot be read now; its end is not known before.
        """
        conditions, now = read_conditions(manifest), self._clock()
        standing = assess(conditions, pods, now, self._start_patience)
        trial = Trial(
            suggestion_of(manifest),
            started_at=standing.started_at,
            devices=devices(manifest),
            template=spec.attempt(_template(manifest) or ""),
        )
        if standing.ending is None and standing.started_at is None and _is_outdated(manifest, job):
            lost = "the job was changed before the trial had started"
            return replace(trial, outcome=Outcome.LOST, ended_at=now, message=lost), ""
        rank_zero = next((pod for pod in pods if pod.is_rank_zero), None)
        follower, is_whole = None, True
        try:
            if rank_zero is not None and rank_zero.started_at is not None:
                follower = self._follower(job, spec, rank_zero)
                is_whole = self._follow(job, rank_zero, follower)
            if standing.ending is not None:
                ended = self._ended(job, spec, trial, standing=standing, follower=follower, is_whole=is_whole)
                return ended, ""
        except RequestFailed as error:
            # What is measured does not change because a node does not answer for a while.
            if standing.ending is None:
                return replace(trial, measurements=_measurements(follower)), ""
            if not standing.ending.disruption and now - (standing.ended_at or now) < UNREADABLE_AFTER:
                raise
            unread = Ending(None, disruption=standing.ending.disruption or f"its log cannot be read: {error}")
            known = _measurements(follower)
            outcome, message = classify(unread, known, spec.target)
            ended = replace(trial, measurements=known, outcome=outcome, message=message)
            return replace(ended, ended_at=standing.ended_at, is_complete=False), ""
        extras = follower.parser.extras if follower is not None else {}
        return replace(trial, measurements=_measurements(follower), extras=extras), standing.hold_up

    def _ended(  # noqa: PLR0913 (all that is known of an end)
        self,
        job: Job,
        spec: TuningSpec,
        trial: Trial,
        *,
        standing: TrialStanding,
        follower: LogFollower | None,
        is_whole: bool,
    ) -> Trial:
        """Return an ended trial with its outcome; one whose log is longer than a look goes on for now."""
        if not is_whole:
            return replace(trial, measurements=_measurements(follower))
        if follower is not None:
            follower.close()
        ending = standing.ending or Ending(None)
        if follower is None and ending.exit_code == 0:
            ending = Ending(None, disruption="its pods, and their logs, were gone before they could be read")
        elif ending.exit_code not in {None, 0}:
            ending = self._with_logs(job, ending, follower)
        measurements = _measurements(follower)
        outcome, message = classify(ending, measurements, spec.target)
        extras = follower.parser.extras if follower is not None else {}
        return replace(
            trial,
            measurements=measurements,
            outcome=outcome,
            ended_at=standing.ended_at,
            message=message,
            extras=extras,
            is_complete=ending.is_complete,
        )

    def _follower(self, job: Job, spec: TuningSpec, pod: PodStatus) -> LogFollower:
        followers = self._followers.setdefault(job.uid, {})
        # A pod of another UID is another run; another metric or pattern reads the log anew.
        key = (pod.uid, spec.target.metric, spec.metric_pattern)
        if key not in followers:
            parser = LogReader(spec.target, log_format=spec.log_format, pattern=spec.metric_pattern)
            followers[key] = LogFollower(parser, self._max_log_bytes)
        return followers[key]

    def _follow(self, job: Job, pod: PodStatus, follower: LogFollower) -> bool:
        """Read what is new of a log; return whether its present end was reached."""

        def read(since: str | None, limit: int) -> str:
            return self._api.log(
                job.namespace,
                pod.name,
                container=CONTAINER,
                timestamps="true",
                sinceTime=since,
                limitBytes=limit,
            )

        follower.look(read)
        return follower.is_whole

    def _with_logs(self, job: Job, ending: Ending, follower: LogFollower | None) -> Ending:
        """Return the ending with the ends of the failed pods' own logs, where they can still be read.

        A termination message is 2,048 bytes, which a launcher's own table of failures fills.
        """
        logs = [self._with_log(job, log) for log in ending.logs[:_LOGS_READ]]
        last = follower.tail if follower is not None else ""
        if len(logs) == 1 and not logs[0].text:
            logs = [replace(logs[0], text=last)]
        return replace(ending, logs=(*logs, *ending.logs[_LOGS_READ:]), log_tail=ending.log_tail or last)

    def _with_log(self, job: Job, log: ProcessLog) -> ProcessLog:
        try:
            text = self._api.log(
                job.namespace,
                log.pod,
                container=CONTAINER,
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


def _measurements(follower: LogFollower | None) -> tuple[Measurement, ...]:
    return follower.parser.measurements if follower is not None else ()
