"""Child processes that never outlive the test process, and the ports they listen on."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.controlplane import guardian

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MARK = "CONTROLPLANE_FAMILY"


class StartError(Exception):
    """A program of the control plane did not come up; the message ends with its log."""


class Family:
    """Processes and a folder that are gone once this process closes the family, or dies.

    A guardian process sees to that, even after SIGKILL; see `tests.controlplane.guardian`.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="controlplane-"))
        self.mark = {_MARK: secrets.token_hex(8)}
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", guardian.__file__, f"{_MARK}={self.mark[_MARK]}", self.folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def close(self) -> None:
        """Kill all processes of the family and delete its folder. Closing twice is harmless."""
        self._guardian.communicate()


class Program:
    """One program of the control plane: started, stopped and started again with one command."""

    def __init__(
        self,
        program: Path,
        arguments: Sequence[str],
        family: Family,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = program.name
        self.log = family.folder / f"{self.name}.log"
        self._command = [str(program), *arguments]
        self._environment = {**os.environ, **(environment or {}), **family.mark}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, unless it runs already. Its output is appended to ``log``."""
        if self.is_running:
            return
        with self.log.open("ab") as log:
            # A group of its own: Ctrl-C is for pytest, which then stops its programs in order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                process_group=0,
            )

    def stop(self) -> None:
        """Kill it, as a crash would, and wait for its end; stopping a stopped one is harmless."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def wait_until(self, is_ready: Callable[[], bool], seconds: float, *, restarts: bool = False) -> None:
        """Wait until ``is_ready`` says so.

        Args:
            is_ready: asked again and again.
            seconds: how long to wait.
            restarts: the program may end before; it is started again, as a kubelet does.

        Raises:
            StartError: the program ended for good, or was not ready in time.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not self.is_running and restarts:
                self.start()
            elif not self.is_running:
                raise StartError(f"{self.name} ended at its start:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready after {seconds:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    """Return a TCP port of the loopback interface without a listener.

    It lies below the range from which the kernel takes ports for outgoing connections, so that none
    of those can take it before the program that it is meant for listens on it.
    """
    with socket.socket() as probe:
        while True:
            port = random.randrange(12_000, 32_000)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
