"""The page that lists all studies of a cluster, and the page that only says something."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from autotuner import keys
from autotuner.decide.decision import Answer, Phase
from autotuner.job.kind import JobKind
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


@dataclass(frozen=True, slots=True)
class Row:
    """A registered job, by what its metadata says."""

    kind: JobKind
    namespace: str
    name: str
    annotations: Mapping[str, Any]

    @property
    def phase(self) -> str:
        """The phase of its study."""
        return str(self.annotations.get(keys.PHASE, NOT_STARTED))


def render_overview(
    rows: Sequence[Row],
    now: datetime,
    *,
    namespace: str | None = None,
    problem: str = "",
    refresh: int | None = None,
) -> str:
    """Return the list as HTML.

    Args:
        rows: The jobs, in any order.
        now: The current time.
        namespace: Their namespace, if the list is of one only; then the list of all is linked.
        problem: Why the list may not be complete; empty if it is.
        refresh: Seconds after which a browser loads the page again; None: never.
    """
    counts = Counter(row.phase for row in rows)
    return fill(
        "overview.html",
        refresh=refresh,
        home="/" if namespace else "",
        namespace=namespace,
        problem=problem,
        counts=[(p, counts[p], _COLOURS.get(p, _UNKNOWN)) for p in sorted(counts, key=_place)],
        rows=[_cells(row) for row in sorted(rows, key=lambda r: (_place(r.phase), r.namespace, r.name))],
        now=now,
    )


def render_notice(title: str, text: str, *, refresh: int | None = None) -> str:
    """Return a page with one text."""
    return fill("notice.html", refresh=refresh, home="/", title=title, text=text)


def _place(phase: str) -> int:
    return _ORDER.index(phase) if phase in _ORDER else len(_ORDER)


def _cells(row: Row) -> dict[str, object]:
    answer = Answer.from_text(str(row.annotations.get(keys.ANSWER, "")))
    message = str(row.annotations.get(keys.MESSAGE, ""))
    return {
        "namespace": row.namespace,
        "name": row.name,
        "kind": row.kind.name,
        "link": f"/{row.namespace}/{row.kind.plural}/{row.name}",
        "phase": row.phase,
        "colour": _COLOURS.get(row.phase, _UNKNOWN),
        "target": str(row.annotations.get(keys.TARGET, "")),
        "batch_size": answer.batch_size if answer else "",
        "tally": answer.tally if answer else "",
        "trials": _total(str(row.annotations.get(keys.TRIALS, ""))),
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
