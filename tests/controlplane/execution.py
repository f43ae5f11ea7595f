"""A container's running program: a process of this machine, or a script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import traceback
from typing import TYPE_CHECKING, Protocol

from tests.controlplane import guardian

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.controlplane.images import Image, Invocation
    from tests.controlplane.logs import ContainerLog

_MARK = "CONTROLPLANE_CONTAINER"
_SIGNALLED = 128
_SECONDS_TO_DRAIN = 2.0
_SECONDS_TO_DIE = 0.01


class StartError(Exception):
    """The program cannot be started; a container runtime reports exit code 128."""


class Execution(Protocol):
    """What a kubelet asks of a container runtime."""

    async def wait(self) -> int:
        """Wait for the end, all output logged, and return the exit code; 128 + n for signal n."""

    def terminate(self) -> None:
        """Ask the main process to end."""

    def kill(self) -> None:
        """End all processes at once."""


class ProcessExecution:
    """A program as a process of this machine, with its output in a log."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        working_dir: Path,
        log: ContainerLog,
        container_id: str,
    ) -> None:
        """Start it.

        Raises:
            StartError: there is no such program, or it may not be run.
        """
        self._mark = f"{_MARK}={container_id}"
        self._log = log
        try:
            # A blocking call, of a millisecond or two.
            self._process = subprocess.Popen(
                command,
                cwd=working_dir,
                env={**environment, _MARK: container_id},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f'exec: "{command[0]}": {error.strerror}') from error
        self._ended = asyncio.Event()
        self._exit_code = 0
        self._reading = asyncio.create_task(self._read())
        self._descriptor = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._reap)

    async def wait(self) -> int:
        await self._ended.wait()
        # A container ends with its first process; what that leaves behind is killed.
        await asyncio.to_thread(self._kill_all)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reading, _SECONDS_TO_DRAIN)
        return self._exit_code

    def terminate(self) -> None:
        if not self._ended.is_set():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if not self._ended.is_set():
            self._process.send_signal(signal.SIGKILL)

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        code = self._process.wait()
        self._exit_code = _SIGNALLED - code if code < 0 else code
        self._ended.set()

    def _kill_all(self) -> None:
        while found := guardian.marked_processes(self._mark):
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(_SECONDS_TO_DIE)

    async def _read(self) -> None:
        reader = asyncio.StreamReader()
        assert self._process.stdout is not None
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        try:
            while data := await reader.read(65536):
                self._log.append(data)
        finally:
            transport.close()


class ScriptExecution:
    """A script in place of a program: no process, so hundreds cost next to nothing."""

    def __init__(self, image: Image, invocation: Invocation, log: ContainerLog) -> None:
        assert image.script is not None
        self._speed = image.speed
        self._lines = image.script(invocation)
        self._log = log
        self._playing = asyncio.create_task(self._play())
        self._signal = 0

    async def wait(self) -> int:
        await asyncio.wait({self._playing})
        return _SIGNALLED + self._signal if self._playing.cancelled() else self._playing.result()

    def terminate(self) -> None:
        self._signal = signal.SIGTERM
        self._playing.cancel()

    def kill(self) -> None:
        self._signal = signal.SIGKILL
        self._playing.cancel()

    async def _play(self) -> int:
        while True:
            try:
                seconds, line = next(self._lines)
            except StopIteration as end:
                return end.value or 0
            except Exception:  # noqa: BLE001 - what would end a program ends a script
                self._log.append(traceback.format_exc().encode())
                return 1
            await asyncio.sleep(seconds / self._speed)
            self._log.append(f"{line}\n".encode())
