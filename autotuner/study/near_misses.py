"""Remember the lines that come closest to the metric, for a log of which nothing was read."""

from __future__ import annotations

import difflib
import re
from typing import Final

from autotuner.spec.values import Target
from autotuner.study import formats
from autotuner.study.doubt import MAX_SHOWN, bounded, pattern_for
from autotuner.study.formats.line import NUMBER, Line
from autotuner.study.formats.reading import Metric, key
from autotuner.study.formats.text import Finder

_MAX_LINES: Final = 5
_MAX_NAMES: Final = 100
_NAMED: Final = re.compile(
    rf"(?<![\w./@-])(?P<name>[A-Za-z_][\w./@-]{{1,63}})[\"']?\s{{0,4}}[=:]\s{{0,4}}[\"']?{NUMBER}",
    re.IGNORECASE,
)


class NearMisses:
    """Keeps a bounded number of lines that name the metric, and of other names with a number."""

    def __init__(self, target: Target, finder: Finder) -> None:
        self._target = target
        self._finder = finder
        self._lines: dict[str, None] = {}
        self._names: dict[str, str] = {}

    def note(self, line: Line) -> None:
        """Process a line of which nothing was read."""
        names_it = self._finder.mentions(line.text) and any(c.isdigit() for c in line.text)
        if len(self._lines) < _MAX_LINES and names_it:
            self._lines.setdefault(bounded(line.raw))
        if len(self._names) < _MAX_NAMES:
            for match in _NAMED.finditer(line.text[:2000]):
                self._names.setdefault(key(match["name"]), match["name"])

    def messages(self) -> tuple[str, ...]:
        """Return the lines, names that are similar to the metric's, and a remedy."""
        name = self._target.metric
        misses = [f"nothing was read: no line has a value of {name!r} that is understood"]
        misses += [f"this line names it: {line!r}" for line in self._lines]
        close = difflib.get_close_matches(key(name), self._names, n=3, cutoff=0.5)
        bound = f"{self._target.comparison} {self._target.threshold:g}"
        misses += [
            f"the log has {self._names[found]!r}; where the target means that, write"
            f' autotuner.dev/target: "{self._names[found]} {bound}"'
            for found in close
        ]
        line = next(iter(self._lines), None)
        proposed = None if line is None else _proposal(self._finder.metric, line)
        pattern = proposed or re.escape(name) + r"\D{1,20}(?P<value>[-+.\deE]+)"
        misses.append(
            f"add autotuner.dev/metric-pattern: '{pattern}'"
            + ("" if proposed else ", changed so that it matches the line,")
            + f" or autotuner.dev/log-format (one of {', '.join(formats.NAMES)})"
        )
        return tuple(misses)


def _proposal(metric: Metric, line: str) -> str | None:
    for found in Finder(metric).find(line[:MAX_SHOWN]):
        return pattern_for(metric, line, found.value)
    return None
