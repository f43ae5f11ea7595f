"""Find the errors at the end of one log, and which of them the program has survived.

Of chained exceptions the root counts. A launcher's own error (torchrun's table, a subprocess's exit status)
is a wrapper, so the cause is searched above it. Errors after which the program has continued do not count.

Logs are untrusted: their size and lines are bounded, and each line costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import Final

from autotuner.study.endings.held_memory import is_held_by_others
from autotuner.study.endings.known_errors import meaning
from autotuner.study.endings.log_tail import TRACEBACK, tail_of
from autotuner.study.endings.signals import SIGNALS, reports_signal
from autotuner.study.endings.survival import is_benign, is_progress, says_survived, shows_progress
from autotuner.study.endings.tracebacks import Tracebacks
from autotuner.trial import Outcome

FEW: Final = 3
"""Lines of progress that other ranks may print between a rank's error and their own end."""
_MESSAGE: Final = 40
"""Lines of a message that are searched for what its first line leaves open."""
_EXIT: Final = re.compile(r"SystemExit(?:: -?\d{1,3})?\s{0,4}$")
_USAGE: Final = (2, re.compile(r"[\w./-]{1,100}(?: [\w-]{1,40}){0,3}: error: "))
"""The exit code and the last words of argparse. What stands above them is the text of its help."""
_STOPS: Final = re.compile(
    r"(?<!early[ _-])\b(?:stop|abort|exit|terminat|quit|halt|giv(?:e|ing) up)", re.IGNORECASE
)
"""How a program says that it ends because of what it has met; early stopping has other reasons."""
_SUPPOSED: Final = re.compile(r"\b(?:if|when(?:ever)?|once|would|will)\b", re.IGNORECASE)
"""How it says what it does in such a case."""
_AT_EXIT: Final = re.compile(r"\b(?:at|after) interpreter shutdown")
"""The words of Python for what a thread began too late; the program had ended before."""
_PIPE: Final = re.compile(r'File ".{0,400}/multiprocess(?:ing)?/connection\.py"')
_EXCEPTION: Final = re.compile(
    r"(?:[A-Za-z_][\w.]{0,200}\.)?[A-Z]\w{0,80}(?:Error|Exception|Interrupt|Exit|Failure|Timeout|Expired|Killed|Unavailable)"
    r"(?::|$|\()"
)
_RAISED: Final = re.compile(r"[A-Za-z_][\w.<>]{0,300}:|[\w.<>]{0,200}[A-Z]\w{0,80}\s{0,8}$")
"""How the line begins that ends a traceback; other pieces end it where two processes write at once."""
WRAPPER: Final = re.compile(
    r"\b(?:ChildFailedError|CalledProcessError|ProcessRaisedException|ProcessExitedException|RayTaskError)\b"
    r"|\bCaught \w{1,80} in (?:DataLoader|pin memory|replica)|InstantiationException"
    r"|^Exception: (?:process \d{1,6} terminated with exit code|\s{0,4}$)"
    r"|returned non-zero exit status|exited with non-zero status|\b(?:Base)?ExceptionGroup: "
    # torchvision prints why each mirror failed above it.
    r"|RuntimeError: Error downloading "
    # Errors that only say that a thread, a process or a compiler has failed, which printed why itself.
    r"|[Pp]in memory thread exited unexpectedly|RuntimeError: Error building extension '"
    r"|\b(?:[Ss]ee|[Ll]ook at|[Ii]nspect|[Cc]heck) (?:the )?"
    r"(?:(?:root cause|stack trace|errors?|exceptions?|traceback) \(?above"
    r"|(?:previous|above) (?:errors?|logs?)\b)"
    r"|miopenStatusUnknownError|\b(?:Papermill|Cell|Process)ExecutionError\b"
    r"|\b(?:TuneError|TrainingFailedError|UnexpectedExit|ErrorReturnCode_\w{1,10})\b"
)
"""Errors that only say that another error has occurred, which is named elsewhere."""
_TOOL: Final = re.compile(
    r"^(?:/[\w./-]{1,200}: (?:line \d{1,6}: )?)?"
    r"(?:curl|wget|git|fatal|pip3?|apt(?:-get)?|E|Err:\d{1,4}|ls|cp|mv|cat|tar|rsync|scp|aws|gsutil|rclone): "
    r"|^(?:fatal error|.{0,200}\bdownload failed): |^WARNING: Retrying \(|^\[nltk_data\] "
    r"|^ERROR: .{0,300}(?:\bhttps?://|HTTPS?ConnectionPool)"
)
"""Errors of the tools with which a script fetches things before it trains, and need not end for them."""
_MISSES: Final = re.compile(
    r"(?:[\w.]{1,80}\.)?(?:ModuleNotFound|FileNotFound|NotADirectory|Lookup|Import)Error\b"
    r"|can't open file|No such file or directory|\b[Nn]ot found\b|\b[Cc]an(?:not|'t) (?:find|open)\b"
)
"""Errors of a program that lacks a file or a module."""
_LAUNCHER: Final = re.compile(
    r"\bChildFailedError\b|ProcessRaisedException|ProcessExitedException"
    r"|Root Cause \(first observed failure\)|closing signal SIGTERM"
    r"|mpirun|Killing subprocess|Child process with PID|local_rank: \d"
)
"""Lines that only a launcher of several processes prints."""
_DIED: Final = re.compile(r"failed \(exitcode: (?:-6|\d{1,3})\) local_rank: (\d{1,6})\b")
"""torchrun's line about a child that ended by an error of its own."""
_TABLE: Final = re.compile(
    r"\s{0,8}(?:time|host|rank|error_file|msg)\s{0,8}:\s|\s{0,8}traceback\s{0,8}: To enable"
)
_BLIND: Final = re.compile(r"CUDA initialization: |failed call to cuInit: ")
"""How PyTorch and TensorFlow warn that they see no device, after which they say nothing more."""
_WITHOUT_DRIVER: Final = "The NVIDIA Driver was not detected"
"""The warning of NVIDIA's images when they start without a driver."""
_NEEDS_GPU: Final = re.compile(r"\b(?:GPUs?|CUDA)\b", re.IGNORECASE)
GONE: Final = re.compile(r"no longer alive|exited unexpectedly|BrokenProcessPool|has abruptly died")
"""Errors that only say that another process is gone; that it was killed is a guess."""
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
class ProcessLog:
    """The end of the log of one failed process, with its pod, and its node if known.

    `preparer` is what it is, such as "init container fetch", if it does not train but prepares for it.
    """

    text: str
    exit_code: int | None = None
    pod: str = ""
    node: str = ""
    preparer: str = ""


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


