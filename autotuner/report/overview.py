"""The page that lists all studies of a cluster, and the page that only says something."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from autotuner import keys
from autotuner.decide.decision import Answer, Phase
from autotuner.job.job import Job
from autotuner.report.html import fill

NOT_STARTED: Final = "not started"
_ORDER: Final = (
    *(Phase.FAILED, Phase.INVALID, Phase.CONFIRMING, Phase.SEARCHING, Phase.WAITING),
    *(NOT_STARTED, Phase.PAUSED, Phase.DONE),
)
"""What needs its owner comes first, and what is over last."""
_COLOURS: Final[Mapping[str, str]] = {
    Phase.FAILED: "#b91c1c",
    Phase.INVALID: "#b91c1c",
    Phase.CONFIRMING: "#65a30d",
    Phase.SEARCHING: "#2563eb",
    Phase.WAITING: "#f59e0b",
    Phase.PAUSED: "#94a3b8",
    Phase.DONE: "#15803d",
}
_UNKNOWN: Final = "#cbd5e1"
_MESSAGE: Final = 280
"""Characters of a message that the list shows; the report shows all of it."""


def render_overview(
    jobs: Sequence[Job],
    now: datetime,
    *,
    namespace: str | None = None,
    problem: str = "",
    refresh: int | None = None,
) -> str:
    """Return the list as HTML.

    Args:
        jobs: The registered jobs, in any order; only their metadata counts.
        now: The current time.
        namespace: Their namespace, if the list is of one only; then the list of all is linked.
        problem: Why the list may not be complete; empty if it is.
        refresh: Seconds after which a browser loads the page again; None: never.
    """
    counts = Counter(phase_of(job) for job in jobs)
    return fill(
        "overview.html",
        refresh=refresh,
        home="/" if namespace else "",
        namespace=namespace,
        problem=problem,
        counts=[(p, counts[p], _COLOURS.get(p, _UNKNOWN)) for p in sorted(counts, key=_place)],
        rows=[_cells(job) for job in sorted(jobs, key=lambda j: (_place(phase_of(j)), j.namespace, j.name))],
        now=now,
    )


def render_notice(title: str, text: str) -> str:
    """Return a page with one text."""
    return fill("notice.html", home="/", title=title, text=text)


def phase_of(job: Job) -> str:
    """Return the phase of a job's study, by its status."""
    return job.annotations.get(keys.PHASE, NOT_STARTED)


def _place(phase: str) -> int:
    return _ORDER.index(phase) if phase in _ORDER else len(_ORDER)


def _cells(job: Job) -> dict[str, object]:
    phase, annotations = phase_of(job), job.annotations
    answer = Answer.from_text(annotations.get(keys.ANSWER, ""))
    message = annotations.get(keys.MESSAGE, "")
    return {
        "namespace": job.namespace,
        "name": job.name,
        "kind": job.kind.name,
        "link": f"/{job.namespace}/{job.kind.plural}/{job.name}",
        "phase": phase,
        "colour": _COLOURS.get(phase, _UNKNOWN),
        "target": annotations.get(keys.TARGET, ""),
        "batch_size": answer.batch_size if answer else "",
        "tally": answer.tally if answer else "",
        "trials": _total(annotations.get(keys.TRIALS, "")),
        "message": message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]}…",
    }


def _total(counts: str) -> str:
    """Return the number of trials of the status annotation; empty if it has none, as anyone can edit it."""
    try:
        found = json.loads(counts)
    except (ValueError, RecursionError):
        return ""
    total = found.get("total") if isinstance(found, dict) else None
    return str(total) if isinstance(total, int) else ""
