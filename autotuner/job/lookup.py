"""Look into a manifest whose shape nobody has checked yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the mapping under a key; an empty one where there is none."""
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def pod_count(replica: object) -> int:
    """Return how many pods a replica of a PyTorchJob has: by default one, and none if it is no mapping."""
    count = replica.get("replicas", 1) if isinstance(replica, dict) else 0
    return count if isinstance(count, int) else 1
