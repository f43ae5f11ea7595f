"""Follow the log of a pod in bounded pieces, without a permanent connection.

Each poll requests the log since the newest known line, with timestamps, and drops the lines that it already
has: `sinceTime` counts whole seconds, so the lines of that second come again. A poll reads a bounded number
of bytes; `is_whole` says whether it has reached the end.

A follower is only a cache. After a restart the log is read from its start. If the node has rotated that away,
the follower continues from a `Checkpoint` of its predecessor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from autotuner.study.logs.log_reader import LogReader
from autotuner.study.thinning import thin
from autotuner.trial import Measurement

PIECES: Final = 16
"""Maximum pieces of one poll."""
_WIDEST: Final = 16
"""Of one second of the log at most this many pieces are read, and the rest is dropped: no ordinary program
prints that much, and a hostile one must not delay the others."""
TAIL: Final = 8192
"""Characters of the end of the log that are kept for a message."""

_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")

ReadLog = Callable[[str | None, int], str]
"""Reads a log from a time (RFC 3339, None: from the start), at most this number of bytes."""


_MAX_TAKEN: Final = 200
"""Maximum timestamps of the newest second in a checkpoint; some lines of a busier second are read twice."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A position in a log, and the measurements up to it.

    `reading` is the key of the log and of how it is read. `first` is the timestamp of the log's first line,
    `second` the newest second; `taken` counts the processed lines of that second, by timestamp.
    `measurements` may be thinned. `reads` is the line of the first measurement,
    `unit` the unit of its step.
    """

    reading: tuple[str | None, ...]
    first: str
    second: str
    taken: Mapping[str, int]
    measurements: tuple[Measurement, ...]
    reads: str = ""
    unit: str = ""


def continued(earlier: Sequence[Measurement], later: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return the measurements of two readings of one log; the second began where the first ended.

    A reading of lines without steps counts them from 1, so the later steps are shifted. If both have a step,
    the later value counts.
    """
    if not earlier or not later:
        return tuple(earlier or later)
    last, first = earlier[-1].step, later[0].step
    shift = last + 1 - first if first < last else 0.0
    kept = earlier[:-1] if first + shift == last else earlier
    return (*kept, *(replace(m, step=m.step + shift) if shift else m for m in later))


class LogFollower:
    """Reads one pod's log as it grows into measurements.

    Args:
        parser: Reads the lines.
        limit: Maximum bytes of one piece.
        reading: The key of the log and of how it is read, for a checkpoint.
        resumed: The checkpoint of an earlier reading of this log.
    """

    def __init__(
        self,
        parser: LogReader,
        limit: int,
        reading: tuple[str | None, ...] = (),
        resumed: Checkpoint | None = None,
    ) -> None:
        self.parser = parser
        self.is_whole = False
        self.has_gap = False
        self.read_bytes = 0
        self.reading = reading
        self._first: str | None = None
        # The earlier measurements count until the log shows whether its start still exists.
        self._earlier = resumed.measurements if resumed is not None else ()
        self._earlier_reads = resumed.reads if resumed is not None else ""
        self._earlier_unit = resumed.unit if resumed is not None else ""
        self._resumed = resumed
        self.tail = ""
        self._limit = limit
        self._rest = ""
        self._second: str | None = None
        # Processed lines of the newest second, by timestamp. Counts work even if the node rotates the log
        # between two polls, and if the timestamps of two streams are out of order.
        self._taken: Counter[str] = Counter()

    def poll(self, read: ReadLog) -> None:
        """Read the new part; `is_whole` then says whether the current end of the log was reached."""
        width = 1
        self.is_whole = False
        for _ in range(PIECES):
            text = read(self._second, self._limit * width)
            if self._resumed is not None:
                resumed, self._resumed = self._resumed, None
                if self._goes_on_from(resumed, text):
                    continue
            is_cut = len(text.encode()) >= self._limit * width
            has_advanced = self._take(text)
            if not is_cut:
                self.is_whole = True
                return
            if has_advanced:
                width = 1
            elif width < _WIDEST:
                width *= 2
            else:
                self._skip_second(text)
                width = 1

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measurements so far, in the order of the log; none while the log is in doubt."""
        if self.parser.doubt is not None:
            return ()
        return continued(self._earlier, self.parser.measurements)

    @property
    def reads(self) -> str:
        """The line of the first measurement."""
        return (self._earlier_reads if self._earlier else "") or self.parser.first_line

    @property
    def unit(self) -> str:
        """What the steps count; see `LogReader.unit`."""
        return (self._earlier_unit if self._earlier else "") or self.parser.unit

    @property
    def end(self) -> tuple[int, str]:
        """The amount that was read, and the last line if it lacks its newline so far."""
        return self.read_bytes, self._rest

    def checkpoint(self, points: int) -> Checkpoint:
        """Return a checkpoint with at most about this number of measurements."""
        return Checkpoint(
            self.reading,
            self._first or "",
            self._second or "",
            dict(self._taken.most_common(_MAX_TAKEN)),
            tuple(thin(self.measurements, points)),
            self.reads,
            self.unit,
        )

    def _goes_on_from(self, resumed: Checkpoint, text: str) -> bool:
        """Continue where an earlier reading ended if the start of the log is gone; return whether it is.

        If the rest begins later than that reading ended, lines may be missing in between.
        """
        stamp = _STAMP.match(text)
        if stamp is not None and stamp[0] == resumed.first:
            self._earlier = ()
            return False
        self.has_gap = stamp is None or stamp[1][:19] > resumed.second[:19]
        self._first, self._second, self._taken = resumed.first, resumed.second, Counter(resumed.taken)
        return True

    def close(self) -> None:
        """Process the last line, which may lack its newline, after the process has ended."""
        self._take(self._rest + "\n")
        self.parser.close()

    def _take(self, text: str) -> bool:
        """Pass the new lines to the parser; return whether the next request starts later."""
        # An incomplete line may still grow (or was cut by the limit): the next request returns it again.
        *lines, self._rest = text.split("\n")
        known = self._taken.copy()
        newest = self._second
        for line in lines:
            stamp = _STAMP.match(line)
            if stamp is None:
                continue
            if known[stamp[0]] > 0:
                known[stamp[0]] -= 1
                continue
            self._taken[stamp[0]] += 1
            self._first = self._first or stamp[0]
            self._feed(line[stamp.end() :] + "\n")
            second = stamp[1] + stamp[3]
            newest = second if newest is None else max(newest, second)
        has_advanced = newest != self._second
        if has_advanced and newest is not None:
            self._start_at(newest)
        return has_advanced

    def _start_at(self, second: str) -> None:
        self._second = second
        self._taken = Counter({stamp: n for stamp, n in self._taken.items() if stamp[:19] >= second[:19]})

    def _skip_second(self, text: str) -> None:
        stamp = _STAMP.match(text)
        second = self._second or (stamp[1] + stamp[3] if stamp else None)
        if second is not None:
            self._start_at((datetime.fromisoformat(second) + timedelta(seconds=1)).isoformat())

    def _feed(self, line: str) -> None:
        self.parser.feed(line)
        self.read_bytes += len(line)
        self.tail = (self.tail + line)[-TAIL:]
