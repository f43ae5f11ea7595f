"""Download released Go modules, and compile programs from them at low priority."""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Report = Callable[[str], None]
    """Receives a line of progress now and then."""

LINKER_FLAGS = "-ldflags=-s -w"
"""Without symbol tables and debug information."""
_PROGRESS_EVERY_SECONDS = 20.0


class BuildError(Exception):
    """A program can neither be found nor built; the message says what to do."""


def download(module: str) -> dict[str, str]:
    """Download ``path@version`` and return what Go says about it: ``Dir``, ``GoMod`` and more.

    Raises:
        BuildError: Go is missing, or there is no such module.
    """
    done = subprocess.run(
        [_go(), "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),  # outside any module, which might forbid the download
    )
    answer: dict[str, str] = json.loads(done.stdout or "{}")
    if done.returncode or "Error" in answer:
        raise BuildError(f"cannot download {module}: {answer.get('Error') or done.stderr}")
    return answer


def compile_program(
    name: str,
    arguments: Sequence[str],
    report: Report,
    *,
    folder: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a ``go build`` or ``go install`` at low priority, reporting as packages go by.

    Raises:
        BuildError: it failed; the message ends with what Go said.
    """
    verb, *rest = arguments
    started = reported = time.monotonic()
    packages = 0
    tail: collections.deque[str] = collections.deque(maxlen=30)
    report(f"{name}: building")
    with subprocess.Popen(
        ["nice", _go(), verb, "-v", "-trimpath", "-p=2", *rest],
        cwd=folder,
        # Without cgo the programs are static, and no C compiler is needed.
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line)
            packages += " " not in line.strip()
            now = time.monotonic()
            if now - reported > _PROGRESS_EVERY_SECONDS:
                report(f"{name}: {packages} packages compiled after {now - started:.0f} s")
                reported = now
    if process.returncode:
        raise BuildError(f"building {name} failed:\n{''.join(tail)}")
    report(f"{name}: built in {time.monotonic() - started:.0f} s")


def copy_files(source: Path, target: Path, pattern: str = "*") -> None:
    """Copy the files of a folder that match, with their folders but without their modes.

    What lies in Go's module cache is read-only, and a copy of it must not be.
    """
    for file in source.rglob(pattern):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


@contextmanager
def whole_or_absent(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to, which takes its name if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        output = Path(aside) / target.name
        yield output
        output.rename(target)


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise BuildError(
            "`go` is not on the PATH: install Go (the version that the pinned Kubernetes "
            "asks for, or later), or let KUBEBUILDER_ASSETS name a folder with the control plane's programs"
        )
    return go
