"""Find the batch sizes with which the program fails, whatever the hyperparameters.

The data set may be too small for a batch, or a script may require batch sizes that divide another number (the
length of a queue, the samples, a tile of a matrix). A failed run does not show whether its batch size or its
hyperparameters are at fault. A run with hyperparameters that work at a smaller batch does: if it fails too,
the batch size is at fault. Then the runs that ended with the same message failed for the same reason. A crash
of native code may be a chance, so two of a kind are needed.

If no larger batch has worked, such sizes bound the search as memory does. Otherwise it keeps to the multiples
of the job's own batch size or, if some of these fail too, to its products with powers of two.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autotuner import keys
from autotuner.study.endings.outcome import LOG_ENDS
from autotuner.study.finding import Finding, Reason
from autotuner.study.findings.unreported import ended_unreported, is_silent
from autotuner.study.history import History, is_complete
from autotuner.study.setting import Setting, setting
from autotuner.trial import Outcome, Trial

_NUMBER: Final = re.compile(r"\b0x[0-9a-f]+|\d+")
_PATH: Final = re.compile("the whole log: ")
_NOT_TRAINED: Final = re.compile(
    r"(?:init container|initializer) .{1,300} of pod "
    r"|pod \S{1,253}: (?:Evicted|DeadlineExceeded|OOMKilled in )"
)
"""Messages of what failed before a training, and of limits of its pod: disk, time. No setting is at fault."""
_CRASH: Final = re.compile(
    r"\(SIG(?:SEGV|ABRT|BUS|FPE)\)(?:$|: the log is empty)|[Ss]egmentation fault|killed by signal"
    r"|illegal memory access|misaligned address"
)
"""Errors that name no reason, and may not repeat."""
_CODE: Final = re.compile(r".{0,300}?\bexit code -?\d{1,9}[^:]{0,200}: ")
_SHOWN: Final = 4
"""Maximum number of batch sizes in a message."""
_FEWEST: Final = 3
"""Minimum number of failures of one kind for a warning: after two, a run shows if the batch is at fault."""


class Spacing(StrEnum):
    """Which batch sizes do not fail."""

    ANY = "any batch size"
    MULTIPLES = "multiples of the job's own batch size"
    POWERS = "the job's own batch size times a power of two"

    def has(self, size: int, own: int) -> bool:
        """Return whether a batch size is one of them, or one that divides `own` in the same way."""
        if self is Spacing.ANY:
            return True
        large, small = max(size, own), min(size, own)
        if large % small:
            return False
        ratio = large // small
        return self is Spacing.MULTIPLES or not ratio & (ratio - 1)


@dataclass(frozen=True, slots=True)
class FailingSizes:
    """The trials that failed because of their batch sizes, and what that says of other sizes.

    `bound` is the smallest batch size from which on all fail, None without one.
    """

    trials: tuple[Trial, ...] = ()
    bound: int | None = None
    spacing: Spacing = Spacing.ANY


def failing_sizes(history: History) -> FailingSizes:
    """Return the batch sizes with which the program fails; none if no bound and no spacing explains them."""
    failed = [t for t in history.trials if has_failed(history, t)]
    if not failed:
        return FailingSizes()
    works = _working(history, failed)
    own, sizes_that_work = history.spec.baseline_batch_size, {tried.batch_size for tried in works}
    if own not in sizes_that_work:
        return FailingSizes()
    failed = [t for t in failed if t.suggestion.batch_size not in sizes_that_work]
    known_to_work = {tried.items for tried in works}
    kinds = Counter(_kind(t) for t in failed)
    messages = {_kind(t) for t in failed if setting(t).items in known_to_work}
    messages = {kind for kind in messages if kinds[kind] > 1 or not _CRASH.search(kind)}
    blamed = [t for t in failed if _kind(t) in messages]
    sizes = {t.suggestion.batch_size for t in blamed}
    for spacing in Spacing if sizes else ():
        left = [size for size in sizes if spacing.has(size, own)]
        if all(size > max(sizes_that_work) for size in left):
            return FailingSizes(tuple(blamed), min(left, default=None), spacing)
    return FailingSizes()


def _working(history: History, failed: Sequence[Trial]) -> set[Setting]:
    """Return the settings of runs that got further than those that failed."""
    furthest = max((len(t.measurements) for t in failed), default=0)
    return {
        setting(t)
        for t in history.trials
        if setting(t) in history.working and (len(t.measurements) > furthest or is_complete(t))
    }


def has_failed(history: History, trial: Trial) -> bool:
    """Return whether a trial's program has failed, with the current template and since the last retry.

    A run that ends well without a value has failed, too: its data set may have left it no whole batch. What
    prepares for a training, and a pod that used more than its limit of disk or time, are no program.
    """
    is_own = trial.number not in history.discounted and not _NOT_TRAINED.match(trial.message)
    return is_own and (trial.outcome is Outcome.FAILED or is_silent(trial)) and history.is_current(trial)


def to_tell_apart(history: History, row: Sequence[Trial]) -> Setting | None:
    """Return the setting whose run would show whether batch sizes are at fault; None if nothing is open.

    For trials that have failed in a row it is the smallest of their batch sizes, with hyperparameters that
    work at a smaller one. For a bound it is a larger batch that a spacing would allow.
    """
    first = min((t.suggestion.batch_size for t in row if has_failed(history, t)), default=None)
    if first is not None and (probe := _probe(history, first)):
        return probe
    bound, size = failing_sizes(history).bound, history.spec.baseline_batch_size
    if bound is None or Spacing.POWERS.has(bound, size):
        return None
    while size < bound:
        size *= 2
    return _probe(history, size)


def _probe(history: History, size: int) -> Setting | None:
    """Return a batch size with hyperparameters that work at a smaller one; None if one such has ended."""
    works = _working(history, [t for t in history.trials if has_failed(history, t)])
    smaller = [tried for tried in works if tried.batch_size < size]
    ended = (t for t in history.trials if not t.is_running and t.outcome is not Outcome.LOST)
    tried = {setting(t) for t in ended if t.suggestion.batch_size == size}
    probes = [Setting(size, each.items) for each in smaller]
    if not probes or tried.intersection(probes) or size > history.spec.batch_size.maximum:
        return None
    return Setting(size, max(smaller, key=lambda each: (each.batch_size, each.key)).items)


def sizes_that_fail(history: History) -> list[Finding]:
    """Return a warning that says which batch sizes are left out, and why; none if all are tried."""
    found = failing_sizes(history)
    if not found.trials:
        return []
    own = history.spec.baseline_batch_size
    sizes = sorted({t.suggestion.batch_size for t in found.trials})
    some = ", ".join(map(str, sizes[:_SHOWN])) + (", ..." if len(sizes) > _SHOWN else "")
    what = f"the program fails at batch size {some}, also with hyperparameters that work at a smaller one"
    kept = []
    if found.spacing is Spacing.MULTIPLES:
        kept.append(f"only multiples of {own} are tried")
    elif found.spacing is Spacing.POWERS:
        kept.append(f"only {own} times powers of two are tried")
    if found.bound is not None:
        kept.append(f"batches from {found.bound} on are left out")
    last = found.trials[-1]
    message = (
        f"{what}: {' and '.join(kept)}. Trial {last.number}: {_error(last) or 'see its log'}. To try the"
        " other batch sizes, fix the script and request a retry"
    )
    return [Finding(Reason.SIZES_FAIL, tuple(t.number for t in found.trials), message, ("batch_size",))]


def sizes_without_memory(history: History) -> list[Finding]:
    """Return a warning that says from which batch size on memory lacks, so that none is tried; else none.

    With micro-batches it is no bound: a trial accumulates more of them.
    """
    lacking = history.lacked_memory
    if history.spec.micro_batch_size is not None or not lacking:
        return []
    first = min(lacking, key=lambda t: (t.suggestion.batch_size, t.number))
    size = first.suggestion.batch_size
    message = (
        f"batch size {size} ran out of memory (trial {first.number}), so batches from {size} on are left out;"
        f" a script that accumulates gradients can train them: see {keys.key_of('micro_batch_size')}"
    )
    return [Finding(Reason.NO_MEMORY, (first.number,), message, ("batch_size",))]


def settings_that_fail(history: History) -> list[Finding]:
    """Return a warning that the program fails with hyperparameters that the search has chosen; none without.

    It may accept some values only.
    """
    if sum(has_failed(history, trial) for trial in history.trials) < _FEWEST:
        return []
    known = {t.number for t in failing_sizes(history).trials}
    known |= {number for found in ended_unreported(history) for number in found.trials}
    kinds: dict[str, list[Trial]] = {}
    for trial in history.trials:
        is_chosen = setting(trial) != history.own_setting and setting(trial) not in history.working
        if is_chosen and trial.number not in known and has_failed(history, trial):
            kinds.setdefault(_kind(trial), []).append(trial)
    row = max(kinds.values(), key=len, default=[])
    if len(row) < _FEWEST or not history.working:
        return []
    # Only the first few are named, so that the text does not change with each failure.
    last = row[_FEWEST - 1]
    chosen = ", ".join(f"{name} {value}" for name, value in last.suggestion.parameters.items())
    numbers = ", ".join(str(t.number) for t in row[:_FEWEST])
    message = (
        "the program fails with settings that the search chooses, and each failure costs a trial: trials"
        f" {numbers}, the last of them with batch size {last.suggestion.batch_size}, {chosen}:"
        f" {_error(last) or 'see its log'}. If it accepts some values only, list these in search-space"
    )
    return [Finding(Reason.SETTINGS_FAIL, tuple(t.number for t in row), message)]


def _kind(trial: Trial) -> str:
    return _NUMBER.sub("#", _error(trial))


def _error(trial: Trial) -> str:
    """Return the line of a trial's message that names the error.

    It is the last one, except for the path of the log, or stands before the last lines of the log. A run that
    ended well without a value has no error: the last line of its log is any line, and its message begins with
    what is wrong.
    """
    if is_silent(trial):
        return trial.message.partition(": ")[0]
    named, _, ends = trial.message.partition(LOG_ENDS)
    if ends:
        return _CODE.sub("", named, count=1).strip()  # Of a silent crash only the code is known.
    lines = (line.strip() for line in trial.message.splitlines())
    return next((line for line in reversed(list(lines)) if line and not _PATH.match(line)), "")
