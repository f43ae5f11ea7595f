"""The cap on trials over all jobs.

`decide` knows one job. A start that the cap does not allow is put off, and its job asked again when a place
is free, first come, first served: a job whose trial just ended does not get the place before those that wait.
Who holds a place is learned from the watch of trials, and from a list when the controller begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class TrialSlots:
    """At most `limit` trials at once (None: any number). Safe to use from many threads.

    Args:
        limit: How many trials may run at once.
        wake: Called with a job's key when it should ask again.
    """

    def __init__(self, limit: int | None, wake: Callable[[str], None]) -> None:
        self._limit = limit
        self._wake = wake
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._waiting: dict[str, None] = {}

    def occupy(self, trial: str) -> None:
        """Note a trial that exists, whoever started it."""
        with self._lock:
            self._taken.add(trial)

    def ask(self, job: str, trial: str) -> bool:
        """Return whether a job may start a trial now; if not, it is woken when it may."""
        with self._lock:
            if self._limit is None or trial in self._taken:
                self._taken.add(trial)
                return True
            free = self._limit - len(self._taken)
            ahead = next((i for i, other in enumerate(self._waiting) if other == job), len(self._waiting))
            if ahead < free:
                self._waiting.pop(job, None)
                self._taken.add(trial)
                return True
            self._waiting.setdefault(job)
            return False

    def release(self, trial: str) -> None:
        """Free a trial's place; a trial that holds none is passed over."""
        with self._lock:
            if trial not in self._taken:
                return
            self._taken.discard(trial)
            woken = self._first_waiting()
        for job in woken:
            self._wake(job)

    def leave(self, job: str) -> None:
        """Take a job out of the line, for it wants nothing now."""
        with self._lock:
            if job not in self._waiting:
                return
            del self._waiting[job]
            woken = self._first_waiting()
        for other in woken:
            self._wake(other)

    def _first_waiting(self) -> list[str]:
        free = 0 if self._limit is None else self._limit - len(self._taken)
        return list(self._waiting)[: max(0, free)]
