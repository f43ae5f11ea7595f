"""Read-only web pages for people: all studies, and the report of each.

    /                           all studies
    /NAMESPACE                  those of a namespace
    /NAMESPACE/PLURAL/NAME      the report of one, for example /team-a/pytorchjobs/resnet50

The list shows what the watches hold, so it costs no request. A report reads the job and its ledger, as
`autotuner report` does. The leader adds the running trials as the last reconcile read them.

The pages have no authentication of their own. By default they are served on the loopback address of the pod,
which `kubectl port-forward` reaches.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from autotuner.backends.kubernetes import Api
from autotuner.backends.kubernetes.readers import read_study_of_kind
from autotuner.controller.http import Answer, Response
from autotuner.errors import BackendError, InvalidJob
from autotuner.job.job import Job
from autotuner.reconcile import is_settled
from autotuner.study.logs.past_readings import with_doubts
from autotuner.trial import Trial

REFRESH_SECONDS: Final = 15
"""Seconds after which a browser loads a page again."""
_KEPT_SECONDS: Final = 5.0
"""How long a report is sent again as it is: drawing one costs about a second of processor time."""
_MOST_KEPT: Final = 16
_PATH: Final = re.compile(r"/(?P<namespace>[a-z0-9-]+)(?:/(?P<plural>[a-z]+)/(?P<name>[a-z0-9.-]+))?/?")
_HTML: Final = "text/html; charset=utf-8"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Jobs = Callable[[], Iterable[Job]]
"""Returns every job that the watches hold, with its metadata only."""
Running = Callable[[Job], Sequence[Trial]]
"""Returns the running trials of a job, as far as they are known."""


class Pages:
    """Answers requests for pages. Safe to use from many threads.

    Args:
        api: The API server.
        jobs: The jobs of which there are pages.
        running: Their running trials.
        is_ready: Whether the list is complete, and what is wrong otherwise.
        clock: Returns the current time, in UTC.
        ticks: Returns seconds of a monotonic clock.
    """

    def __init__(  # noqa: PLR0913 (what the pages show)
        self,
        api: Api,
        jobs: Jobs,
        running: Running,
        *,
        is_ready: Callable[[], Answer] = lambda: (True, ""),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._jobs = jobs
        self._running = running
        self._is_ready = is_ready
        self._clock = clock
        self._ticks = ticks
        self._drawing = threading.Lock()
        self._kept: dict[str, tuple[float, Response]] = {}

    def respond(self, path: str) -> Response:
        """Return the page of a path."""
        found = _PATH.fullmatch(path)
        if path == "/":
            return self._overview(None)
        if found is None:
            return _missing("there is no such page")
        namespace, plural, name = found["namespace"], found["plural"], found["name"]
        if name is None:
            return self._overview(namespace)
        for job in self._registered():
            if (job.kind.plural, job.namespace, job.name) == (plural, namespace, name):
                return self._report(job)
        return _missing(f"there is no registered {plural.removesuffix('s')} {name} in namespace {namespace}")

    def _registered(self) -> list[Job]:
        return [job for job in self._jobs() if job.is_registered]

    def _overview(self, namespace: str | None) -> Response:
        from autotuner.report.overview import render_overview  # noqa: PLC0415 (slow to import)

        jobs = [job for job in self._registered() if namespace in {None, job.namespace}]
        is_ready, problem = self._is_ready()
        return _page(
            render_overview(
                jobs,
                self._clock(),
                namespace=namespace,
                problem="" if is_ready else problem,
                refresh=REFRESH_SECONDS,
            )
        )

    def _report(self, job: Job) -> Response:
        # One at a time: matplotlib's settings are global, and reconciles need the processor.
        with self._drawing:
            path = f"{job.namespace}/{job.kind.plural}/{job.name}"
            at, kept = self._kept.get(path, (0.0, None))
            if kept is not None and self._ticks() - at < _KEPT_SECONDS:
                return kept
            response = self._draw(job)
            self._kept.pop(path, None)
            self._kept[path] = (self._ticks(), response)
            if len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return response

    def _draw(self, job: Job) -> Response:
        from autotuner.report.page import render  # noqa: PLC0415 (matplotlib costs memory and time)

        shown = f"{job.namespace}/{job.name}"
        try:
            study = read_study_of_kind(self._api, job.kind, job.namespace, job.name)
        except (BackendError, InvalidJob) as error:
            return _notice(f"{shown} cannot be read", str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            finished = with_doubts(study.trials, study.job.spec())
        except InvalidJob as error:
            return _notice(f"{shown} has mistakes", str(error), HTTPStatus.OK)
        numbers = {trial.number for trial in finished}
        running = [t for t in self._running(job) if t.number not in numbers]
        trials = sorted([*finished, *running], key=lambda trial: trial.number)
        refresh = None if is_settled(study.job) else REFRESH_SECONDS
        return _page(render(replace(study, trials=trials), self._clock(), refresh=refresh, home="/"))


def _missing(text: str) -> Response:
    return _notice("not found", text, HTTPStatus.NOT_FOUND)


def _notice(title: str, text: str, status: HTTPStatus) -> Response:
    from autotuner.report.overview import render_notice  # noqa: PLC0415 (slow to import)

    return _page(render_notice(title, text), status)


def _page(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(text.encode(), status, _HTML, _HEADERS)
