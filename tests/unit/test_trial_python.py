"""The Python of local trials is the user's: named, active, or first on the PATH; not the tool's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotuner.backends.local.pods import Surroundings, pods
from autotuner.cli.trial_python import Tool, program, trial_path
from autotuner.errors import InvalidJob
from autotuner.job.pytorchjob import PYTORCHJOB
from tests.builders import manifest


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, programs in {"tool": ["python", "python3"], "user": ["python"], "debian": ["python3"]}.items():
        folder = tmp_path / name / "bin"
        folder.mkdir(parents=True)
        for each in programs:
            (folder / each).write_text("#!/bin/sh\n")
            (folder / each).chmod(0o755)
        found[name] = folder
    return found


def path(*folders: Path) -> str:
    return os.pathsep.join(map(str, folders))


def first(machine: dict[str, Path], shell: dict[str, str], *, torch=False, virtual=True, python=None) -> str:
    tool = Tool(machine["tool"] / "python", is_virtual=virtual, has_torch=torch)
    return trial_path(shell, tool, python).split(os.pathsep)[0]


def test_a_tool_in_an_environment_of_its_own_runs_trials_under_the_first_python_of_the_path(machine):
    for shell in ({"PATH": path(machine["user"])}, {"PATH": path(machine["tool"], machine["user"])}):
        assert first(machine, shell) == str(machine["user"])


def test_an_environment_that_can_import_torch_runs_its_own_trials(machine):
    assert first(machine, {"PATH": path(machine["user"])}, torch=True) == str(machine["tool"])


def test_an_interpreter_in_no_environment_is_the_users_own(machine):
    assert first(machine, {"PATH": path(machine["user"])}, virtual=False) == str(machine["tool"])


def test_an_active_environment_comes_before_the_tools_own(machine):
    shell = {"PATH": path(machine["user"]), "VIRTUAL_ENV": str(machine["user"].parent)}
    assert first(machine, shell, torch=True) == str(machine["user"])
    own = {"PATH": path(machine["tool"], machine["user"]), "VIRTUAL_ENV": str(machine["tool"].parent)}
    assert first(machine, own) == str(machine["tool"])


def test_a_named_interpreter_comes_before_all(machine):
    shell = {"PATH": path(machine["user"]), "VIRTUAL_ENV": str(machine["user"].parent)}
    assert first(machine, shell, python=machine["debian"] / "python3") == str(machine["debian"])
    with pytest.raises(InvalidJob, match="--python is '/no/python': must be an interpreter"):
        first(machine, shell, python=Path("/no/python"))


def test_without_any_other_python_the_tools_own_is_better_than_none(machine, tmp_path):
    assert first(machine, {"PATH": str(tmp_path)}) == str(machine["tool"])


def test_where_there_is_no_python_but_a_python3_a_command_python_runs_that(machine, tmp_path):
    chosen = program(path(machine["debian"]))
    assert chosen == str(machine["debian"] / "python3")
    (process,) = pods(
        PYTORCHJOB.pod_plans(manifest(), "127.0.0.1", 1),
        manifest()["metadata"],
        Surroundings(tmp_path, {}, python=chosen),
    )
    assert process.command == (chosen, "train.py")
