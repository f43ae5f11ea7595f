"""`autotuner tune` and `autotuner validate`: commands on the file of a job, on this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console

from autotuner import keys
from autotuner.backends.local.backend import LocalBackend
from autotuner.backends.local.gpus import machine_gpus, trials_at_once
from autotuner.backends.local.pods import LOOPBACK, Surroundings, pods
from autotuner.backends.local.script import script_text
from autotuner.backends.local.study_folder import check_owner, read_study
from autotuner.backends.local.supervisor import GRACE_SECONDS
from autotuner.cli.exit_codes import EXIT_FAILED, EXIT_UNCONFIRMED, AsJson, Reported, as_mapping
from autotuner.cli.job_file import Runtime, load_document, load_job
from autotuner.cli.trial_python import Tool, program, trial_path
from autotuner.decide.decision import Answer, Phase, Reason
from autotuner.errors import InvalidJob, Mistake
from autotuner.job.job import Job
from autotuner.job.kinds import validate as check
from autotuner.job.wiring_notices import wiring_notices
from autotuner.spec import TuningSpec
from autotuner.spec.tuning_spec import AUTO

if TYPE_CHECKING:
    from autotuner.reconcile import Reconciliation
    from autotuner.report.terminal import View

# Slow imports are made where they are needed, so that `validate` answers at once.
# ruff: noqa: PLC0415

_POLL_SECONDS: Final = 0.25
_FROM_JOB: Final = (keys.ENV_PREFIX, "PET_", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")

JobFile = Annotated[
    Path, typer.Argument(help="An annotated PyTorchJob or TrainJob, as YAML.", metavar="FILE")
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        "-d",
        help="Where the ledger and the logs are kept. (default: NAME-tuning in the current folder)",
    ),
]
Entrypoint = Annotated[
    str, typer.Option(help="Replacement for the image's entrypoint, for a container without `command`.")
]
WorkingDirectory = Annotated[
    Path | None,
    typer.Option("--working-dir", help="Where the processes run. (default: the folder of FILE)"),
]
Interpreter = Annotated[
    Path | None,
    typer.Option(
        "--python",
        help="The Python that trials run under. (default: that of the active environment, or of PATH)",
    ),
]


def tune(  # noqa: PLR0913, PLR0917 (its options are the parameters)
    file: JobFile,
    directory: Folder = None,
    entrypoint: Entrypoint = "",
    working_dir: WorkingDirectory = None,
    python: Interpreter = None,
    runtime: Runtime = None,
    as_json: AsJson = False,
) -> None:
    """Tune a job on this machine: trials run as processes, no cluster is needed.

    You can interrupt it at any moment; the same command continues where it stopped.
    """
    with Reported(as_json=as_json):
        from autotuner.report.live_view import LiveView
        from autotuner.report.terminal import PlainView

        job = load_job(file, runtime)
        folder = directory or Path(f"{job.name}-tuning")
        surroundings = _surroundings(file, entrypoint, working_dir, python)
        spec = _checked(job, surroundings)
        script = script_text(job, surroundings)
        _warn([warning.mistake for warning in wiring_notices(job, spec, script=script)])
        screen = Console(stderr=as_json)
        view: View = (
            LiveView(screen, job.name, _now) if screen.is_terminal and not as_json else PlainView(screen)
        )
        signal.signal(signal.SIGTERM, _interrupt)
        # Opening a folder removes the remains of an interrupted study, so the folder must be this job's own.
        check_owner(folder, job)
        gpus: tuple[str, ...] = ()
        if spec.parallel_trials == AUTO:
            gpus = machine_gpus(surroundings.shell)
            job = _limited_by_gpus(job, spec, gpus, screen)
        with LocalBackend(folder, surroundings, gpus) as backend:
            backend.save_job(job)
            backend.discard_doubtful(job, spec)
            known = len(read_study(folder).trials)
            if known:
                screen.print(f"continuing from {known} finished trials in {folder}", style="dim")
            try:
                last = _drive(backend, job, spec, view, script)
            except KeyboardInterrupt:
                # Programs get a few seconds to end: only then is it true that all are stopped.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                typer.echo(f"interrupted: running trials end within {GRACE_SECONDS:.0f} seconds", err=True)
                raise
        # Runs that measured something do not show that each variable was used.
        unmeasured = [replace(trial, measurements=()) for trial in last.trials]
        doubts = [str(warning) for warning in wiring_notices(job, spec, unmeasured, script)]
        _finish(
            last,
            spec,
            folder,
            as_json=as_json,
            doubts=doubts,
            # Of a live table nothing is left on the screen.
            message="" if isinstance(view, PlainView) else last.status.annotations.get(keys.MESSAGE, ""),
        )


def validate(file: JobFile, runtime: Runtime = None, as_json: AsJson = False) -> None:
    """Check a job and its annotations as the cluster would; report all mistakes and warnings at once."""
    with Reported(as_json=as_json):
        document, runtimes, config_maps = load_document(file, runtime)
        _, found = check(document, runtimes)
        mistakes = list(found.mistakes)
        job: Job | None = None
        try:
            job = Job.from_manifest(document, runtimes, config_maps)
            job.spec()
        except InvalidJob as error:
            mistakes += error.mistakes
        warnings = list(found.warnings)
        spec = None if job is None else job.readable_spec()
        if job is not None and spec is not None:
            script = script_text(job, _surroundings(file, "", None, None))
            warnings += [warning.mistake for warning in wiring_notices(job, spec, script=script)]
        if not as_json:
            _warn(warnings)
        if mistakes or job is None:
            raise InvalidJob(list(dict.fromkeys(mistakes)), warnings)
        spec = job.spec()
        if as_json:
            shown = [as_mapping(warning) for warning in warnings]
            typer.echo(json.dumps({"valid": True, "mistakes": [], "warnings": shown}))
        else:
            typer.echo(f"{file} is valid: {job.name}, {spec.target}, batch size {spec.batch_size}")


def _limited_by_gpus(job: Job, spec: TuningSpec, gpus: Sequence[str], screen: Console) -> Job:
    """Return the job with the number of parallel trials that the GPUs allow.

    There is no queue on this machine: the GPUs are the quota.
    """
    at_once = trials_at_once(job, spec, gpus)
    screen.print(f"parallel-trials auto: up to {at_once} at once, {len(gpus)} GPUs", style="dim")
    return replace(job, annotations={**job.annotations, keys.key_of("parallel_trials"): str(at_once)})


def _warn(warnings: Sequence[Mistake]) -> None:
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def _checked(job: Job, surroundings: Surroundings) -> TuningSpec:
    """Return the spec of a job that can be tuned here; InvalidJob carries the mistakes of all its parts."""
    mistakes: list[Mistake] = []
    spec: TuningSpec | None = None
    try:
        spec = job.spec()
    except InvalidJob as error:
        mistakes += error.mistakes
    try:
        pods(job.kind.pod_plans(job.manifest, LOOPBACK, 0), job.manifest["metadata"], surroundings)
    except InvalidJob as error:
        mistakes += error.mistakes
    if mistakes or spec is None:
        raise InvalidJob(mistakes)
    return spec


def _drive(
    backend: LocalBackend, job: Job, spec: TuningSpec, view: View, script: str | None
) -> Reconciliation:
    from threadpoolctl import threadpool_limits

    from autotuner.reconcile import reconcile

    # The search's matrices are small. More threads make it slower, take processors from the trials, and let
    # the last digits of its sums depend on how many there are.
    with threadpool_limits(limits=1, user_api="blas"), view:
        while True:
            seen = reconcile(backend, backend.job(job), _now(), script=script)
            view.show(seen, spec)
            if seen.decision is None or seen.decision.is_final:
                return seen
            if seen.decision.phase is Phase.INVALID:
                # Waiting brings no answer: running trials are interrupted, and start again after it.
                return seen
            if seen.decision.phase is Phase.PAUSED and not any(t.is_running for t in seen.trials):
                return seen
            time.sleep(_POLL_SECONDS)


def _finish(  # noqa: PLR0913 (what is known at the end)
    last: Reconciliation,
    spec: TuningSpec,
    folder: Path,
    *,
    as_json: bool,
    doubts: Sequence[str],
    message: str,
) -> None:
    """Print the answer, or else the message, and exit with the code for the kind of end.

    The message is empty if it stands on the screen: it may have thirty lines.
    """
    from autotuner.report.terminal import answer_lines

    study = read_study(folder)
    if last.decision is not None and last.decision.phase is Phase.INVALID:
        if as_json:
            typer.echo("null")
        typer.echo(message, nl=bool(message), err=as_json)
        typer.echo("set the annotation, or change the script, and run the same command again", err=True)
        raise typer.Exit(EXIT_UNCONFIRMED)
    answer = Answer.from_text(last.status.annotations.get(keys.ANSWER, ""))
    if as_json:
        typer.echo(json.dumps(answer and answer.as_json()))
    elif answer is not None:
        hours = sum(trial.gpu_hours(_now()) for trial in study.trials)
        for line in answer_lines(answer, spec, study.trials, hours):
            typer.echo(line)
        for doubt in doubts:
            typer.echo(f"  in doubt: {doubt}")
        for warning in last.decision.warnings if last.decision is not None else ():
            typer.echo(f"  warning: {warning}")
        typer.echo(f"figures: autotuner report {folder}")
    else:
        typer.echo(message, nl=bool(message))
    if last.status.annotations.get(keys.PHASE) == Phase.FAILED:
        typer.echo(_remedy(last.status.annotations.get(keys.REASON, ""), folder), err=True)
        raise typer.Exit(EXIT_FAILED)
    if answer is None or not answer.is_confirmed:
        raise typer.Exit(EXIT_UNCONFIRMED)


def _remedy(reason: str, folder: Path) -> str:
    """Return how a failed study continues; a program that changed outside the file is not noticed."""
    if reason == Reason.NOT_WIRED:
        return f"fix the program, and start over without its runs: remove {folder}, or name another with -d"
    return (
        f"fix the cause, run `autotuner retry {shlex.quote(str(folder))}`, and the same command again:"
        " finished trials are kept (if the job's spec was changed, it continues without `retry`)"
    )


def _surroundings(file: Path, entrypoint: str, working_dir: Path | None, python: Path | None) -> Surroundings:
    # A trial gets these variables from its job only, never from the user's shell.
    shell = {name: value for name, value in os.environ.items() if not name.startswith(_FROM_JOB)}
    tool = Tool(Path(sys.executable), sys.prefix != sys.base_prefix, find_spec("torch") is not None)
    shell["PATH"] = trial_path(shell, tool, python)
    return Surroundings(
        folder=file.resolve().parent,
        shell=shell,
        entrypoint=tuple(shlex.split(entrypoint)),
        working_directory=None if working_dir is None else working_dir.resolve(),
        python=str(python.absolute()) if python is not None else program(shell["PATH"]) or "python",
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _now() -> datetime:
    return datetime.now(UTC)
