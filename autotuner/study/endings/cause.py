"""Find out from the ends of the logs why a trial's processes failed.

The last uncaught error decides, not any error in the log: a program may catch a memory error, continue, and
fail later for another reason (`autotuner.study.endings.log_errors`). If several processes fail together, one
has a cause and the others fail as a consequence: a memory error takes precedence, then errors that name a
cause, then errors that may be consequences.

Logs are untrusted, so their number is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from autotuner.study.endings.log_errors import GONE, ProcessLog, interrupted, last_errors, stopped
from autotuner.study.endings.log_scan import CHILD_FAILED, FEW, WRAPPER, LogError, scan
from autotuner.study.endings.log_tail import tail_of
from autotuner.study.endings.signals import BUS_ERRORS, CRASHES, SIGNALS, reports_signal
from autotuner.study.endings.survival import shows_progress
from autotuner.study.endings.tracebacks import IGNORED, THREAD
from autotuner.study.formats.line import printable
from autotuner.trial import Outcome

MAX_LOGS: Final = 64
"""Logs of one trial that are read, in the order given."""
MAX_SAID: Final = 500
"""Characters of the deciding line that the user sees."""
_CLOSED: Final = re.compile(r"\bexit(?:s|ed|\s?code)?\b.{0,20}(?<!\d)(?:-15|143)\b")
"""A launcher's line about a child that was ended, by the launcher itself if another one had failed."""
_REPORTED: Final = re.compile(
    r"^(?:[\w.]{1,100}\.)?(?:ChildFailedError|ProcessRaisedException|ProcessExitedException|TuneError"
    r"|TrainingFailedError)\b|^Exception: process \d{1,6} terminated with exit code"
    r"|\[ERROR\].{0,1900}\bexits with return code = -?[1-9]"
    r"|^MPI_ABORT was invoked|^(?:mpi(?:run|exec)|prterun) (?:detected that one|noticed that process)"
    r"|\bChild process with PID \d{1,9} terminated with code (?!-15)-?[1-9]"
    r"|\bBAD TERMINATION OF ONE OF YOUR APPLICATION"
    r"|^RuntimeError: Horovod detected that one|\bcomposer\.cli\.launcher:Rank \d{1,6} crashed with exit code"
    r"|^srun: error: .{1,300}: tasks? [\d,-]{1,300}: (?:Exited with exit code [1-9]|Killed|Out Of Memory"
    r"|Segmentation fault|Aborted|Bus error)"
    # A shell, the interpreter and the runtime of C++ report signals.
    r"|: line \d{1,6}: +\d{1,9} (?:Killed|Segmentation fault|Aborted|Bus error|Floating point exception)\b"
    # A script also kills what it has started beside the training.
    r".{0,300}(?:python|torchrun|accelerate|deepspeed|mpi(?:run|exec)|horovodrun|train|\.py\b|\$)"
    r"|^Fatal Python error: (?:Segmentation fault|Aborted|Bus error|Floating)"
    r"|^terminate called after throwing"
)
"""The last words of a launcher whose process has failed, which a pipe hides: `torchrun a.py | tee log`."""
_LAUNCHED: Final = re.compile(
    r"subprocess\.CalledProcessError: Command '\[?'?[^' ]{0,200}(?:python|accelerate)"
)
"""How accelerate reports it. A program may run others, too: only as the last line it has ended by it."""
_GIVES_UP: Final = re.compile(
    r"(?:[^A-Za-z]{0,80}|.{0,80}\b(?:ERROR|CRITICAL|FATAL)\b.{0,80})"
    r"(?:(?:[Tt]raining|TRAINING) (?:run |job |loop )?(?:has |was )?"
    r"(?:[Ff]ailed|FAILED|[Aa]borted|[Cc]rashed)(?:\W{0,3}$|[:.;,!]| (?:with|due|because|after)\b)"
    r"|(?:Error|Exception)(?: occurred)? (?:during|in) training\b(?!\W{0,3}\d))"
)
"""How a program that has caught its error says so: only as the last line it has ended by it."""
_LAST_WORDS: Final = (_LAUNCHED, _GIVES_UP, CHILD_FAILED)
EPILOGUE: Final = re.compile(
    r"(?:\[rank\d{1,6}\]: ?)?(?:wandb:|COMET INFO:|\[W\d{3,4} |frame #\d"
    r"|.{0,200}(?:\bNCCL INFO\b|\bresource_tracker\b|%\|)|\s{2,8}warnings\.warn\()"
)
"""Lines that trackers, Python and PyTorch print at exit, also after an error."""
_SURE: Final = re.compile(
    r"(?:ModuleNotFoundError|SyntaxError|IndentationError|TabError)\b|can't open file"
    r"|error: (?:unrecognized arguments|the following arguments are required)"
)
"""Errors in the program's code or command, which occur with every setting and on every node."""
_ENDS_OTHERS: Final = re.compile(
    r"\b(?:code -?[1-9]\d{0,2}|fail(?:ed|ure))\b.{0,80}\b(?:terminat|kill)ing (?:all )?(?:other|remaining)\b"
    r"|\b(?:terminat|kill)ing (?:all )?(?:other|remaining) .{0,80}\bfail(?:ed|ure)\b",
    re.IGNORECASE,
)
"""How a launcher says that it ends all processes, its own too, because one has failed."""
_CANNOT_START: Final = frozenset({126, 127})
"""A shell's exit codes for a command that cannot be run or does not exist."""
_OF_PROGRAM: Final = (Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.DIVERGED)
"""Outcomes of errors that end a program, whatever its exit code; others may be of its last words."""
_OF_DEVICE: Final = re.compile(r"\b(?:CUDA|HIP|NCCL|XPU|NPU) (?:driver )?error|\bDistBackendError\b")
"""Other errors that end a training: with them a program uploads and logs nothing."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a trial failed: the outcome, the deciding line, and the log that contains it.

    `is_sure_to_repeat` says that it occurs with every setting and on every node, so one failure is enough.
    """

    outcome: Outcome
    line: str
    is_sure_to_repeat: bool = False
    pod: str = ""
    node: str = ""
    preparer: str = ""


