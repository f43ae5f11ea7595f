"""Runs the processes of one local trial, and leaves none behind, whatever happens. Standard library only.

A program of its own (`python supervisor.py TRIAL`), for the tuner may be killed with
SIGKILL at any moment: the supervisor holds the read end of a pipe whose write end lives in the tuner, and
when that closes, for whatever reason, it kills what it started. Each process has a session of its own, so
that its children go with it; on Linux, orphans that left their session come back to the supervisor (it is
their subreaper) and are killed too, and should the supervisor itself be killed, the kernel kills the
processes that it started (parent-death signal).

The trial's folder holds `pods.json` (what to run), a log a process, and at the end `ending.json`, written
whole or not at all. A folder without an ending was interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

PODS: Final = "pods.json"
STARTED: Final = "started.json"
ENDING: Final = "ending.json"
GRACE_SECONDS: Final = 5.0
"""Between SIGTERM and SIGKILL, for a process that saves something on its way out."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_POLL_SECONDS: Final = 0.05


def main() -> int:
    """Run the trial in the folder that the first argument names, until it ends or standard input closes."""
    folder = Path(sys.argv[1])
    pods: list[dict[str, Any]] = json.loads((folder / PODS).read_text())
    # SIGINT reaches the whole foreground group; the tuner decides what it means. Other signals are the
    # machine's wish that we end, with all that we started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: told.append(number))
    prctl = _prctl()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    started_at = time.time()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        ended = _start_all(folder, pods, processes, prctl)
        if ended is None:
            # The ending says the same; on a full disk the trial only seems to wait until it has ended.
            with contextlib.suppress(OSError):
                write_whole(folder / STARTED, {"started_at": started_at})
            # The operator sets RANK beside a Master alone.
            ended = _wait(processes, told, is_first_enough="RANK" in pods[0]["environment"])
        if ended is None:
            return 1
    finally:
        _end(processes)
    index, code = ended
    ending = {
        "exit_code": code,
        "pod": pods[index]["name"],
        "started_at": started_at,
        "ended_at": time.time(),
    }
    try:
        write_whole(folder / ENDING, ending)
    except OSError:
        return 1  # Without an ending the trial is lost, which is this machine's fault and not the program's.
    return 0


def write_whole(path: Path, content: object) -> None:
    """Write JSON so that a reader, or a crash, sees all of it or nothing."""
    write_text_whole(path, json.dumps(content))


def write_text_whole(path: Path, text: str) -> None:
    """Write a text so that a reader, or a crash, sees all of it or nothing."""
    draft = path.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _start_all(
    folder: Path,
    pods: Sequence[dict[str, Any]],
    processes: list[subprocess.Popen[bytes]],
    prctl: Callable[[int, int], None],
) -> tuple[int, int] | None:
    """Start a process for each pod; return which could not be started and its exit code, None if all were."""
    for index, pod in enumerate(pods):
        try:
            processes.append(_start(folder, pod, prctl))
        except OSError as error:
            # The command does not exist, or may not be run: the user's to fix, like any failed program.
            with contextlib.suppress(OSError), (folder / f"{pod['name']}.log").open("a") as log:
                log.write(f"cannot start {pod['command'][0]!r}: {error.strerror}\n")
            return index, 127
    return None


def _start(folder: Path, pod: dict[str, Any], prctl: Callable[[int, int], None]) -> subprocess.Popen[bytes]:
    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with (folder / f"{pod['name']}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (the user's own program is what we are here to run)
            pod["command"],
            cwd=pod["folder"],
            env={**os.environ, **pod["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (this program has one thread)
        )


def _wait(
    processes: Sequence[subprocess.Popen[bytes]], told: Sequence[int], *, is_first_enough: bool
) -> tuple[int, int] | None:
    """Return which process decided the trial and its exit code; None where we are to end it.

    That is where the tuner is gone, or a signal has told us.

    As in the training operator: any failure ends the job badly, and the success of the first process, the
    Master's, ends it well. Without a Master all must succeed.
    """
    while True:
        codes = [process.poll() for process in processes]
        failed = next((index for index, code in enumerate(codes) if code), None)
        if failed is not None:
            # A signal's number is negative here; a shell, and a kubelet, say 128 + n.
            code = codes[failed] or 0
            return failed, code if code >= 0 else 128 - code
        if codes[0] == 0 and (is_first_enough or not any(code is None for code in codes)):
            return 0, 0
        readable, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
        if told or (readable and not os.read(sys.stdin.fileno(), 1)):
            return None


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End every process, and every child of theirs; politely first."""
    for process in processes:
        _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(_POLL_SECONDS)
    for process in processes:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    # What is still a child of ours are orphans that came back: kill until there is none.
    for pid in iter(_any_child, None):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _any_child() -> int | None:
    """Return a child that still lives, from Linux's /proc; None where there is none, or no /proc."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _prctl() -> Callable[[int, int], None]:
    """Return Linux's prctl, or nothing's: elsewhere the pipe and the sessions do their work alone."""
    if sys.platform != "linux":
        return lambda _option, _value: None
    library = ctypes.CDLL(None, use_errno=True)

    def call(option: int, value: int) -> None:
        library.prctl(option, ctypes.c_ulong(value), 0, 0, 0)

    return call


if __name__ == "__main__":
    sys.exit(main())
