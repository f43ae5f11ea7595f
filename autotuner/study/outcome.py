"""How a trial ended, and whose fault it was.

A backend says what it saw of the end as an `Ending`; `classify` names the outcome and says why in words for
the user. Out of memory is told apart from failure because it is knowledge about the micro-batch; what the
cluster did is told apart because it is run again. On a cluster the end itself must be found first: `assess`
reads it off the job's conditions and its pods, given as plain values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.log_parser import ESCAPE
from autotuner.trial import Measurement, Outcome

TAIL_LINES: Final = 8
"""Lines of a failed program's log that its message repeats."""
MAX_TAIL: Final = 1500
"""Characters of them; an annotation that repeats them must stay small."""


_OUT_OF_MEMORY: Final = re.compile(
    r"(?:CUDA|HIP|XPU|MPS backend) (?:error: )?out of memory"
    r"|OutOfMemoryError"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
    r"|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
    r"|^MemoryError\b|Cannot allocate memory",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a backend saw of a trial's end.

    `exit_code` is that of the first process that failed, 0 where all succeeded, None where none ended by
    itself. `log_tail` is the end of its log. `killed_for_memory` is the kernel's word (OOMKilled).
    `disruption` is the cluster's own reason where the end was its doing: preempted, evicted, node lost.
    """

    exit_code: int | None
    log_tail: str = ""
    killed_for_memory: bool = False
    disruption: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether the program went to its own end."""
        return self.exit_code == 0 and not self.disruption and not self.killed_for_memory


def classify(ending: Ending, measurements: Sequence[Measurement], target: Target) -> tuple[Outcome, str]:
    """Return how a trial ended, and why, in words.

    A run that met the target has reached it, however it ended afterwards.
    """
    if any(target.is_met(measurement.value) for measurement in measurements):
        return Outcome.REACHED, ""
    if ending.disruption:
        return Outcome.LOST, ending.disruption
    if ending.killed_for_memory:
        return Outcome.OUT_OF_MEMORY, "the kernel killed the process for its memory (OOMKilled)"
    if ending.exit_code != 0 and (match := _OUT_OF_MEMORY.search(ending.log_tail)):
        return Outcome.OUT_OF_MEMORY, _line_around(ending.log_tail, match.start())
    if measurements and not measurements[-1].is_finite:
        return Outcome.DIVERGED, f"{target.metric} became {measurements[-1].value}"
    if ending.exit_code != 0:
        return Outcome.FAILED, f"exit code {ending.exit_code}: {tail(ending.log_tail) or 'the log is empty'}"
    if not measurements:
        return Outcome.FAILED, (
            f"the run ended well, but no line of its log carries {target.metric}: print it from rank 0, such"
            f' as "{target.metric}=0.5 epoch=1", or set the annotation metric-pattern;'
            f" the log ends: {tail(ending.log_tail) or '(empty)'}"
        )
    return Outcome.MISSED, ""


def tail(log: str) -> str:
    """Return the last lines of a log that say something, bounded in number and length.

    Colours and whatever else moves a terminal's cursor go: the lines are repeated in annotations and pages.
    """
    lines = [line for written in log.splitlines() if (line := _printable(written))]
    return "\n".join(lines[-TAIL_LINES:])[-MAX_TAIL:]


def _line_around(log: str, position: int) -> str:
    start = log.rfind("\n", 0, position) + 1
    return _printable(log[start:].splitlines()[0]).strip()[:MAX_TAIL]


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in ESCAPE.sub("", line)).rstrip()