_SILENT: Final = LogError(0, "", Outcome.FAILED, True, "", 0)
"""The error of a process that ended by itself without a word."""


def find_cause(logs: Sequence[ProcessLog]) -> Cause:
    """Return why the processes failed, according to their logs and exit codes.

    Args:
        logs: The logs of the failed processes, in the order of their failure. At most `MAX_LOGS` are read, of
            each the last `MAX_LOG` characters.
    """
    logs = [_unsignalled(log) for log in logs[:MAX_LOGS]]
    read = [(log, last_errors(log)) for log in logs]
    if not any(errors for _, errors in read):
        return _by_exit_code(logs)
    said = [(log, error) for log, errors in read for error in errors or _unsaid(log, first=logs[0])]
    # min() keeps the first of equals: the process that failed first.
    log, error = min(said, key=lambda pair: _rank_of(pair[1]))
    return _cause(log, error.outcome, error.line)


def _unsignalled(log: ProcessLog) -> ProcessLog:
    """Return a log without the exit code of a signal that its own launcher has sent after a failure."""
    if log.exit_code not in SIGNALS:
        return log
    lines = [line for _, line in tail_of(log.text)]
    said = max((at for at, line in enumerate(lines) if _ENDS_OTHERS.search(line)), default=None)
    if said is None or any(map(shows_progress, lines[said + 1 :])):
        return log
    return replace(log, exit_code=1)


def uncaught(log: str) -> Cause | None:
    """Return the error that ended a program although its process exited with 0; None without one.

    In `python train.py | tee log` the exit code is that of `tee`. The traceback must be the end of the log: a
    program that prints more has handled it. Threads may fail because the program has.
    A program that says that it stops because its values diverged need not end with an error.
    """
    lines, errors = list(tail_of(log)), last_errors(ProcessLog(log, 0))
    reported = [position for position, (_, line) in enumerate(lines) if _REPORTED.search(line)]
    reported += [e.position for e in scan(lines)[0] if e.is_raised and GONE.search(e.line)]
    last = [(at, line) for at, (_, line) in enumerate(lines) if line.strip() and not EPILOGUE.match(line)][
        -1:
    ]
    reported += [at for at, line in last if any(words.match(line) for words in _LAST_WORDS)]
    if reported and not any(shows_progress(line) for _, line in lines[max(reported) + 1 :]):
        return find_cause([ProcessLog(log, 1)])
    # A thread of a library, such as one that pins memory, may fail because the program has ended.
    errors = [e for e in errors if e.traceback and not e.is_of_thread] or [
        e for e in errors if not e.is_of_library
    ]
    # The words about a signal follow from an error before them, or are all that ended the program.
    errors = [e for e in errors if e.is_raised or not reports_signal(e.line)]
    if not errors or not errors[-1].traceback:
        found = stopped(lines) or interrupted(lines)
        return None if found is None else _cause(ProcessLog(log, 0), found.outcome, found.line)
    if errors[-1].outcome not in _OF_PROGRAM and not _OF_DEVICE.search(errors[-1].line):
        return None
    # The message of an error may have several lines.
    after = takewhile(
        lambda line: THREAD not in line and not IGNORED.search(line),
        (line for _, line in lines[errors[-1].position + 1 :]),
    )
    later = [line for line in after if line.strip() and not EPILOGUE.match(line)]
    # A program that handles an error of its code may print anything; after the others, it trains or ends.
    is_of_code = errors[-1].outcome is Outcome.FAILED and not _OF_DEVICE.search(errors[-1].line)
    if (is_of_code and len(later) > FEW) or any(map(shows_progress, later)):
        return None
    its = (errors[-1].traceback, errors[-1].rank, errors[-1].outcome)
    root = next(e for e in errors if (e.traceback, e.rank, e.outcome) == its)
    return _cause(ProcessLog(log, 0), root.outcome, root.line)


