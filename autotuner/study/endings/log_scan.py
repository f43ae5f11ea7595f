"""Read a log's lines as errors and as signs of progress, and find the root of each chain of exceptions.

Logs are untrusted: their size and lines are bounded, and each line costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from autotuner.study.endings.known_errors import meaning
from autotuner.study.endings.survival import is_benign, is_progress, says_survived, shows_progress
from autotuner.study.endings.tracebacks import Tracebacks
from autotuner.trial import Outcome

FEW: Final = 3
"""Lines of progress that other ranks may print between a rank's error and their own end."""
_EXIT: Final = re.compile(r"SystemExit(?:: -?\d{1,3})?\s{0,4}$")
_AT_EXIT: Final = re.compile(r"\b(?:at|after) interpreter shutdown")
"""The words of Python for what a thread began too late; the program had ended before."""
_PIPE: Final = re.compile(r'File ".{0,400}/multiprocess(?:ing)?/connection\.py"')
_EXCEPTION: Final = re.compile(
    r"(?:[A-Za-z_][\w.]{0,200}\.)?[A-Z]\w{0,80}(?:Error|Exception|Interrupt|Exit|Failure|Timeout|Expired|Killed|Unavailable)"
    r"(?::|$|\()"
)
_RAISED: Final = re.compile(r"[A-Za-z_][\w.<>]{0,300}:|[\w.<>]{0,200}[A-Z]\w{0,80}\s{0,8}$")
"""How the line begins that ends a traceback; other pieces end it where two processes write at once."""
_CHILD: Final = (
    r"\b(?:ranks?|workers?|(?:sub)?process(?:es)?|child(?:ren)?|trainers?|tasks?)\b(?:.{0,60}"
    r"\b(?:failed|exited|crashed|died|terminated|ended)\b.{0,30}\b(?:code|exitcode|status)\W{0,3}(?:1|2|255)\b"
    r"| (?:has |have )?(?:failed|died|crashed)(?:\W{0,3}$|[.;,]))"
)
CHILD_FAILED: Final = re.compile(
    rf"(?:[\w.]{{1,80}}\.)?[A-Z]\w{{0,60}}(?:Error|Exception): .{{0,200}}{_CHILD}"
)
"""The error of a program about another process that it has started."""
WRAPPER: Final = re.compile(
    r"\b(?:ChildFailedError|CalledProcessError|ProcessRaisedException|ProcessExitedException|RayTaskError)\b"
    r"|\bCaught \w{1,80} in (?:DataLoader|pin memory|replica)|InstantiationException"
    r"|^Exception: (?:process \d{1,6} terminated with exit code|\s{0,4}$)"
    r"|returned non-zero exit status|exited with non-zero status|\b(?:Base)?ExceptionGroup: "
    rf"|{_CHILD}"
    # torchvision prints why each mirror failed above it.
    r"|RuntimeError: Error downloading "
    # Errors that only say that a thread, a process or a compiler has failed, which printed why itself.
    r"|[Pp]in memory thread exited unexpectedly|RuntimeError: Error building extension '"
    r"|\b(?:[Ss]ee|[Ll]ook at|[Ii]nspect|[Cc]heck) (?:the )?"
    r"(?:(?:root cause|stack trace|errors?|exceptions?|traceback) \(?above"
    r"|(?:previous|above) (?:errors?|logs?)\b)"
    r"|\bThe [Ii]nner error is reported as (?:above|below)"
    r"|miopenStatusUnknownError|\b(?:Papermill|Cell|Process)ExecutionError\b"
    r"|\b(?:TuneError|TrainingFailedError|UnexpectedExit|ErrorReturnCode_\w{1,10})\b"
)
"""Errors that only say that another error has occurred, which is named elsewhere."""
_OF_CHILD: Final = re.compile(r"\bassert\b.*\b(?:exitcode|returncode)\b")
"""An assertion that another process has ended well."""
_LAUNCHER: Final = re.compile(
    r"\bChildFailedError\b|ProcessRaisedException|ProcessExitedException"
    r"|Root Cause \(first observed failure\)|closing signal SIGTERM"
    r"|mpirun|Killing subprocess|Child process with PID|local_rank: \d"
)
"""Lines that only a launcher of several processes prints."""
_TABLE: Final = re.compile(
    r"\s{0,8}(?:time|host|rank|error_file|msg)\s{0,8}:\s|\s{0,8}traceback\s{0,8}: To enable"
)
_BLIND: Final = re.compile(
    r"CUDA initialization: |failed call to cuInit: |[Ff]ailed to initialize NVML: |^NVIDIA-SMI has failed"
)
"""How PyTorch, TensorFlow and nvidia-smi say that they see no device, after which they say nothing more."""
_WITHOUT_DRIVER: Final = "The NVIDIA Driver was not detected"
"""The warning of NVIDIA's images when they start without a driver."""
_NEEDS_GPU: Final = re.compile(
    r"\b(?:GPUs?|CUDA)\b|^assert .*(?:device|accelerator)|^AssertionError: .*accelerator", re.IGNORECASE
)
_OPENS_DEVICE: Final = re.compile(r"\b_cuda_(?:init|setDevice)\(|\btorch\.cuda\.(?:init|set_device)\(")
"""The calls with which PyTorch opens a device, before it holds anything."""
_ASSERTED: Final = re.compile(r"device-side assert|\.cu:\d{1,6}: .{0,400}Assertion")
_OF_RANGE: Final = re.compile(
    r"Assertion `(?:cumdist\[size - 1\] >|\w{1,40} >= (?:0|zero) && \w{1,40} <= (?:1|one)\b)"
)
"""Assertions of kernels about values, not indices, which a NaN violates."""
_NAN_CHECK: Final = re.compile(
    # Only a NaN differs from itself.
    r"is_?nan|is_?finite|is_?inf\b|(?<![\w.])([\w.]{1,40}) ?[!=]= ?\1(?![\w.([])",
    re.IGNORECASE,
)
_LOSS: Final = re.compile(
    r"\b(?:(val|valid|validation|test|eval)[_ /])?(?:\w{1,20}[_/])?loss\w{0,10}[\"']?\s{0,4}[:=]?\s{0,4}"
    r"(?:tensor\()?(nan\b|[-+]?\d)",
    re.IGNORECASE,
)
_VANISHED: Final = re.compile(r"reducing loss scale to (?:0(?:\.0)?$|\d(?:\.\d{1,20})?e-[23]\d\d)")
"""Apex's loss scale after a thousand steps of NaN; the next one divides by zero."""
_OF_VALUES: Final = re.compile(
    r"(?:[\w.]{1,80}\.)?(?:Assertion|Value|FloatingPoint|Overflow|ZeroDivision|_?LinAlg)Error\b"
    r"|RuntimeError: all elements of (?:input|target) should be between"
)
"""Errors that a NaN may lead to; the others name a fault of the code."""


