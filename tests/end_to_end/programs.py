"""Small training programs, their job files, and the command line run on them, as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tests.builders import annotations, container, manifest, replica

ROOT: Final = Path(__file__).parents[2]
DEADLINE: Final = 120.0
"""Seconds to wait for what must happen; only a failure takes as long."""

LEARNS: Final = """
import os, sys, time, zlib
batch = int(os.environ["AUTOTUNER_BATCH_SIZE"])
given = batch, os.environ.get("AUTOTUNER_LEARNING_RATE"), os.environ.get("AUTOTUNER_SEED")
for epoch in range(1, 6):
    time.sleep(float(os.environ.get("PACE", "0.01")))
    # Up to a batch size of 64 it gets there; beyond, it stays below. All that it is given has some effect.
    short = (0.3 if batch > 64 else 0) + zlib.crc32(f"{epoch} {given}".encode()) % 1000 / 10_001
    print(f"accuracy={min(1.0, 0.2 * epoch) - short:.4f} epoch={epoch}", flush=True)
"""
"""Reaches 0.9 to 1 in five steps with a batch of at most 64, and 0.6 to 0.7 with a larger one."""


def _heed_signals() -> None:
    """Undo what a caller of the tests in the background has set: it makes all that it starts ignore these."""
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON text."""
        return json.loads(self.out)


@dataclass
class Place:
    """A folder with a program and its job file, as a user has them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tuning(self) -> Path:
        """Where the tuning keeps its state."""
        return self.folder / "toy-tuning"

    @property
    def marker(self) -> str:
        """A variable that every process of a trial inherits, and none other has."""
        return f"PLACE={self.folder}"

    def write(
        self,
        program: str = LEARNS,
        *,
        asked: Mapping[str, str | None] | None = None,
        args: Sequence[str] = (),
        workers: int = 0,
        **changed: Any,
    ) -> Path:
        """Write the program and a job that runs it; return the job's file.

        As it comes, the baseline's batch is the largest allowed, so that two short trials are a whole tuning.
        """
        (self.folder / "train.py").write_text(program)
        made = container(command=["python", "train.py"], args=args, **changed)
        job = manifest(
            master=replica(made),
            worker=replica(made, workers) if workers else None,
            asked=annotations(
                **{"batch_size": "16..32", "run_length": "5", "confirmations": "1", **(asked or {})}
            ),
        )
        return self.save(job)

    def save(self, job: object) -> Path:
        """Write a job's file."""
        file = self.folder / "job.yaml"
        file.write_text(yaml.safe_dump(job, sort_keys=False))
        return file

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command of the autotuner in this folder, and return at once."""
        environment = {
            **os.environ,
            # As in the tests' own environment, activated: whatever else is active where they are started.
            "VIRTUAL_ENV": sys.prefix,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PLACE": str(self.folder),
            **self.environment,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "autotuner", *words],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"preexec_fn": _heed_signals, **options},
        )

    def run(self, *words: str, **options: Any) -> Ran:
        """Run a command of the autotuner in this folder to its end."""
        process = self.start(*words, **options)
        out, err = process.communicate(timeout=DEADLINE)
        return Ran(process.returncode, out, err)

    def trials(self) -> list[dict[str, Any]]:
        """Return the finished trials, as the command line lists them."""
        listed: list[dict[str, Any]] = self.run("trials", "toy-tuning", "--json").json
        return listed

    def ledger(self) -> dict[str, str]:
        """Return the ledger's files and their content."""
        return {file.name: file.read_text() for file in sorted((self.tuning / "ledger").glob("trial-*.json"))}

    def processes(self) -> list[int]:
        """Return the processes of this place that live, the tuner's own excepted."""
        return list(_living(self.marker))


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    end = time.monotonic() + DEADLINE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come about in {DEADLINE} s")
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a tuner as the kernel does when it runs out of memory: nothing of it runs any more."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)


def _living(marker: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # A dead process that its parent has not waited for yet has an empty environment.
                if marker.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
