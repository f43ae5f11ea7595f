"""The command line: `autotuner tune FILE`, and what is around it; also `kubectl autotuner`.

A module a group of commands: `tune` runs a job's file on this machine, `look` reads a tuning wherever it is,
`control` runs the controller. `ending` says how they all end.
"""

from __future__ import annotations

from typing import Annotated

import typer

from autotuner import __version__
from autotuner.cli import control, look, metrics, tune

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
    if version:
        typer.echo(f"autotuner {__version__}")
        raise typer.Exit


for command in (
    tune.tune,
    tune.validate,
    metrics.metrics,
    look.schema,
    look.status,
    look.trials,
    look.report,
    look.export,
    control.controller,
):
    app.command()(command)
