"""Compute `$(( ... ))` of a shell, where all of its numbers are known."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Final

_TOKEN: Final = re.compile(r"\s*(\d{1,9}|[<>=!]=|[-+*/%<>()?:])")
_MAX_TEXT: Final = 200
_OPERATORS: Final[tuple[Mapping[str, Callable[[int, int], int]], ...]] = (
    {"==": operator.eq, "!=": operator.ne},
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.floordiv, "%": operator.mod},
)
"""Operators by precedence, the weakest first."""


def computed(text: str, *, rounds: bool = False) -> int | None:
    """Return the value of an expression with whole numbers from 0; None if it is another text.

    A division with a rest has none either, unless `rounds`: a shell rounds down.
    """
    tokens: list[str] = []
    at, whole = 0, text.strip()
    while at < len(whole) <= _MAX_TEXT:
        match = _TOKEN.match(whole, at)
        if match is None:
            return None
        tokens.append(match[1])
        at = match.end()
    try:
        reader = _Expression(tokens, rounds=rounds)
        value = reader.choice()
    except (ArithmeticError, IndexError, RecursionError, ValueError):
        return None
    return value if reader.is_read else None


class _Expression:
    def __init__(self, tokens: list[str], *, rounds: bool) -> None:
        self._tokens, self._rounds = tokens[::-1], rounds

    @property
    def is_read(self) -> bool:
        return not self._tokens

    def choice(self) -> int:
        value = self._level(0)
        if self._tokens[-1:] != ["?"]:
            return value
        self._tokens.pop()
        first = self.choice()
        self._take(":")
        second = self.choice()
        return first if value else second

    def _level(self, level: int) -> int:
        if level == len(_OPERATORS):
            return self._number()
        value = self._level(level + 1)
        while self._tokens and self._tokens[-1] in _OPERATORS[level]:
            function = _OPERATORS[level][self._tokens.pop()]
            right = self._level(level + 1)
            if function is operator.floordiv and value % right and not self._rounds:
                # A share of processes that is none.
                raise ValueError("a division with a rest")
            value = int(function(value, right))
        return value

    def _number(self) -> int:
        first = self._tokens.pop()
        if first != "(":
            return int(first)
        value = self.choice()
        self._take(")")
        return value

    def _take(self, token: str) -> None:
        if self._tokens.pop() != token:
            raise ValueError(f"no {token}")
