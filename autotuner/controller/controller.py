"""Reconcile jobs when something changes on the cluster, and at intervals.

A change of a job, or of one of its trials, marks what changed and queues the job; the reconcile reads that
live before it acts. While trials run, a reconcile every `poll_seconds` reads their logs, once a minute their
pods too, and reuses what was read of everything else, because the watches would have reported a change.
Whatever the watches report, every job that is not settled is read live again after `resync_seconds`.

Nothing here has to survive a restart: the first list of the watches queues every registered job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import structlog

from autotuner import keys
from autotuner.backends.kubernetes import Api, KubernetesBackend, RequestFailed
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.backends.kubernetes.backend import status_changes
from autotuner.backends.kubernetes.cluster_kind import on_cluster
from autotuner.backends.kubernetes.pods import entries
from autotuner.backends.kubernetes.readers import job_of, unread_job
from autotuner.controller.metrics import Metrics
from autotuner.controller.trial_slots import TrialSlots
from autotuner.controller.work_queue import WorkQueue
from autotuner.decide.decision import Phase
from autotuner.errors import BackendError, InvalidJob
from autotuner.job.job import Job
from autotuner.job.kind import JobKind
from autotuner.job.kinds import KINDS, with_plural
from autotuner.job.lookup import mapping, sequence
from autotuner.reconcile import Reconciliation, is_settled, reconcile, withdraw
from autotuner.status import MAX_MESSAGE, Event, Status, describe_invalid, events
from autotuner.trial import Suggestion, Trial

_REPORTED_AFTER: Final = 3
"""Failures in a row after which the job's status shows the error."""
_UNEXPECTED: Final = "a fault of the autotuner: please report it with the controller's log"
_DELETED: Final = "DELETED"
_ORPHAN: Final = "orphan"
"""The finalizer of a job that is deleted without what it owns (`kubectl delete --cascade=orphan`)."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """What the last reconcile of a job knew, and when all of it was read live."""

    job: Job
    read_at: float
    idle_polls: int = 0
    running: Sequence[Trial] = ()


class Controller:
    """Reconciles registered jobs. Its handlers and `work` may be called from many threads.

    Args:
        api: The API server.
        backend: Where trials run; it caches views, which this object drops when they are out of date.
        metrics: The metrics to update.
        max_parallel_trials: Trials that may run at once over all jobs; None: any number.
        poll_seconds: Pause between two polls of the logs of a job's running trials.
        resync_seconds: Pause between two live reads of a job that is not settled.
        kinds: The kinds of jobs that are tuned.
        clock: Returns the current time, in UTC.
        ticks: Returns seconds of a monotonic clock.
    """

    def __init__(  # noqa: PLR0913 (the controller's parts)
        self,
        api: Api,
        backend: KubernetesBackend,
        metrics: Metrics,
        *,
        max_parallel_trials: int | None,
        poll_seconds: float,
        resync_seconds: float,
        kinds: Sequence[JobKind] = KINDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = WorkQueue(ticks)
        metrics.queue_depth.set_function(lambda: len(self.queue))
        self._api = api
        self._backend = backend
        self._metrics = metrics
        self._slots = TrialSlots(max_parallel_trials, self.queue.add)
        self._is_capped = max_parallel_trials is not None
        self._poll_seconds = poll_seconds
        self._resync_seconds = resync_seconds
        self._kinds = kinds
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._changed_jobs: set[str] = set()
        self._changed_trials: set[str] = set()
        self._job_marks: dict[str, tuple[object, bool]] = {}
        self._trial_marks: dict[str, tuple[bool, bool, bool]] = {}
        self._known: dict[str, _Known] = {}

    # --- triggers --------------------------------------------------------------------------------------

    def on_job(self, kind: JobKind, change: str, changed: Mapping[str, Any]) -> None:
        """Record a change of a job, of which `changed` has the metadata.

        Our own writes of status also arrive as changes, and are ignored. A status that somebody has removed,
        as `kubectl replace` does, is written again.
        """
        metadata = mapping(changed.get("metadata"))
        key = _key(kind, metadata.get("namespace"), metadata.get("name"))
        if change == _DELETED:
            if self._job_marks.pop(key, None) is not None:
                self._note(key, self._changed_jobs)
            return
        annotations = mapping(metadata.get("annotations"))
        if not _is_registered(metadata) and key not in self._job_marks:
            return
        theirs = {k: v for k, v in annotations.items() if not k.startswith(keys.STATUS_PREFIX)}
        names = ("uid", "generation", "deletionTimestamp", "labels")
        mark = (*(metadata.get(name) for name in names), theirs)
        before, has_status = self._job_marks.get(key), keys.PHASE in annotations
        self._job_marks[key] = mark, has_status
        is_status_lost = before == (mark, True) and not has_status and keys.TARGET in annotations
        if before is None or before[0] != mark or is_status_lost:
            self._note(key, self._changed_jobs)

    def on_trial(self, kind: JobKind, change: str, trial: Mapping[str, Any]) -> None:
        """Record a change of a trial: its admission, its start and end, and its removal.

        Admission and start can wait for the next poll, which reads their times from the pods. A job that was
        made from the manifest of a trial, and registered, has a trial's labels and is treated as a job: its
        status says so.
        """
        metadata = mapping(trial.get("metadata"))
        if _is_registered(metadata):
            self.on_job(kind, change, trial)
            return
        name = _key(kind, metadata.get("namespace"), metadata.get("name"))
        owner = _owner_of(metadata, kind)
        if owner is None:
            # Orphaned with its job's deletion, or a copy that somebody runs.
            self._slots.release(name)
            return
        key = _key(kind, metadata.get("namespace"), owner)
        if change == _DELETED:
            self._trial_marks.pop(name, None)
            if self._backend.note_deleted(kind, trial):
                self._note(key, self._changed_trials)
            self._slots.release(name)
            return
        self._backend.note_trial(kind, trial)
        conditions = on_cluster(kind).read_conditions(trial)
        has_ended = conditions.has_succeeded or conditions.has_failed
        mark = (has_ended, on_cluster(kind).has_begun(trial), conditions.is_suspended)
        before = self._trial_marks.get(name, (False, False, conditions.is_suspended))
        self._trial_marks[name] = mark
        if has_ended:
            self._slots.release(name)
        else:
            self._slots.occupy(name)
        if mark != before:
            has_begun = mark[:2] == (False, True)
            is_admitted = before[2] and not conditions.is_suspended
            can_wait = has_begun or (is_admitted and not has_ended)
            self._note(key, self._changed_trials, after=self._poll_seconds if can_wait else 0.0)

    def _note(self, key: str, changed: set[str], after: float = 0.0) -> None:
        with self._lock:
            changed.add(key)
        self.queue.add(key, after)

    def begin(self, namespaces: tuple[str, ...]) -> None:
        """Read which trials hold a slot, once, before the first reconcile.

        Raises:
            BackendError: If the cluster does not answer.
        """
        if not self._is_capped:
            return
        for kind in self._kinds:
            for namespace in namespaces or (None,):
                for item in self._trials(kind, namespace):
                    conditions = on_cluster(kind).read_conditions(item)
                    metadata = mapping(item.get("metadata"))
                    has_ended = conditions.has_succeeded or conditions.has_failed
                    is_trial = _owner_of(metadata, kind) is not None and not _is_registered(metadata)
                    if is_trial and not has_ended:
                        self._slots.occupy(_key(kind, metadata.get("namespace"), metadata.get("name")))

    def _trials(self, kind: JobKind, namespace: str | None) -> list[Mapping[str, Any]]:
        """Return the trials of a kind; none where the cluster does not serve it."""
        try:
            found = self._api.list(jobs_path(namespace, kind=kind), labelSelector=keys.TRIAL_JOB_UID)
        except RequestFailed as error:
            if error.is_not_found:
                return []
            raise
        return list(entries(found.get("items")))

    def running(self, job: Job) -> Sequence[Trial]:
        """Return the running trials of a job, as the last reconcile in this process read them."""
        known = self._known.get(_key(job.kind, job.namespace, job.name))
        return () if known is None else known.running

    # --- work ------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Reconcile keys until the queue is closed; the body of a thread."""
        while self.work_once():
            pass

    def work_once(self) -> bool:
        """Wait for a key and reconcile it; return whether there may be another."""
        key = self.queue.take()
        if key is not None:
            self._attempt(key)
        return key is not None

    def _attempt(self, key: str) -> None:
        """Reconcile once; on any error the key is queued again and the thread continues."""
        log = _log.bind(job=key)
        began = self._ticks()
        try:
            seen = self._reconcile(key)
        except Exception as error:  # no one would take over the jobs of a dead thread
            self._metrics.reconcile_errors.inc()
            with self._lock:
                self._changed_jobs.add(key)
                self._changed_trials.add(key)
            self._slots.pass_over(key)
            at_least = error.retry_after if isinstance(error, RequestFailed) else 0.0
            count, delay = self.queue.fail(key, at_least)
            is_ordinary = isinstance(error, BackendError)
            log.warning(
                "reconcile_failed", error=str(error), attempt=count, retry_in=delay, exc_info=not is_ordinary
            )
            if count >= _REPORTED_AFTER:
                said = str(error) if is_ordinary else f"{type(error).__name__}: {error} ({_UNEXPECTED})"
                self._report(key, said, began)
            return
        finally:
            self._metrics.reconcile_seconds.observe(self._ticks() - began)
        self.queue.done(key)
        if seen is not None:
            log.info("reconciled", **_summary(seen), seconds=round(self._ticks() - began, 4))

    def _reconcile(self, key: str) -> Reconciliation | None:
        """Reconcile one job; None if it is no longer registered, or gone."""
        with self._lock:
            is_job_changed, are_trials_changed = key in self._changed_jobs, key in self._changed_trials
            self._changed_jobs.discard(key)
            self._changed_trials.discard(key)
        known = self._known.get(key)
        if known is None or is_job_changed or self._ticks() - known.read_at >= self._resync_seconds:
            known = self._read(key)
            if known is None:
                return None
        elif are_trials_changed:
            self._backend.forget_trials(known.job.uid)
        now = self._clock()
        job = known.job
        if are_trials_changed and is_settled(job) and job.annotations.get(keys.PHASE) != Phase.INVALID:
            # A start that seemed to have failed, or that of an earlier leader, may have come after the end.
            withdraw(self._backend, job)
        admitted: list[str] = []
        try:
            seen = reconcile(self._backend, job, now, lambda s: self._admit(key, job, s, admitted))
        except Exception:
            # It may be that only the status could not be written.
            started = {self._trial_key(job, number) for number in self._backend.known_trials(job)}
            self._release_unstarted([name for name in admitted if name not in started])
            raise
        self._release_unstarted(admitted[len(seen.started) :])
        self._metrics.note_phase(key, str(seen.status.phase))
        self._metrics.note_held_up(key, [str(held.reason) for held in seen.held_up])
        if not seen.put_off:
            self._slots.leave(key)
        self._plan(key, known, seen)
        return seen

    def _read(self, key: str) -> _Known | None:
        """Read a job live; clean up and return None if it is no longer to be tuned."""
        kind, namespace, name = _parts(key)
        before = self._known.get(key)
        try:
            manifest = self._api.get(jobs_path(namespace, name, kind))
        except RequestFailed as error:
            # Together with a namespace, the role that allows to read in it is deleted.
            is_out_of_reach = error.status == HTTPStatus.FORBIDDEN and key not in self._job_marks
            if not error.is_not_found and not is_out_of_reach:
                raise
            self._forget(key)  # garbage collection removes its trials and its ledger
            if key in self._job_marks:
                # The watch has it, so it may be there: its kind is being installed again, for instance.
                self.queue.add(key, after=self._resync_seconds)
            return None
        job = unread_job(kind, manifest, namespace)
        is_withdrawn = job.is_deleted or not job.is_registered
        try:
            job = job_of(self._api, manifest, namespace)
        except InvalidJob as error:
            if not is_withdrawn:
                self._reject(key, job, error)
                return None
        except RequestFailed:
            if not is_withdrawn:
                # Its training runtime cannot be read: the status can say so.
                self._known[key] = _Known(job, self._ticks())
                raise
        if before is not None and before.job.uid != job.uid:
            self._backend.forget(before.job.uid)
        self._backend.forget_view(job.uid)
        if is_withdrawn:
            self._withdraw(key, job)
            return None
        known = _Known(job, self._ticks())
        self._known[key] = known
        return known

    def _withdraw(self, key: str, job: Job) -> None:
        """Stop the trials of a job that is being deleted, or is no longer registered."""
        # Somebody's finalizer may keep a deleted job for long, and its trials run as long as it is there.
        if _ORPHAN not in sequence(mapping(job.manifest.get("metadata")).get("finalizers")):
            withdraw(self._backend, job)
        if not job.is_deleted:
            self._backend.publish(job, Status({}), ())
        self._backend.forget(job.uid)
        self._forget(key)
        _log.info("withdrawn", job=key)

    def _reject(self, key: str, job: Job, error: InvalidJob) -> None:
        """Report on a job that cannot be parsed although the operator's webhook accepted it."""
        self._forget(key)
        status = describe_invalid(error, job.annotations, job.fingerprint)
        self._backend.publish(job, status, events(job.annotations, status))
        self._metrics.note_phase(key, str(status.phase))
        _log.info("job_unreadable", job=key, error=str(error))
        # What is wrong may be outside of the job, such as a training runtime that is made later.
        self.queue.add(key, after=self._resync_seconds)

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._backend.forget(known.job.uid)
        self._metrics.note_phase(key, None)
        self._metrics.note_held_up(key, ())
        self._slots.leave(key)

    def _admit(self, key: str, job: Job, suggestion: Suggestion, admitted: list[str]) -> bool:
        name = self._trial_key(job, suggestion.number)
        may_start = self._slots.ask(key, name)
        if may_start:
            admitted.append(name)
        return may_start

    @staticmethod
    def _trial_key(job: Job, number: int) -> str:
        return _key(job.kind, job.namespace, job.trial_name(number))

    def _release_unstarted(self, trials: Sequence[str]) -> None:
        """Free the slots of starts that failed, unless the watch has shown that they did not fail."""
        for name in trials:
            if name not in self._trial_marks:
                self._slots.release(name)

    def _plan(self, key: str, known: _Known, seen: Reconciliation) -> None:
        """Remember what was published, and queue the key for the next poll."""
        job = seen.job
        if status_changes(job.annotations, seen.status.annotations):
            theirs = {k: v for k, v in job.annotations.items() if not k.startswith(keys.STATUS_PREFIX)}
            job = replace(job, annotations={**theirs, **seen.status.annotations})
        if is_settled(job):
            self._backend.forget(job.uid)
            self._known.pop(key, None)
            if job.kind.documents and job.annotations.get(keys.PHASE) != Phase.DONE:
                # The mistake may be in its training runtime, and the controller does not watch runtimes.
                self.queue.add(key, after=self._resync_seconds)
            return
        known.job = job
        running = known.running = [trial for trial in seen.trials if trial.is_running]
        if any(trial.started_at is not None for trial in running):
            known.idle_polls = 0
            delay = self._poll_seconds
        elif running:
            # A trial may wait in a queue for hours: poll less and less often.
            delay = self._poll_seconds * 2.0 ** min(known.idle_polls, 16)
            known.idle_polls += 1
        else:
            delay = self._resync_seconds
        self.queue.add(key, after=min(delay, self._resync_seconds))

    def _report(self, key: str, error: str, began: float) -> None:
        """Write the error to the job's status, unless it shows it already, as far as the cluster allows.

        A job that could not be read since the reconcile began may be done: its last message stays.
        """
        known = self._known.get(key)
        if known is None or known.read_at < began:
            return
        ours = {k: v for k, v in known.job.annotations.items() if k.startswith(keys.STATUS_PREFIX)}
        message = f"reconcile failed, will retry: {error}"[:MAX_MESSAGE]
        if ours.get(keys.MESSAGE) == message:
            return
        status = Status({**ours, keys.PHASE: ours.get(keys.PHASE, "Waiting"), keys.MESSAGE: message})
        try:
            self._backend.publish(known.job, status, [Event("Warning", "StudyHeldUp", message[:1024])])
        except BackendError as again:
            _log.warning("status_not_written", job=key, error=str(again))


