"""Find the study that JOB names.

JOB is the folder that `autotuner tune` wrote, the name of a job with such a folder in the current directory,
or else a job of the cluster that the kubeconfig names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.backends.base import Study
from autotuner.backends.local import study_folder as local
from autotuner.errors import BackendError, InvalidConfiguration
from autotuner.job.job import Job
from autotuner.study.logs.past_readings import with_doubts

if TYPE_CHECKING:
    from autotuner.backends.kubernetes import Api

# The Kubernetes client is slow to import, so that happens where it is needed.
# ruff: noqa: PLC0415

JobName = Annotated[
    str, typer.Argument(metavar="JOB", help="The folder of a local study, or a job of the cluster.")
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The job's namespace. (default: the kubeconfig's)")
]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context. (default: its current one)")]


def find(job: str, namespace: str | None, context: str | None) -> Study:
    """Return a study by its folder or its job's name: first from local folders, then from the cluster.

    Raises:
        BackendError: If there is none, or the cluster does not answer.
    """
    study = _read(job, namespace, context)
    spec = study.job.readable_spec()
    return study if spec is None else replace(study, trials=with_doubts(study.trials, spec))


def find_job(job: str, namespace: str | None, context: str | None) -> Job:
    """Return the job of a study, with its status; on a cluster only its metadata is read.

    Raises:
        BackendError: If there is none, or the cluster does not answer.
    """
    folder = local_folder(job, namespace, context)
    if folder is not None:
        return local.read_study(folder).job
    with _named(job, namespace, context):
        return _cluster_job(job, namespace, context)


def _read(job: str, namespace: str | None, context: str | None) -> Study:
    folder = local_folder(job, namespace, context)
    if folder is not None:
        return local.read_study(folder)
    with _named(job, namespace, context):
        return _cluster_study(job, namespace, context)


@contextlib.contextmanager
def _named(job: str, namespace: str | None, context: str | None) -> Iterator[None]:
    """Add to an error of the cluster that there is no local folder of this name either."""
    try:
        yield
    except (BackendError, InvalidConfiguration) as error:
        if namespace is not None or context is not None:
            raise
        raise BackendError(
            f"there is no study {job!r}: no folder {job} or {job}-tuning in {Path.cwd()}; and on the"
            f" cluster: {error}"
        ) from error


def cluster(namespace: str | None, context: str | None) -> tuple[Api, str]:
    """Return the API server that the kubeconfig names, and the namespace that is meant."""
    from autotuner.backends.kubernetes import connect
    from autotuner.backends.kubernetes.api import current_namespace

    return connect(context=context), namespace or current_namespace(context)


def _cluster_job(job: str, namespace: str | None, context: str | None) -> Job:
    from autotuner.backends.kubernetes.readers import read_job

    return read_job(*cluster(namespace, context), job)


def _cluster_study(job: str, namespace: str | None, context: str | None) -> Study:
    from autotuner.backends.kubernetes.readers import read_study

    return read_study(*cluster(namespace, context), job)


def local_folder(job: str, namespace: str | None, context: str | None) -> Path | None:
    """Return the folder of a local study that JOB names; None if it names a job of the cluster.

    A folder that JOB names directly is returned whatever it holds: reading it reports what is wrong.

    Raises:
        BackendError: If JOB is a file; no name of a job ends like one.
    """
    if Path(job).suffix.lower() in {".yaml", ".yml", ".json"}:
        raise BackendError(
            f"{job} is a file: name the job in it, or the folder of its study, for example"
            f" {Path(job).stem}-tuning"
        )
    if namespace is not None or context is not None:
        return None
    named, by_job = Path(job), Path(f"{job}-tuning")
    found = (folder for folder in (named, by_job) if local.is_study(folder))
    return next(found, named if "/" in job or named.is_dir() else None)


def cluster_jobs(namespace: str | None, context: str | None, *, everywhere: bool) -> list[Job]:
    """Return the registered jobs of a namespace of the cluster, or of all namespaces."""
    from autotuner.backends.kubernetes.readers import read_jobs

    try:
        api, where = cluster(namespace, context)
    except InvalidConfiguration as error:
        named = next(
            (f.name for f in sorted(Path.cwd().glob("*-tuning")) if local.is_study(f)), "NAME-tuning"
        )
        raise InvalidConfiguration(
            f"{error}; to see a study of this machine, name its folder: autotuner status {named}"
        ) from error
    return read_jobs(api, None if everywhere else where)
