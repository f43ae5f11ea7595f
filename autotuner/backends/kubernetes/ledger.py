"""The ledger ConfigMap of one job.

A key a trial, written by a merge patch of that key alone: twice does no harm, and nothing is read to be
written back. The ConfigMap belongs to its job by ownerReference, and goes with it. It holds at most 1 MiB:
before it is full, curves lose points and results stay (`autotuner.ledger.thinned`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.backends.kubernetes.pods import is_owned_by, mapping
from autotuner.errors import Conflict, Unwritable
from autotuner.job.job import Job
from autotuner.study.ledger import CAPACITY, decode_ledger, encode_trial, thinned
from autotuner.trial import Trial

_TOO_LARGE: Final = frozenset({413, 422})


class Ledger:
    """A job's ledger as it was last read; `write` keeps it up to date."""

    def __init__(self, api: Api, job: Job, data: Mapping[str, str] | None) -> None:
        self._api = api
        self._job = job
        self._exists = data is not None
        self._data = dict(data or {})
        self._trials: tuple[list[Trial], list[str]] | None = None

    @classmethod
    def read(cls, api: Api, job: Job) -> Self:
        """Read a job's ledger; one that does not exist yet is empty.

        Raises:
            Conflict: If the ConfigMap of that name belongs to somebody else.
        """
        name = keys.ledger_name(job.name)
        try:
            found = api.get(core_path(job.namespace, "configmaps", name))
        except RequestFailed as error:
            if error.is_not_found:
                return cls(api, job, None)
            raise
        if not is_owned_by(found, job.uid):
            raise Conflict(
                f"ConfigMap {job.namespace}/{name} exists, and does not belong to this job (UID {job.uid}):"
                " remove or rename it, for the results need its name"
            )
        return cls(api, job, {str(key): str(value) for key, value in mapping(found.get("data")).items()})

    def trials(self) -> tuple[list[Trial], list[str]]:
        """Return the finished trials by number, and what is wrong with entries that cannot be read."""
        if self._trials is None:
            self._trials = decode_ledger(self._data)
        return self._trials

    def write(self, trial: Trial) -> None:
        """Record a finished trial; one that is recorded already stays as it is.

        Raises:
            Unwritable: If the ledger stays too large, however short its curves.
        """
        key = keys.ledger_key(trial.number)
        if key in self._data:
            return
        entry = {key: encode_trial(trial)}
        capacity = CAPACITY
        while True:
            changes = {**entry, **thinned({**self._data, **entry}, capacity)}
            try:
                self._patch(changes)
            except RequestFailed as error:
                if error.status not in _TOO_LARGE:
                    raise
                # Somebody else's keys may stand in it too: make room for them.
                capacity //= 2
                if capacity < CAPACITY // 16:
                    raise Unwritable(f"the ledger cannot take trial {trial.number}: {error}") from error
                continue
            self._data |= changes
            self._exists = True
            self._trials = None
            return

    def _patch(self, changes: Mapping[str, str]) -> None:
        name = keys.ledger_name(self._job.name)
        path = core_path(self._job.namespace, "configmaps", name)
        if not self._exists:
            try:
                self._api.create(core_path(self._job.namespace, "configmaps"), self._manifest(name, changes))
            except RequestFailed as error:
                if not error.is_conflict:
                    raise
                # Made since it was looked for: it must be ours before anything is written into it.
                Ledger.read(self._api, self._job)
            else:
                return
        try:
            self._api.patch(path, {"data": dict(changes)})
        except RequestFailed as error:
            if not error.is_not_found:
                raise
            # Deleted by hand: what is known of it is written again, whole.
            whole = {**self._data, **changes}
            self._api.create(core_path(self._job.namespace, "configmaps"), self._manifest(name, whole))

    def _manifest(self, name: str, data: Mapping[str, str]) -> dict[str, Any]:
        job = self._job
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": job.namespace,
                "labels": {"app.kubernetes.io/managed-by": "autotuner"},
                "ownerReferences": [job.owner_reference],
            },
            "data": dict(data),
        }
