"""Classify the end of a trial, and its cause.

A backend describes the end as an `Ending`; `classify` returns the outcome and a message for the user. Out of
memory is not a failure, because it says something about the micro-batch; a disruption by the cluster is not a
failure, because the trial is retried. On a cluster the end must be found first: `assess` derives it from the
job's conditions and its pods, given as plain values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.spec import Target
from autotuner.study.endings.cause import EPILOGUE, Cause, find_cause, uncaught
from autotuner.study.endings.log_errors import ProcessLog
from autotuner.study.endings.signals import signal_name
from autotuner.study.formats.line import printable
from autotuner.trial import Measurement, Outcome

TAIL_LINES: Final = 8
"""Lines of a failed program's log that the message shows."""
MAX_TAIL: Final = 1500
"""Characters of these lines; an annotation that contains them must stay small."""
LOG_ENDS: Final = "; its log ends:\n"
"""What stands in a message between the error and the last lines, if these do not end with it."""
_TORCHRUN: Final = re.compile(r"failed \(exitcode: -?\d{1,9}\) local_rank: \d")
"""The line with which torchrun's report of a failed process begins."""
_CLOSES: Final = re.compile(r"Sending process \d{1,9} closing signal SIG")


@dataclass(frozen=True, slots=True)
class Ending:
    """What a backend observed of a trial's end.

    `exit_code` is that of the first process that failed, 0 if all succeeded, None if none ended by itself.
    `log_tail` is the end of its log, and `logs` are the ends of the logs of all processes that failed, in the
    order of their failure; without them only `log_tail` is read. `killed_for_memory` is reported by the
    kernel (OOMKilled). `disruption` is the cluster's own reason if it ended the trial (preempted, evicted,
    node lost); `logs` are then those of processes that failed no later. `never_started` names pods that had
    not run yet. `near_misses` are lines that almost contained the metric, if none did, and `uncounted` is a
    line with a value that stands for no evaluation, if the log has no other. `node` is
    where the disrupted pod ran, if the node may be at fault. `exceeded` is the kubelet's message if it
    ended a pod for a limit of the pod's own, which `killed_for_memory` says was one of the training's
    memory.
    """

    exit_code: int | None
    log_tail: str = ""
    killed_for_memory: bool = False
    disruption: str = ""
    logs: tuple[ProcessLog, ...] = ()
    never_started: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    node: str = ""
    exceeded: str = ""
    uncounted: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether the program reached its own end: only such a run shows the length of a run."""
        has_ended_well = self.exit_code == 0 and uncaught(self.log_tail) is None
        return has_ended_well and not self.disruption and not self.killed_for_memory


def classify(ending: Ending, measurements: Sequence[Measurement], target: Target) -> tuple[Outcome, str]:
    """Return the outcome of a trial, and a message with the reason.

    A run that met the target is REACHED, however it ended afterwards (`Ending.is_complete` says whether it
    reached its own end). Then a disruption by the cluster decides, whatever the exit code: a program that
    receives SIGTERM may exit with 0.
    """
    if any(target.is_met(measurement.value) for measurement in measurements):
        return Outcome.REACHED, ""
    cause = _cause(ending)
    lacked_memory = cause is not None and cause.outcome is Outcome.OUT_OF_MEMORY
    if ending.disruption and not (lacked_memory and ending.logs):
        return Outcome.LOST, ending.disruption
    if ending.killed_for_memory or ending.exceeded:
        outcome = Outcome.OUT_OF_MEMORY if ending.killed_for_memory else Outcome.FAILED
        return outcome, ending.exceeded or "the kernel killed the process for its memory (OOMKilled)"
    if cause is not None and lacked_memory:
        return Outcome.OUT_OF_MEMORY, _told(cause)
    if measurements and not measurements[-1].is_finite:
        return Outcome.DIVERGED, f"{target.metric} became {measurements[-1].value}"
    if cause is not None and ending.never_started and not cause.is_sure_to_repeat:
        waiting = ", ".join(ending.never_started)
        return Outcome.LOST, f"it failed while pod {waiting} had not started: {_told(cause)}".rstrip(": ")
    if cause is not None and cause.outcome is not Outcome.FAILED:
        return cause.outcome, _told(cause)
    if ending.exit_code != 0 or cause is not None:
        return Outcome.FAILED, _failed(ending, cause)
    return (Outcome.MISSED, "") if measurements else (Outcome.FAILED, _without_value(ending, target.metric))


def _without_value(ending: Ending, metric: str) -> str:
    if ending.uncounted:
        return (
            f"the run ended well, but no {metric} of its log counts: {ending.uncounted!r} and lines like it"
            " stand for no evaluation, as no training brings a loss to exactly 0 (has a validation that drops"
            " its last batch none left at this batch size?)"
        )
    if not ending.log_tail.strip() and not ending.near_misses:
        return (
            f"the run ended well, but its log is empty: print {metric} from rank 0 to standard output or"
            f' standard error, for example "{metric}=0.5 epoch=1" (files that the script writes are not read)'
        )
    return (
        f"the run ended well, but no line of its log carries {metric}: print it from rank 0, for"
        f' example "{metric}=0.5 epoch=1", or set the annotation metric-pattern;'
        f"{_indented(ending.near_misses)}"
        f" the log ends: {tail(ending.log_tail) or '(empty)'}"
    )


def node_of(ending: Ending) -> str:
    """Return the node that ended a lost trial; empty if none is known."""
    if ending.disruption:
        return ending.node
    cause = _cause(ending)
    return "" if cause is None else cause.node


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in lines) + "\n " * bool(lines)


def _cause(ending: Ending) -> Cause | None:
    """Return why the processes failed; None if none did."""
    if ending.logs:
        return find_cause(ending.logs)
    if ending.disruption:
        return None
    if ending.exit_code == 0:
        return uncaught(ending.log_tail)
    return find_cause([ProcessLog(ending.log_tail, ending.exit_code)])


def _told(cause: Cause) -> str:
    """Return the deciding line with its pod and node."""
    where = f"pod {cause.pod}" if cause.pod else ""
    if cause.preparer:
        where = f"{cause.preparer} of {where}"
    if cause.node:
        where = f"{where} on node {cause.node}".strip()
    return f"{where}: {cause.line}" if where else cause.line


def _exit_code(ending: Ending, cause: Cause | None) -> int | None:
    """Return the exit code of the process whose failure the message describes."""
    codes = [log.exit_code for log in ending.logs if cause is not None and log.pod == cause.pod]
    return codes[0] if codes and codes[0] is not None else ending.exit_code


def _told_code(ending: Ending, cause: Cause | None) -> str:
    """Return the exit code in words, with the name of a signal and of what prepares for the training."""
    number = _exit_code(ending, cause)
    name = signal_name(number)
    code = f"exit code {number}" + f" ({name})" * bool(name)
    if cause is not None and cause.preparer:
        code = f"{cause.preparer} of pod {cause.pod}: {code}"
    if ending.exit_code == 0:
        code += ", but its log ends with an error (behind a pipe such as `| tee`, add `set -o pipefail`)"
    return code


def _failed(ending: Ending, cause: Cause | None) -> str:
    """Return the message of a failure. A crash without an error's words is named by its signal alone."""
    code, end = _told_code(ending, cause), _end(ending, cause)
    is_silent = signal_name(_exit_code(ending, cause)) and not (cause is not None and cause.line)
    return f"{code}{LOG_ENDS}{end}" if is_silent and end else f"{code}: {end or 'the log is empty'}"


