"""The command line: `autotuner tune FILE` and the other commands; also `kubectl autotuner`.

One module per group of commands: `tune` runs a job's file on this machine, `inspect` reads a study, `retry`
continues a failed one, `controller` runs the controller. `job_file` reads the file of a job, `studies` finds
a study, and `exit_codes` defines the exit codes.
"""

from __future__ import annotations

from typing import Annotated

import typer

from autotuner import __version__, log
from autotuner.cli import controller, inspect, metrics, render, retry, tune

app = typer.Typer(
    name="autotuner",
    help="Find the largest batch size that still meets a target accuracy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find the largest batch size that still meets a target accuracy."""
    log.quiet_libraries()
    if version:
        typer.echo(f"autotuner {__version__}")
        raise typer.Exit


for command in (
    tune.tune,
    tune.validate,
    render.render,
    metrics.metrics,
    inspect.schema,
    inspect.status,
    inspect.trials,
    inspect.report,
    inspect.export,
    retry.retry,
    controller.controller,
):
    app.command()(command)
