"""Read the cluster's explanation of a hold-up: Events, and Kueue's Workload.

Only Events say why no pod is created (a quota, a webhook) and why a volume is not mounted. The chart grants
the right to list them; without it, hold-ups are reported without this text. Kueue's Workloads are read if the
chart's `rbac.extraRules` allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.backends.kubernetes.pods import entries, sentence
from autotuner.job.lookup import mapping

_KUEUE: Final = ("v1beta2", "v1beta1")
"""Versions of Workload, newest first; an older Kueue serves only the second."""
_MOST_EVENTS: Final = 100
_ASK_AGAIN: Final = timedelta(hours=1)
"""Pause after a refusal; the role may change meanwhile."""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class ClusterWords:
    """Asks the API server for reasons; they stay empty if it refuses.

    Args:
        api: The API server.
        clock: Returns the current time, in UTC.
    """

    def __init__(self, api: Api, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._refused: dict[tuple[str, str], datetime] = {}

    def warning(self, namespace: str, uid: str) -> str:
        """Return the newest Warning Event on an object; empty without one."""
        selector = f"involvedObject.uid={uid},type=Warning"
        found = self._list(
            namespace, "events", core_path(namespace, "events"), fieldSelector=selector, limit=_MOST_EVENTS
        )
        return sentence(max(found, key=_last_seen)) if found else ""

    def admission(self, namespace: str, uid: str) -> str:
        """Return Kueue's message about the admission of a job; empty without one, or without the right."""
        for version in _KUEUE:
            path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/workloads"
            selector = f"kueue.x-k8s.io/job-uid={uid}"
            for workload in self._list(namespace, version, path, labelSelector=selector, limit=1):
                for condition in entries(mapping(workload.get("status")).get("conditions")):
                    if condition.get("type") == "QuotaReserved" and condition.get("status") == "False":
                        return sentence(condition)
        return ""

    def _list(self, namespace: str, kind: str, path: str, **query: object) -> list[Mapping[str, Any]]:
        key, now = (namespace, kind), self._clock()
        if now - self._refused.get(key, _LONG_AGO) < _ASK_AGAIN:
            return []
        try:
            return list(entries(self._api.list(path, **query).get("items")))
        except RequestFailed as error:
            # A missing reason must not fail the whole reconcile.
            if error.status in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
                self._refused[key] = now
            return []


def _last_seen(event: Mapping[str, Any]) -> str:
    series = mapping(event.get("series"))
    seen = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(str(each or "") for each in seen)
