"""How the process begins."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.controlplane.waiting import eventually

ROOT = Path(__file__).parents[2]


def handles(process, number):
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals a process handles")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_controller_that_is_asked_to_end_while_it_starts_ends_well(number):
    without_cluster = {**os.environ, "KUBECONFIG": os.devnull, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "autotuner", "controller"], env=without_cluster, stderr=subprocess.PIPE
    ) as process:
        # Python itself handles SIGINT; it handles SIGTERM only with a handler.
        eventually(lambda: handles(process, signal.SIGTERM))
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