@dataclass(frozen=True, slots=True)
class LogError:
    """An error in a log: the position of its line, and what it means."""

    position: int
    line: str
    outcome: Outcome
    is_secondary: bool
    """Whether it may follow from an error of another process."""
    rank: str
    """The process that the line names; empty if none."""
    traceback: int
    """Number of the traceback that it belongs to: chained ones share a number, 0 before the first."""
    is_of_thread: bool = False
    """Whether it ended a thread only; the program may go on."""
    is_of_library: bool = False
    """Whether the thread is a library's own, without a frame of the program."""
    is_raised: bool = True
    """Whether it ended a traceback, not just a line."""


def scan(lines: Sequence[tuple[str, str]]) -> tuple[list[LogError], list[int], bool]:
    """Return a log's errors, the lines that show progress, and whether several processes wrote it."""
    errors: list[LogError] = []
    marks: list[int] = []
    several = is_blind = is_nan = False
    count = 0
    readings: dict[str, Tracebacks] = {}
    for position, (rank, line) in enumerate(lines):
        several = several or _LAUNCHER.search(line) is not None
        is_blind = is_blind or _says_blind(line)
        at = readings.setdefault(rank, Tracebacks())
        if at.takes(line, count):
            count = max(count, at.number)
            continue
        has_ended, at.is_in_frames = at.is_in_frames, False
        is_raised = has_ended and _RAISED.match(line[at.indent :]) is not None
        if has_ended:
            at.was_ignored, at.is_ignored = at.is_ignored, False
            if at.was_ignored:
                continue
        elif at.is_ignored and _EXCEPTION.match(line):
            at.is_ignored = False  # It has no traceback.
            continue
        is_nan = is_nan if is_raised else is_nan_after(line, before=is_nan)
        code = at.code if is_raised else ""
        place = (position, rank, at.number if is_raised else count)
        error = _error(place, line[at.indent :] if is_raised else line, is_raised=is_raised, code=code)
        if error is not None:
            if is_raised:
                is_secondary = error.is_secondary or at.is_thread
                is_of_library = at.is_thread and not at.is_own
                error = replace(
                    error,
                    is_secondary=is_secondary,
                    is_of_thread=at.is_thread,
                    is_of_library=is_of_library,
                )
                error = _of_others(error, code, marks)
                error = _in_context(error, code, at.frame, is_blind=is_blind, is_nan=is_nan)
            errors.append(error if is_raised else _unraised(error, is_nan=is_nan))
        elif shows_progress(line):
            marks.append(position)
        if has_ended:
            at.is_thread, at.code = False, ""
    return _roots(errors, several=several), marks, several


