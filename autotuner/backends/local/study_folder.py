"""Read the folder of a local study: job, status, ledger and logs. Writes nothing.

`autotuner.backends.local.backend` describes what the folder holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from autotuner import keys
from autotuner.backends.base import Study
from autotuner.errors import BackendError, Conflict, Unwritable
from autotuner.job.job import Job
from autotuner.job.kinds import runtimes_among
from autotuner.spec.untrusted_yaml import load_documents
from autotuner.status import describe_interrupted
from autotuner.study.ledger import decode_ledger
from autotuner.trial import Outcome, Trial

JOB: Final = "job.yaml"
LOCK: Final = "lock"
"""The file that a tuner holds locked while it runs."""
LEDGER: Final = "ledger"
"""The folder of the finished trials. A folder with a `job.yaml` and without it is the user's own."""
RETRIED_AT: Final = "retried-at"
"""The file with the time of the last `autotuner retry`."""
NAMES_LOG: Final = frozenset({Outcome.FAILED, Outcome.OUT_OF_MEMORY})
"""Outcomes whose message ends with the path of the log: the user reads it to fix the program."""


def read_study(folder: Path) -> Study:
    """Return the study in a folder.

    Raises:
        BackendError: If it is not the folder of a study.
        InvalidJob: If the job's copy in it cannot be read.
    """
    try:
        manifest, *others = load_documents((folder / JOB).read_text(encoding="utf-8"))
        if not is_study(folder):
            raise FileNotFoundError(f"it has a {JOB}, and no folder {LEDGER}")
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{folder} is not the folder of a study ({error}): name one that `autotuner tune` wrote,"
            " for example resnet50-tuning, or add --namespace for a job of the cluster"
        ) from error
    job = Job.from_manifest(manifest, runtimes_among(others))
    trials, problems = read_ledger(folder)
    logs = {trial.number: str(log) for trial in trials if (log := log_of(folder, trial.number)) is not None}
    job = with_status(job, folder)
    if not is_in_use(folder):
        job = replace(job, annotations=describe_interrupted(job.annotations))
    return Study(job, trials, problems, logs)


def is_study(folder: Path) -> bool:
    """Return whether a folder holds a study."""
    try:
        return (folder / JOB).exists() and (folder / LEDGER).is_dir()
    except OSError:
        return False


def is_in_use(folder: Path) -> bool:
    """Return whether a tuner runs in a folder; true if it is unknown, as without permission."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def read_ledger(folder: Path) -> tuple[list[Trial], list[str]]:
    """Return the finished trials of a folder by number, and the errors of files that do not parse.

    Raises:
        BackendError: If a file exists and cannot be read: continuing would repeat its trial.
    """
    files = sorted((folder / LEDGER).glob("trial-*.json"))
    try:
        entries = {file.stem: file.read_text(encoding="utf-8", errors="replace") for file in files}
    except OSError as error:
        raise BackendError(
            f"cannot read {error.filename}: {error.strerror}; fix or remove it, and run the same command"
            " again"
        ) from error
    return decode_ledger(entries)


def read_status(folder: Path) -> dict[str, str]:
    """Return the status annotations of a folder; empty if nothing was published yet."""
    status = read_json(folder / "status.json") or {}
    return {str(key): str(value) for key, value in status.items()}


def with_status(job: Job, folder: Path) -> Job:
    """Return the job with the folder's status instead of its own, and the last retry."""
    # A file that was read from a cluster carries the status of the study there.
    own = {key: value for key, value in job.annotations.items() if not key.startswith(keys.STATUS_PREFIX)}
    try:
        retried_at = (folder / RETRIED_AT).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        retried_at = ""
    retried = {keys.RETRIED_AT: retried_at} if retried_at else {}
    return replace(job, annotations={**own, **retried, **read_status(folder)})


def check_owner(folder: Path, job: Job) -> None:
    """Check that a folder does not hold the study of another job; a folder without a job is free.

    A job is identified by kind, namespace and name: its annotations and its template may change.

    Raises:
        Conflict: If it holds the study of another or an unknown job, or a file of the user's that a study
            would overwrite.
    """
    try:
        manifest, *_ = load_documents((folder / JOB).read_text(encoding="utf-8"))
        metadata = manifest["metadata"]  # type: ignore[index]  # the except clause below handles other types
        owner = (manifest["kind"], metadata.get("namespace") or "default", metadata["name"])  # type: ignore[index]
        if not is_study(folder):
            raise Conflict(
                f"the study would overwrite {folder / JOB}, which no study wrote: choose another folder with"
                " --directory"
            )
    except (FileNotFoundError, NotADirectoryError):
        return  # whoever opens the folder reports the latter
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Conflict(
            f"{folder} holds a study of an unknown job ({JOB} cannot be read: {error}): choose another folder"
            f" with --directory, or remove {folder} to start over"
        ) from error
    own = (job.manifest["kind"], job.namespace, job.name)
    if owner != own:
        raise Conflict(
            f"{folder} holds the study of {_shown(owner)}, not of {_shown(own)}: choose another folder with"
            f" --directory, or remove {folder} to start over"
        )


def kept_logs(folder: Path, number: int) -> Path:
    """Return the folder with the logs of a recorded trial."""
    return folder / "logs" / str(number)


def log_of(folder: Path, number: int) -> Path | None:
    """Return the log of the process that decided a recorded trial; None if no log is kept."""
    kept = kept_logs(folder, number)
    ending = read_json(kept / "ending.json") or {}
    logs = sorted(kept.glob("*.log"), key=lambda path: (path.stem != ending.get("pod"), path.name))
    return logs[0] if logs else None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Translate errors of the operating system: what cannot be written, and what to do."""
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"cannot write to {folder}: {error.strerror or error}; finished trials are safe."
            " Make room or choose another folder with --directory, and run the same command again"
        ) from error


def _shown(identity: tuple[object, object, object]) -> str:
    kind, namespace, name = (str(part)[:80] for part in identity)
    return f"{kind} {namespace}/{name}"
