"""Objects of any kind, from their manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubernetes import utils

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes import client


def create(api: client.ApiClient, manifest: Mapping[str, Any], namespace: str) -> None:
    """Create an object; in ``namespace`` where it has one and does not name it."""
    utils.create_from_dict(api, manifest, namespace=namespace)
