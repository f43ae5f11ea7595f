"""Cache small results by a digest of everything that they were computed from.

The model of one study takes megabytes, so that only the models of a few studies are kept. An answer of a
model takes some hundred bytes, so that the answers for more than a thousand studies are kept: a study in
which nothing has changed computes nothing, however many others are active. These caches hold no measurements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Memory(Generic[Result]):
    """A cache of results by digest, of `entries` at most: the least recently used are dropped."""

    def __init__(self, entries: int) -> None:
        def empty(_digest: bytes) -> list[Result]:
            return []

        self._found = lru_cache(maxsize=entries)(empty)

    def of(self, key: bytes, compute: Callable[[], Result]) -> Result:
        """Return the result that belongs to a digest, computed if it is not in the cache."""
        found = self._found(key)
        if not found:
            found.append(compute())
        return found[0]


def digest_of(*parts: bytes) -> bytes:
    """Return a digest of the parts; it depends on where each part ends."""
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.digest()
