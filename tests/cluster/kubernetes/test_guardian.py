"""Nothing of a control plane outlives the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.controlplane.guardian import marked_processes
from tests.controlplane.waiting import eventually

# Two processes of a family, one in a session of its own that a group's kill would not reach.
START_FAMILY = """
import subprocess
from tests.controlplane.processes import Family

family = Family()
for new_session in (False, True):
    subprocess.Popen(["sleep", "600"], env=family.mark, start_new_session=new_session)
((name, value),) = family.mark.items()
print(family.folder, f"{name}={value}", flush=True)
input()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_and_folder_go_with_the_one_who_made_them(how):
    with subprocess.Popen(
        [sys.executable, "-c", START_FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[3],
        text=True,
        start_new_session=True,
    ) as family:
        folder, mark = family.stdout.readline().split()
        eventually(lambda: len(marked_processes(mark)) == 2)
        assert Path(folder).is_dir()

        # The whole group, as a terminal or a CI runner would.
        os.killpg(family.pid, how)

    eventually(lambda: not marked_processes(mark))
    eventually(lambda: not Path(folder).exists())
