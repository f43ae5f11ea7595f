"""Find the errors at the end of one log, and which of them the program has survived.

Of chained exceptions the root counts. A launcher's own error (torchrun's table, a subprocess's exit status)
is a wrapper, so the cause is searched above it. Errors after which the program has continued do not count.

Logs are untrusted: their size and lines are bounded, and each line costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from autotuner.study.endings.held_memory import is_held_by_others
from autotuner.study.endings.known_errors import meaning
from autotuner.study.endings.log_scan import FEW, LogError, is_nan_after, scan
from autotuner.study.endings.log_tail import TRACEBACK, tail_of
from autotuner.study.endings.signals import SIGNALS, reports_signal
from autotuner.study.endings.survival import is_progress, says_survived, shows_progress
from autotuner.trial import Outcome

_MESSAGE: Final = 40
"""Lines of a message that are searched for what its first line leaves open."""
_USAGE: Final = (2, re.compile(r"[\w./-]{1,100}(?: [\w-]{1,40}){0,3}: error: "))
"""The exit code and the last words of argparse. What stands above them is the text of its help."""
_STOPS: Final = re.compile(
    r"(?<!early[ _-])\b(?:stop|abort|exit|terminat|quit|halt|giv(?:e|ing) up)", re.IGNORECASE
)
"""How a program says that it ends because of what it has met; early stopping has other reasons."""
_SUPPOSED: Final = re.compile(r"\b(?:if|when(?:ever)?|once|would|will)\b", re.IGNORECASE)
"""How it says what it does in such a case."""
_NEAR: Final = 20
"""Lines before a signal that may say that the training is over."""
_FINISHED: Final = re.compile(
    r"\b(?:train(?:ing)?|run|fit|job) (?:\w{1,12} )?(?:finished|completed?|done|over|ended)\b"
    r"|\b(?:finished|completed|done)\b.{0,20}\btrain|`Trainer\.fit` stopped",
    re.IGNORECASE,
)
_OF_TRAINING: Final = re.compile(
    r"\b(?:checkpoint|ckpt|sav(?:e|ed|es|ing)\b|train|epoch|step\b|requeu|preempt|spot\b)", re.IGNORECASE
)
"""What a training speaks of when a signal ends it."""
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
_DIED: Final = re.compile(r"failed \(exitcode: (?:-6|\d{1,3})\) local_rank: (\d{1,6})\b")
"""torchrun's line about a child that ended by an error of its own."""
GONE: Final = re.compile(r"no longer alive|exited unexpectedly|BrokenProcessPool|has abruptly died")
"""Errors that only say that another process is gone; that it was killed is a guess."""


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


def stopped(lines: Sequence[tuple[str, str]]) -> LogError | None:
    """Return the divergence for which a program says that it ends, if only as a warning."""
    for position in range(len(lines) - 1, -1, -1):
        rank, line = lines[position]
        if _STOPS.search(line) and not _SUPPOSED.search(line):
            known = meaning(line)
            if known is not None and known.outcome is Outcome.DIVERGED:
                return LogError(position, line, known.outcome, False, rank, 0)
        # Keras redraws its bar after it has said so.
        if shows_progress(line) and not is_nan_after(line, before=False):
            return None
    return None


def interrupted(lines: Sequence[tuple[str, str]]) -> LogError | None:
    """Return the signal that ended a training before its end, as a program says that then exits with 0.

    Other programs of a script, such as a server of logs, may be ended by a signal when the training is over.
    """
    went_on = 0
    for position in range(len(lines) - 1, -1, -1):
        rank, line = lines[position]
        if reports_signal(line):
            before, after = (
                lines[max(0, position - _NEAR) : position],
                lines[position + 1 : position + 1 + FEW],
            )
            is_own = _OF_TRAINING.search(line) is not None
            near = before if is_own else [*before, *after]
            is_own = is_own or any(_OF_TRAINING.search(text) for _, text in after)
            if is_own and not any(_FINISHED.search(text) for _, text in near):
                return LogError(position, line, Outcome.LOST, False, rank, 0)
        went_on += shows_progress(line)
        if went_on > FEW:
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
