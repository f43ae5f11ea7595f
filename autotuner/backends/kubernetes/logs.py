"""Follow the log of a pod in bounded pieces, without a connection that stays open.

Each look asks for what came since the newest line that is known, with timestamps, and drops what it has seen
already: `sinceTime` counts whole seconds, so a second's lines come again. A look reads a bounded number of
bytes; what is left waits for the next one, and `is_whole` says whether anything is.

A follower is only a cache. After a restart the log is read from its start again, and what the ledger says is
the truth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from autotuner.study.log_reader import LogReader

PIECES: Final = 16
"""Pieces that one look reads at most."""
_WIDEST: Final = 16
"""A second that writes more than this many pieces loses the rest of its lines: no program that a human
reads does that, and a hostile one must not hold up the others."""
TAIL: Final = 8192
"""Characters of the log's end that are kept, for a message."""

_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")

ReadLog = Callable[[str | None, int], str]
"""Reads a log from a moment on (RFC 3339, None: from the start), at most so many bytes of it."""


class LogFollower:
    """Reads one pod's log as it grows into measurements.

    Args:
        parser: What the lines are given to.
        limit: Bytes of one piece.
    """

    def __init__(self, parser: LogReader, limit: int) -> None:
        self.parser = parser
        self.is_whole = False
        self.tail = ""
        self._limit = limit
        self._rest = ""
        self._second: str | None = None
        # Lines taken of the newest second, by timestamp. Counting them survives a log that the node rotates
        # between two looks, and two streams whose timestamps overtake each other.
        self._taken: Counter[str] = Counter()

    def look(self, read: ReadLog) -> None:
        """Read what is new; `is_whole` then says whether the log's present end was reached."""
        width = 1
        self.is_whole = False
        for _ in range(PIECES):
            text = read(self._second, self._limit * width)
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

    def close(self) -> None:
        """Take the last line, which may lack its newline, once the process has ended."""
        self._take(self._rest + "\n")
        self.parser.close()

    def _take(self, text: str) -> bool:
        """Give the parser the lines that are new; return whether the next request starts later."""
        # A line without its end may still grow (or was cut by the limit): it comes again.
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
        self.tail = (self.tail + line)[-TAIL:]
