"""What all commands have in common: the option --json, exit codes, and error messages on standard error.

Exit codes: 0, the answer is confirmed (or the command did what it was asked); 1, the machine, the cluster or
the user's program failed; 2, the input has mistakes; 3, the study ended without a confirmed answer, or the
reading of its metric or the length of its runs is in doubt; 130, interrupted (run the same command again).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Final

import typer

from autotuner.errors import AutotunerError, InvalidConfiguration, InvalidJob, Mistake

EXIT_FAILED: Final = 1
EXIT_INVALID: Final = 2
EXIT_UNCONFIRMED: Final = 3
EXIT_INTERRUPTED: Final = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


class Reported:
    """Converts errors to a message on standard error and an exit code."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        del kind, trace
        if isinstance(error, InvalidJob):
            if self._as_json:
                mistakes, warnings = map(as_mapping, error.mistakes), map(as_mapping, error.warnings)
                typer.echo(json.dumps({"valid": False, "mistakes": [*mistakes], "warnings": [*warnings]}))
            for mistake in error.mistakes:
                typer.echo(f"error: {mistake}", err=True)
            sys.exit(EXIT_INVALID)
        if isinstance(error, InvalidConfiguration):
            for line in str(error).splitlines():
                typer.echo(f"error: {line}", err=True)
            sys.exit(EXIT_INVALID)
        if isinstance(error, AutotunerError):
            typer.echo(f"error: {error}", err=True)
            sys.exit(EXIT_FAILED)
        if isinstance(error, KeyboardInterrupt):
            typer.echo(
                "interrupted; all processes are stopped, and the same command continues from here", err=True
            )
            sys.exit(EXIT_INTERRUPTED)


def as_mapping(mistake: Mistake) -> dict[str, str]:
    """Return a mistake or a warning as commands print it with --json."""
    return asdict(mistake)
