"""Remember the lines that come closest to the metric, for a log of which nothing was read."""

from __future__ import annotations

import difflib
import math
import re
from typing import Final

from autotuner.spec.values import Target
from autotuner.study import formats
from autotuner.study.formats.finder import Finder
from autotuner.study.formats.line import NUMBER, Line
from autotuner.study.formats.reading import Metric, key
from autotuner.study.logs.doubt import MAX_SHOWN, TEMPLATE, bounded, pattern_for

_MAX_LINES: Final = 5
_MAX_NAMES: Final = 100
_DIGITS: Final = re.compile(r"\d+")
_NAMED: Final = re.compile(
    rf"(?<![\w./@-])(?P<name>[A-Za-z_][\w./@-]{{1,63}})"
    rf"(?:[\"']?\s{{0,4}}[=:]\s{{0,4}}[\"']?|\s{{1,4}})(?P<number>{NUMBER})",
    re.IGNORECASE,
)


class NearMisses:
    """Keeps a bounded number of lines that name the metric, and of other names with a number."""

    def __init__(self, target: Target, finder: Finder) -> None:
        self._target = target
        self._finder = finder
        self._lines: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._largest: dict[str, float] = {}

    def note(self, line: Line) -> None:
        """Process a line of which nothing was read."""
        names_it = self._finder.mentions(line.text) and any(c.isdigit() for c in line.text)
        if len(self._lines) < _MAX_LINES and names_it:
            # The lines of the epochs differ in their numbers.
            self._lines.setdefault(_DIGITS.sub("0", line.text), bounded(line.raw))
        if len(self._names) < _MAX_NAMES:
            for match in _NAMED.finditer(line.text[:2000]):
                name = key(match["name"])
                self._names.setdefault(name, match["name"])
                value = abs(float(match["number"].replace(",", "")))
                if math.isfinite(value):
                    self._largest[name] = max(value, self._largest.get(name, 0.0))

    def messages(self) -> tuple[str, ...]:
        """Return the lines, names that are similar to the metric's, and a remedy."""
        name = self._target.metric
        misses = [f"nothing was read: no line has a value of {name!r} that is understood"]
        misses += [f"this line names it: {line!r}" for line in self._lines.values()]
        alike = [known for known, written in self._names.items() if self._may_be(written)]
        close = difflib.get_close_matches(key(name), alike, n=3, cutoff=0.5)
        misses += [
            f"the log has {self._names[found]!r}; where the target means that, write"
            f' autotuner.dev/target: "{self._names[found]} {self._target.comparison} {self._bound(found):g}"'
            for found in close
            if not self._finder.metric.is_named(found)
        ]
        line = next(iter(self._lines.values()), None)
        proposed = None if line is None else _proposal(self._finder.metric, line)
        # A guess would read the first number behind the name: a step, or a part of `0,93`.
        pattern = TEMPLATE if proposed is None else f"autotuner.dev/metric-pattern: '{proposed}'"
        misses.append(f"add {pattern} or autotuner.dev/log-format (one of {', '.join(formats.NAMES)})")
        return tuple(misses)

    def _may_be(self, name: str) -> bool:
        """Return whether a quantity of this name can be what the target means: not a loss for an accuracy."""
        found = Metric(name, self._target.threshold)
        return not (found.is_loss if self._target.sign > 0 else found.is_share)

    def _bound(self, found: str) -> float:
        """Return the threshold in the unit in which the log prints a share: in percent or as a fraction."""
        threshold, largest = self._target.threshold, self._largest.get(found, 0.0)
        if not Metric(self._names[found], threshold).is_share or not largest:
            return threshold
        if largest <= 1 < threshold:
            return threshold / 100
        return threshold * 100 if threshold <= 1 < largest else threshold


def _proposal(metric: Metric, line: str) -> str | None:
    for found in Finder(metric).find(line[:MAX_SHOWN]):
        return pattern_for(metric, line, found.value)
    return None
