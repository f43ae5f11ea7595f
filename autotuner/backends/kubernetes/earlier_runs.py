"""Count the time of a trial's earlier runs: a queue may suspend a trial that runs, and admit it again later.

The pods and the status of a trial describe its last run only. So the poll that observes the end of a run adds
its duration to an annotation of the trial. A run that ends while no controller runs is not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, jobs_path
from autotuner.backends.kubernetes.assess import Conditions
from autotuner.backends.kubernetes.pods import name_of, uid_of
from autotuner.job.job import Job
from autotuner.job.lookup import mapping

_MOST: Final = 1e9
"""Seconds that an annotation may claim, 30 years."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Seen:
    """A trial as it was last observed: its run, when it was admitted, and the seconds of earlier runs.

    `run` is when the run began and when it was last observed, None while the trial does not run.
    """

    seconds: float
    written: float
    run: tuple[datetime, datetime] | None = None
    admitted: datetime | None = None


class EarlierRuns:
    """Counts earlier runs; safe to use from many threads, one at a time for each job."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._jobs: dict[str, dict[str, _Seen]] = {}

    def forget(self, uid: str) -> None:
        """Drop the cache of a job."""
        self._jobs.pop(uid, None)

    def forget_others(self, job: Job, trials: Collection[str]) -> None:
        """Drop the cache of a job's other trials; `trials` are UIDs."""
        seen = self._jobs.get(job.uid, {})
        for uid in seen.keys() - set(trials):
            del seen[uid]

    def seconds(
        self,
        job: Job,
        manifest: Mapping[str, Any],
        conditions: Conditions,
        started_at: datetime | None,
        now: datetime,
    ) -> float:
        """Take note of a trial as it is now; return the seconds of its runs before this one."""
        seen, admitted = self._seen(job, manifest), conditions.waiting_since
        if seen.run is not None:
            # One clock dates both admissions.
            is_resumed = None not in {admitted, seen.admitted} and admitted != seen.admitted
            began, last = seen.run
            if conditions.is_suspended:
                last = min(max(last, admitted or last), now)
            if conditions.is_suspended or is_resumed:
                seen.seconds += max((last - began).total_seconds(), 0.0)
                seen.run = None
        if started_at is not None and not conditions.is_suspended:
            if seen.run is None or seen.admitted is None:
                seen.admitted = admitted
            seen.run = started_at, now
        if seen.seconds != seen.written:
            self._write(job, manifest, seen)
        return seen.seconds

    def _seen(self, job: Job, manifest: Mapping[str, Any]) -> _Seen:
        seen = self._jobs.setdefault(job.uid, {})
        if (uid := uid_of(manifest)) not in seen:
            text = mapping(mapping(manifest.get("metadata")).get("annotations")).get(keys.EARLIER_SECONDS)
            seconds = _seconds(text)
            seen[uid] = _Seen(seconds, seconds)
        return seen[uid]

    def _write(self, job: Job, manifest: Mapping[str, Any], seen: _Seen) -> None:
        """Write the seconds to the trial; after a failure the next poll tries again."""
        annotations = {keys.EARLIER_SECONDS: f"{seen.seconds:.0f}"}
        patch = {"metadata": {"uid": uid_of(manifest), "annotations": annotations}}
        try:
            self._api.patch(jobs_path(job.namespace, name_of(manifest), job.kind), patch)
        except RequestFailed as error:
            _log.warning("earlier_run_not_written", trial=name_of(manifest), error=str(error))
            return
        seen.written = seen.seconds


def _seconds(text: object) -> float:
    """Read the annotation; 0 if it is invalid, because anyone can edit it."""
    try:
        read = float(str(text))
    except ValueError:
        return 0.0
    return read if 0 <= read <= _MOST else 0.0
