"""Read the metrics that a training process pushes to its job's status, and compare them with its log.

Kubeflow Trainer's status server (KEP-2779) takes them; Hugging Face's Trainer pushes by itself. The status
holds the latest values only, so they are collected push by push. A push repeats the last evaluation, next to
newer training values, until there is another one: it is a measurement only where the evaluation has changed.

A log holds all values, so it counts where both speak, and they must agree. Where the log says nothing of the
metric, the pushes count. While the run goes on, that is from their second value on: a log may be behind.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.formats.reading import Label, Metric, label_in
from autotuner.study.logs.doubt import Doubt, bounded, doubt
from autotuner.study.logs.log_reader import LogReader
from autotuner.study.thinning import MAX_MEASUREMENTS
from autotuner.trial import Measurement, Trial

MAX_METRICS: Final = 256
"""Metrics of one push; Trainer takes as many."""
MAX_CHARACTERS: Final = 64
"""Characters of a name and of a value; Trainer takes as many."""
SOURCE: Final = "status.trainerStatus"
_FORMAT: Final = "json"
_SHOWN: Final = 10
"""Names of pushed metrics that a message shows."""
_TOLERANCE: Final = 0.51
"""Of the last digit that the log prints: two programs may round differently."""


@dataclass(frozen=True, slots=True)
class Push:
    """The metrics of one push, by name, as text.

    `at` is when the process pushed it. `run` tells runs of one trial apart: a queue may evict it and admit it
    again, and what it pushed before is not counted twice.
    """

    values: Mapping[str, str]
    at: datetime | None = None
    run: str = ""


class PushReader:
    """Reads the pushes of one trial into measurements of the target metric.

    Args:
        target: The target of the run; its metric is read under the name that the process pushes.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metric = Metric(target.metric, target.threshold)
        self._start("")

    def _start(self, run: str) -> None:
        self._run = run
        self._evaluation: tuple[tuple[str, str], ...] | None = None
        self._names: tuple[str, ...] = ()
        self._reader = LogReader(self._target, log_format=_FORMAT, is_one_process=True)

    def take(self, push: Push) -> None:
        """Read a push; one that shows no new evaluation is passed over."""
        if push.run != self._run:
            self._start(push.run)
        evaluation = tuple(item for item in push.values.items() if self._is_evaluated(item[0]))
        if evaluation == self._evaluation:
            return
        self._evaluation = evaluation
        self._names = tuple(push.values)
        self._reader.feed(json.dumps(dict(push.values)) + "\n")

    def _is_evaluated(self, name: str) -> bool:
        """Return whether a name is the metric's, or one of the same evaluation, such as `eval_runtime`."""
        label = self._metric.label
        return self._metric.is_named(name) or (label is not Label.UNKNOWN and label_in(name) is label)

    def close(self) -> None:
        """Take what waits for a second value: the run is over."""
        self._reader.close()

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """What was pushed so far; nothing while it is in doubt."""
        return self._reader.measurements

    @property
    def doubt(self) -> Doubt | None:
        """Why the pushed values do not count by themselves."""
        return self._reader.doubt

    @property
    def unit(self) -> str:
        """What the steps count; see `LogReader.unit`."""
        return self._reader.unit

    @property
    def reads(self) -> str:
        """The push of the first measurement, for people."""
        return f"{SOURCE} {self._reader.first_line}" if self._reader.first_line else ""

    @property
    def near_misses(self) -> tuple[str, ...]:
        """If other metrics were pushed, and not this one: their names."""
        if not self._names or any(map(self._metric.is_named, self._names)):
            return ()
        shown = ", ".join(bounded(name) for name in self._names[:_SHOWN])
        return (f"{SOURCE} of its TrainJob has {shown}: name in the target what is meant, if it is there",)


def with_pushes(
    trial: Trial, pushes: PushReader, target: Target, *, has_ended: bool, is_log_whole: bool
) -> Trial:
    """Return a trial that was read from its log with what it has pushed.

    Args:
        trial: The trial with the measurements of its log.
        pushes: What it has pushed.
        target: The target of the run.
        has_ended: Whether the run is over.
        is_log_whole: Whether the log was read from its start to its end.
    """
    pushed = pushes.measurements
    if trial.doubt:
        return trial
    if not trial.measurements:
        if pushes.doubt is not None:
            return replace(trial, doubt=pushes.doubt.message, reads=pushes.reads)
        if len(pushed) > 1 or (pushed and has_ended):
            return replace(trial, measurements=pushed, reads=pushes.reads, unit=pushes.unit)
        return trial
    is_one_unit = bool(trial.unit) and trial.unit == pushes.unit
    is_whole = has_ended and is_log_whole
    apart = disagreement(trial.measurements, pushed, is_one_unit=is_one_unit, is_whole=is_whole)
    if apart is None:
        return trial
    logged, other = apart
    metric = Metric(target.metric, target.threshold)
    reason = (
        f"its log and the status of its TrainJob, to which the process pushes, disagree on {metric.name};"
        " with a metric-pattern the log alone counts"
    )
    said = doubt(metric, reason)
    lines = (
        (f"the log at step {logged.step:g}", logged.value),
        (f"{SOURCE} at step {other.step:g}", other.value),
    )
    return replace(trial, measurements=(), doubt=replace(said, lines=lines).message)


def disagreement(
    logged: Sequence[Measurement], pushed: Sequence[Measurement], *, is_one_unit: bool, is_whole: bool
) -> tuple[Measurement, Measurement] | None:
    """Return a measurement of the log and a pushed one that contradict each other; None without such.

    The log holds every value that was pushed, at its own step or at an earlier one: a push may be late. So a
    pushed value that the whole log does not have contradicts it. While the run goes on the log may be behind,
    and only another value at the same step does.

    Args:
        logged: The measurements of the log; not empty.
        pushed: The pushed ones.
        is_one_unit: Whether the steps of both count the same.
        is_whole: Whether the log was read from its start to its end, and the run is over.
    """
    rounding = _Rounding.of([m.value for m in logged])
    at_step = {m.step: m for m in logged} if is_one_unit else {}
    for measurement in pushed:
        if any(rounding.is_same(m.value, measurement.value) for m in logged):
            continue
        if measurement.step in at_step:
            return at_step[measurement.step], measurement
        if is_whole and len(logged) < MAX_MEASUREMENTS // 2:
            # A longer log is thinned.
            return min(logged, key=lambda m: abs(m.step - measurement.step)), measurement
    return None


@dataclass(frozen=True, slots=True)
class _Rounding:
    """How a log rounds what it prints: to this many decimals, or to this many significant digits."""

    decimals: int
    digits: int

    @classmethod
    def of(cls, values: Sequence[float]) -> _Rounding:
        shown = [f"{abs(value):.12f}".rstrip("0") for value in values if math.isfinite(value)] or ["0."]
        decimals = max(len(text.partition(".")[2]) for text in shown)
        digits = max(len(text.replace(".", "").lstrip("0")) for text in shown)
        return cls(decimals, max(digits, 1))

    def is_same(self, logged: float, pushed: float) -> bool:
        """Return whether a value that the log prints may be the pushed one."""
        if not (math.isfinite(logged) and math.isfinite(pushed)):
            return math.isfinite(logged) == math.isfinite(pushed)
        exponent = math.floor(math.log10(abs(pushed))) + 1 if pushed else 0
        step = max(10.0**-self.decimals, 10.0 ** (exponent - self.digits))
        return math.isclose(logged, pushed, rel_tol=1e-6, abs_tol=_TOLERANCE * step)
