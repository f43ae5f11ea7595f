"""Trials as jobs of the kind of the registered one: the backend of the controller.

The cluster is the database. A trial's parameters are in its own annotation, its result in the ledger's
ConfigMaps (a merge patch of one key, without read-modify-write), the answer on the job. The state of this
object is a cache, and losing it costs only requests: the followers of logs and, with `keeps_views`, the
objects that the last poll of a job read. The controller sets `keeps_views`, because its informers report when
a view is out of date (`forget_view`); a poll in between reads only logs and, once a minute, pods.

The chart's role allows every request; see `helm/autotuner/templates/role.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from autotuner import keys
from autotuner.backends.base import Backend, Observation, Study
from autotuner.backends.kubernetes.api import Api, RequestFailed, jobs_path
from autotuner.backends.kubernetes.assess import PodStatus
from autotuner.backends.kubernetes.checkpoints import Checkpoints
from autotuner.backends.kubernetes.events import emit
from autotuner.backends.kubernetes.ledger import Ledger
from autotuner.backends.kubernetes.logs import LogFollower
from autotuner.backends.kubernetes.pods import (
    entries,
    is_owned_by,
    name_of,
    queue_of,
    suggestion_of,
    uid_of,
)
from autotuner.backends.kubernetes.readers import find_study
from autotuner.backends.kubernetes.trials import TrialReader
from autotuner.errors import BackendError, Conflict, InvalidRecord, Refused
from autotuner.job.job import Job
from autotuner.job.kind import JobKind
from autotuner.job.lookup import mapping
from autotuner.job.trainjob_validation import MULTIKUEUE
from autotuner.job.trial_manifest import trial_manifest
from autotuner.spec import TuningSpec
from autotuner.status import Event, Status
from autotuner.study.hold_up import HoldUp
from autotuner.trial import Suggestion, Trial

PODS_KEPT: Final = timedelta(minutes=1)
"""How long pods that run are not read again. If a lost pod's replacement runs before the operator counts its
pods, the job's status stays the same, and no watch reports a change."""

_SHOWN_UNWRITTEN: Final = 400
"""Characters of a status that could not be written that its Event shows."""


@dataclass(slots=True)
class _View:
    """The result of the last poll of a job: its ledger, its trials by number, and their pods.

    `pods` and `read_at`, when they were read, are by the trial's name. `studies` are those of other jobs that
    its search starts from, by name. `deleted` are unfinished trials that somebody else has deleted since,
    until they are recorded. `is_stale` says that the trials may have changed since, `is_outdated` anything.
    """

    ledger: Ledger
    trials: dict[int, Mapping[str, Any]]
    pods: dict[str, list[PodStatus]] = field(default_factory=dict)
    read_at: dict[str, datetime] = field(default_factory=dict)
    studies: dict[str, Study | None] = field(default_factory=dict)
    deleted: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    is_stale: bool = False
    is_outdated: bool = False