def _says_blind(line: str) -> bool:
    """Return whether a line warns that the node's driver or devices do not work."""
    if _WITHOUT_DRIVER in line:
        return True
    if not _BLIND.search(line):
        return False
    known = meaning(line)
    return known is not None and known.outcome is Outcome.LOST


def is_nan_after(line: str, *, before: bool) -> bool:
    """Return whether the last loss of the training that was printed is NaN."""
    if _VANISHED.search(line):
        return True
    match = _LOSS.search(line)
    return before if match is None or match[1] else match[2].lower() == "nan"


def _of_others(error: LogError, code: str, marks: Sequence[int]) -> LogError:
    """Return an error whose cause others are, if a program that has not trained cannot open its device.

    It holds no memory yet. A process that starts beside the training lacks what that holds.
    """
    lacks = error.outcome is Outcome.OUT_OF_MEMORY and not marks and _OPENS_DEVICE.search(code) is not None
    return replace(error, outcome=Outcome.LOST) if lacks else error


def _in_context(error: LogError, code: str, frame: str, *, is_blind: bool, is_nan: bool) -> LogError:
    """Return an error that was raised, with the outcome that earlier lines show.

    A program that sees no device ends because it needs one. After a NaN an error of values is a consequence,
    and so is the end of a pipe whose other process has gone.
    """
    if error.outcome is not Outcome.FAILED or meaning(error.line) is not None:
        return error
    if error.line.strip() == "EOFError" and _PIPE.search(frame):
        return replace(error, outcome=Outcome.LOST, is_secondary=True)
    if is_blind and (_NEEDS_GPU.search(code) or _NEEDS_GPU.search(error.line)):
        return replace(error, outcome=Outcome.LOST)
    if is_nan and _OF_VALUES.match(error.line):
        return replace(error, outcome=Outcome.DIVERGED)
    return error


def _unraised(error: LogError, *, is_nan: bool) -> LogError:
    """Return an error that stands on a line of its own, with the outcome that a NaN before it shows."""
    is_of_nan = is_nan and _OF_RANGE.search(error.line) is not None
    return replace(error, is_raised=False, outcome=Outcome.DIVERGED if is_of_nan else error.outcome)


