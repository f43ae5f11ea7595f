"""End a family of processes once the process that started them is gone.

Run as a program by `tests.controlplane.processes.Family`, in a session of its own so that neither
Ctrl-C nor a kill of the test's process group reaches it. Its standard input is a pipe whose other
end the test process holds and never writes to: end of file means that the test process has closed
it, or died in any way at all. Then every process that carries the family's mark in its environment
is killed, and the family's folder is deleted.

Why a mark in the environment: children inherit it, whatever they do with process groups, sessions
and parents. (torchrun puts each of its workers into a session of its own, so killing a process
group would leave them.) Jenkins finds the processes that a build left behind in the same way.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

SCANS_WITHOUT_FINDING = 3
SECONDS_BETWEEN_SCANS = 0.05


def marked_processes(mark: str) -> list[int]:
    """Return the ids of all processes, but this one, whose environment contains ``mark``.

    ``mark`` is a whole entry, ``NAME=value``.
    """
    wanted = mark.encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes()
        except OSError:  # gone meanwhile, or another user's
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(entry.name))
    return found


def kill_marked(mark: str) -> None:
    """Kill the processes that carry ``mark``, and those that they start meanwhile."""
    clean = 0
    while clean < SCANS_WITHOUT_FINDING:
        found = marked_processes(mark)
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # A process between fork and exec does not carry the mark yet: look more than once.
        clean = 0 if found else clean + 1
        time.sleep(SECONDS_BETWEEN_SCANS)


def main(mark: str, folder: str) -> None:
    """Wait for the end of standard input, then clean up."""
    sys.stdin.buffer.read()
    kill_marked(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
