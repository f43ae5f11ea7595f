"""`autotuner metrics LOG --target T`: show what the tuner would read from an existing log.

Exit codes: 0, something was read and nothing is in doubt; 1, nothing was read, or it is in doubt; 2, the
arguments have mistakes.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Never

import typer

from autotuner.cli import log_preview
from autotuner.cli.exit_codes import EXIT_FAILED, EXIT_INVALID, AsJson
from autotuner.spec.parsers import parse_pattern
from autotuner.spec.target import parse_target
from autotuner.spec.values import Target
from autotuner.study import formats
from autotuner.study.logs.log_reader import LogReader

_PIECE: Final = 1 << 20


def metrics(  # noqa: PLR0913, PLR0917 (one argument an option)
    log: Annotated[
        Path | None, typer.Argument(metavar="LOG", help="The log, or - for standard input.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="As the annotation: 'val_acc >= 0.93'.")
    ] = None,
    log_format: Annotated[
        str, typer.Option("--log-format", help="As the annotation; --formats lists them.")
    ] = formats.AUTO,
    metric_pattern: Annotated[
        str | None, typer.Option("--metric-pattern", help="As the annotation: a regular expression.")
    ] = None,
    as_json: AsJson = False,
    list_formats: Annotated[bool, typer.Option("--formats", help="List the log formats and exit.")] = False,
) -> None:
    """Show what would be read from a log."""
    if list_formats:
        width = max(map(len, formats.NAMES))
        for name, description in formats.NAMES.items():
            typer.echo(f"{name:<{width}}  {description}")
        return
    if log is None:
        _refuse("LOG is missing: must be the path of a log, for example train.log")
    wanted = _target(target)
    reader = _reader(wanted, log_format, metric_pattern)
    try:
        for text in _pieces(log):
            reader.feed(text)
    except OSError as error:
        _refuse(
            f"LOG is {str(log)!r}: must be a log that can be read ({error.strerror}), for example train.log"
        )
    reader.close()
    if as_json:
        typer.echo(json.dumps(log_preview.record(reader, wanted)))
    else:
        typer.echo("\n".join(log_preview.lines(reader, wanted)))
    if not log_preview.is_read(reader):
        raise typer.Exit(EXIT_FAILED)


def _reader(target: Target, log_format: str, pattern: str | None) -> LogReader:
    if log_format not in formats.NAMES:
        known = ", ".join(formats.NAMES)
        _refuse(f"--log-format is {log_format[:80]!r}: must be one of {known}, for example auto")
    try:
        parse_pattern(pattern)
    except ValueError as error:
        _refuse(f"--metric-pattern is {str(pattern)[:80]!r}: {error}, for example 'top1 (?P<value>[0-9.]+)'")
    return LogReader(target, log_format=log_format, pattern=pattern)


def _target(text: str | None) -> Target:
    if text is None:
        _refuse("--target is missing: must be a metric and a threshold, for example 'val_acc >= 0.93'")
    try:
        target = parse_target(text)
    except ValueError as error:
        _refuse(f"--target is {text[:80]!r}: {error}, for example 'val_acc >= 0.93'")
    if not isinstance(target, Target):
        _refuse(f"--target is {text[:80]!r}: must be a target, for example 'val_acc >= 0.93'")
    return target


def _pieces(log: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    if str(log) == "-":
        while piece := sys.stdin.buffer.read(_PIECE):
            yield decoder.decode(piece)
        return
    with log.open("rb") as file:
        while piece := file.read(_PIECE):
            yield decoder.decode(piece)


def _refuse(message: str) -> Never:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(EXIT_INVALID)
