"""Read the cluster's explanation of a hold-up: Events, and Kueue's Workload.

Only Events say why no pod is created (a quota, a webhook) and why a volume is not mounted. The chart grants
the right to list both; without it, hold-ups are reported without the text of Events, and the text says how
the user reads Kueue's Workload.
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
        self._refused: dict[tuple[str, str], tuple[datetime, int]] = {}

    def warning(self, namespace: str, uid: str = "", *, name: str = "") -> str:
        """Return the newest Warning Event on an object, by its UID or its name; empty without one."""
        which = f"uid={uid}" if uid else f"name={name}"
        selector = f"involvedObject.{which},type=Warning"
        found, _ = self._list(
            namespace, "events", core_path(namespace, "events"), fieldSelector=selector, limit=_MOST_EVENTS
        )
        return sentence(max(found, key=_last_seen)) if found else ""

    def admission(self, namespace: str, uid: str, integration: str = "") -> str:
        """Return Kueue's message about the admission of a job, or how to find it.

        `integration` is Kueue's name for the kind of a job with a queue. It is empty for a job without a
        queue, which something other than Kueue may have suspended.
        """
        selector, codes = f"kueue.x-k8s.io/job-uid={uid}", set[int]()
        for version in _KUEUE:
            path = f"/apis/kueue.x-k8s.io/{version}/namespaces/{namespace}/workloads"
            found, code = self._list(namespace, version, path, labelSelector=selector, limit=1)
            if found:
                return _admission(mapping(found[0].get("status")))
            codes.add(code)
        if not integration:
            return ""
        if HTTPStatus.FORBIDDEN in codes:
            return f"for the reason: kubectl describe workloads -n {namespace} -l {selector}"
        if codes == {HTTPStatus.NOT_FOUND}:
            return "the cluster has no Kueue"
        if codes <= {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            remedy = f"{integration} must be in its integrations.frameworks, and a priority class must exist"
            return f"Kueue has made no Workload for it: {remedy}"
        return ""

    def _list(
        self, namespace: str, kind: str, path: str, limit: int, **selector: str
    ) -> tuple[list[Mapping[str, Any]], int]:
        """Return the items, and the code of the answer, which may be an earlier refusal; 0 without one."""
        key, now = (namespace, kind), self._clock()
        refused_at, code = self._refused.get(key, (_LONG_AGO, 0))
        if now - refused_at < _ASK_AGAIN:
            return [], code
        try:
            return list(entries(self._api.list(path, limit=limit, **selector).get("items"))), HTTPStatus.OK
        except RequestFailed as error:
            # A missing reason must not fail the whole reconcile.
            if error.status in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
                self._refused[key] = now, error.status
            return [], error.status


def _admission(status: Mapping[str, Any]) -> str:
    """Return what keeps the job of a Workload suspended, from the Workload's status."""
    conditions = {str(each.get("type")): each for each in entries(status.get("conditions"))}
    # Kueue gives up a job that it cannot start, and the job stays suspended.
    for kind, holds in (("Finished", "True"), ("QuotaReserved", "False")):
        condition = conditions.get(kind, {})
        if condition.get("status") == holds:
            return sentence(condition)
    waiting = (check for check in entries(status.get("admissionChecks")) if check.get("state") != "Ready")
    check = next(waiting, None)
    if check is None:
        return ""
    said = {"reason": check.get("state"), "message": check.get("message")}
    return f"admission check {check.get('name')} is {sentence(said)}"


def _last_seen(event: Mapping[str, Any]) -> str:
    series = mapping(event.get("series"))
    seen = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(str(each or "") for each in seen)