def last_errors(log: ProcessLog) -> list[LogError]:
    """Return the errors at the end of one log, in the order of their weight for a single process."""
    lines = list(tail_of(log.text))
    if usage := _of_usage(lines, log.exit_code):
        return [usage]
    errors, marks, several = scan(lines)
    marks = _without_others(marks, errors, lines)
    if not (several or len({e.rank for e in errors if e.rank}) > 1):
        # Of several processes in one pod, the others may be those that hold it.
        errors = [replace(e, outcome=Outcome.LOST) if _is_held(e) else e for e in errors]
    if not errors:
        found = stopped(lines)
        errors = _warned(lines) if found is None else [found]
    if log.exit_code != 0:
        errors = _after_signal(errors, marks, lines)
    if log.exit_code in SIGNALS:
        # A process that a signal ended has survived any error that it printed.
        errors = [e for e in errors if e.outcome is not Outcome.FAILED]
    # One that was ended from outside has survived an error after which it printed anything.
    errors = _explained(_unsurvived(errors, marks, few=0 if log.exit_code in SIGNALS else FEW))
    errors = _fetched(errors)
    if not (several or len({e.rank for e in errors if e.rank}) > 1):
        errors = _last_primary(errors)
    return [_completed(e, lines) for e in errors]


def _completed(error: LogError, lines: Sequence[tuple[str, str]]) -> LogError:
    """Return an error with the rest of its message if its line only introduces it: `Graph execution error:`.

    What the user sees of a program's own failure has the lines after it anyway.
    """
    start = error.line.rstrip()
    if not start.endswith(":") or error.outcome is Outcome.FAILED:
        return error
    after = lines[error.position + 1 : error.position + 1 + _MESSAGE]
    its = [
        line.strip()
        for rank, line in takewhile(lambda each: TRACEBACK not in each[1], after)
        if rank == error.rank
    ]
    known = (line for line in its if (found := meaning(line)) and found.outcome is error.outcome)
    said = next(known, "") or next(filter(None, its), "")
    return replace(error, line=f"{start} {said}".rstrip())


