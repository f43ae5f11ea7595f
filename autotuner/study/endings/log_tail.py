"""The last lines of a log, without what launchers, runtimes and loggers put before them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from autotuner.study.formats.line import ESCAPE

TRACEBACK: Final = "Traceback (most recent call last)"
"""What Python prints before the frames of a traceback."""
MAX_LOG: Final = 65_536
"""Characters of the end of each log that are read."""
MAX_LINES: Final = 4_000
"""Lines of the end of each log that are read."""
MAX_LINE: Final = 2_000
"""Characters of a line that are read."""
_RANK: Final = re.compile(
    r"\s{0,8}(\[rank ?\d{1,6}\]:?|\[default\d{1,6}\]:|\[\d{1,6},\d{1,6}\]<\w{1,10}>:"
    r"|\(\w{0,60} ?pid=[^()]{1,80}\)|\d{1,4}:)\s?"
)
_TIME: Final = re.compile(
    r"^\[?(?:\d{4}-\d\d-\d\d[T ]|[A-Z][a-z]{2} [ \d]\d )?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:Z|[+-]\d\d:?\d\d)?\]?:?\s(?:std(?:out|err) [FP] )?"
)
"""The time that a container runtime or a shell puts before each line, the frames of a traceback included."""
_LOGGED: Final = re.compile(r"[EFC]\d{4} \d\d:\d\d:\d\d\.\d{1,9} {1,8}\d{1,20} [^\s\]]{1,200}:\d{1,6}\] ?")
"""What PyTorch's own loggers put before each line of an error, so before a child's traceback, too."""
_MAX_PREFIX: Final = 80
"""Characters of the longest prefix that is learned from a traceback."""
_MAX_PREFIXES: Final = 64
_BOX: Final = re.compile(r"\s{0,8}[|+│]\s?")
_FRAME: Final = re.compile(r'  File "|╭─{1,200} Traceback \(most recent')
_QUOTE: Final = re.compile(r'(?<!\\)"')


def tail_of(text: str) -> Iterable[tuple[str, str]]:
    """Yield the last lines of a log, each with its rank prefix separated."""
    lines = [ESCAPE.sub("", raw[:MAX_LINE]) for raw in _bounded(text)]
    if any(_FRAME.search(line) and _TIME.match(line) for line in lines):
        lines = [_TIME.sub("", line, count=1) for line in lines]
    ranked = [_ranked(line) for line in lines]
    if any(_FRAME.search(line) and _LOGGED.match(line) for _, line in ranked):
        ranked = [(rank, _LOGGED.sub("", line, count=1)) for rank, line in ranked]
    prefixes = _prefixes(line for _, line in ranked)
    for rank, line in ranked:
        prefix = next((p for p in prefixes if line.startswith(p)), "")
        rest = line[len(prefix) :]
        if match := _BOX.match(rest):
            rest = rest[match.end() :]
        yield rank or prefix.strip(), rest


def _ranked(line: str) -> tuple[str, str]:
    match = _RANK.match(line)
    return (match[1], line[match.end() :]) if match else ("", line)


def _prefixes(lines: Iterable[str]) -> list[str]:
    """Return what stands before each line of a traceback, such as a host, a role or a stream.

    A launcher writes it; a logger writes its own before the first line only, so the frames show which it is.
    """
    found = {line[: match.start()] for line in lines if (match := _FRAME.search(line[: 2 * _MAX_PREFIX]))}
    own = [p for p in found if p.strip() and len(p) <= _MAX_PREFIX and not _BOX.fullmatch(p)]
    return sorted(own, key=len, reverse=True)[:_MAX_PREFIXES]


def _bounded(text: str) -> Iterator[str]:
    # Only the line ends of a terminal: str.splitlines also splits at form feeds and others.
    lines = re.split(r"[\r\n]+", text[-MAX_LOG:])[-MAX_LINES:]
    return iter([part for line in lines for part in _unfolded(line)][-MAX_LINES:])


def _unfolded(line: str) -> list[str]:
    """Return a line, or the lines of the traceback in a field of it, if it is JSON or a part of it."""
    at = line.find(TRACEBACK)
    if at < 0 or ("{" not in line[:at] and line[at - 1 : at] != '"') or "\\n" not in line[at : at + MAX_LINE]:
        return [line]
    field = _QUOTE.split(line[at:], maxsplit=1)[0]
    return [part.replace('\\"', '"') for part in field.split("\\n")]
