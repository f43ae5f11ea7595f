"""`autotuner status`, `trials`, `report`, `export` and `schema`: the read-only commands.

`autotuner.cli.studies` finds the study that JOB names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotuner import keys
from autotuner.backends.local import study_folder as local
from autotuner.cli.exit_codes import AsJson, Reported
from autotuner.cli.studies import Context, JobName, Namespace, cluster_jobs, find, find_job
from autotuner.decide.decision import Answer
from autotuner.errors import BackendError
from autotuner.job.job import Job
from autotuner.spec import TuningSpec
from autotuner.spec.schema import annotation_schema, annotation_table
from autotuner.study.setting import Setting
from autotuner.trial import Trial

# Slow imports (matplotlib, the Kubernetes client) are made where they are needed.
# ruff: noqa: PLC0415

_PIPE_WIDTH: Final = 160
_LEAST_WIDTH: Final = 80


def schema(as_json: AsJson = False) -> None:
    """Print the annotations: a table, or a JSON schema with --json."""
    if as_json:
        typer.echo(json.dumps(annotation_schema(), indent=2))
        return
    table = _table("annotation", "meaning", "default", "example")
    table.columns[0].no_wrap = True
    for row in annotation_table():
        table.add_row(*(escape(row[key]) for key in ("key", "meaning", "default", "example")))
    _console().print(table)


def status(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="The folder of a local study, or a job of the cluster; without it: all of the namespace.",
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Without JOB: all jobs of the cluster.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the status of a study, or of all studies of a namespace."""
    with Reported(as_json=as_json):
        if job is not None:
            _show_status(find_job(job, namespace, context), as_json=as_json)
            return
        jobs = cluster_jobs(namespace, context, everywhere=all_namespaces)
        if as_json:
            typer.echo(json.dumps([_status_of(each) for each in jobs]))
            return
        table = _table("namespace", "job", "phase", "batch size", "confirmed", "message")
        for each in jobs:
            answer = Answer.from_text(each.annotations.get(keys.ANSWER, ""))
            table.add_row(
                each.namespace,
                each.name,
                escape(each.annotations.get(keys.PHASE, "")),
                str(answer.batch_size) if answer else "",
                answer.tally if answer else "",
                escape(each.annotations.get(keys.MESSAGE, "")),
            )
        _console().print(table)


def trials(
    job: JobName, namespace: Namespace = None, context: Context = None, as_json: AsJson = False
) -> None:
    """List the finished trials of a study."""
    with Reported(as_json=as_json):
        study = find(job, namespace, context)
        # The trials of a job whose annotations have mistakes now are listed, too.
        spec, now = study.job.readable_spec() or study.job.spec(), datetime.now(UTC)
        if as_json:
            typer.echo(json.dumps([_trial_fields(trial, spec, study.logs, now) for trial in study.trials]))
            return
        console = _console()
        console.print(_trial_table(study.trials, spec, now))
        for trial in study.trials:
            if trial.outcome in local.NAMES_LOG and trial.number in study.logs:
                said = f"trial {trial.number} {trial.outcome}: see {study.logs[trial.number]}"
                console.print(said, markup=False, highlight=False, soft_wrap=True)


def report(
    job: JobName,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write a self-contained HTML report of a study: answer, figures, evidence."""
    from autotuner.report.page import render

    with Reported():
        page = render(find(job, namespace, context), datetime.now(UTC))
        try:
            output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise BackendError(f"cannot write {output}: {error.strerror}; choose another --output") from error
        typer.echo(f"wrote {output}")


def export(
    job: JobName,
    storage: Annotated[str, typer.Option(help="An Optuna storage URL, for example sqlite:///study.db.")],
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write the trials of a study to an Optuna storage, for optuna-dashboard."""
    from autotuner.search.export import export as export_study

    with Reported():
        study = find(job, namespace, context)
        spec, annotations = study.job.spec(), study.job.annotations
        answer = Answer.from_text(annotations.get(keys.ANSWER, ""))
        count = export_study(
            spec,
            study.trials,
            storage,
            study.job.name,
            answer=None if answer is None else Setting.of(answer.batch_size, answer.parameters),
            attributes={
                "target": str(spec.target),
                "answer": None if answer is None else answer.as_json(),
                "phase": annotations.get(keys.PHASE, ""),
                "message": annotations.get(keys.MESSAGE, ""),
            },
        )
        typer.echo(f"added {count} trials to the study {study.job.name!r}: optuna-dashboard {storage}")


def _show_status(job: Job, *, as_json: bool) -> None:
    shown = _status_of(job)
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for key, value in shown.items():
        typer.echo(f"{key:10} {value if isinstance(value, str) else json.dumps(value)}")


def _status_of(job: Job) -> dict[str, Any]:
    return {
        "job": job.name,
        "namespace": job.namespace,
        **{
            key.removeprefix(keys.STATUS_PREFIX): _loaded(value)
            for key, value in job.annotations.items()
            if key.startswith(keys.STATUS_PREFIX)
        },
    }


def _trial_fields(trial: Trial, spec: TuningSpec, logs: Mapping[int, str], now: datetime) -> dict[str, Any]:
    from autotuner.report.terminal import best_value, has_met

    return {
        "number": trial.number,
        "purpose": str(trial.suggestion.purpose),
        "batch_size": trial.suggestion.batch_size,
        "workers": trial.suggestion.workers,
        "micro_batch_size": trial.suggestion.micro_batch_size,
        "accumulation_steps": trial.suggestion.accumulation_steps,
        "parameters": dict(trial.suggestion.parameters),
        "seed": trial.suggestion.seed,
        "outcome": str(trial.outcome),
        "best": best_value(trial, spec),
        "met": has_met(trial, spec),
        "gpu_hours": round(trial.gpu_hours(now), 4),
        "message": trial.message,
        "log": logs.get(trial.number),
    }


def _trial_table(trials: Sequence[Trial], spec: TuningSpec, now: datetime) -> Table:
    from autotuner.report.terminal import best_value, cost, layout, parameters, shown
    from autotuner.wording import outcome_now

    laid_out = any(layout(trial) for trial in trials)
    table = _table(
        "trial",
        "purpose",
        "batch size",
        *(["layout"] if laid_out else []),
        "hyperparameters",
        spec.target.metric,
        "outcome",
        "cost",
    )
    for trial in trials:
        best = best_value(trial, spec)
        table.add_row(
            str(trial.number),
            str(trial.suggestion.purpose),
            str(trial.suggestion.batch_size),
            *([layout(trial)] if laid_out else []),
            escape(parameters(trial.suggestion.parameters)),
            "" if best is None else shown(best, spec.target),
            outcome_now(trial, spec).replace("_", " "),
            cost(trial.gpu_hours(now)),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    """Return a console for tables: as wide as the terminal, or wide enough if there is none.

    A terminal of few columns wraps the lines of a wider table, which is easier to read than split words.
    """
    console = Console()
    if not console.is_terminal:
        return Console(width=_PIPE_WIDTH)
    return console if console.width >= _LEAST_WIDTH else Console(width=_LEAST_WIDTH)


def _loaded(text: str) -> object:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return loaded if isinstance(loaded, dict) else text