def _key(kind: JobKind, namespace: object, name: object) -> str:
    """Return what a job, or a trial, is called over all kinds and namespaces."""
    return f"{kind.plural}/{namespace}/{name}"


def _owner_of(metadata: Mapping[str, Any], kind: JobKind) -> str | None:
    """Return the name of the job that owns a trial; None if no job does."""
    owners = (o for o in entries(metadata.get("ownerReferences")) if o.get("kind") == kind.name)
    owner = next(owners, None)
    return None if owner is None else str(owner.get("name"))


def _is_registered(metadata: Mapping[str, Any]) -> bool:
    """Return whether a job is registered, or was and still has a status."""
    annotations = mapping(metadata.get("annotations"))
    return keys.TARGET in annotations or keys.PHASE in annotations


def _parts(key: str) -> tuple[JobKind, str, str]:
    plural, namespace, name = key.split("/")
    return with_plural(plural), namespace, name


def _summary(seen: Reconciliation) -> dict[str, object]:
    return {
        "phase": str(seen.status.phase),
        "started": [suggestion.number for suggestion in seen.started],
        "put_off": len(seen.put_off),
        "finished": {trial.number: str(trial.outcome) for trial in seen.finished},
        "running": sum(trial.is_running for trial in seen.trials),
        "trials": len(seen.trials),
    }
