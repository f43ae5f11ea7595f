"""The local backend: trials are processes of this machine, and the ledger is a folder of files.

Job files, trial manifests and `reconcile` are the same as on a cluster. The folder

    NAME-tuning/
      job.yaml            a copy of the job
      status.json         the status annotations
      retried-at          time of the last `autotuner retry`
      ledger/             one file per finished trial, written whole, never changed
      output/N/           AUTOTUNER_OUTPUT_DIR of trial N
      trials/N/           pods.json, one log per process, ending.json: the files of trial N
      logs/N/             the same, once the trial is in the ledger

holds all state. An interrupted trial (a folder without an ending and without a supervisor) is removed when
the folder is opened; `decide` then starts it again if needed. One tuner at a time holds the folder's lock.
Every supervisor holds a second lock, so that a tuner waits until the processes of its predecessor have ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import yaml

from autotuner import keys
from autotuner.backends.base import Backend, Observation, Study
from autotuner.backends.local import supervisor
from autotuner.backends.local.gpus import GpuShares
from autotuner.backends.local.pods import LOOPBACK, PodProcess, Surroundings, pods
from autotuner.backends.local.study_folder import (
    JOB,
    LEDGER,
    LOCK,
    check_owner,
    is_study,
    kept_logs,
    read_ledger,
    read_status,
    read_study,
    unwritable,
    with_status,
)
from autotuner.backends.local.trials import SUGGESTION, TrialReader
from autotuner.errors import BackendError
from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from autotuner.spec import TuningSpec
from autotuner.status import Event, Status
from autotuner.study.ledger import encode_trial
from autotuner.study.suggestions import encode_suggestion
from autotuner.trial import Suggestion, Trial

_STOP_SECONDS: Final = supervisor.GRACE_SECONDS + 10
_POLL_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 0.5
"""How long another process may hold the lock without being a tuner: `autotuner status` takes it briefly."""


class LocalBackend:
    """Runs trials on this machine. A context manager: on exit it has ended every process that it started.

    Args:
        folder: Where all state is kept.
        surroundings: What replaces an image.
        gpus: GPUs to divide among the trials; without any, each trial sees all of the machine's.
    """

    def __init__(self, folder: Path, surroundings: Surroundings, gpus: Sequence[str] = ()) -> None:
        self._folder = folder
        self._surroundings = surroundings
        self._gpus = GpuShares(gpus)
        self._supervisors: dict[int, subprocess.Popen[bytes]] = {}
        self._reader = TrialReader(folder, self._runs)
        self._lock: int | None = None
        self._processes_lock: int | None = None

    def __enter__(self) -> Self:
        """Create the folder, lock it, and remove what an interrupted tuner left.

        Raises:
            Unwritable: If the folder cannot be written.
            BackendError: If another tuner holds it.
        """
        try:
            with unwritable(self._folder):
                self._open()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End running trials, and unlock the folder. Interrupted trials leave no record."""
        for process in self._supervisors.values():
            _let_go(process)  # All supervisors first, so that they end their processes at the same time.
        for number in list(self._supervisors):
            self._end(number)
        self._release()

    def job(self, job: Job) -> Job:
        """Return the job with the status from the folder, as a job on a cluster carries its own."""
        return with_status(job, self._folder)

    def observe(self, job: Job, spec: TuningSpec) -> Observation:
        """Read the ledger, and the logs and endings of the other trials."""
        del job
        recorded, problems = read_ledger(self._folder)
        numbers = {trial.number for trial in recorded}
        live = [
            self._reader.read(spec, folder)
            for folder in self._trial_folders()
            if int(folder.name) not in numbers
        ]
        remains = [t for t in recorded if self._trial_folder(t.number).exists()]
        return Observation(recorded, [t for t in live if t is not None] + remains, problems)

    def start(self, job: Job, suggestion: Suggestion) -> None:
        """Start a trial's processes under their own supervisor."""
        if suggestion.number in self._supervisors:
            return
        if self._processes_lock is None:
            raise BackendError(f"{self._folder} is not open: use the backend as a context manager")
        output = (self._folder / "output" / str(suggestion.number)).absolute()
        manifest = trial_manifest(job, suggestion, str(output))
        folder = self._trial_folder(suggestion.number)
        plans = self._gpus.take(suggestion.number, job.kind.pod_plans(manifest, LOOPBACK, _free_port()))
        planned = pods(plans, manifest["metadata"], self._surroundings)
        about = {
            "suggestion": json.loads(encode_suggestion(suggestion)),
            "devices": job.kind.devices(manifest, job.annotations),
            "template": job.template,
        }
        with unwritable(self._folder):
            shutil.rmtree(folder, ignore_errors=True)
            # The output of an interrupted run of this number must not be resumed.
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(parents=True)
            folder.mkdir(parents=True)
            supervisor.write_whole(folder / supervisor.PODS, [_as_json(pod) for pod in planned])
            supervisor.write_whole(folder / SUGGESTION, about)
        self._supervisors[suggestion.number] = self._supervise(folder, self._processes_lock)

    def _supervise(self, folder: Path, lock: int) -> subprocess.Popen[bytes]:
        """Start the supervisor of a trial's folder, which inherits the lock of running processes."""
        try:
            return subprocess.Popen(  # noqa: S603
                # In isolated mode: the file needs no package, and the user's variables must not affect it.
                [sys.executable, "-I", supervisor.__file__, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock],
                env=dict(self._surroundings.shell),
            )
        except OSError as error:
            raise BackendError(
                f"cannot start a process: {error.strerror}; see what else runs here, and run the same command"
                " again"
            ) from error

    def record(self, job: Job, trial: Trial) -> None:
        """Write one file completely, and flush it to the disk before it gets its name."""
        del job
        with unwritable(self._folder):
            entry = json.loads(encode_trial(trial))
            supervisor.write_whole(self._folder / LEDGER / f"{keys.ledger_key(trial.number)}.json", entry)

    def stop(self, job: Job, number: int) -> None:
        """End a trial's processes; its log stays until the next start of the same number."""
        del job
        self._end(number)
        with unwritable(self._folder):
            folder = self._trial_folder(number)
            if folder.exists():
                kept = kept_logs(self._folder, number)
                kept.parent.mkdir(exist_ok=True)
                shutil.rmtree(kept, ignore_errors=True)
                folder.replace(kept)

    def publish(
        self, job: Job, status: Status, events: Sequence[Event], spec: Mapping[str, Any] | None = None
    ) -> None:
        """Write the status, and with `spec` the job file that carries the answer."""
        del events  # The terminal has already shown them.
        with unwritable(self._folder):
            if read_status(self._folder) != status.annotations:
                supervisor.write_whole(self._folder / "status.json", dict(status.annotations))
            if spec is not None:
                self.apply(job, {**job.manifest, "spec": dict(spec)})

    def apply(self, job: Job, answered: Mapping[str, Any]) -> None:
        """Write the job file that carries the answer."""
        del job
        with unwritable(self._folder):
            text = yaml.safe_dump(dict(answered), sort_keys=False)
            supervisor.write_text_whole(self._folder / "answer.yaml", text)

    def study(self, job: Job, name: str) -> Study | None:
        """Return the study in the folder `NAME-tuning` next to this one."""
        del job
        folder = self._folder.parent / f"{name}-tuning"
        return read_study(folder) if is_study(folder) else None

    def existing(self, job: Job) -> Sequence[int]:
        """Return the numbers of the trials whose files are in the folder."""
        del job
        return [int(folder.name) for folder in self._trial_folders()]

    def save_job(self, job: Job) -> None:
        """Save a copy of the job's file, so that the folder alone is enough for a report.

        Raises:
            Conflict: If the folder holds the study of another job.
        """
        check_owner(self._folder, job)
        with unwritable(self._folder):
            documents = [dict(job.manifest), *map(dict, job.kind.documents)]
            text = yaml.safe_dump_all(documents, sort_keys=False)
            supervisor.write_text_whole(self._folder / JOB, text)

    def discard_doubtful(self, job: Job, spec: TuningSpec) -> None:
        """Remove ended trials whose logs are still in doubt: a script that has changed runs them again."""
        for trial in self.observe(job, spec).live:
            if trial.doubt:
                self._end(trial.number)
                with unwritable(self._folder):
                    shutil.rmtree(self._trial_folder(trial.number))

    def _open(self) -> None:
        for part in (LEDGER, "trials"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _LOOK_SECONDS
        while (lock := _locked(self._folder / LOCK)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._lock = lock
        if self._lock is None:
            raise BackendError(
                f"{self._folder} is in use by another autotuner: wait for it, or give this study"
                " another folder with --directory"
            )
        deadline = time.monotonic() + _STOP_SECONDS
        while (lock := _locked(self._folder / "trials" / "lock")) is None:
            if time.monotonic() > deadline:
                raise BackendError(
                    f"processes of an interrupted study still run in {self._folder}: end them, and run the"
                    " same command again"
                )
            time.sleep(_POLL_SECONDS)
        self._processes_lock = lock
        for trial in self._trial_folders():
            if not (trial / supervisor.ENDING).exists():
                shutil.rmtree(trial)

    def _runs(self, number: int) -> bool:
        process = self._supervisors.get(number)
        return process is not None and process.poll() is None

    def _end(self, number: int) -> None:
        self._reader.forget(number)
        process = self._supervisors.pop(number, None)
        self._gpus.release(number)
        if process is None:
            return
        _let_go(process)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _trial_folder(self, number: int) -> Path:
        return self._folder / "trials" / str(number)

    def _trial_folders(self) -> list[Path]:
        folders = (f for f in (self._folder / "trials").glob("*") if f.name.isdecimal())
        return sorted(folders, key=lambda folder: int(folder.name))

    def _release(self) -> None:
        for lock in (self._processes_lock, self._lock):
            if lock is not None:
                os.close(lock)
        self._processes_lock = self._lock = None


def _as_json(pod: PodProcess) -> dict[str, object]:
    """Return a pod as its supervisor reads it."""
    return {
        "name": pod.name,
        "command": pod.command,
        # Only the trial's own variables: those of the shell may hold secrets and must not reach the disk.
        "environment": dict(pod.environment),
        "folder": str(pod.folder),
    }


def _locked(path: Path) -> int | None:
    """Return a descriptor that locks the file while it or an inherited copy of it is open."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, on which the supervisor ends its processes."""
    if process.stdin is not None:
        process.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _conforms(backend: LocalBackend) -> Backend:
    return backend
