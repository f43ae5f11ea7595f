"""The `autotuner` command, also `python -m autotuner`.

Importing what the controller needs takes seconds, and a pod may be asked to terminate within them.
So its signals are handled before anything slow: nothing is held yet, and the process just ends.
"""

from __future__ import annotations

import io
import os
import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["controller"]:
        for number in (signal.SIGINT, signal.SIGTERM):
            # An exception could be swallowed by the import that it interrupts.
            signal.signal(number, lambda *_: os._exit(0))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Lines of a script's log are shown, and the encoding of the terminal may lack a character of theirs.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from autotuner.cli import app  # noqa: PLC0415 (what is slow)
    except KeyboardInterrupt:
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
