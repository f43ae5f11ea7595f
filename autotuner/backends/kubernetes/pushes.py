"""Collect the metrics that trials push to their status, from the watch and from every read of a trial.

The status of a TrainJob holds the latest values only, so each version of it that is observed is kept until
its trial is read. This takes no extra requests: the watch and the list of trials carry the status anyway.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from autotuner import keys
from autotuner.backends.kubernetes.assess import CLOCK_ALLOWANCE
from autotuner.backends.kubernetes.cluster_kind import on_cluster
from autotuner.backends.kubernetes.pods import uid_of
from autotuner.job.kind import JobKind
from autotuner.job.lookup import mapping
from autotuner.spec import Target, TuningSpec
from autotuner.study.logs.pushed import Push, PushReader, with_pushes
from autotuner.trial import Trial

MOST_UNREAD: Final = 64
"""Pushes of a trial that wait to be read: five minutes of Hugging Face's Trainer, which pushes every 5 s."""
MOST_DELETED: Final = 256
"""Maximum number of deleted trials whose pushes wait to be read. Only the leader reads them."""


@dataclass(slots=True)
class _Noted:
    """What is known of a trial: its job, when it was first observed, its newest push, and the unread ones.

    `since` is None for a trial that was observed before it had a status.
    """

    job: str
    since: datetime | None
    reader: PushReader | None = None
    target: Target | None = None
    newest: Push | None = None
    known: deque[int] = field(default_factory=lambda: deque(maxlen=4 * MOST_UNREAD))
    unread: deque[Push] = field(default_factory=lambda: deque(maxlen=MOST_UNREAD))
    has_dropped: bool = False

    def take(self, push: Push) -> None:
        """Keep a push until it is read; one that was seen before, or is older than the newest, is not."""
        said = hash((push.at, push.run, tuple(push.values.items())))
        is_older = (
            push.at is not None
            and self.newest is not None
            and self.newest.at is not None
            and push.at < self.newest.at
        )
        if said in self.known or is_older:
            return  # a list, or a view that is kept, may be behind the watch
        self.has_dropped |= len(self.unread) == MOST_UNREAD
        self.known.append(said)
        self.unread.append(push)
        self.newest = push


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one trial has pushed.

    `since` is when it was first observed, None if it was observed from its start. `has_dropped` says that it
    pushed more than was kept. `counts` is false if `metric-pattern` says which lines of the log count.
    """

    reader: PushReader
    target: Target
    since: datetime | None
    has_dropped: bool = False
    counts: bool = True

    def added_to(self, logged: Trial, *, has_ended: bool, is_log_whole: bool) -> Trial:
        """Return a trial that was read from its log with what it has pushed."""
        if not self.counts:
            return logged
        if has_ended:
            self.reader.close()
        return with_pushes(logged, self.reader, self.target, has_ended=has_ended, is_log_whole=is_log_whole)

    def may_lack(self, read: Trial) -> bool:
        """Return whether pushes count for a trial, and some of them may be missing."""
        is_late = (
            read.started_at is not None
            and self.since is not None
            and self.since - read.started_at > CLOCK_ALLOWANCE
        )
        return (self.has_dropped or is_late) and bool(read.reads) and read.reads == self.reader.reads


class Pushes:
    """The pushes of all trials; `note` may be called from any thread, `read` from one at a time for each job.

    Args:
        clock: Returns the current time, in UTC.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._trials: dict[str, _Noted] = {}
        self._deleted: deque[str] = deque()

    def note(self, kind: JobKind, trial: Mapping[str, Any]) -> None:
        """Take note of a trial as it was just seen."""
        push = on_cluster(kind).pushed(trial)
        with self._lock:
            known = self._trials.get(uid_of(trial))
            if known is None:
                labels = mapping(mapping(trial.get("metadata")).get("labels"))
                # Without a status it is new: the clocks of this process and of the cluster do not matter.
                since = self._clock() if trial.get("status") else None
                known = _Noted(str(labels.get(keys.TRIAL_JOB_UID)), since)
                self._trials[uid_of(trial)] = known
            if push is not None:
                known.take(push)

    def read(self, kind: JobKind, trial: Mapping[str, Any], spec: TuningSpec) -> Pushed:
        """Read what a trial has pushed since the last time; another target reads the newest push alone."""
        self.note(kind, trial)
        with self._lock:
            known = self._trials[uid_of(trial)]
            unread = list(known.unread)
            known.unread.clear()
        reader = known.reader
        if reader is None or known.target != spec.target:
            if reader is not None and known.newest is not None:
                known.has_dropped, unread = True, [known.newest]
            reader = known.reader = PushReader(spec.target)
            known.target = spec.target
        for push in unread:
            reader.take(push)
        counts = spec.metric_pattern is None
        return Pushed(reader, spec.target, known.since, known.has_dropped, counts)

    def note_deleted(self, kind: JobKind, trial: Mapping[str, Any]) -> None:
        """Take note of a trial that somebody else has deleted: its pushes are still to be read."""
        self.note(kind, trial)
        with self._lock:
            self._deleted.append(uid_of(trial))
            if len(self._deleted) > MOST_DELETED:
                self._trials.pop(self._deleted.popleft(), None)

    def forget(self, trial: str) -> None:
        """Drop what is remembered of a trial, by its UID."""
        with self._lock:
            self._trials.pop(trial, None)

    def forget_job(self, uid: str) -> None:
        """Drop what is remembered of a job's trials."""
        with self._lock:
            self._trials = {trial: each for trial, each in self._trials.items() if each.job != uid}
