"""Which of several controllers works: the official client's leader election, on a Lease.

Its `LeaderElection` loops well and ends badly (client 37.0.2): it dies of a network error, has no request
timeout, cannot be stopped and keeps the lease when its process goes. All four are mended in the lock that it
drives: `Lock` bounds and translates requests, refuses them once it is closed, and lets go of the lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import structlog
import urllib3
from kubernetes import client
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from autotuner.backends.kubernetes.api import Api
from autotuner.errors import InvalidConfiguration

_REQUEST_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


class Lock(LeaseLock):
    """A Lease that one of several controllers holds."""

    def __init__(self, api: Api, name: str, namespace: str, identity: str) -> None:
        # Not super().__init__(): it makes a client of the process-wide default configuration.
        self.name = name
        self.namespace = namespace
        self.identity = identity
        self.lease_reference: Any = None
        self.api_instance: Any = _Leases(api.client)
        self._is_closed = threading.Event()
        self._in_use = threading.Lock()

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Read the lease; an answer that is none is told as the client's own exception."""
        if self._is_closed.is_set():
            return False, client.ApiException(status=0, reason="this controller has let go of the lease")
        found: tuple[bool, Any] = super().get(name, namespace)  # type: ignore[no-untyped-call]
        return found

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:  # noqa: ANN401 (the client's own)
        """Write the lease, unless it was let go."""
        with self._in_use:
            if self._is_closed.is_set():
                return False
            return bool(super().update(name, namespace, updated_record))  # type: ignore[no-untyped-call]

    def release(self) -> None:
        """Let go of the lease, so that the next controller need not wait for its end."""
        with self._in_use:
            self._is_closed.set()
        try:
            lease = self.api_instance.read_namespaced_lease(self.name, self.namespace)
            if lease.spec is None or lease.spec.holder_identity != self.identity:
                return
            lease.spec.holder_identity = None
            self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except client.ApiException as error:
            # It ends by itself, a little later.
            _log.warning("lease_not_released", error=str(error.reason))


class _Leases:
    """The client's lease requests, each with a timeout, and network errors as ApiException."""

    def __init__(self, api: client.ApiClient) -> None:
        self._leases = client.CoordinationV1Api(api)

    def read_namespaced_lease(self, name: str, namespace: str) -> Any:  # noqa: ANN401
        """Read a lease."""
        return _answer(self._leases.read_namespaced_lease, name, namespace)

    def create_namespaced_lease(self, namespace: str, body: object) -> Any:  # noqa: ANN401
        """Create a lease."""
        return _answer(self._leases.create_namespaced_lease, namespace, body)

    def replace_namespaced_lease(self, name: str, namespace: str, body: object) -> Any:  # noqa: ANN401
        """Write a lease, if nobody else has written it since it was read."""
        return _answer(self._leases.replace_namespaced_lease, name, namespace, body)


def _answer(request: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    try:
        return request(*arguments, _request_timeout=_REQUEST_SECONDS)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise client.ApiException(status=0, reason=str(error)) from error


def elect(  # noqa: PLR0913 (the election's own parameters)
    lock: Lock,
    *,
    lease_seconds: float,
    renew_seconds: float,
    retry_seconds: float,
    on_elected: Callable[[], None],
    on_lost: Callable[[], None],
) -> None:
    """Take part in the election, on a thread of its own.

    Args:
        lock: The lease.
        lease_seconds: How long it outlives its last renewal.
        renew_seconds: After so long without a renewal the holder gives up.
        retry_seconds: Pause between two attempts.
        on_elected: Called once this controller holds the lease.
        on_lost: Called once it does not any more; it must not work on from there.

    Raises:
        InvalidConfiguration: If the times do not go together.
    """
    try:
        # A Lease counts whole seconds.
        config = Config(lock, round(lease_seconds), renew_seconds, retry_seconds, on_elected, on_lost)
    except SystemExit as error:
        raise InvalidConfiguration(f"the lease's times do not go together: {error}") from error
    election = LeaderElection(config)
    threading.Thread(target=election.run, name="lease", daemon=True).start()
