"""Read parts of a manifest that is not validated yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> Sequence[Any]:
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list) else ()


def section(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the mapping under a key, for changes in place; a new empty one where there is none."""
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def pod_count(replica: object) -> int:
    """Return how many pods a replica of a PyTorchJob has: one by default, none if it is not a mapping."""
    count = replica.get("replicas", 1) if isinstance(replica, dict) else 0
    return count if isinstance(count, int) else 1
