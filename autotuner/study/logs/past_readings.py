"""Find recorded trials whose values are not those of the current target: the user has changed it since.

The ledger keeps values, and no logs. After a change of the target's metric, of its unit or of how logs are
read, a curve of accuracies would count as one of losses, and a percentage as a fraction. A change of the
threshold alone changes no value. Where the reading has changed, the line of a trial's first measurement is
read again, and must give the same value. Such trials are in doubt, and nothing counts until it is settled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from autotuner.spec import Target, TuningSpec
from autotuner.study import formats
from autotuner.study.formats.reading import Label, Metric, Position, Reading
from autotuner.study.logs.log_reader import LogReader
from autotuner.study.logs.scale import Implausible, are_fractions, scaled
from autotuner.trial import Trial

_REMEDY: Final = (
    "the values of recorded trials are not read again: restore the target and how it is read, or start over"
    " without these trials, with another name of the job or, with `autotuner tune`, another --directory"
)


def with_doubts(trials: Iterable[Trial], spec: TuningSpec) -> tuple[Trial, ...]:
    """Return recorded trials, those in doubt whose values are not what the target means now."""
    trials = tuple(trials)
    values = [m for t in trials for m in t.measurements]
    target = spec.target
    # One run that learns nothing may well have an accuracy below 1%, but not all of them.
    if are_fractions(values, Metric(target.metric, target.threshold), target):
        reason = f"its values look like fractions, but {target} looks like a percentage"
        return tuple(_in_doubt(trial, reason) for trial in trials)
    return tuple(_in_doubt(trial, _reason(trial, spec)) for trial in trials)


def _in_doubt(trial: Trial, reason: str) -> Trial:
    is_open = reason and trial.measurements and not trial.doubt and not trial.is_running
    return replace(trial, measurements=(), doubt=f"{reason}; {_REMEDY}") if is_open else trial


def _reason(trial: Trial, spec: TuningSpec) -> str:
    """Return why the values of a trial are not those of the target; empty if they are."""
    values = [m.value for m in trial.measurements if m.is_finite]
    if not values:
        return ""
    target, first = spec.target, values[0]
    if not _is_read_alike(trial, spec):
        found = _read(trial.reads, target, spec.log_format, spec.metric_pattern)
        if found is None:
            return f"the value {first:g} was read from {trial.reads!r}, where no {target.metric} is read now"
        if not math.isclose(found, first, rel_tol=1e-6):
            return f"the value {first:g} was read from {trial.reads!r}, where {target.metric} is {found:g}"
    metric, largest = Metric(target.metric, target.threshold), max(values)
    fits = scaled(
        Reading(largest, Position(), Label.UNKNOWN, ""), metric, target, first=first, is_pattern=True
    )
    return fits.reason if isinstance(fits, Implausible) else ""


def _is_read_alike(trial: Trial, spec: TuningSpec) -> bool:
    """Return whether a trial was read as now, or the same metric by another format from a line alone.

    A format may need the lines around the one that is kept, so that line need not show the value.
    """
    known = trial.template.rpartition("/")[2]
    if not known or known == spec.reading:
        return True
    others = (spec.model_copy(update={"log_format": name}).reading for name in (formats.AUTO, *formats.NAMES))
    is_other_format = known in set(others)
    return is_other_format and _read(trial.reads, spec.target, spec.log_format, spec.metric_pattern) is None


@lru_cache(maxsize=4096)
def _read(line: str, target: Target, log_format: str, pattern: str | None) -> float | None:
    """Return the value that is read from a line alone, in the unit of the target; None without one."""
    reader = LogReader(target, log_format=log_format, pattern=pattern)
    reader.feed(f"{line}\n")
    reader.close()
    return reader.measurements[0].value if reader.measurements else None
