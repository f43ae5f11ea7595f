"""Find words of a script that say that it trains another batch than the one that it was given.

Where trainings are not deterministic, their values cannot show it.
"""

from __future__ import annotations

import re
from typing import Final

from autotuner.study.logs.doubt import bounded

_SIZE: Final = r"batch[ _-]?sizes?\b"
_CHANGED: Final = r"(?:reduced|decreased|halved|lowered|clamped|clipped|capped|rounded)"
_BATCH_CHANGE: Final = re.compile(
    rf"(?<![\w-])(?:{_CHANGED}|(?:reduc|decreas|halv|lower|clamp|clipp|capp|shrink|round)ing)\s"
    rf"(?:(?!micro|mini|eval|val|test)[a-z_-]{{1,16}}\s){{0,3}}{_SIZE}(?=.{{0,80}}\d)"
    r"|(?<!micro[ _-])(?<!eval[ _-])(?<!test[ _-])(?<!val[ _-])"
    rf"{_SIZE}[\s=:(]{{0,3}}\d{{1,9}}\)?,?\s(?:is\s)?"
    rf"(?:too\s(?:large|big|high)|exceeds|(?:larger|bigger|greater)\sthan|{_CHANGED}\b)"
    rf"|(?:retrying|falling\sback)\s(?:with|to)\s(?:an?\s|the\s)?(?:smaller\s)?{_SIZE}(?=.{{0,20}}\d)",
    re.IGNORECASE,
)
"""`batch size 2048 is too large`, `reducing batch size to 64`."""
_NO_MEMORY: Final = re.compile(
    r"\bOutOfMemoryError\b|\b(?:CUDA|HIP|XPU|NPU) out of memory"
    r"|CUDA_ERROR_OUT_OF_MEMORY|\bRESOURCE_EXHAUSTED\b"
)
"""A device had no memory left: a run that measures after it may have begun again at a smaller batch. Of the
errors of `autotuner.study.endings.known_errors` these are the plainest; all of them cost too much for each
line."""
_SKIPS: Final = re.compile(r"skip|autotun|benchmark|workspace", re.IGNORECASE)
"""One batch is left out, or a kernel that needs too much is."""


class BatchWords:
    """Collects such words line by line, the first ones only."""

    def __init__(self) -> None:
        self._change = ""
        self._no_memory, self._before = "", 0

    def note(self, text: str, measured: int) -> None:
        """Process a line without a value; `measured` values were read before it."""
        if not self._change and "atch" in text and _BATCH_CHANGE.search(text):
            self._change = bounded(text)
        if not self._no_memory and _NO_MEMORY.search(text) and not _SKIPS.search(text):
            self._no_memory, self._before = bounded(text), measured

    def warning(self, measured: int) -> str:
        """Return a warning for the user if there are such words; `measured` values were read so far."""
        if self._change:
            return f"{self._change!r} seems to say that another batch is trained than the one asked for"
        if self._no_memory and measured > self._before:
            return f"values after {self._no_memory!r} may be of a smaller batch than the one asked for"
        return ""
