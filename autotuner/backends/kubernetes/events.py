"""Events on a job: `kubectl describe` shows them.

An Event's name is a hash of its content, so that emitting it twice (for example after a crash between the
status and its event) increases the count of one Event instead of creating a second one. The count is in the
answer to the patch, so no Event has to be read.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.job.job import Job
from autotuner.status import Event

_COMPONENT: Final = "autotuner"
_MAX_NAME: Final = 63
_MAX_MESSAGE: Final = 1024


def emit(api: Api, job: Job, event: Event, now: datetime) -> None:
    """Write an event onto a job."""
    digest = hashlib.sha256(f"{job.uid}\0{event.reason}\0{event.message}".encode()).hexdigest()[:16]
    name = f"{job.name[:_MAX_NAME]}.{digest}"
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": job.kind.api_version,
            "kind": job.kind.name,
            "name": job.name,
            "namespace": job.namespace,
            "uid": job.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_MAX_MESSAGE],
        "source": {"component": _COMPONENT},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
    try:
        api.create(core_path(job.namespace, "events"), body)
    except RequestFailed as error:
        if not error.is_conflict:
            raise
        path = core_path(job.namespace, "events", name)
        count = api.patch(path, {"lastTimestamp": stamp}).get("count")
        api.patch(path, {"count": count + 1 if isinstance(count, int) else 2})
