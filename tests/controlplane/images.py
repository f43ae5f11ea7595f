"""What stands for a container image on a machine without containers.

By default an image is the machine itself: its programs, this Python, this checkout. A test may
register an `Image` under a name, to give it an entry point, to let a folder of the machine stand
for one of the image, or to play a script in place of a program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.controlplane.pod import Container

_CHECKOUT = Path(__file__).parents[2]
_PYTHONS = ("python", "python3")


@dataclass(frozen=True)
class Invocation:
    """How a scripted container was started: what a program would see."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


Script = Callable[[Invocation], Generator[tuple[float, str], None, int | None]]
"""Plays a program: yields pairs of seconds to let pass and a line to log then; returns the exit
code, None for 0. It runs on the event loop that runs every pod, so it must not block."""


@dataclass(frozen=True)
class Image:
    """What a name of an image stands for."""

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Folders of the image, by absolute path, and the local folders that stand for them."""
    script: Script | None = None
    speed: float = 1.0
    """How many seconds of the script pass in one second."""

    def command_of(self, container: Container) -> tuple[str, ...]:
        """Return what to run, before expansion: a pod's ``command`` also discards our arguments."""
        if container.command:
            return container.command + container.arguments
        return self.entrypoint + (container.arguments or self.arguments)

    def localise(self, word: str) -> str:
        """Lead a path of the image to the folder that stands for it."""
        for inside, local in self.folders.items():
            if word == inside or word.startswith(f"{inside}/"):
                return f"{local}{word.removeprefix(inside)}"
        return word

    def localise_command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command as it is to run here, with ``python`` as this very Python."""
        program, *rest = (self.localise(word) for word in command)
        return (sys.executable if program in _PYTHONS else program, *rest)


def machine_environment(folder: Path, host_name: str) -> dict[str, str]:
    """Return the variables that every image has, beneath those of the pod.

    Nothing of the tests' own environment leaks in.
    """
    python = Path(sys.executable).parent
    return {
        "PATH": os.pathsep.join([str(python), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(_CHECKOUT),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "HOSTNAME": host_name,
        "LANG": "C.UTF-8",
        # Each of many pods would otherwise start a thread for each core.
        "OMP_NUM_THREADS": "1",
    }
