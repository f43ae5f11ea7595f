"""Watch jobs and trials, and say which job to reconcile.

There are two informers per kind of job and per watched namespace (or for the whole cluster). A kind that the
cluster does not serve is asked for again from time to time, because it may be installed later. One informer
holds the metadata of jobs only, so that a thousand registered jobs with large templates do not fill the
memory. The other holds trials, whose conditions say when to reconcile their job. No decision is based on what
they hold: a reconcile reads live.

The official `SharedInformer` (client 37.0.2) needs five things from its caller: a list function that returns
an object with `items` and `metadata` and whose docstring names a return type, or the watch replays its
events; HTTP 410 as the client's own exception, or it never lists again; an error handler that waits, or it
sends thousands of requests per second to a dead server; a pause where watches end at once without an error,
or it does the same; and a read timeout, because its watches have none.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final

import structlog
from kubernetes import client
from kubernetes.informer import ADDED, DELETED, ERROR, MODIFIED, SharedInformer

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, jobs_path
from autotuner.backends.kubernetes.readers import unread_job
from autotuner.job.job import Job
from autotuner.job.kind import JobKind
from autotuner.job.kinds import KINDS

_WATCH_SECONDS: Final = (240, 300)
"""Seconds, drawn at random, after which a watch ends, so that many watches do not end at once."""
_SILENCE_SECONDS: Final = 20.0
"""Seconds beyond that for which a connection may be silent before it counts as dead."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_SHORT_WATCH: Final = 1.0
"""Seconds that a watch lasts at least if nothing is wrong."""
_METADATA: Final = "application/json;as={};g=meta.k8s.io;v=v1"
_WHOLE: Final = "application/json"

OnChange = Callable[[JobKind, str, dict[str, Any]], None]
"""Called with the kind of job, the kind of a change (ADDED, MODIFIED, DELETED) and the object."""

_log = structlog.get_logger(__name__)


class Informers:
    """Informers for jobs and trials of the given kinds, in the given namespaces (none: in all)."""

    def __init__(
        self,
        api: Api,
        namespaces: Sequence[str],
        on_job: OnChange,
        on_trial: OnChange,
        kinds: Sequence[JobKind] = KINDS,
    ) -> None:
        self._kinds = tuple(kinds)
        self._watches = [
            _Watch(api, kind, namespace, selector, is_metadata=is_metadata, on_change=on_change)
            for kind in kinds
            for namespace in (namespaces or (None,))
            for selector, is_metadata, on_change in (
                (f"!{keys.TRIAL_JOB_UID}", True, on_job),
                (keys.TRIAL_JOB_UID, False, on_trial),
            )
        ]

    @property
    def have_synced(self) -> bool:
        """Whether every informer has listed its objects once, or the cluster does not serve its kind."""
        return all(watch.has_synced.is_set() or watch.is_absent for watch in self._watches)

    @property
    def problem(self) -> str:
        """Why an informer has not listed its objects yet, or may not watch them; empty without a reason."""
        wrong = (w for w in self._watches if not w.has_synced.is_set() or w.is_refused)
        return next((w.problem for w in wrong if w.problem), "")

    @property
    def absent(self) -> list[JobKind]:
        """The kinds that the cluster does not serve."""
        absent = {watch.kind.name for watch in self._watches if watch.is_absent}
        return [kind for kind in self._kinds if kind.name in absent]

    def jobs(self) -> list[Job]:
        """Return every job that is not a trial, with its metadata only."""
        return [
            unread_job(watch.kind, job, "")
            for watch in self._watches
            if watch.is_metadata
            for job in watch.informer.cache.list()
        ]

    def start(self) -> None:
        """Start to list and watch, each informer on its own thread."""
        for watch in self._watches:
            watch.informer.start()

    def stop(self) -> None:
        """End the threads."""
        for watch in self._watches:
            watch.is_stopping.set()
        for watch in self._watches:
            watch.informer.stop()


