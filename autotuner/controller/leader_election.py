"""Leader election on a Lease, with the official client's `LeaderElection`.

The client's class (37.0.2) has five faults: a network error ends its loop, requests have no timeout, it
cannot be stopped, it keeps the lease when its process ends, and it does not say why it never leads. The lock
that it drives fixes all five: `Lock` bounds requests, translates and reports their errors, refuses them once
it is closed, and releases the lease.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
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
_MAX_MESSAGE: Final = 500

_log = structlog.get_logger(__name__)


class Lock(LeaseLock):
    """A Lease that one of several controllers holds."""

    def __init__(
        self, api: Api, name: str, namespace: str, identity: str, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        # Not super().__init__(): it creates a client from the process-wide default configuration.
        self.name = name
        self.namespace = namespace
        self.identity = identity
        self.lease_reference: Any = None
        self.api_instance: Any = _Leases(api.client)
        self._is_closed = threading.Event()
        self._in_use = threading.Lock()
        self._ticks = ticks
        self._renewed_at = -math.inf

    def is_valid(self, lease_seconds: float) -> bool:
        """Return whether no other controller can hold the lease: it was renewed within its validity."""
        return self._ticks() - self._renewed_at < lease_seconds

    @property
    def problem(self) -> str:
        """Why the last request for the lease failed; empty if it did not."""
        problem: str = self.api_instance.problem
        return problem

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Read the lease; an invalid answer is raised as the client's own exception."""
        if self._is_closed.is_set():
            return False, client.ApiException(status=0, reason="this controller has released the lease")
        found: tuple[bool, Any] = super().get(name, namespace)  # type: ignore[no-untyped-call]
        is_there, record = found
        if is_there and getattr(record, "holder_identity", None) != self.identity:
            # Somebody has deleted the Lease, or a clock was set: another controller has acquired it early.
            self._renewed_at = -math.inf
        return found

    def create(self, name: str, namespace: str, election_record: Any) -> bool:  # noqa: ANN401 (the client's own)
        """Create the lease."""
        asked_at = self._ticks()
        is_made = bool(super().create(name, namespace, election_record))  # type: ignore[no-untyped-call]
        if is_made:
            self._renewed_at = asked_at
        return is_made

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:  # noqa: ANN401 (the client's own)
        """Write the lease, unless it has been released."""
        with self._in_use:
            if self._is_closed.is_set():
                return False
            asked_at = self._ticks()
            is_written = bool(super().update(name, namespace, updated_record))  # type: ignore[no-untyped-call]
            if is_written:
                self._renewed_at = asked_at
            return is_written

    def release(self) -> None:
        """Release the lease, so that the next controller need not wait until it expires."""
        with self._in_use:
            self._is_closed.set()
            self._renewed_at = -math.inf
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
        self.problem = ""

    def read_namespaced_lease(self, name: str, namespace: str) -> Any:  # noqa: ANN401
        """Read a lease."""
        return self._answer("get", self._leases.read_namespaced_lease, name, namespace)

    def create_namespaced_lease(self, namespace: str, body: object) -> Any:  # noqa: ANN401
        """Create a lease."""
        return self._answer("create", self._leases.create_namespaced_lease, namespace, body)

    def replace_namespaced_lease(self, name: str, namespace: str, body: object) -> Any:  # noqa: ANN401
        """Write a lease, if no one else has written it since it was read."""
        return self._answer("update", self._leases.replace_namespaced_lease, name, namespace, body)

    def _answer(self, verb: str, request: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        try:
            answer = request(*arguments, _request_timeout=_REQUEST_SECONDS)
        except client.ApiException as error:
            # No lease yet, or another controller has written it.
            if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                self._note(f"{verb} lease: {error.status} {_message(error)}")
            raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: a proxy has answered with something that is no Lease.
            said = " ".join(str(error).split())[:_MAX_MESSAGE]
            self._note(f"{verb} lease: {said}")
            raise client.ApiException(status=0, reason=said) from error
        self._note("")
        return answer

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.warning("lease_request_failed", error=problem)
        self.problem = problem


def _message(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])[:_MAX_MESSAGE]
    except (ValueError, TypeError, KeyError):
        return str(error.reason)[:_MAX_MESSAGE]


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
        lease_seconds: Validity of the lease after its last renewal.
        renew_seconds: Time without a renewal after which the holder gives up.
        retry_seconds: Pause between two attempts.
        on_elected: Called once this controller holds the lease.
        on_lost: Called once it no longer holds the lease; from then on it must have no effects.

    Raises:
        InvalidConfiguration: If the times contradict each other.
    """
    try:
        # A Lease counts whole seconds.
        config = Config(lock, round(lease_seconds), renew_seconds, retry_seconds, on_elected, on_lost)
    except SystemExit as error:
        raise InvalidConfiguration(f"the lease's times contradict each other: {error}") from error
    election = LeaderElection(config)

    def run_election() -> None:
        try:
            election.run()
        except Exception:  # noqa: BLE001 (it may be anything, and must not go unseen)
            _log.exception("election_failed")
        # Without this thread the lease is neither renewed nor acquired, so the process must end.
        on_lost()

    threading.Thread(target=run_election, name="lease", daemon=True).start()
