"""Read one of several processes that share a log, and report where they disagree."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from autotuner.study.formats.reading import Label, Metric, Reading
from autotuner.study.logs.scale import agree

_PLACES: Final = 64
"""Number of readings that those of other processes are compared with."""
_MAX_RANKS: Final = 4096


class Ranks:
    """Follows the process that prints the metric first; the others can only confirm or contradict it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._rank: int | None = None
        self._places: OrderedDict[tuple[object, ...], Reading] = OrderedDict()
        self._counts: dict[int, int] = {}
        self._kinds: dict[bool, Reading] = {}

    def is_followed(self, reading: Reading) -> bool:
        """Return whether a reading belongs to the process that is read; one without a rank does."""
        if reading.rank is None:
            return True
        if self._rank is None:
            self._rank = reading.rank
        return reading.rank == self._rank

    def _mixed(self, reading: Reading) -> Reading | None:
        """Return a different reading of the other kind, where some lines name a rank and others do not."""
        if reading.rank == 0:
            return None
        self._kinds[reading.rank is None] = reading
        other = self._kinds.get(reading.rank is not None)
        return other if other is not None and not agree(other, reading, self._metric) else None

    def contradicted(self, reading: Reading) -> Reading | None:
        """Return a different reading of another process at the same position, if there is one."""
        rank, at = reading.rank, reading.position
        is_partial = reading.progress is not None and reading.progress < 1
        if is_partial or reading.label is Label.TRAIN:
            return None
        if (other := self._mixed(reading)) is not None or rank is None:
            return other
        if rank not in self._counts and len(self._counts) >= _MAX_RANKS:
            return None
        self._counts[rank] = self._counts.get(rank, 0) + 1
        place = (reading.stream, at.epoch, at.step, self._counts[rank] if at.is_empty else 0)
        known = self._places.setdefault(place, reading)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)
        return known if known.rank != rank and not agree(known, reading, self._metric) else None