def _error(place: tuple[int, str, int], line: str, *, is_raised: bool, code: str) -> LogError | None:
    """Return the error on a line.

    Args:
        place: Position, rank and number of the traceback.
        line: The line, without its prefix.
        is_raised: Whether it ends a traceback.
        code: The traceback's last line of source.
    """
    position, rank, traceback = place
    if _TABLE.match(line) or _AT_EXIT.search(line):
        return None
    is_exception = is_raised or _EXCEPTION.match(line) is not None
    if not is_exception and (is_benign(line) or says_survived(line) or is_progress(line)):
        return None
    known = meaning(line)
    if known is not None and not (known.outcome is Outcome.FAILED and WRAPPER.search(line)):
        # A plain line about NaN may mean anything; the line of an exception is why the program ended.
        is_remark = known.outcome is Outcome.DIVERGED and not is_exception
        # A wrapper may name the class of the error that it wraps, whose own line says more.
        is_remark |= WRAPPER.search(line) is not None
        return LogError(position, line, known.outcome, known.is_secondary or is_remark, rank, traceback)
    if not is_exception or WRAPPER.search(line) or _only_exits(line) or _OF_CHILD.search(code):
        return None
    if _NAN_CHECK.search(code) and line.startswith(("AssertionError", "ValueError", "RuntimeError")):
        return LogError(position, line, Outcome.DIVERGED, False, rank, traceback)
    return LogError(position, line, Outcome.FAILED, False, rank, traceback)


def _roots(errors: list[LogError], *, several: bool) -> list[LogError]:
    """Return the errors with each chain of exceptions replaced by its root.

    A general error that follows from a known one adds no information; but if `several` processes wrote the
    log, one outside a traceback may be another's, whose traceback was cut. After an assertion of a kernel no
    library gets a handle on the device, as if memory lacked; what is raised does not say what was asserted.
    """
    asserted = next((e for e in errors if _ASSERTED.search(e.line)), None)
    if asserted is not None:
        errors = [e for e in errors if e.position <= asserted.position or not _is_vague(e.line)]
        if asserted.outcome is Outcome.DIVERGED:
            errors = [
                replace(e, outcome=Outcome.DIVERGED, line=asserted.line) if _ASSERTED.search(e.line) else e
                for e in errors
            ]
    # PyTorch raises an error that a worker exited from the one that names its signal.
    killed = {(e.traceback, e.rank) for e in errors if "killed by signal" in e.line}
    errors = [e for e in errors if "exited unexpectedly" not in e.line or (e.traceback, e.rank) not in killed]
    primary = {e.traceback for e in errors if e.outcome is not Outcome.FAILED and not e.is_secondary}
    # A secondary one may be of another process: it is the root of what follows in its own.
    secondary: dict[tuple[int, str], int] = {}
    for e in errors:
        if e.outcome is not Outcome.FAILED and e.is_secondary:
            secondary.setdefault((e.traceback, e.rank), e.position)

    def introduces(e: LogError, later: LogError) -> bool:
        is_its = (later.traceback, later.rank) == (e.traceback, e.rank) and not later.is_raised
        is_next = is_its and later.position - e.position <= FEW
        return e.line.rstrip().endswith(":") and is_next and _is_lost(later)

    # "RuntimeError: Failed to open a shard:", and then why; of several processes, it may be another's.
    vague = {e.position for e, later in pairwise(errors) if not several and introduces(e, later)}

    def consequent(e: LogError) -> bool:
        follows = secondary.get((e.traceback, e.rank), e.position) < e.position
        return follows and (e.is_raised or not several)

    return [
        e
        for e in errors
        if not (
            e.traceback
            and e.outcome is Outcome.FAILED
            and (e.traceback in primary or e.position in vague or consequent(e))
            and meaning(e.line) is None
        )
    ]


def _is_lost(error: LogError) -> bool:
    return error.outcome is Outcome.LOST and error.is_secondary


def _is_vague(line: str) -> bool:
    known = meaning(line)
    return known is not None and known.is_vague


def _only_exits(line: str) -> bool:
    """Return whether a program ended with an exit code, whose reason it printed before if at all."""
    return _EXIT.match(line) is not None
