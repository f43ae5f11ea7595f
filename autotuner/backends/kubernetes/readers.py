"""Read jobs from a cluster: one with its training runtime, or all of them.

The command `status` needs only the right to read jobs, because it shows nothing but their annotations, also
of a job that cannot be parsed. `trials`, `report` and `export` need those to read training runtimes and the
ledger ConfigMaps, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from autotuner.backends.base import Study
from autotuner.backends.kubernetes.api import Api, RequestFailed, jobs_path, runtime_path
from autotuner.backends.kubernetes.ledger import Ledger
from autotuner.backends.kubernetes.pods import entries
from autotuner.errors import BackendError
from autotuner.job.job import Job
from autotuner.job.kind import JobKind
from autotuner.job.kinds import KINDS, Runtimes
from autotuner.job.lookup import mapping
from autotuner.job.training_runtime import RuntimeReference, TrainingRuntime


def job_of(api: Api, manifest: Mapping[str, Any], namespace: str) -> Job:
    """Return the job of a manifest, with the training runtime that it refers to.

    Raises:
        RequestFailed: If the cluster does not answer.
        InvalidJob: If it has mistakes.
    """
    return Job.from_manifest(manifest, runtimes_of(api, namespace))


def runtimes_of(api: Api, namespace: str) -> Runtimes:
    """Return a function that finds a training runtime on a cluster, for the jobs of a namespace."""

    def find(reference: RuntimeReference) -> TrainingRuntime | None:
        try:
            found = api.get(runtime_path(reference, namespace))
        except RequestFailed as error:
            if error.is_not_found:
                return None
            raise
        return TrainingRuntime.from_manifest(found)

    return find


def unread_job(kind: JobKind, manifest: Mapping[str, Any], namespace: str) -> Job:
    """Return a job of which only the metadata is read, whatever mistakes it has."""
    metadata = mapping(manifest.get("metadata"))
    annotations = {str(key): str(text) for key, text in mapping(metadata.get("annotations")).items()}
    where = str(metadata.get("namespace") or namespace)
    return Job(str(metadata.get("name")), where, str(metadata.get("uid")), annotations, manifest, kind=kind)


def read_jobs(api: Api, namespace: str | None) -> list[Job]:
    """Return the registered jobs of a namespace, or of the whole cluster (None), by namespace and name.

    Only their metadata is read.

    Raises:
        BackendError: If the cluster does not answer.
    """
    answers = _of_each_kind(lambda kind: api.list(jobs_path(namespace, kind=kind)))
    found = (
        unread_job(kind, item, namespace or "")
        for kind, answer in answers
        for item in entries(answer.get("items"))
    )
    jobs = [job for job in found if job.is_registered]
    return sorted(jobs, key=lambda job: (job.namespace, job.name, job.kind.name))


def read_job(api: Api, namespace: str, name: str) -> Job:
    """Return a job with its status; only its metadata is read.

    Of two jobs of this name the registered one is meant.

    Raises:
        BackendError: If there is no such job, or the cluster does not answer.
    """
    job = _named(api, namespace, name)
    if job is None:
        raise _no_job(namespace, name)
    return job


def read_study(api: Api, namespace: str, name: str) -> Study:
    """Return a job with its status and its finished trials.

    Of two jobs of this name the registered one is meant.

    Raises:
        BackendError: If there is no such job, or the cluster does not answer.
        InvalidJob: If the job cannot be read.
    """
    found = find_study(api, namespace, name)
    if found is None:
        raise _no_job(namespace, name)
    return found


def find_study(api: Api, namespace: str, name: str) -> Study | None:
    """Return a job with its status and its finished trials; None if there is no such job.

    Of two jobs of this name the registered one is meant.

    Raises:
        BackendError: If the cluster does not answer.
        InvalidJob: If the job cannot be read.
    """
    named = _named(api, namespace, name)
    if named is None:
        return None
    return _study_of(api, job_of(api, named.manifest, namespace))


def read_study_of_kind(api: Api, kind: JobKind, namespace: str, name: str) -> Study:
    """Return the job of this kind and name with its status and its finished trials.

    Raises:
        BackendError: If there is no such job, or the cluster does not answer.
        InvalidJob: If the job cannot be read.
    """
    return _study_of(api, job_of(api, api.get(jobs_path(namespace, name, kind)), namespace))


def _study_of(api: Api, job: Job) -> Study:
    trials, problems = Ledger.read(api, job).trials()
    return Study(job, trials, problems)


def _named(api: Api, namespace: str, name: str) -> Job | None:
    """Return the job of a name, of which only the metadata is read: the registered one of two kinds."""
    answers = _of_each_kind(lambda kind: api.get(jobs_path(namespace, name, kind)))
    found = [unread_job(kind, manifest, namespace) for kind, manifest in answers]
    return next((job for job in found if job.is_registered), next(iter(found), None))


def _no_job(namespace: str, name: str) -> BackendError:
    kinds = " or ".join(kind.name for kind in KINDS)
    plurals = ",".join(kind.plural for kind in KINDS)
    return BackendError(
        f"there is no {kinds} {name} in namespace {namespace}: `kubectl get {plurals} -A` shows those"
        " that there are"
    )


def _of_each_kind(
    ask: Callable[[JobKind], Mapping[str, Any]],
) -> list[tuple[JobKind, Mapping[str, Any]]]:
    """Return the results for the kinds that the cluster serves and that the role may read.

    Raises:
        RequestFailed: If the role may read none, or the cluster does not answer.
    """
    answers: list[tuple[JobKind, Mapping[str, Any]]] = []
    refused: list[RequestFailed] = []
    for kind in KINDS:
        try:
            answers.append((kind, ask(kind)))
        except RequestFailed as error:
            if error.status == HTTPStatus.FORBIDDEN:
                refused.append(error)
            elif not error.is_not_found:
                raise
    if len(refused) == len(KINDS):
        raise refused[0]
    return answers
