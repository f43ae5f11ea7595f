"""Samples a second, over all processes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Throughput"]


class Throughput:
    """Counts samples against the clock.

    Call `add` once a step with the samples of all processes, and `stop` before whatever is not training,
    such as an evaluation. The first steps after a start are slow for reasons of their own (compilation,
    caches, an optimizer's state) and are left out.

    It does not wait for the device: a GPU runs some steps behind the host, which evens out over the steps
    between two reports.

    Args:
        skip: Steps to leave out after the first start.
        clock: Seconds since whenever.
    """

    def __init__(self, *, skip: int = 3, clock: Callable[[], float] = time.perf_counter) -> None:
        self._skip = skip
        self._clock = clock
        self._since: float | None = None
        self._samples = 0
        self._seconds = 0.0

    def add(self, samples: int) -> None:
        """Count the samples of a step that has just ended."""
        now = self._clock()
        if self._skip > 0:
            self._skip -= 1
        elif self._since is not None:
            self._samples += samples
            self._seconds += now - self._since
        self._since = now

    def stop(self) -> None:
        """Leave out the time until the next step's end, and that step."""
        self._since = None

    @property
    def samples_per_second(self) -> float | None:
        """Samples a second while training; None before there is anything to tell."""
        return self._samples / self._seconds if self._seconds > 0 else None
