"""Waiting for what a cluster does in its own time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Value = TypeVar("_Value")

_SECONDS = 120.0  # for a machine under heavy load; a second or two is usual
_SECONDS_BETWEEN = 0.05


def eventually(ask: Callable[[], _Value | None], seconds: float = _SECONDS) -> _Value:
    """Ask until the answer is neither None nor false nor empty, and return it.

    Raises:
        TimeoutError: there was no such answer for ``seconds``; it shows the last one.
    """
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer within {seconds:.0f} s but {answer!r}: {ask}")
        time.sleep(_SECONDS_BETWEEN)
    return answer
