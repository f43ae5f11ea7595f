"""Follow `if`, `case` and loops of a shell script, as far as the manifest decides which branch runs.

A branch that surely does not run is left out. Where a condition depends on something that is unknown, such as
the rank of the pod, each branch may run, and what differs between them is in doubt.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

_NUMBERS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "-eq": operator.eq,
    "-ge": operator.ge,
    "-gt": operator.gt,
    "-le": operator.le,
    "-lt": operator.lt,
    "-ne": operator.ne,
}
_TESTS: Final = {"[": "]", "[[": "]]", "test": ""}
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")
_MAX_PATTERN: Final = 100
"""Maximum characters of a pattern, and of what it is compared with; others are unknown."""


@dataclass(slots=True)
class Block:
    """An `if`, a `case` or a loop that the script is in.

    Args:
        kind: `if`, `case`, `loop`, or `list` for `[ ... ] && ... || ...`.
        word: What a `case` compares.
        branch: Number of the branch.
        is_waiting: Whether the condition of an `if`, or the patterns of a `case`, are still to come.
        is_testing: Whether commands are still those of the condition, which belong to no branch.
        is_certain: Whether the branch runs if the block does.
        is_dead: Whether the branch does not run.
        patterns: Patterns of the branch of a `case`.
    """

    kind: str
    word: str = ""
    branch: int = 0
    is_waiting: bool = True
    is_testing: bool = True
    is_certain: bool = False
    is_dead: bool = False
    patterns: list[str] = field(default_factory=list[str])
    _is_taken: bool = False
    _is_open: bool = False

    def next(self) -> None:
        """Go to the next branch."""
        self.branch += 1
        self.is_testing = self.kind == "if"
        self.is_waiting, self.is_certain, self.is_dead = True, False, self._is_taken
        self.patterns = []

    def decide(self, holds: bool | None) -> None:
        """Note whether the condition of the branch holds; None if that is unknown."""
        self.is_waiting = False
        self.is_certain = holds is True and not self._is_open
        self.is_dead = self._is_taken or holds is False
        self._is_taken = self._is_taken or holds is True
        self._is_open = self._is_open or holds is None


def holds(words: Sequence[str]) -> bool | None:
    """Return whether a test such as `[ 8 -gt 1 ]` holds; None if it is another command, or unknown."""
    if not words or words[0] not in _TESTS or (_TESTS[words[0]] and words[-1] != _TESTS[words[0]]):
        return None
    inner = words[1:-1] if _TESTS[words[0]] else words[1:]
    if not all(map(_is_known, inner)):
        return None
    match inner:
        case ["-n" | "-z" as asked, text]:
            return (text != "") == (asked == "-n")
        case [left, comparison, right]:
            return _compared(left, comparison, right, is_pattern=words[0] == "[[")
    return None


def _compared(left: str, comparison: str, right: str, *, is_pattern: bool) -> bool | None:
    if comparison in _NUMBERS:
        both = _NUMBER.fullmatch(left) and _NUMBER.fullmatch(right)
        return _NUMBERS[comparison](int(left), int(right)) if both else None
    if comparison not in {"=", "==", "!="}:
        return None
    equal: bool | None = left == right
    if is_pattern and matches(left, [right]) is not equal:
        # A pattern in quotes is none, and the words have lost their quotes.
        equal = None
    return None if equal is None else equal == (comparison != "!=")


def matches(word: str, patterns: Sequence[str]) -> bool | None:
    """Return whether a word matches one of the patterns of a shell; None if that is unknown."""
    if "*" in patterns:
        return True
    if not all(_is_known(each) and len(each) <= _MAX_PATTERN for each in (word, *patterns)):
        return None
    return any(fnmatchcase(word, pattern) for pattern in patterns)


def _is_known(word: str) -> bool:
    return re.search(r"[$`\0]", word) is None