def _end(ending: Ending, cause: Cause | None) -> str:
    """Return the last lines of the deciding log, preceded by the deciding line if they do not end with it.

    The lines below it say why it occurred if it only introduces them.
    """
    logs = [log.text for log in ending.logs if cause is not None and log.pod == cause.pod]
    last = tail(logs[0] if logs else ending.log_tail, is_error=True)
    line = "" if cause is None else cause.line
    is_shown = last.endswith(line) or (line.endswith(":") and line in last)
    return last if is_shown else f"{line}{LOG_ENDS}{last}" if last else line


def tail(log: str, *, is_error: bool = False) -> str:
    """Return the last informative lines of a log, bounded in number and length.

    Colours and other terminal control sequences are removed, because annotations and pages show the lines.
    What torchrun says of a failed process is longer than that, and the process's own words are above it.
    Below an error (`is_error`) trackers print a summary, which says nothing of it.
    """
    lines = [line for written in log.splitlines() if (line := printable(written).rstrip())]
    failed = [at for at, line in enumerate(lines) if _TORCHRUN.search(line)]
    if failed:
        lines = [line for line in lines[: failed[-1]] if not _CLOSES.search(line)] or lines
    if is_error:
        said = [at for at, line in enumerate(lines) if not EPILOGUE.match(line) or "ERROR" in line]
        lines = lines[: said[-1] + 1] if said else lines
    return "\n".join(lines[-TAIL_LINES:])[-MAX_TAIL:]
