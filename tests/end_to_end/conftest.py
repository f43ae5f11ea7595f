"""Every test has a folder of its own, and must leave no process behind in it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.programs import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return an empty folder to tune in."""
    made = Place(tmp_path)
    yield made
    left = made.processes()
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert not left, "processes were left behind"