class _Watch:
    """One informer, with its list function and error handler."""

    def __init__(  # noqa: PLR0913 (what is watched, and by whom)
        self,
        api: Api,
        kind: JobKind,
        namespace: str | None,
        selector: str,
        *,
        is_metadata: bool,
        on_change: OnChange,
    ) -> None:
        self.kind = kind
        self.is_metadata = is_metadata
        self.is_absent = False
        self.is_refused = False
        self.problem = ""
        self.has_synced = threading.Event()
        self.is_stopping = threading.Event()
        self._api = api
        self._path = jobs_path(namespace, kind=kind)
        self._selector = selector
        self._failures = 0
        self._opened_at = -math.inf
        self._short_watches = 0
        self.informer = SharedInformer(self._list_or_watch)
        for change in (ADDED, MODIFIED, DELETED):
            self.informer.add_event_handler(change, self._handler(change, on_change))
        self.informer.add_event_handler(ERROR, self._pause)

    def _list_or_watch(
        self,
        *,
        watch: bool = False,
        resource_version: str | None = None,
        _preload_content: bool = True,
    ) -> object:
        """List the objects, or watch them.

        :rtype: object
        """
        if not watch:
            return self._list()
        self._wait_after_short_watch()
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 (spreads load, guards nothing)
        try:
            opened = self._api.stream(
                self._path,
                accept=_METADATA.format("PartialObjectMetadata") if self.is_metadata else _WHOLE,
                read_seconds=seconds + _SILENCE_SECONDS,
                watch="true",
                resourceVersion=resource_version,
                allowWatchBookmarks="true",
                timeoutSeconds=seconds,
                labelSelector=self._selector,
            )
        except RequestFailed as error:
            self.is_refused = error.status == HTTPStatus.FORBIDDEN
            if error.status == HTTPStatus.GONE:
                raise client.ApiException(status=HTTPStatus.GONE, reason=str(error)) from error
            raise
        self.is_refused = False
        return opened

    def _wait_after_short_watch(self) -> None:
        """Wait before a watch if the last one has just begun: something ends them, such as a proxy.

        The client opens the next one at once, and fires no error where the last one ended well.
        """
        is_short = time.monotonic() - self._opened_at < _SHORT_WATCH
        self._short_watches = self._short_watches + 1 if is_short else 0
        if is_short:
            self.is_stopping.wait(_back_off(self._short_watches - 1))
        self._opened_at = time.monotonic()

    def _list(self) -> object:
        try:
            found = self._api.list(
                self._path,
                accept=_METADATA.format("PartialObjectMetadataList") if self.is_metadata else _WHOLE,
                labelSelector=self._selector,
            )
        except RequestFailed as error:
            if error.is_not_found:
                self.is_absent = True
            elif error.status == HTTPStatus.FORBIDDEN:
                # This holds after the first list, too: the watches would learn nothing new. The API server
                # answers 404 for a kind that it does not serve only to clients that may list it.
                self.is_absent, self.is_refused = False, True
            raise
        self.is_absent = self.is_refused = False
        self._failures = 0
        self.has_synced.set()
        version = found.get("metadata", {}).get("resourceVersion")
        return SimpleNamespace(
            items=found.get("items") or [], metadata=SimpleNamespace(resource_version=version)
        )

    def _handler(self, change: str, on_change: OnChange) -> Callable[[dict[str, Any]], None]:
        def handle(changed: dict[str, Any]) -> None:
            self._failures = 0
            on_change(self.kind, change, changed)

        return handle

    def _pause(self, error: object) -> None:
        """Wait on the informer's own thread, longer after each failure in a row."""
        if self.is_stopping.is_set():
            return
        pause = _back_off(self._failures)
        self._failures += 1
        if self.is_absent:
            if self._failures == 1:
                _log.info("kind_not_served", kind=self.kind.name, path=self._path)
            self.is_stopping.wait(pause)
            return
        self.problem = str(error)
        _log.warning("watch_failed", path=self._path, selector=self._selector, error=str(error), pause=pause)
        self.is_stopping.wait(pause)


def _back_off(count: int) -> float:
    """Return the pause in seconds after this many failures in a row before the last."""
    return min(_FIRST_PAUSE * 2.0 ** min(count, 16), _LONGEST_PAUSE)
