"""Hostile input: any JSON at any place of a document."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def with_value(document: Mapping[str, Any], place: Sequence[str | int], value: object) -> dict[str, Any]:
    """Return a copy of a document with another value at a place: keys and positions from the outside in."""
    made: Any = copy.deepcopy(document)
    *way, last = place
    node = made
    for step in way:
        node = node[step]
    node[last] = value
    return made
