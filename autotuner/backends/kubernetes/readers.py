"""What the commands that only look read of a cluster: `status`, `trials`, `report` and `export`.

They need no more rights than reading PyTorchJobs and the ledger ConfigMaps.
"""

from __future__ import annotations

from autotuner.backends.base import Study
from autotuner.backends.kubernetes.api import Api, RequestFailed, jobs_path
from autotuner.backends.kubernetes.ledger import Ledger
from autotuner.backends.kubernetes.pods import entries
from autotuner.errors import BackendError, InvalidJob
from autotuner.job.job import Job


def read_jobs(api: Api, namespace: str | None) -> list[Job]:
    """Return the registered jobs of a namespace, or of the whole cluster (None), by namespace and name.

    Raises:
        BackendError: If the cluster does not answer.
    """
    jobs: list[Job] = []
    for item in entries(api.list(jobs_path(namespace)).get("items")):
        try:
            job = Job.from_manifest({"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", **item})
        except InvalidJob:
            continue  # nothing that could be tuned, whoever made it
        if job.is_registered:
            jobs.append(job)
    return sorted(jobs, key=lambda job: (job.namespace, job.name))


def read_study(api: Api, namespace: str, name: str) -> Study:
    """Return a job with its status and its finished trials.

    Raises:
        BackendError: If there is no such job, or the cluster does not answer.
        InvalidJob: If the job cannot be read.
    """
    try:
        manifest = api.get(jobs_path(namespace, name))
    except RequestFailed as error:
        if error.is_not_found:
            raise BackendError(
                f"there is no PyTorchJob {name} in namespace {namespace}: `kubectl get pytorchjobs -A` shows"
                " those that there are"
            ) from error
        raise
    job = Job.from_manifest(manifest)
    trials, problems = Ledger.read(api, job).trials()
    return Study(job, trials, problems)
