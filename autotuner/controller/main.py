"""Start the controller, take part in the leader election, reconcile, shut down.

The watches run on every replica from the start, so that a standby can take over at once; only the leader
reconciles. On SIGTERM the controller closes the queue, finishes running reconciles and releases the lease. A
lost lease ends the process at once, because another replica already works, and a reconcile that has begun
changes nothing any more.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from autotuner import __version__
from autotuner.backends.kubernetes import Api, KubernetesBackend, RequestFailed, connect
from autotuner.backends.kubernetes.api import group_path
from autotuner.controller.controller import Controller
from autotuner.controller.http import Answer, Respond, Server, probes
from autotuner.controller.informers import Informers
from autotuner.controller.leader_election import Lock, elect
from autotuner.controller.metrics import Metrics
from autotuner.controller.pages import Pages
from autotuner.controller.settings import ControllerSettings
from autotuner.errors import BackendError, InvalidConfiguration
from autotuner.job.kind import JobKind
from autotuner.job.kinds import KINDS

FINISH_SECONDS: Final = 20.0
"""Seconds that running reconciles get to finish at shutdown; Kubernetes kills after 30 s by default."""
_KIND_FRESH_SECONDS: Final = 60.0
_BEGIN_PAUSE: Final = 2.0
_OPERATORS: Final = "Kubeflow Trainer (TrainJob) or the training operator (PyTorchJob)"

_log = structlog.get_logger(__name__)


def run(settings: ControllerSettings) -> int:
    """Run the controller until SIGTERM or SIGINT; return the process's exit code.

    Logging is configured by the caller.

    Raises:
        InvalidConfiguration: If no cluster is configured, the port is taken, or the lease's times contradict
            each other.
    """
    metrics = Metrics()
    api = connect(on_request=metrics.count_request)
    return ControllerProcess(settings, api, metrics).run()


class ControllerProcess:
    """The controller's parts, connected."""

    def __init__(self, settings: ControllerSettings, api: Api, metrics: Metrics) -> None:
        self._settings = settings
        self._api = api
        self._metrics = metrics
        kinds = [kind for kind in KINDS if kind.name in settings.kinds]
        backend = KubernetesBackend(
            api,
            start_patience=timedelta(seconds=settings.start_patience_seconds),
            max_log_bytes=settings.max_log_bytes,
            keeps_views=True,
            on_record=lambda trial: metrics.count_trial(trial, datetime.now(UTC)),
        )
        self._controller = Controller(
            api,
            backend,
            metrics,
            max_parallel_trials=settings.max_parallel_trials,
            poll_seconds=settings.poll_seconds,
            resync_seconds=settings.resync_seconds,
            kinds=kinds,
        )
        self._watches = Informers(
            api, settings.namespaces, self._controller.on_job, self._controller.on_trial, kinds
        )
        self._kind = KindCheck(api, kinds)
        self._ending = threading.Event()
        self._elected = threading.Event()
        self._has_lost_lease = False
        self._lock: Lock | None = None
        self._threads: list[threading.Thread] = []

    def run(self) -> int:
        """Work until a signal, or until the lease is lost."""
        # From here on a signal must wait for reconciles; before, `autotuner.__main__` ends the process.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ending.set())
        settings = self._settings
        with contextlib.ExitStack() as servers:
            ports = [servers.enter_context(server).port for server in self._servers()]
            _log.info("started", version=__version__, ports=ports, namespaces=list(settings.namespaces))
            lock = self._lock = self._take_part()
            self._watches.start()
            self._wait_for(self._elected)
            if not self._ending.is_set():
                self._lead()
            self._ending.wait()
            return self._finish(lock)

    def _servers(self) -> Iterator[Server]:
        settings = self._settings
        respond = probes(
            is_healthy=self._is_healthy, is_ready=self._is_ready, metrics=self._metrics.exposition
        )
        yield _server("http", settings.http_host, settings.http_port, respond)
        if settings.pages_port is not None:
            pages = Pages(self._api, self._watches.jobs, self._controller.running, is_ready=self._is_ready)
            names = settings.pages_hosts
            yield _server("pages", settings.pages_host, settings.pages_port, pages.respond, names)

    def _take_part(self) -> Lock | None:
        """Enter the election, or lead at once if there is none."""
        settings = self._settings
        if not settings.leader_election or settings.lease_namespace is None:
            self._elected.set()
            return None
        # The host's name is for people; the rest, because a restarted container keeps its host's name.
        identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        lock = Lock(self._api, settings.lease_name, settings.lease_namespace, identity)
        # A process that was frozen, with its node or its cgroup, continues where it was: in a reconcile.
        self._api.may_change = lambda: lock.is_valid(settings.lease_seconds)
        elect(
            lock,
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.renew_seconds,
            retry_seconds=settings.retry_seconds,
            on_elected=self._elected.set,
            on_lost=self._lose,
        )
        return lock

    def _lose(self) -> None:
        if not self._ending.is_set():
            self._has_lost_lease = True
            self._ending.set()

    def _lead(self) -> None:
        _log.info("leading")
        self._metrics.is_leader.set(1)
        while not self._ending.is_set():
            try:
                self._controller.begin(self._settings.namespaces)
                break
            except BackendError as error:
                _log.warning("cluster_unreachable", error=str(error), retry_in=_BEGIN_PAUSE)
                self._ending.wait(_BEGIN_PAUSE)
        for number in range(self._settings.threads):
            thread = threading.Thread(target=self._controller.work, name=f"worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _finish(self, lock: Lock | None) -> int:
        if self._has_lost_lease:
            # Another controller leads: any further effect of ours would compete with it.
            _log.error("lease_lost")
            return 1
        _log.info("ending")
        self._controller.queue.close()
        deadline = time.monotonic() + FINISH_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        unfinished = [thread.name for thread in self._threads if thread.is_alive()]
        if lock is not None:
            lock.release()
        # The watches only read; their threads end with the process.
        _log.info("ended", unfinished=unfinished)
        return 0

    def _wait_for(self, event: threading.Event) -> None:
        """Wait for an event or for the end."""
        while not event.wait(0.2) and not self._ending.is_set():
            pass

    def _is_healthy(self) -> Answer:
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead and not self._ending.is_set():
            return False, f"threads have died: {', '.join(dead)}"
        return True, "ok"

    def _is_ready(self) -> Answer:
        problem = self._kind.problem()
        if problem:
            return False, problem
        if not self._watches.have_synced:
            why = self._watches.problem
            return False, "the watches have not listed jobs and trials yet" + (f": {why}" if why else "")
        if why := self._watches.problem:
            # What was listed at the start would be all that it ever knows.
            return False, f"jobs or trials cannot be watched: {why}"
        if self._lock is not None and self._lock.problem and not self._elected.is_set():
            return False, f"no leader can be elected: {self._lock.problem}"
        return True, "ok"


def _server(
    what: str, host: str, port: int, respond: Respond, names: Collection[str] | None = None
) -> Server:
    try:
        return Server((host, port), respond, names)
    except OSError as error:
        raise InvalidConfiguration(
            f"{what}_host and {what}_port are {host}:{port}: must be an address of this machine and a free"
            f" port ({error.strerror}), for example 0.0.0.0:8080"
        ) from error


class KindCheck:
    """Whether the cluster serves a kind of job to tune: asks discovery, which every identity may read."""

    def __init__(self, api: Api, kinds: Sequence[JobKind]) -> None:
        self._api = api
        self._kinds = kinds
        self._good_until = 0.0

    def problem(self) -> str:
        """Return what is wrong; empty if nothing is."""
        if time.monotonic() < self._good_until:
            return ""
        missing: list[str] = []
        for kind in self._kinds:
            try:
                if self._serves(kind):
                    self._good_until = time.monotonic() + _KIND_FRESH_SECONDS
                    return ""
            except RequestFailed as error:
                return f"the cluster does not answer: {error}"
            missing.append(f"{kind.name}s ({kind.api_version})")
        return f"the cluster does not serve {' or '.join(missing)}: install {_OPERATORS}"

    def _serves(self, kind: JobKind) -> bool:
        try:
            found = self._api.get(group_path(kind))
        except RequestFailed as error:
            if error.is_not_found:
                return False
            raise
        return any(resource.get("name") == kind.plural for resource in found.get("resources", ()))
