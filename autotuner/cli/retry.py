"""`autotuner retry`: continue a failed study once the cause is fixed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from autotuner import keys
from autotuner.backends.local import supervisor
from autotuner.backends.local.study_folder import RETRIED_AT, read_study, unwritable
from autotuner.cli.exit_codes import Reported
from autotuner.cli.studies import Context, JobName, Namespace, cluster, local_folder
from autotuner.errors import BackendError
from autotuner.trial import Trial


def retry(job: JobName, namespace: Namespace = None, context: Context = None) -> None:
    """Continue a failed study: earlier failures and losses no longer count.

    A job whose annotations or template were changed continues without this command.
    """
    with Reported():
        now = datetime.now(UTC).replace(microsecond=0)
        folder = local_folder(job, namespace, context)
        if folder is not None:
            _retry_here(folder, now)
        else:
            _retry_on_cluster(job, namespace, context, now)


def _retry_here(folder: Path, now: datetime) -> None:
    read_study(folder)  # BackendError if it is not the folder of a study
    with unwritable(folder):
        supervisor.write_text_whole(folder / RETRIED_AT, now.isoformat())
    typer.echo(f"{folder}: earlier failures no longer count; run `autotuner tune` with the same file again")


def _retry_on_cluster(job: str, namespace: str | None, context: str | None, now: datetime) -> None:
    # The Kubernetes client is slow to import, so it is imported only here.
    from autotuner.backends.kubernetes.api import jobs_path  # noqa: PLC0415
    from autotuner.backends.kubernetes.ledger import Ledger  # noqa: PLC0415
    from autotuner.backends.kubernetes.readers import read_job  # noqa: PLC0415

    api, where = cluster(namespace, context)
    found = read_job(api, where, job)
    if not found.is_registered:
        raise BackendError(
            f"{found.kind.name} {where}/{job} is not tuned: it has no annotation {keys.TARGET}, for example"
            ' "accuracy >= 0.9"'
        )
    trials, _ = Ledger.read(api, found).trials()
    moment = retried_at(trials, now).isoformat()
    api.patch(jobs_path(where, job, found.kind), {"metadata": {"annotations": {keys.RETRIED_AT: moment}}})
    typer.echo(f"{where}/{job}: earlier failures no longer count; the controller continues the study")


def retried_at(trials: Sequence[Trial], now: datetime) -> datetime:
    """Return the time of a retry: now, or the end of the latest trial if that is later.

    The cluster's clock dates the ends of trials, and the clock of this machine may be behind it.
    """
    return max((now, *(trial.ended_at for trial in trials if trial.ended_at is not None)))
