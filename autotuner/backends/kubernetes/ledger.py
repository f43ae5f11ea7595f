"""The ledger of one job: ConfigMaps with one key per trial.

A merge patch writes one key, if the ConfigMap has not changed since it was read: another controller, such as
one that has lost its lease, may have recorded the trial. The ConfigMaps are owned by the job, and are deleted
with it.

A ConfigMap holds at most 1 MiB. A full one, `<job>-tuning`, is continued in `<job>-tuning-1`, and so on. The
role does not allow listing ConfigMaps, so each names its successor in an annotation, which is written before
the successor is created: after a crash between the two, a missing successor counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from autotuner import keys
from autotuner.backends.kubernetes.api import Api, RequestFailed, core_path
from autotuner.backends.kubernetes.pods import entries, is_owned_by
from autotuner.errors import BackendError, Conflict, Unwritable
from autotuner.job.job import Job
from autotuner.job.lookup import mapping
from autotuner.study.ledger import CAPACITY, MAX_POINTS, decode_ledger, encode_trial, size
from autotuner.trial import Trial

FEWER_POINTS: Final = 50
"""Maximum measurements of an entry after the first ConfigMap, because etcd must hold thousands of trials."""
_MAX_SHARDS: Final = 256
_TOO_LARGE: Final = frozenset({413, 422})


class Ledger:
    """A job's ledger as it was last read; `write` keeps it up to date."""

    def __init__(self, shards: list[_Shard]) -> None:
        self._shards = shards
        self._trials: tuple[list[Trial], list[str]] | None = None

    @classmethod
    def read(cls, api: Api, job: Job) -> Self:
        """Read a job's ledger; one that does not exist yet is empty.

        Raises:
            Conflict: If a ConfigMap with one of its names belongs to another owner.
        """
        shards = [_Shard.read(api, job, 0)]
        while shards[-1].is_continued and len(shards) < _MAX_SHARDS:
            shards.append(_Shard.read(api, job, len(shards)))
        return cls(shards)

    def trials(self) -> tuple[list[Trial], list[str]]:
        """Return the finished trials by number, and messages about unreadable entries."""
        if self._trials is None:
            entries = {key: text for shard in reversed(self._shards) for key, text in shard.data.items()}
            self._trials = decode_ledger(entries)
        return self._trials

    def write(self, trial: Trial) -> bool:
        """Record a finished trial; an existing record is not changed, unless it cannot be read.

        Return whether it was recorded now.

        Raises:
            Unwritable: If the cluster refuses the entry as too large, however short its curve.
        """
        key = keys.ledger_key(trial.number)
        holder = next((shard for shard in self._shards if key in shard.data), None)
        if holder is not None:
            return self._rewrite_unreadable(holder, trial)
        refused: RequestFailed | None = None
        while True:
            shard = self._shards[-1]
            points = MAX_POINTS if shard.number == 0 else FEWER_POINTS
            entry = {key: encode_trial(trial, points=points)}
            if size(shard.data) + size(entry) <= CAPACITY:
                try:
                    shard.write(entry)
                except RequestFailed as error:
                    # Entries of others leave no room.
                    if error.status not in _TOO_LARGE:
                        raise
                    refused = error
                else:
                    self._note(entry)
                    return True
            if not shard.exists or len(self._shards) == _MAX_SHARDS:
                raise Unwritable(f"the ledger cannot take trial {trial.number}: {refused}") from refused
            try:
                self._shards.append(shard.successor())
            except RequestFailed as error:
                if error.status not in _TOO_LARGE:
                    raise
                raise Unwritable(f"the ledger cannot take trial {trial.number}: {error}") from error

    def _rewrite_unreadable(self, holder: _Shard, trial: Trial) -> bool:
        """Replace an entry that cannot be read: its trial may have run again under its number."""
        if any(trial.number == recorded.number for recorded in self.trials()[0]):
            return False
        holder.write({keys.ledger_key(trial.number): encode_trial(trial, points=FEWER_POINTS)})
        self._trials = None
        return True

    def _note(self, entry: Mapping[str, str]) -> None:
        if self._trials is not None:
            (trials, problems), (new, wrong) = self._trials, decode_ledger(entry)
            self._trials = sorted([*trials, *new], key=lambda trial: trial.number), [*problems, *wrong]


