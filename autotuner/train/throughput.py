"""Measure samples per second, over all processes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Throughput"]


class Throughput:
    """Measures throughput.

    Call `add` once per step with the samples of all processes, and `stop` before anything that is not
    training, such as an evaluation. The first steps after a start are slow for other reasons (compilation,
    caches, an optimizer's state) and are excluded.

    It does not wait for the device: a GPU is some steps behind the host, which averages out over the steps
    between two reports.

    Args:
        skip: Steps to exclude after the first start.
        clock: Returns seconds of a monotonic clock.
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
        """Exclude the time until the end of the next step, and that step."""
        self._since = None

    @property
    def samples_per_second(self) -> float | None:
        """Samples per second while training; None before the first measured step."""
        return self._samples / self._seconds if self._seconds > 0 else None