class KubernetesBackend:
    """Runs trials on a cluster. Safe to use from many threads, one at a time for each job.

    Args:
        api: The API server.
        clock: Returns the current time, in UTC.
        start_patience: How long a trial may wait to start before the job's status says why.
        max_log_bytes: Maximum bytes of a log in one request.
        keeps_views: Whether `observe` and `study` may reuse their last results (not logs); see `forget_view`.
        on_record: Called with each trial as soon as the ledger has it, whatever fails after that.
    """

    def __init__(  # noqa: PLR0913 (the backend's settings)
        self,
        api: Api,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        start_patience: timedelta = timedelta(minutes=10),
        max_log_bytes: int = 1_048_576,
        keeps_views: bool = False,
        on_record: Callable[[Trial], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._on_record = on_record
        self._clock = clock
        self._reader = TrialReader(api, clock, start_patience=start_patience, max_log_bytes=max_log_bytes)
        self._checkpoints = Checkpoints(api)
        self._keeps_views = keeps_views
        self._views: dict[str, _View] = {}
        self._removed: set[str] = set()

    def forget_view(self, uid: str) -> None:
        """Make the next poll of a job read everything live."""
        view = self._views.get(uid)
        if view is not None:
            # The view still says which trials somebody else has deleted since.
            view.is_outdated = True

    def note_trial(self, kind: JobKind, trial: Mapping[str, Any]) -> None:
        """Take note of a trial that the watch has shown: its status may be replaced before it is read."""
        self._reader.pushes.note(kind, trial)

    def note_deleted(self, kind: JobKind, trial: Mapping[str, Any]) -> bool:
        """Take note that a trial is gone; return whether somebody else has deleted it."""
        uid = uid_of(trial)
        if self._has_removed(uid):
            self._reader.pushes.forget(uid)
            return False
        self._reader.pushes.note_deleted(kind, trial)
        return True

    def forget_trials(self, uid: str) -> None:
        """Make the next poll of a job read its trials live; the ledger has no other writer."""
        view = self._views.get(uid)
        if view is not None:
            view.is_stale = True

    def known_trials(self, job: Job) -> Collection[int]:
        """Return the numbers of a job's trials as of the last poll, and those that were started since."""
        view = self._views.get(job.uid)
        return () if view is None else view.trials.keys()

    def forget(self, uid: str) -> None:
        """Drop the cache of a job that is deleted or done."""
        self._views.pop(uid, None)
        self._reader.forget(uid)
        self._checkpoints.forget(uid)

    def _has_removed(self, uid: str) -> bool:
        """Return whether this process has deleted the trial with this UID; true only once."""
        try:
            self._removed.remove(uid)
        except KeyError:
            return False
        return True

    # --- the Protocol ----------------------------------------------------------------------------------

    def observe(self, job: Job, spec: TuningSpec) -> Observation:
        """Return the ledger's and the existing trials, with the logs of running ones read to their end.

        Raises:
            BackendError: If the cluster does not answer; Conflict, if the ledger's name is taken.
        """
        view = self._view(job)
        recorded, problems = view.ledger.trials()
        finished = {trial.number: trial for trial in recorded}
        unfinished = [manifest for number, manifest in view.trials.items() if number not in finished]
        now = self._clock()
        known = {name: pods for name, pods in view.pods.items() if now - view.read_at[name] < PODS_KEPT}
        read = self._reader.read_pods(job, unfinished, known)
        view.pods.update(read)
        view.read_at.update(dict.fromkeys(read, now))
        checkpoints = self._checkpoints.of(job) if unfinished else {}
        live: list[Trial] = []
        held_up: list[HoldUp] = []
        running: dict[int, LogFollower] = {}
        for number, manifest in sorted(view.trials.items()):
            if number in finished:
                live.append(finished[number])
                continue
            pods = view.pods.get(name_of(manifest), [])
            trial, held = self._reader.read(job, spec, manifest, pods, checkpoints.get(number))
            live.append(trial)
            follower = self._reader.follower(job, spec, manifest, pods)
            if trial.is_running and follower is not None:
                running[number] = follower
            held_up += [] if held is None else [held]
        for number, manifest in view.deleted.items():
            pods = view.pods.get(name_of(manifest), [])
            live.append(
                self._reader.read_deleted(job, spec, manifest, pods, self._checkpoints.of(job).get(number))
            )
        if running:
            self._checkpoints.keep(job, running, now)
        unrecorded = [*unfinished, *view.deleted.values()]
        pods = [pod for manifest in unrecorded for pod in view.pods.get(name_of(manifest), ())]
        self._reader.forget_others(job, {uid_of(manifest) for manifest in unrecorded}, pods)
        warnings = [*map(str, job.warnings), *self._reader.unreadable(job)]
        return Observation(recorded, live, problems, held_up, warnings)

    def start(self, job: Job, suggestion: Suggestion) -> None:
        """Create the trial's job.

        Raises:
            BackendError: If the cluster does not answer; Conflict, if the name is taken; Refused, if the
                cluster's rules forbid it.
        """
        manifest = trial_manifest(job, suggestion)
        created: Mapping[str, Any]
        try:
            created = self._api.create(_path(job), manifest)
            if not _is_trial_of(created, job, suggestion.number):
                # It could not be found again, and would run in parallel with its replacement.
                self._delete(job, name_of(created), uid_of(created))
                raise Refused(
                    f"the cluster changes the labels, annotations or owner of {name_of(created)} when it is"
                    " created, and its results could not be found: exempt trials from what changes them, such"
                    " as an admission webhook"
                )
        except RequestFailed as error:
            if error.is_refusal:
                raise Refused(str(error)) from error
            if not error.is_conflict:
                raise
            created = self._existing_trial(job, name_of(manifest), error)
        try:
            suggestion_of(created)
        except InvalidRecord as error:
            raise Conflict(
                f"{job.kind.name} {job.namespace}/{name_of(manifest)} is a trial of {job.name}, but its"
                f" annotation {keys.SUGGESTION} was removed or changed: delete it, and exempt trials from"
                " what changes them, such as an admission webhook"
            ) from error
        if _is_elsewhere(created):
            self._delete(job, name_of(created), uid_of(created))
            raise Refused(
                f"MultiKueue would run {name_of(created)} in another cluster, where its pods and logs cannot"
                f" be read: name a queue of this cluster in {keys.QUEUE}"
            )
        view = self._views.get(job.uid)
        if view is not None:
            view.trials[suggestion.number] = created

    def record(self, job: Job, trial: Trial) -> None:
        """Write a finished trial into the ledger ConfigMap."""
        view = self._views.get(job.uid)
        ledger = view.ledger if view is not None else Ledger.read(self._api, job)
        if ledger.write(trial):
            self._on_record(trial)

    def stop(self, job: Job, number: int) -> None:
        """Delete the trial's job; the garbage collector ends its pods."""
        view = self._views.get(job.uid)
        name = job.trial_name(number)
        known = view.trials if view is not None and not view.is_outdated else {}
        found = known.get(number) or self._find(job, name)
        if found is not None and _is_ours(found, job):
            self._delete(job, name, uid_of(found))
        if view is not None:
            view.trials.pop(number, None)
            if deleted := view.deleted.pop(number, None):
                self._reader.pushes.forget(uid_of(deleted))

    def publish(
        self, job: Job, status: Status, events: Sequence[Event], spec: Mapping[str, Any] | None = None
    ) -> None:
        """Patch the job's status annotations, and its spec if one is given; then emit the events.

        Status annotations that the new status lacks are removed.

        Raises:
            BackendError: If the cluster does not answer; Refused, if its rules forbid the new spec.
        """
        patch = _patch(job, status, spec)
        try:
            if patch:
                self._api.patch(_path(job, job.name), patch)
        except RequestFailed as error:
            if error.is_not_found:
                return
            if error.is_refusal and "spec" in patch:
                raise Refused(str(error)) from error
            if error.is_refusal:
                # Only an Event can tell the user: the rules for jobs do not apply to it.
                said = status.annotations.get(keys.MESSAGE, "")[:_SHOWN_UNWRITTEN]
                refused = f"the status cannot be written, will retry: {error}; it would be: {said}"
                emit(self._api, job, Event("Warning", "StatusRefused", refused), self._clock())
            raise
        for event in events:
            emit(self._api, job, event, self._clock())

    def apply(self, job: Job, answered: Mapping[str, Any]) -> None:
        """Create the job that runs the answer.

        Raises:
            Conflict: If its name is taken by another, or by the job of an earlier answer.
            Refused: If the cluster's rules forbid it.
        """
        try:
            self._api.create(_path(job), answered)
        except RequestFailed as error:
            if error.is_refusal:
                raise Refused(str(error)) from error
            if not error.is_conflict:
                raise
            self._check_answer(job, answered, error)

    def _check_answer(self, job: Job, answered: Mapping[str, Any], conflict: RequestFailed) -> None:
        name = name_of(answered)
        found, where = self._find(job, name), f"{job.kind.name} {job.namespace}/{name}"
        if found is None:
            raise conflict
        there, wanted = (mapping(mapping(o.get("metadata")).get("annotations")) for o in (found, answered))
        remedy = f"remove it, or set another name in {keys.PREFIX}apply-as"
        if there.get(keys.ANSWER_OF) != job.uid:
            raise Conflict(f"{where} exists, but does not run the answer of {job.name}: {remedy}")
        if there.get(keys.SUGGESTION) != wanted.get(keys.SUGGESTION):
            raise Conflict(f"{where} runs an earlier answer of {job.name}: {remedy}")

    def study(self, job: Job, name: str) -> Study | None:
        """Return the study of the job of this name in the same namespace.

        With `keeps_views` it is read once for each view of the given job.
        """
        view = self._views.get(job.uid) if self._keeps_views else None
        studies = {} if view is None else view.studies
        if name not in studies:
            studies[name] = find_study(self._api, job.namespace, name)
        return studies[name]

    def existing(self, job: Job) -> Sequence[int]:
        """Return the numbers of the job's trials."""
        return sorted(self._list_trials(job))

    # --- trials ----------------------------------------------------------------------------------------

    def _view(self, job: Job) -> _View:
        view = self._views.get(job.uid)
        if view is not None and self._keeps_views and (view.is_stale or view.is_outdated):
            view = self._views[job.uid] = self._after_changes(job, view)
        elif view is None or not self._keeps_views:
            # The trials first, so that one that is recorded and removed in between is in at least one of the
            # two.
            trials = self._list_trials(job)
            view = _View(Ledger.read(self._api, job), trials)
            self._views[job.uid] = view
        return view

    def _after_changes(self, job: Job, before: _View) -> _View:
        """Return the view of a job after its trials have changed, or anything else."""
        listed = self._list(job)
        trials, ledger = _trials_of(job, listed), before.ledger
        # `stop` removes a trial from the view, so another one has deleted these. One whose annotation was
        # removed is still there.
        there = {uid_of(each) for each in listed}
        known = {**before.trials, **before.deleted}
        deleted = {number: each for number, each in known.items() if uid_of(each) not in there}
        if deleted or before.is_outdated:
            # It may have been a controller that has lost the lease meanwhile.
            ledger = Ledger.read(self._api, job)
        if deleted:
            finished = {trial.number for trial in ledger.trials()[0]}
            deleted = {number: each for number, each in deleted.items() if number not in finished}
        pods = {name_of(each): before.pods.get(name_of(each), []) for each in deleted.values()}
        read_at = dict.fromkeys(pods, self._clock())
        studies = {} if before.is_outdated else before.studies
        return _View(ledger, trials, pods, read_at, studies, deleted)

    def _list_trials(self, job: Job) -> dict[int, Mapping[str, Any]]:
        return _trials_of(job, self._list(job))

    def _list(self, job: Job) -> list[Mapping[str, Any]]:
        found = self._api.list(_path(job), labelSelector=f"{keys.TRIAL_JOB_UID}={job.uid}")
        return list(entries(found.get("items")))

    def _existing_trial(self, job: Job, name: str, conflict: RequestFailed) -> Mapping[str, Any]:
        """Return the object that has the name of a trial, for which a request to create it was a conflict."""
        found = self._find(job, name)
        if found is None:
            # It is deleted since; or the conflict is with something else, such as a quota or a webhook.
            raise conflict
        if not _is_ours(found, job):
            raise Conflict(
                f"{job.kind.name} {job.namespace}/{name} exists, but is not a trial of {job.name}:"
                " remove or rename it, because the trial needs its name"
            )
        if "deletionTimestamp" in mapping(found.get("metadata")):
            raise BackendError(f"{job.kind.name} {name} is being deleted; will retry")
        return found

    def _find(self, job: Job, name: str) -> Mapping[str, Any] | None:
        try:
            return self._api.get(_path(job, name))
        except RequestFailed as error:
            if error.is_not_found:
                return None
            raise

    def _delete(self, job: Job, name: str, uid: str) -> None:
        if self._keeps_views:
            self._removed.add(uid)
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            self._api.delete(_path(job, name), options)
        except RequestFailed as error:
            if not error.is_not_found:
                self.forget_view(job.uid)
                raise


def _is_elsewhere(trial: Mapping[str, Any]) -> bool:
    """Return whether Kueue has assigned a trial to MultiKueue, as it does where the trial's queue says so."""
    spec = mapping(trial.get("spec"))
    return MULTIKUEUE in {spec.get("managedBy"), mapping(spec.get("runPolicy")).get("managedBy")}


def _patch(job: Job, status: Status, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the merge patch that publishes a status and, if given, a new spec; empty if nothing changes."""
    changes = status_changes(job.annotations, status.annotations)
    # With the answer the job enters the queue of its trials, which admits it.
    queue = job.annotations.get(keys.QUEUE, "") if spec is not None else ""
    is_moved = bool(queue) and queue != queue_of(job.manifest)
    is_spec_new = spec is not None and (spec != job.manifest.get("spec") or is_moved)
    if not changes and not is_spec_new:
        return {}
    metadata: dict[str, Any] = {
        # A job that was deleted and created again under its name is another job: the API server checks this.
        "uid": job.uid,
        # The status is written as a whole: another controller may have written another one meanwhile.
        "annotations": {**changes, **status.annotations} if changes else {},
    }
    patch: dict[str, Any] = {"metadata": metadata}
    if spec is not None and is_spec_new:
        # The spec is a copy of what was read: it is written only if the job has not changed since.
        metadata["resourceVersion"] = mapping(job.manifest.get("metadata")).get("resourceVersion")
        patch["spec"] = dict(spec)
        if is_moved:
            metadata["labels"] = {keys.QUEUE_LABEL: queue}
    return patch


def status_changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """Return the status annotations to write; None removes one.

    The cost in the answer grows every second while trials run, and the probability of a larger batch changes
    with each measurement: a change of these alone is not written.
    """
    ours = {key: value for key, value in before.items() if key.startswith(keys.STATUS_PREFIX)}
    changes: dict[str, str | None] = {key: None for key in ours if key not in after}
    changes |= {key: value for key, value in after.items() if ours.get(key) != value}
    if all(
        key in {keys.ANSWER, keys.CANDIDATE} and _lasting(ours.get(key)) == _lasting(after.get(key))
        for key in changes
    ):
        return {}
    return changes


def _lasting(answer: str | None) -> object:
    try:
        fields = json.loads(answer or "")
    except (ValueError, RecursionError):
        return None
    moving = {"gpu_hours": None, "probability_larger": None}
    return {**fields, **moving} if isinstance(fields, dict) else fields


def _path(job: Job, name: str | None = None) -> str:
    return jobs_path(job.namespace, name, job.kind)


def _trials_of(job: Job, listed: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return the job's trials by number."""
    trials: dict[int, Mapping[str, Any]] = {}
    for item in listed:
        # Anyone can copy labels; a trial also has the owner and the name.
        try:
            suggestion = suggestion_of(item)
        except InvalidRecord:
            continue
        if _is_ours(item, job) and name_of(item) == job.trial_name(suggestion.number):
            trials[suggestion.number] = item
    return trials


def _is_ours(manifest: Mapping[str, Any], job: Job) -> bool:
    labels = mapping(mapping(manifest.get("metadata")).get("labels"))
    return labels.get(keys.TRIAL_JOB_UID) == job.uid and is_owned_by(manifest, job.uid)


def _is_trial_of(manifest: Mapping[str, Any], job: Job, number: int) -> bool:
    try:
        return _is_ours(manifest, job) and suggestion_of(manifest).number == number
    except InvalidRecord:
        return False


_: type[Backend] = KubernetesBackend