class _Shard:
    """One ConfigMap."""

    def __init__(self, api: Api, job: Job, number: int, found: Mapping[str, Any] | None) -> None:
        self._api = api
        self._job = job
        self.number = number
        self._name = keys.ledger_name(job.name, number)
        self.data: dict[str, str] = {}
        self.exists = False
        self.is_continued = False
        self._version: str | None = None
        self._take(found)

    @classmethod
    def read(cls, api: Api, job: Job, number: int) -> Self:
        return cls(api, job, number, find(api, job, keys.ledger_name(job.name, number)))

    def successor(self) -> _Shard:
        """Name the next ConfigMap in this one, and read it; usually it does not exist yet."""
        annotations = {keys.LEDGER_SUCCESSOR: keys.ledger_name(self._job.name, self.number + 1)}
        if not self.is_continued:
            self._patch({"metadata": {"annotations": annotations}})
            self.is_continued = True
        return _Shard.read(self._api, self._job, self.number + 1)

    def write(self, changes: Mapping[str, str]) -> None:
        """Write keys; RequestFailed is raised if they are too large, or if others have written meanwhile."""
        if not self.exists:
            try:
                self._create(changes)
            except RequestFailed as error:
                if not error.is_conflict:
                    raise
                # Created since the last read: check the owner before writing into it.
                self._take(find(self._api, self._job, self._name))
            else:
                self._note(changes)
                return
        try:
            self._patch({"data": dict(changes)})
        except RequestFailed as error:
            if not error.is_not_found:
                raise
            # Deleted by hand: write all known entries again.
            self._create({**self.data, **changes})
        self._note(changes)

    def _note(self, changes: Mapping[str, str]) -> None:
        self.data |= changes
        self.exists = True

    def _patch(self, patch: Mapping[str, Any]) -> None:
        metadata = {**mapping(patch.get("metadata")), "resourceVersion": self._version}
        self._note_version(self._api.patch(self._path, {**patch, "metadata": metadata}))

    def _note_version(self, found: Mapping[str, Any] | None) -> None:
        version = mapping((found or {}).get("metadata")).get("resourceVersion")
        self._version = None if version is None else str(version)

    def _take(self, found: Mapping[str, Any] | None) -> None:
        self.exists = found is not None
        self._note_version(found)
        content = found or {}
        self.data = {str(key): str(value) for key, value in mapping(content.get("data")).items()}
        annotations = mapping(mapping(content.get("metadata")).get("annotations"))
        self.is_continued = keys.LEDGER_SUCCESSOR in annotations

    @property
    def _path(self) -> str:
        return core_path(self._job.namespace, "configmaps", self._name)

    def _create(self, data: Mapping[str, str]) -> None:
        job = self._job
        manifest = config_map(job, self._name, data)
        if self.is_continued:
            successor = keys.ledger_name(job.name, self.number + 1)
            manifest["metadata"]["annotations"] = {keys.LEDGER_SUCCESSOR: successor}
        self._note_version(self._api.create(core_path(job.namespace, "configmaps"), manifest))


def config_map(job: Job, name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """Return a ConfigMap that is owned by the job."""
    metadata = {
        "name": name,
        "namespace": job.namespace,
        "labels": {"app.kubernetes.io/managed-by": "autotuner"},
        "ownerReferences": [job.owner_reference],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def find(api: Api, job: Job, name: str) -> Mapping[str, Any] | None:
    """Return a ConfigMap of the job; None if it does not exist.

    Raises:
        Conflict: If it belongs to another owner.
        BackendError: If it belongs to an earlier job of this name, or the cluster does not answer.
    """
    try:
        found = api.get(core_path(job.namespace, "configmaps", name))
    except RequestFailed as error:
        if error.is_not_found:
            return None
        raise
    if not is_owned_by(found, job.uid):
        owners = entries(mapping(found.get("metadata")).get("ownerReferences"))
        kinds = [owner.get("kind") for owner in owners if owner.get("name") == job.name]
        if job.kind.name in kinds:
            raise BackendError(
                f"ConfigMap {job.namespace}/{name} is of an earlier {job.kind.name} {job.name}, and is"
                " deleted by the cluster's garbage collector"
            )
        if kinds:
            raise Conflict(
                f"ConfigMap {job.namespace}/{name} has the results of {kinds[0]} {job.name}: two jobs of one"
                " name cannot both be tuned, so give one of them another name"
            )
        raise Conflict(
            f"ConfigMap {job.namespace}/{name} exists, but does not belong to this job (UID {job.uid}):"
            " remove or rename it, because the results need its name"
        )
    return found
