"""Follow the tracebacks of a log, each rank's by itself: the lines of several ranks mix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from autotuner.study.endings.log_tail import TRACEBACK

_CHAINED: Final = (
    "The above exception was the direct cause of the following exception",
    "During handling of the above exception, another exception occurred",
)
IGNORED: Final = re.compile(
    r"Exception ignored (?:in|on|while)\b|Error in (?:atexit\._run_exitfuncs|sys\.excepthook)"
    r"|--- Logging error ---|exception was never retrieved|Exception in callback "
)
"""Lines before a traceback that ended nothing: of a destructor, a function at exit, a logger, a task."""
_ORIGINAL: Final = "Original exception was:"
"""What Python prints between the error of sys.excepthook and the one that it was called with."""
_FINALIZER: Final = re.compile(
    r'in _run_finalizers$|(?:resource|semaphore)_tracker\.py", line \d{1,6}, in main$'
)
"""The frames in which multiprocessing cleans up at exit; an error, as of a busy file on NFS, ends nothing."""
_OF_CELL: Final = re.compile(r"([A-Za-z_][\w.]{0,80})\s{1,80}Traceback \(most recent call last\)\s{0,8}$")
"""The head of a traceback as IPython prints it, which names the error; its frames are not indented."""
_OF_LIBRARY: Final = re.compile(r"/(?:site|dist)-packages/|/lib/python\d|[\"/]<frozen ")
"""How the path of a frame begins that is not of the program itself."""
_MAX_CODE: Final = 2_000
"""Characters of a statement that are kept."""
THREAD: Final = "Exception in thread"
"""What Python prints before the traceback of a thread, which ends only the thread."""


@dataclass(slots=True)
class Tracebacks:
    """Where the reading of one rank's tracebacks stands: the lines of several ranks mix."""

    number: int = 0
    """Number of its last traceback."""
    indent: int = 0
    """Blanks before the whole traceback: torchrun's table and some loggers indent it."""
    is_chained: bool = False
    is_in_frames: bool = False
    is_in_box: bool = False
    """Whether rich draws a box around the frames."""
    cell_error: str = ""
    """The error that ends a traceback of IPython."""
    is_ignored: bool = False
    was_ignored: bool = False
    """Whether its last traceback was, so that what follows from it is."""
    is_thread: bool = False
    is_own: bool = False
    """Whether a frame is of the program itself, not of a library."""
    frame: str = ""
    """The last frame, without its source."""
    code: str = ""
    """The last line of source."""

    def takes(self, line: str, before: int) -> bool:
        """Return whether a line belongs to a traceback, except its last one, which names the error.

        Args:
            line: A line of this rank.
            before: Number of the last traceback of any rank.
        """
        if TRACEBACK in line:
            self.number = self.number if self.is_chained else before + 1
            self.is_ignored |= self.is_chained and self.was_ignored
            self.is_chained, self.is_in_frames, self.is_own = False, True, False
            self.indent, self.is_in_box = 0, line.startswith("╭")
            of_cell = _OF_CELL.match(line)
            self.cell_error = "" if of_cell is None else of_cell[1]
            return True
        if any(words in line for words in _CHAINED):
            self.is_chained = True
            return True
        if (is_ignored := IGNORED.search(line) is not None) or THREAD in line or _ORIGINAL in line:
            self.is_ignored, self.is_thread = is_ignored, THREAD in line
            return True
        return self.is_in_frames and self._is_frame(line)

    def _is_frame(self, line: str) -> bool:
        """Return whether a line is one of the traceback's frames, and remember its source."""
        if self.is_in_box and line.rstrip().endswith(("│", "╯")):
            self.code = line if "❱" in line else self.code
            return True
        if self.cell_error:
            self.code = line if line.startswith("-") else self.code
            return not line.startswith(self.cell_error)
        # Loguru marks the frame that caught the error.
        text = line.removeprefix("> ").lstrip()
        if text.startswith('File "'):
            self.indent = max(0, len(line) - len(text) - 2)
            self.frame = self.code = text
            self.is_own |= _OF_LIBRARY.search(text) is None
            self.is_ignored |= _FINALIZER.search(text.rstrip()) is not None
        elif line and not line[: self.indent + 1].isspace():
            return False
        elif text.strip("~^ "):  # Python marks the place in the line of source below it.
            # Since Python 3.13 it shows all lines of a statement.
            whole = text if self.code == self.frame else f"{self.code} {text}"
            self.code = whole[:_MAX_CODE]
        return True
