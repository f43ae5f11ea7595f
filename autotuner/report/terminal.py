"""Describe a study as text: plain lines while it runs, and phrases for trials and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console

from autotuner import wording
from autotuner.decide.decision import Answer
from autotuner.reconcile import Reconciliation
from autotuner.search.frontier import HALF_A_DOUBLING
from autotuner.spec import Target, TuningSpec
from autotuner.spec.values import Price
from autotuner.trial import ParameterValue, Suggestion, Trial
from autotuner.wording import message

_UNITS: Final = ((1, "hours"), (60, "minutes"), (3600, "seconds"))
_TWO_DIGITS: Final = 9.95


class View(Protocol):
    """Shows reconciles as they happen."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, seen: Reconciliation, spec: TuningSpec) -> None:
        """Show the newest reconcile."""
        ...


class PlainView:
    """One line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started: set[int] = set()
        self._ended: set[int] = set()
        self._message = ""
        self._reads = ""
        self._warnings: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, seen: Reconciliation, spec: TuningSpec) -> None:
        """Print what is new since the last reconcile."""
        said = None if seen.decision is None else message(seen.decision, spec)
        for trial in seen.trials:
            if trial.is_running and trial.number not in self._started:
                self._started.add(trial.number)
                self._print(f"trial {trial.number} starts: {described(trial)}")
            if not trial.is_running and trial.number not in self._ended:
                self._ended.add(trial.number)
                self._print(
                    f"trial {trial.number} {self._ending(trial, spec, said or '')}: {described(trial)}"
                )
        first = wording.reads(seen.trials, spec)
        if first and not self._reads:
            self._reads = first
            self._print(f"reads {first}")
        for warning in (*seen.notices, *wording.warnings(seen.decision, seen.trials, spec)):
            if warning not in self._warnings:
                self._warnings.add(warning)
                self._print(f"warning: {warning}")
        if seen.decision is not None and said is not None and said != self._message:
            self._message = said
            self._print(f"{seen.decision.phase}: {self._message}")

    @staticmethod
    def _ending(trial: Trial, spec: TuningSpec, said: str) -> str:
        """Return how a trial ended: the first line of a long reason if the study's message has all of it."""
        first, _, rest = ending(trial, spec).partition("\n")
        return f"{first} ...)" if rest and trial.message in said else ending(trial, spec)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def described(trial: Trial) -> str:
    """Return the settings of a trial as text."""
    tried = trial.suggestion
    parts = [
        str(tried.purpose),
        f"batch size {tried.batch_size}",
        parameters(tried.parameters),
        layout(trial),
    ]
    return ", ".join(part for part in parts if part)


def layout(trial: Trial) -> str:
    """Return the layout of a trial as text; empty if it is the job's own.

    `micro-batch 16 x 2`: each process takes 16 samples at once, twice before a step.
    """
    return _layout(trial.suggestion)


def answer_setting(answer: Answer, trials: Sequence[Trial]) -> str:
    """Return the answer's hyperparameters and the layout of its trials as text."""
    tried = answer.realised_by(trials)
    parts = [parameters(answer.parameters), "" if tried is None else _layout(tried)]
    return ", ".join(part for part in parts if part)


def _layout(tried: Suggestion) -> str:
    parts = []
    if tried.workers is not None:
        parts.append(f"workers {tried.workers}")
    if tried.micro_batch_size is not None:
        steps = tried.accumulation_steps or 1
        parts.append(f"micro-batch {tried.micro_batch_size}" + (f" x {steps}" if steps > 1 else ""))
    return ", ".join(parts)


def ending(trial: Trial, spec: TuningSpec) -> str:
    """Return the outcome of a trial as text, with its best value and the reason."""
    if trial.doubt:
        return "ended, and its metric is in doubt"
    best = best_value(trial, spec)
    value = "" if best is None else f" at {spec.target.metric} {shown(best, spec.target)}"
    reason = f" ({why})" if (why := wording.why_it_ended(trial, spec)) else ""
    return f"{wording.outcome_now(trial, spec)}{value}{reason}"


def shown(value: float, target: Target) -> str:
    """Return a value of the metric with enough digits to show whether it meets the target."""
    texts = (f"{value:.{digits}g}" for digits in range(4, 17))
    return next((text for text in texts if target.is_met(float(text)) is target.is_met(value)), repr(value))


def largest(answer: Answer) -> str:
    """Return the answer's batch size as text, and that it is not confirmed if it is not."""
    return f"largest batch size {answer.batch_size}{'' if answer.is_confirmed else ' (not confirmed)'}"


def answer_line(answer: Answer) -> str:
    """Return the answer in one line."""
    return (
        f"{largest(answer)} with {parameters(answer.parameters)};"
        f" {answer.tally} confirmation runs reached the target"
    )


def answer_lines(answer: Answer, spec: TuningSpec, trials: Sequence[Trial], hours: float) -> list[str]:
    """Return the answer and its evidence, as printed at the end."""
    metric = "" if answer.metric is None else f" (median {spec.target.metric} {answer.metric:.4g})"
    lines = [
        f"{largest(answer)} with {answer_setting(answer, trials)}",
        f"  {answer.tally} confirmation runs reached {spec.target}{metric}",
    ]
    if answer.probability_larger is not None:
        which = larger_batch(answer, spec)
        lines.append(f"  {which} would meet the target with probability {answer.probability_larger:.2f}")
    why = "" if answer.reason is None else wording.ending(answer.reason)
    lines.append(f"  {len(trials)} trials, {cost(hours, spec.gpu_hour_price)}; stopped: {why}")
    return lines


def larger_batch(answer: Answer, spec: TuningSpec) -> str:
    """Return as text which larger batch the answer's `probability_larger` is about."""
    most = spec.batch_size.maximum
    is_allowed = answer.batch_size * 2**HALF_A_DOUBLING <= most
    return "a batch half a doubling larger" if is_allowed else f"the largest allowed batch, {most},"


def parameters(values: Mapping[str, ParameterValue]) -> str:
    """Return hyperparameters as text."""
    shown = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    ]
    return ", ".join(shown) or "the job's own hyperparameters"


def cost(hours: float, price: Price | None = None) -> str:
    """Return a cost as text, in a unit that gives readable digits, and in money if a GPU-hour has a price."""
    amount, unit = next((hours * n, u) for n, u in _UNITS if hours * n >= 1 or u == "seconds")
    digits = 2 if unit == "hours" else 1 if unit == "minutes" or amount < _TWO_DIGITS else 0
    used = f"{amount:.{digits}f} GPU-{unit}"
    return used if price is None else f"{used}, {price.of(hours)}"


def best_value(trial: Trial, spec: TuningSpec) -> float | None:
    """Return the best value of a trial so far, None before the first."""
    values = [m.value for m in trial.measurements if m.is_finite]
    return max(values, key=spec.target.margin) if values else None


def has_met(trial: Trial, spec: TuningSpec) -> bool:
    """Return whether a trial has a value that meets the target, unless the reading of its log is in doubt."""
    best = best_value(trial, spec)
    return best is not None and not trial.doubt and spec.target.is_met(best)
