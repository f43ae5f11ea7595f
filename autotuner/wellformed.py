"""Validate a PyTorchJob at the boundary; see `autotuner.job.validation`."""

from autotuner.job.validation import (
    API_VERSION,
    CONTAINER,
    KIND,
    REPLICAS,
    replica_count,
    wellformed,
)

__all__ = ["API_VERSION", "CONTAINER", "KIND", "REPLICAS", "replica_count", "wellformed"]
