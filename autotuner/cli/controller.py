"""`autotuner controller`: run the controller, with a flag for each of its settings.

The flags are generated from the model of the settings, so that the two always agree.
"""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from autotuner.cli.exit_codes import Reported
from autotuner.controller.settings import ControllerSettings, settings


def controller(**flags: str | None) -> None:
    """Run the controller: tune every annotated job of a cluster.

    Settings come from flags, then the environment, then the file that --config-file names.
    """
    # Slow imports, which --help does not need.
    from autotuner import log  # noqa: PLC0415
    from autotuner.controller.main import run  # noqa: PLC0415

    with Reported():
        loaded = ControllerSettings.load(**flags)
        log.configure(loaded.log_level, loaded.log_format)
        raise typer.Exit(run(loaded))


def _flag(name: str, environment: str, default: str, meaning: str) -> inspect.Parameter:
    # The model parses and checks the values; here each is the text that was given.
    option = typer.Option(
        f"--{name.replace('_', '-')}", help=f"{meaning} ({environment}; default: {default})"
    )
    annotation = Annotated[str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_FLAGS = [_flag(s.name, s.environment, s.default, s.meaning) for s in settings()]
# Typer reads a command's parameters from its signature.
controller.__signature__ = inspect.Signature(_FLAGS)  # type: ignore[attr-defined]  # documented: PEP 362
controller.__annotations__ = {flag.name: flag.annotation for flag in _FLAGS}