def _unsaid(log: ProcessLog, *, first: ProcessLog) -> list[LogError]:
    """Return the error of a process that said nothing, which the others may miss."""
    outcome, words = SIGNALS.get(log.exit_code or 0, (Outcome.FAILED, ""))
    # After a failure the other processes are ended by signals, but never by SIGBUS.
    if words and (log is first or log.exit_code in BUS_ERRORS):
        return [replace(_SILENT, line=words, outcome=outcome)]
    return [_SILENT] if _ended_itself(log, first=first) else []


def _ended_itself(log: ProcessLog, *, first: ProcessLog) -> bool:
    """Return whether a process that said nothing ended by itself, so that the others miss it.

    A crash in native code needs no word, nor does a command that cannot be run. Other exit codes may follow
    from another process's end, unless this one was the first.
    """
    if log.exit_code in CRASHES | _CANNOT_START:
        return True
    return log is first and bool(log.text.strip()) and log.exit_code not in {None, 0, *SIGNALS}


def _rank_of(error: LogError) -> int:
    """Return the rank of an error among processes that failed together; the smallest decides."""
    if error.outcome is Outcome.LOST and (_CLOSED.search(error.line) or WRAPPER.search(error.line)):
        return 5
    if error.outcome is Outcome.OUT_OF_MEMORY:
        return 2 if error.is_secondary else 0
    if not error.is_secondary:
        return 1
    return 3 if error.outcome is Outcome.FAILED else 4


def _cause(log: ProcessLog, outcome: Outcome, line: str) -> Cause:
    if log.preparer and outcome in {Outcome.OUT_OF_MEMORY, Outcome.DIVERGED}:
        # It has no batch in its memory and no learning rate.
        outcome = Outcome.FAILED
    is_sure = outcome is Outcome.FAILED and (log.exit_code in _CANNOT_START or _SURE.search(line) is not None)
    return Cause(outcome, _shortened(printable(line).strip()), is_sure, log.pod, log.node, log.preparer)


def _shortened(line: str) -> str:
    """Return a line cut after a sentence, as PyTorch's errors of memory have many."""
    if len(line) <= MAX_SAID:
        return line
    end = line.rfind(". ", MAX_SAID // 2, MAX_SAID)
    return line[: end + 1] if end > 0 else line[: MAX_SAID - 3] + "..."


def _by_exit_code(logs: Sequence[ProcessLog]) -> Cause:
    """Return the cause if no log names one: a signal, or the program's own exit code."""
    logs = [log for log in logs if log.exit_code is not None] or logs
    signalled = [log for log in logs if log.exit_code in SIGNALS]
    for outcome in (Outcome.OUT_OF_MEMORY, Outcome.LOST):
        for log in signalled:
            found, words = SIGNALS[log.exit_code or 0]
            # An operator ends the other pods with SIGTERM, which says nothing if some process has its own
            # exit code.
            is_first = log.exit_code in {137, 247, -9} or len(signalled) == len(logs)
            if found is outcome and is_first:
                return _cause(log, outcome, words)
    own = [log for log in logs if log.exit_code not in SIGNALS]
    first = (own or logs or [ProcessLog("")])[0]
    return _cause(first, Outcome.FAILED, "")
