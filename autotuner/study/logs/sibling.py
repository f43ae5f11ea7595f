"""The name of a metric on validation data, such as `val_acc` for `acc`, and its values in a log."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from typing import Final

from autotuner.study.formats import TEXT
from autotuner.study.formats.line import to_number
from autotuner.study.formats.not_measured import is_of_best
from autotuner.study.formats.reading import Label, Metric, Reading, digits_of
from autotuner.study.logs.scale import agree

_KEPT: Final = 16
"""Number of its values that are kept: a progress bar may show those of its next epoch."""


class Sibling:
    """The sibling of a metric, as far as the log has shown it: its name, and its last values."""

    def __init__(self, metric: Metric) -> None:
        self.name = ""
        self._metric = metric
        self._values: deque[re.Match[str]] = deque(maxlen=_KEPT)
        self._has_column = False
        self._same: Reading | None = None
        self._ranks: set[int | None] = set()

    def note(self, found: re.Match[str], rank: int | None = None) -> None:
        """Record a mention by a process, with its value if it has one."""
        self.name = self.name or found["sibling"]
        if found["value"] is not None and len(self._ranks) < _KEPT:
            self._ranks.add(rank)
        if found["value"] is not None and not is_of_best(found, found.string):
            self._values.append(found)

    def note_column(self, name: str) -> None:
        """Record that it is the column of a table."""
        self.name, self._has_column = self.name or name, True

    def is_of_rank(self, rank: int | None) -> bool:
        """Return whether a process that has the metric has the sibling, too, as far as the log shows it.

        Where one process beside the first has it, all have it.
        """
        return not rank or not self._ranks or any(self._ranks)

    def contradicts(self, reading: Reading) -> bool:
        """Return whether a value of the validation is none of those that the sibling had last.

        `soft val acc: 0.97` is not the accuracy where `val_acc` is 0.81.
        """
        if reading.label is not Label.VALIDATION or reading is self._same:
            return False
        if not self._values:
            return self._has_column and reading.format == TEXT
        known = (
            replace(
                reading,
                value=to_number(found["value"]),
                is_percent=bool(found["percent"]),
                digits=digits_of(found["value"]),
                format="",
            )
            for found in self._values
        )
        is_same = any(agree(each, reading, self._metric) for each in known)
        self._same = reading if is_same else None
        return not is_same
