"""The limit on running trials over all jobs.

`decide` knows one job. A start that the limit does not allow is put off, and the job asks again when a slot
is free. Slots are given first come, first served: a job whose trial just ended does not get the slot before
jobs that wait. A job whose reconcile failed cannot use a slot now, so the jobs behind it go first; it keeps
its position. The watch of trials, and a list when the controller starts, tell which trials hold a slot.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class TrialSlots:
    """At most `limit` trials at once (None: any number). Safe to use from many threads.

    Args:
        limit: How many trials may run at once.
        wake: Called with the key of a job that should ask again.
    """

    def __init__(self, limit: int | None, wake: Callable[[str], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._waiting: dict[str, None] = {}
        self._passed_over: set[str] = set()

    def occupy(self, trial: str) -> None:
        """Record that a trial exists, whoever started it."""
        with self._lock:
            self._taken.add(trial)

    def ask(self, job: str, trial: str) -> bool:
        """Return whether a job may start a trial now; if not, it is woken when it may."""
        with self._lock:
            if self._limit is None or trial in self._taken:
                self._taken.add(trial)
                return True
            self._passed_over.discard(job)
            free = self._limit - len(self._taken)
            line = self._line()
            ahead = next((i for i, other in enumerate(line) if other == job), len(line))
            if ahead < free:
                self._waiting.pop(job, None)
                self._taken.add(trial)
                return True
            self._waiting.setdefault(job)
            return False

    def release(self, trial: str) -> None:
        """Free a trial's slot; a trial that holds none is ignored."""
        with self._lock:
            if trial not in self._taken:
                return
            self._taken.discard(trial)
        self._wake_first()

    def leave(self, job: str) -> None:
        """Remove a job that wants no slot now from the line."""
        with self._lock:
            if job not in self._waiting:
                return
            del self._waiting[job]
            self._passed_over.discard(job)
        self._wake_first()

    def pass_over(self, job: str) -> None:
        """Let the others go first until this job, which keeps its position, asks again."""
        with self._lock:
            if job not in self._waiting:
                return
            self._passed_over.add(job)
        self._wake_first()

    def _line(self) -> list[str]:
        return [job for job in self._waiting if job not in self._passed_over]

    def _wake_first(self) -> None:
        """Wake as many jobs as slots are free, without the lock: they may ask at once."""
        with self._lock:
            free = 0 if self._limit is None else self._limit - len(self._taken)
            woken = self._line()[: max(0, free)]
        for job in woken:
            self._wake(job)