def _of_usage(lines: Sequence[tuple[str, str]], exit_code: int | None) -> LogError | None:
    """Return the error of wrong arguments, if the program has ended with it."""
    code, words = _USAGE
    last = next(((at, *each) for at, each in reversed(list(enumerate(lines))) if each[1].strip()), None)
    if exit_code != code or last is None or not words.match(last[2]):
        return None
    return LogError(last[0], last[2], Outcome.FAILED, False, last[1], 0)


def _is_held(error: LogError) -> bool:
    return error.outcome is Outcome.OUT_OF_MEMORY and is_held_by_others(error.line)


def _fetched(errors: list[LogError]) -> list[LogError]:
    """Return the errors without those of tools that ran before the program.

    If the program then misses a file or a module, the tool's error is the reason.
    """
    start = next((e.position for e in errors if e.is_raised), None)
    failed = [e for e in errors if _is_of_tool(e) and start is not None and e.position < start]
    if not failed:
        return errors
    after = f" (after {failed[-1].line.strip()})"
    return [
        replace(e, outcome=Outcome.LOST, line=e.line.strip() + after)
        if e.outcome is Outcome.FAILED and _MISSES.match(e.line)
        else e
        for e in errors
        if e not in failed
    ]


def _is_of_tool(error: LogError) -> bool:
    is_plain = not (error.is_raised or error.rank)
    return is_plain and error.outcome is Outcome.LOST and _TOOL.search(error.line) is not None


def _explained(errors: list[LogError]) -> list[LogError]:
    """Return the errors without those that a process is gone, if one before them may say why.

    A thread that loses its connection to the process does not.
    """
    gone = [e for e in errors if GONE.search(e.line)]
    others = [e for e in errors if e not in gone]
    causes = (e for e in others if not (e.is_of_thread and _may_follow(e)))
    return others if gone and any(e.position < gone[0].position for e in causes) else errors


def _may_follow(error: LogError) -> bool:
    """Return whether an error is that of a connection, whose other end may have failed."""
    known = meaning(error.line)
    return error.outcome is Outcome.LOST and (known is None or known.is_secondary)


def _last_primary(errors: list[LogError]) -> list[LogError]:
    """Return the deciding errors of a single process: the last traceback that names a cause, or all."""
    primary = [e for e in errors if not e.is_secondary]
    if not primary:
        return errors
    last = primary[-1].traceback
    # Native code prints the reason on its own line before Python's error, which is then a general one.
    return [e for e in primary if e.traceback == last] or errors


def _unsurvived(errors: list[LogError], marks: list[int], *, few: int) -> list[LogError]:
    """Return the errors without those after which the program continued.

    `marks` are the lines that show that it continued: progress, or words such as "retrying". Up to `few` of
    them behind the last error may be those of other ranks.
    """
    if not errors or sum(mark > errors[-1].position for mark in marks) > few:
        return []
    kept = [errors[-1]]
    for error in reversed(errors[:-1]):
        later = kept[-1]
        between = sum(error.position < mark < later.position for mark in marks)
        is_others = bool(error.rank) or (later.is_secondary and not error.is_secondary)
        if between > (FEW if is_others else 0):
            break
        kept.append(error)
    return kept[::-1]


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
        is_nan = is_nan if is_raised else _is_nan_after(line, before=is_nan)
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
                error = _in_context(error, code, at.frame, is_blind=is_blind, is_nan=is_nan)
            errors.append(error if is_raised else _unraised(error, is_nan=is_nan))
        elif shows_progress(line):
            marks.append(position)
        if has_ended:
            at.is_thread, at.code = False, ""
    return _roots(errors, several=several), marks, several


