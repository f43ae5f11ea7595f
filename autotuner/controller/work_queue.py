"""A queue of keys for a few threads: each key once, never two threads on one key.

`Agenda` holds the logic, without threads or clocks: tests drive it in virtual time. `WorkQueue` adds a lock.
A key that is added while a thread works on it waits until that thread is done. A key that fails is queued
again after a delay that doubles with each failure in a row.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 300.0


class Agenda:
    """Which key is due, and when. Times are seconds of any monotonic clock.

    A key is at any moment at most once ready, at most once due later (the earliest wins), and at most once in
    work.
    """

    def __init__(self, first_delay: float = FIRST_DELAY, longest_delay: float = LONGEST_DELAY) -> None:
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._ready: deque[str] = deque()
        self._is_ready: set[str] = set()
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._in_work: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many keys are ready and not yet taken."""
        return len(self._ready) + len(self._again)

    def add(self, key: str) -> None:
        """Enqueue a key."""
        if key in self._in_work:
            self._again.add(key)
        elif key not in self._is_ready:
            self._is_ready.add(key)
            self._ready.append(key)
            self._due.pop(key, None)

    def add_at(self, key: str, moment: float) -> None:
        """Enqueue a key at a moment; an earlier one that was requested before stays."""
        if key in self._is_ready or self._due.get(key, moment + 1) <= moment:
            return
        self._due[key] = moment
        heapq.heappush(self._heap, (moment, next(self._order), key))

    def fail(self, key: str, now: float, at_least: float = 0.0) -> float:
        """Enqueue a key again after its back-off, which is returned in seconds.

        A key that was added during the work also waits; otherwise work that fails and causes events would
        never pause.
        """
        self._again.discard(key)
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        # The exponent is bounded: a float overflows after a thousand failures.
        # A gateway may ask for hours, during which no log would be read.
        delay = min(max(at_least, self._first_delay * 2.0 ** min(count, 32)), self._longest_delay)
        self.add_at(key, now + delay)
        return delay

    def succeed(self, key: str) -> None:
        """Forget a key's failures."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """Return how often a key has failed in a row."""
        return self._failures.get(key, 0)

    def take(self, now: float) -> str | None:
        """Return the next key and mark it as in work; None if no key is ready."""
        self._ripen(now)
        if not self._ready:
            return None
        key = self._ready.popleft()
        self._is_ready.discard(key)
        self._in_work.add(key)
        return key

    def done(self, key: str) -> None:
        """Mark the work on a key as finished; a key that was added in the meantime is ready again."""
        self._in_work.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def next_due(self) -> float | None:
        """Return when the next key becomes ready by itself."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _ripen(self, now: float) -> None:
        while (due := self.next_due()) is not None and due <= now:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            self.add(key)


class WorkQueue:
    """An `Agenda` that threads share; after `close` they finish their keys and get no more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._agenda = Agenda()
        self._changed = threading.Condition()
        self._is_closed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._agenda)

    def add(self, key: str, after: float = 0.0) -> None:
        """Enqueue a key, now or after some seconds."""
        with self._changed:
            if after > 0:
                self._agenda.add_at(key, self._clock() + after)
            else:
                self._agenda.add(key)
            self._changed.notify()

    def take(self) -> str | None:
        """Wait for a key and return it; None once the queue is closed."""
        with self._changed:
            while not self._is_closed:
                now = self._clock()
                key = self._agenda.take(now)
                if key is not None:
                    return key
                due = self._agenda.next_due()
                self._changed.wait(None if due is None else max(0.0, due - now))
            return None

    def done(self, key: str) -> None:
        """Mark the work on a key as succeeded."""
        with self._changed:
            self._agenda.succeed(key)
            self._agenda.done(key)
            self._changed.notify()

    def fail(self, key: str, at_least: float = 0.0) -> tuple[int, float]:
        """Mark the work on a key as failed; return the failures in a row and the back-off in seconds."""
        with self._changed:
            delay = self._agenda.fail(key, self._clock(), at_least)
            count = self._agenda.failures(key)
            self._agenda.done(key)
            self._changed.notify()
            return count, delay

    def close(self) -> None:
        """Wake all waiting threads; they get None."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
