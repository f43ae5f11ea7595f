"""Run the processes of one local trial, and leave none behind. Standard library only.

It is a separate program (`python supervisor.py TRIAL`), because the tuner may be killed with SIGKILL at any
moment. The supervisor holds the read end of a pipe whose write end is in the tuner; when the pipe closes, for
whatever reason, the supervisor kills its processes. Each process has its own session, so that its children
are killed with it. On Linux, orphans that left their session become children of the supervisor (it is their
subreaper) and are killed, too; and if the supervisor itself is killed, the kernel kills the processes that it
started (parent-death signal).

The trial's folder holds `pods.json` (what to run), one log per process, and at the end `ending.json`, written
completely or not at all. A folder without an ending was interrupted.
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
"""Seconds between SIGTERM and SIGKILL, so that a process can save something before it ends."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_POLL_SECONDS: Final = 0.05


def main() -> int:
    """Run the trial in the folder that the first argument names, until it ends or standard input closes."""
    folder = Path(sys.argv[1])
    pods: list[dict[str, Any]] = json.loads((folder / PODS).read_text())
    # SIGINT reaches the whole foreground group, and the tuner decides what to do. On other signals we end,
    # together with all processes that we started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: signals.append(number))
    prctl = _prctl()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    started_at = time.time()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        ended = _start_all(folder, pods, processes, prctl)
        if ended is None:
            # The ending has the same time; on a full disk the trial only appears to wait until it has ended.
            with contextlib.suppress(OSError):
                write_whole(folder / STARTED, {"started_at": started_at})
            # The operator sets RANK only in jobs with a Master.
            ended = _wait(processes, signals, is_first_enough="RANK" in pods[0]["environment"])
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
        # Without an ending the trial is lost: the machine is at fault, not the program.
        return 1
    return 0


def write_whole(path: Path, content: object) -> None:
    """Write JSON atomically: a reader, also after a crash, sees all of it or nothing."""
    write_text_whole(path, json.dumps(content))


def write_text_whole(path: Path, text: str) -> None:
    """Write a text atomically: a reader, also after a crash, sees all of it or nothing."""
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
    """Start a process per pod; return the one that could not start, with its exit code, or None."""
    for index, pod in enumerate(pods):
        try:
            processes.append(_start(folder, pod, prctl))
        except OSError as error:
            # The command does not exist or is not executable: the user must fix it, like any failed program.
            with contextlib.suppress(OSError), (folder / f"{pod['name']}.log").open("a") as log:
                log.write(f"cannot start {pod['command'][0]!r}: {error.strerror}\n")
            return index, 127
    return None


def _start(folder: Path, pod: dict[str, Any], prctl: Callable[[int, int], None]) -> subprocess.Popen[bytes]:
    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with (folder / f"{pod['name']}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (it runs the user's own program)
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
    processes: Sequence[subprocess.Popen[bytes]], signals: Sequence[int], *, is_first_enough: bool
) -> tuple[int, int] | None:
    """Return which process decided the trial and its exit code; None if we must end the trial.

    We must end it when the tuner has ended, or on a signal.

    As in the training operator: the job fails when any process fails, and succeeds when the first
    process, the Master's, succeeds. Without a Master all must succeed.
    """
    while True:
        codes = [process.poll() for process in processes]
        failed = next((index for index, code in enumerate(codes) if code), None)
        if failed is not None:
            # The number of a signal is negative here; a shell and a kubelet report 128 + n.
            code = codes[failed] or 0
            return failed, code if code >= 0 else 128 - code
        if codes[0] == 0 and (is_first_enough or not any(code is None for code in codes)):
            return 0, 0
        readable, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
        if signals or (readable and not os.read(sys.stdin.fileno(), 1)):
            return None


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End all processes and their children: first with SIGTERM, then with SIGKILL."""
    for process in processes:
        _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        time.sleep(_POLL_SECONDS)
    for process in processes:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    # Remaining children are orphans that were reparented to us: kill until none is left.
    for pid in iter(_any_child, None):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _any_child() -> int | None:
    """Return a child that is still alive, from Linux's /proc; None without children or /proc."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _prctl() -> Callable[[int, int], None]:
    """Return Linux's prctl; elsewhere a function that does nothing: pipe and sessions must suffice."""
    if sys.platform != "linux":
        return lambda _option, _value: None
    library = ctypes.CDLL(None, use_errno=True)

    def call(option: int, value: int) -> None:
        library.prctl(option, ctypes.c_ulong(value), 0, 0, 0)

    return call


if __name__ == "__main__":
    sys.exit(main())
