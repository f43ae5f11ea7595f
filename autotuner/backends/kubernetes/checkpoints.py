"""Checkpoints of the logs of running trials, for a restart of the controller.

A node keeps only the newest part of a long log (10 MiB by default). A controller that starts while a trial
runs would miss the earlier measurements, and a run that reached the target could count as a miss. So the
measurements so far, thinned, and the position in the log are written into a ConfigMap of the job,
`<job>-tuning-running`, one key per trial: seldom, and all trials in one request. It is small, and separate
from the ledger, because etcd stores the whole ConfigMap at each change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.backends.kubernetes.ledger import config_map, find
from autotuner.backends.kubernetes.logs import Checkpoint, LogFollower
from autotuner.job.job import Job
from autotuner.job.lookup import mapping
from autotuner.trial import Measurement

SHORTEST_PAUSE: Final = timedelta(minutes=1)
"""Minimum time between two checkpoints of a trial."""
POINTS: Final = 100
"""Maximum measurements of a checkpoint."""
_ALL_POINTS: Final = 10_000
"""Maximum measurements of all checkpoints of a job: everything must fit into one ConfigMap."""
_GROWTH: Final = 512 * 1024
"""Bytes of log after which a checkpoint is due: far less than any node keeps."""
_MAX_TEXT: Final = 64 * 1024

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Progress:
    """The position in a trial's log at its last checkpoint, or when the trial was first observed."""

    begun: datetime
    at: datetime
    read_bytes: int = 0
    last: Measurement | None = None


@dataclass(slots=True)
class _Kept:
    """The checkpoints in the ConfigMap of one job."""

    exists: bool
    checkpoints: dict[int, Checkpoint]
    progress: dict[int, _Progress] = field(default_factory=dict)


class Checkpoints:
    """Keeps checkpoints; safe to use from many threads, one at a time for each job."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._jobs: dict[str, _Kept] = {}

    def forget(self, uid: str) -> None:
        """Drop the cache of a job."""
        self._jobs.pop(uid, None)

    def of(self, job: Job) -> Mapping[int, Checkpoint]:
        """Return the checkpoints of a job's trials by number; they are read once.

        Raises:
            BackendError: If the cluster does not answer; Conflict, if the name is taken.
        """
        return self._kept(job).checkpoints

    def keep(self, job: Job, running: Mapping[int, LogFollower], now: datetime) -> None:
        """Write the checkpoints that are due, in one request; after a failure the next poll tries again."""
        kept = self._kept(job)
        due = {
            number: follower.checkpoint(min(POINTS, max(8, _ALL_POINTS // len(running))))
            for number, follower in running.items()
            if _is_due(kept.progress.setdefault(number, _Progress(now, now)), follower, now)
        }
        if not due:
            return
        gone = [number for number in kept.checkpoints if number not in running]
        data: dict[str, str | None] = {keys.running_key(n): encode(each) for n, each in due.items()}
        data |= {keys.running_key(number): None for number in gone}
        try:
            self._write(job, kept, data)
        except RequestFailed as error:
            if error.is_conflict:
                self.forget(job.uid)  # another controller has made the ConfigMap since it was read
            _log.warning("checkpoints_not_written", job=f"{job.namespace}/{job.name}", error=str(error))
            return
        for number in gone:
            del kept.checkpoints[number]
        kept.checkpoints |= due
        kept.progress = {n: each for n, each in kept.progress.items() if n in running}
        for number in due:
            each = kept.progress[number]
            each.at, each.read_bytes = now, running[number].read_bytes
            each.last = running[number].measurements[-1]

    def _kept(self, job: Job) -> _Kept:
        if job.uid not in self._jobs:
            found = find(self._api, job, keys.running_name(job.name))
            self._jobs[job.uid] = _Kept(found is not None, _decoded(mapping((found or {}).get("data"))))
        return self._jobs[job.uid]

    def _write(self, job: Job, kept: _Kept, data: Mapping[str, str | None]) -> None:
        name = keys.running_name(job.name)
        if kept.exists:
            try:
                self._api.patch(core_path(job.namespace, "configmaps", name), {"data": dict(data)})
            except RequestFailed as error:
                if not error.is_not_found:
                    raise
                kept.exists = False
        if not kept.exists:
            given = {key: text for key, text in data.items() if text is not None}
            self._api.create(core_path(job.namespace, "configmaps"), config_map(job, name, given))
            kept.exists = True


def _is_due(progress: _Progress, follower: LogFollower, now: datetime) -> bool:
    """Return whether a checkpoint is due: seldom, but before a node can rotate the log."""
    if not follower.measurements or follower.measurements[-1] == progress.last:
        return False
    since, grown = now - progress.at, follower.read_bytes - progress.read_bytes
    if since < SHORTEST_PAUSE:
        return False
    # After one minute, and then whenever the run time has tripled: four in an hour, six in ten hours.
    is_long = 3 * since >= 2 * (now - progress.begun)
    return is_long or grown >= _GROWTH


def encode(checkpoint: Checkpoint) -> str:
    """Return a checkpoint as one line of JSON."""
    return json.dumps(
        {
            "reading": list(checkpoint.reading),
            "first": checkpoint.first,
            "second": checkpoint.second,
            "taken": dict(checkpoint.taken),
            # JSON has no NaN, so it is written as text.
            "curve": [
                [m.step, m.value if math.isfinite(m.value) else str(m.value)] for m in checkpoint.measurements
            ],
            "reads": checkpoint.reads,
            "unit": checkpoint.unit,
        },
        separators=(",", ":"),
    )


def decode(text: str) -> Checkpoint | None:
    """Read a checkpoint; None if `encode` did not write it."""
    try:
        entry: Any = json.loads(text[:_MAX_TEXT])
        return Checkpoint(
            reading=tuple(None if part is None else str(part) for part in entry["reading"]),
            first=str(entry["first"]),
            second=_second(entry["second"]),
            taken={str(stamp): int(count) for stamp, count in entry["taken"].items()},
            measurements=tuple(Measurement(float(step), float(value)) for step, value in entry["curve"]),
            reads=str(entry.get("reads", "")),
            unit=str(entry.get("unit", "")),
        )
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _second(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _decoded(data: Mapping[str, Any]) -> dict[int, Checkpoint]:
    read = {keys.running_number(str(key)): decode(str(text)) for key, text in data.items()}
    return {n: each for n, each in read.items() if n is not None and each is not None and each.measurements}
