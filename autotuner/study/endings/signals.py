"""Know the signals that end processes, from exit codes and from what scripts say of them."""

from __future__ import annotations

import re
import signal
from typing import Final

from autotuner.trial import Outcome

SIGNALS: Final[dict[int, tuple[Outcome, str]]] = {
    # Only the kernel's out-of-memory killer sends SIGKILL to a local process.
    -9: (Outcome.OUT_OF_MEMORY, "the process was killed (SIGKILL)"),
    -7: (Outcome.OUT_OF_MEMORY, "bus error (SIGBUS): shared memory is full"),
    135: (Outcome.OUT_OF_MEMORY, "bus error (SIGBUS): shared memory is full"),
    # A launcher that passes on its child's end with sys.exit(-9), as DeepSpeed does.
    247: (Outcome.OUT_OF_MEMORY, "a process was killed (SIGKILL)"),
    249: (Outcome.OUT_OF_MEMORY, "bus error (SIGBUS): shared memory is full"),
    241: (Outcome.LOST, "a process was ended from outside (SIGTERM)"),
    137: (Outcome.LOST, "the process was killed from outside (SIGKILL)"),
    143: (Outcome.LOST, "the process was ended from outside (SIGTERM)"),
    -15: (Outcome.LOST, "the process was ended from outside (SIGTERM)"),
    130: (Outcome.LOST, "the process was interrupted from outside (SIGINT)"),
    -2: (Outcome.LOST, "the process was interrupted from outside (SIGINT)"),
    129: (Outcome.LOST, "the process was ended from outside (SIGHUP)"),
    -1: (Outcome.LOST, "the process was ended from outside (SIGHUP)"),
    # Schedulers announce a job's end with these.
    138: (Outcome.LOST, "the process was ended from outside (SIGUSR1)"),
    -10: (Outcome.LOST, "the process was ended from outside (SIGUSR1)"),
    140: (Outcome.LOST, "the process was ended from outside (SIGUSR2)"),
    -12: (Outcome.LOST, "the process was ended from outside (SIGUSR2)"),
    132: (Outcome.LOST, "illegal instruction (SIGILL): the node's processor lacks it"),
    -4: (Outcome.LOST, "illegal instruction (SIGILL): the node's processor lacks it"),
}
"""What an exit code says if a signal ended the process, and no error of its own."""
CRASHES: Final = frozenset({-11, 139, 245, -8, 136, 248})
"""Exit codes of native code that crashed (SIGSEGV, SIGFPE), which may end a process without a word."""
BUS_ERRORS: Final = frozenset({-7, 135, 249})
"""Exit codes of processes that the kernel ended because their shared memory does not fit."""
_SHELL: Final = 128
"""What a shell and a container runtime add to the number of a signal."""

_ENDING: Final = (
    r"(?:\bSIG(?:TERM|HUP|INT|USR[12])\b|\bsignal (?:1|2|10|12|15)\b"
    r"|\b(?:termination|preemption) (?:signal|notice)|\binterruption notice)"
)
_TOLD: Final = re.compile(
    rf"\b(?:received|caught|got|intercepted|trapped)\b.{{0,40}}{_ENDING}"
    rf"|{_ENDING} (?:was )?(?:received|caught)\b",
    re.IGNORECASE,
)
"""What a script logs when it gets a signal to end, usually before it writes a checkpoint."""
_NOT_YET: Final = re.compile(r"\b(?:if|when|on|once|upon|until|should|no|not|never)\b", re.IGNORECASE)


def reports_signal(line: str) -> bool:
    """Return whether a script logs that it got a signal to end."""
    match = _TOLD.search(line)
    return match is not None and "handler" not in line and _NOT_YET.search(line[: match.end()]) is None


def signal_name(exit_code: int | None) -> str:
    """Return the name of the signal that an exit code stands for; empty without one."""
    code = exit_code or 0
    number = -code if code < 0 else code - _SHELL
    return signal.Signals(number).name if number in set(signal.Signals) else ""
