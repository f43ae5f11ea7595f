"""Read other values than the metric from a log: throughput, noise scale, and the records of the SDK.

A printed configuration may have a `batch_size` that is not the trained one. So the trained batch size, and
the names of the variables that were read, count only in records of `autotuner.sdk`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from autotuner.study.formats.line import NUMBER
from autotuner.study.formats.records import SDK_RECORD, value_of

NAMES: Final = ("noise_scale", "samples_per_second")
"""Names that any line may have."""
SDK_NAMES: Final = ("batch_size", "samples_per_epoch", "steps_per_epoch", "steps_per_second")
"""Names that count only in records of `autotuner.sdk.report`."""
MAX_VARIABLES: Final = 100
_MAX_NAME: Final = 64
_LARGEST: Final = 1e15
_FORMAT: Final = 1


class Extras:
    """Collects other values than the metric, line by line.

    `values` holds the last value of each name. `variables` are the hyperparameters that the script has read
    through the SDK; None if it has not reported them.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.variables: tuple[str, ...] | None = None

    def note(self, text: str) -> bool:
        """Process a line; return whether it is the SDK's list of variables, which has no metric."""
        entry = _sdk_entry(text)
        # A metric may be named so, too; it is a number.
        if isinstance(names := entry.get("reads"), list):
            self._read(names)
            return True
        for name in NAMES:
            if name in text and (match := _pattern(name).search(text)):
                value = value_of(match[1])
                if value is not None and math.isfinite(value[0]):
                    self.values[name] = value[0]
        for name in SDK_NAMES:
            said = entry.get(name)
            if isinstance(said, int | float) and not isinstance(said, bool) and abs(said) < _LARGEST:
                self.values[name] = float(said)
        return False

    def _read(self, names: list[object]) -> None:
        valid = [n for n in names if isinstance(n, str) and len(n) <= _MAX_NAME]
        known = dict.fromkeys((*(self.variables or ()), *valid))
        self.variables = tuple(known)[:MAX_VARIABLES]


def _sdk_entry(text: str) -> Mapping[str, Any]:
    """Return the SDK's record on a line; empty if there is none of a known format."""
    start = text.find(SDK_RECORD)
    if start < 0:
        return {}
    try:
        entry, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) and entry.get("autotuner") == _FORMAT else {}


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w./@-]){name}[\"']?\s{{0,8}}[=:]\s{{0,8}}[\"']?({NUMBER})(?!\w|\.\d)", re.IGNORECASE
    )