def _after_signal(
    errors: list[LogError], marks: list[int], lines: Sequence[tuple[str, str]]
) -> list[LogError]:
    """Return the errors with those that follow from a signal explained by it.

    A script that gets a signal may fail while it writes its last checkpoint, or exit with a code of its own.
    A launcher sends signals to the other processes after one has failed; then the failure stands before them.
    """
    signalled: dict[str, tuple[int, str]] = {}
    for position, (rank, line) in enumerate(lines):
        if reports_signal(line):
            signalled.setdefault(rank, (position, line))
    if not signalled:
        return errors
    position, line = min(signalled.values())
    if any(e.outcome is Outcome.FAILED and e.position < position for e in errors):
        return errors
    if not errors:
        return [LogError(position, line, Outcome.LOST, False, "", 0)]
    explained = []
    for e in errors:
        position, line = signalled.get(e.rank, (len(lines), ""))
        went_on = sum(position < mark < e.position for mark in marks) > FEW
        known = meaning(e.line)
        is_unknown = e.outcome is Outcome.FAILED and (known is None or known.is_secondary)
        if is_unknown and position < e.position and not went_on:
            e = replace(e, outcome=Outcome.LOST, line=line)  # noqa: PLW2901
        explained.append(e)
    return explained


def _says_blind(line: str) -> bool:
    """Return whether a line warns that the node's driver or devices do not work."""
    if _WITHOUT_DRIVER in line:
        return True
    if not _BLIND.search(line):
        return False
    known = meaning(line)
    return known is not None and known.outcome is Outcome.LOST


def _is_nan_after(line: str, *, before: bool) -> bool:
    """Return whether the last loss of the training that was printed is NaN."""
    if _VANISHED.search(line):
        return True
    match = _LOSS.search(line)
    return before if match is None or match[1] else match[2].lower() == "nan"


def _in_context(error: LogError, code: str, frame: str, *, is_blind: bool, is_nan: bool) -> LogError:
    """Return an error that was raised, with the outcome that earlier lines show.

    A program that sees no device ends because it needs one. After a NaN an error of values is a consequence,
    and so is the end of a pipe whose other process has gone.
    """
    if error.outcome is not Outcome.FAILED or meaning(error.line) is not None:
        return error
    if error.line.strip() == "EOFError" and _PIPE.search(frame):
        return replace(error, outcome=Outcome.LOST, is_secondary=True)
    if is_blind and _NEEDS_GPU.search(f"{code} {error.line}"):
        return replace(error, outcome=Outcome.LOST)
    if is_nan and _OF_VALUES.match(error.line):
        return replace(error, outcome=Outcome.DIVERGED)
    return error


def _unraised(error: LogError, *, is_nan: bool) -> LogError:
    """Return an error that stands on a line of its own, with the outcome that a NaN before it shows."""
    is_of_nan = is_nan and _OF_RANGE.search(error.line) is not None
    return replace(error, is_raised=False, outcome=Outcome.DIVERGED if is_of_nan else error.outcome)


def _without_others(
    marks: list[int], errors: Sequence[LogError], lines: Sequence[tuple[str, str]]
) -> list[int]:
    """Return the marks without those of other ranks between a rank's last error and its death."""
    died = ((i, match[1]) for i in range(len(lines) - 1, -1, -1) if (match := _DIED.search(lines[i][1])))
    death, local_rank = next(died, (0, ""))
    its = (e for e in reversed(errors) if e.position < death and e.rank)
    last = next((e for e in its if re.findall(r"\d+", e.rank)[-1:] == [local_rank]), None)
    if last is None:
        return marks
    return [mark for mark in marks if not last.position < mark < death or lines[mark][0] == last.rank]


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
    if not is_exception or WRAPPER.search(line) or _only_exits(line):
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


def stopped(lines: Sequence[tuple[str, str]]) -> LogError | None:
    """Return the divergence for which a program says that it ends, if only as a warning."""
    for position in range(len(lines) - 1, -1, -1):
        rank, line = lines[position]
        if _STOPS.search(line) and not _SUPPOSED.search(line):
            known = meaning(line)
            if known is not None and known.outcome is Outcome.DIVERGED:
                return LogError(position, line, known.outcome, False, rank, 0)
        if shows_progress(line):
            return None
    return None


def _warned(lines: Sequence[tuple[str, str]]) -> list[LogError]:
    """Return the memory error that a log without errors ends with as a warning."""
    for position in range(len(lines) - 1, max(-1, len(lines) - 6), -1):
        rank, line = lines[position]
        known = meaning(line)
        if says_survived(line) or is_progress(line):
            return []
        if known is not None and known.outcome is Outcome.OUT_OF_MEMORY:
            return [LogError(position, line, known.outcome, known.is_secondary, rank, 0)]
    return []


def _only_exits(line: str) -> bool:
    """Return whether a program ended with an exit code, whose reason it printed before if at all."""
    return _EXIT.match(line) is not None
