"""Choose the Python that local trials run under: the user's, and not that of the tool's own environment.

`pipx install autotuner` and `uv tool install autotuner` give the command an environment of its own, in which
there is nothing to train with. The first of these rules that applies decides how a trial's PATH starts:

1. `--python PATH`: the folder of that interpreter.
2. An environment is active (VIRTUAL_ENV or CONDA_PREFIX): the PATH as it is, which starts with that.
3. The tool's own interpreter is in no virtual environment, or can import torch: its folder. So
   `.venv/bin/autotuner tune` trains in `.venv` without activating it.
4. The PATH as it is, without the folder of the tool's environment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import InvalidJob, Mistake


@dataclass(frozen=True, slots=True)
class Tool:
    """The interpreter that runs the autotuner: its path, and whether a training could run under it."""

    executable: Path
    is_virtual: bool
    has_torch: bool


def trial_path(shell: Mapping[str, str], tool: Tool, python: Path | None) -> str:
    """Return the PATH of trials.

    Args:
        shell: The environment of the user's shell.
        tool: The interpreter that runs the autotuner.
        python: The interpreter that the user named.

    Raises:
        InvalidJob: If that is not a program.
    """
    own, path = tool.executable.parent, shell.get("PATH", os.defpath)
    if python is not None:
        if not python.is_file() or not os.access(python, os.X_OK):
            rule = "must be an interpreter that can be run"
            raise InvalidJob([Mistake("--python", str(python), rule, ".venv/bin/python")])
        return _first(python.absolute().parent, path)
    active = [Path(shell[name]) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if shell.get(name)]
    if active:
        return path if own in (prefix / "bin" for prefix in active) else _without(own, path)
    if not tool.is_virtual or tool.has_torch:
        return _first(own, path)
    without = _without(own, path)
    # Without any other Python the tool's own is better than none.
    return without if program(without) is not None else _first(own, path)


def program(path: str) -> str | None:
    """Return what runs a command `python`: `python3` where the PATH has no other, as on Debian."""
    return "python" if shutil.which("python", path=path) else shutil.which("python3", path=path)


def _first(folder: Path, path: str) -> str:
    return os.pathsep.join([str(folder), path])


def _without(folder: Path, path: str) -> str:
    return os.pathsep.join(part for part in path.split(os.pathsep) if part and Path(part) != folder)
