"""The supervisor of a local trial, as a program of its own, on a disk that is full."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from autotuner.backends.local import supervisor


def supervise(
    folder: Path, *command: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    pods = [{"name": "toy", "command": command, "environment": {}, "folder": str(folder)}]
    (folder / supervisor.PODS).write_text(json.dumps(pods))
    reader = subprocess.Popen(
        [sys.executable, "-I", supervisor.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509 (the tests have one thread here)
    )
    reader.wait(30)  # before communicate, which closes the pipe and so tells it to end
    out, err = reader.communicate()
    return subprocess.CompletedProcess(reader.args, reader.returncode, out, err)


def no_space() -> None:
    # No file may grow: what the kernel answers is what a full disk does, without one.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_disk_that_is_full_right_after_the_start_leaves_no_ending_and_no_traceback(tmp_path: Path):
    ran = supervise(tmp_path, sys.executable, "-c", "pass", before=no_space)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / supervisor.ENDING).exists()


def test_a_start_that_cannot_be_noted_does_not_end_the_run(tmp_path: Path):
    (tmp_path / "started.draft").mkdir()  # what has the draft's name and is no file cannot be written
    ran = supervise(tmp_path, sys.executable, "-c", "raise SystemExit(7)")
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / supervisor.ENDING).read_text())["exit_code"] == 7


def test_a_command_that_does_not_exist_fails_with_its_name_in_the_log(tmp_path: Path):
    ran = supervise(tmp_path, "/no/such/program")
    assert ran.returncode == 0
    assert json.loads((tmp_path / supervisor.ENDING).read_text())["exit_code"] == 127
    assert "cannot start '/no/such/program'" in (tmp_path / "toy.log").read_text()
