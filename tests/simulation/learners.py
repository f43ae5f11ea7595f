"""Synthetic learners, and a world in which `decide` is asked until it has ended.

A learner is a noise-free learning curve of a batch size and hyperparameters; the world adds noise, time and,
if it is asked to, a crash after every single action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from autotuner.decide import decide
from autotuner.decide.decision import Decision
from autotuner.spec import TuningSpec
from autotuner.study.findings.batch_check import repeated_by
from autotuner.study.history import History
from autotuner.trial import Measurement, Outcome, ParameterValue, Suggestion, Trial
from autotuner.wording import message

START = datetime(2030, 1, 1, tzinfo=UTC)
STEPS = 12
Curve = Callable[[int, Mapping[str, ParameterValue]], np.ndarray]
SPACE = "learning_rate: {min: 0.001, max: 10, log: true}"
BASELINE: Mapping[str, ParameterValue] = {"batch_size": 32, "learning_rate": 0.1}


def spec(baseline: Mapping[str, ParameterValue] = BASELINE, **changed: str | None) -> TuningSpec:
    """Return a spec for batch sizes 16 to 1024; `target="loss <= 0.3"` sets that annotation."""
    asked: dict[str, str | None] = {
        "target": "accuracy >= 0.9",
        "batch_size": "16..1024",
        "search_space": SPACE,
        "run_length": str(STEPS),
        "max_trials": "40",
        **changed,
    }
    given = {f"autotuner.dev/{k.replace('_', '-')}": v for k, v in asked.items() if v is not None}
    return TuningSpec.from_annotations(given, baseline=baseline)


def hill(
    critical: float = 128,
    top: float = 0.93,
    fall: float = 0.03,
    tolerance: float = 0.05,
    progress: Callable[[np.ndarray], np.ndarray] = lambda t: 1 - np.exp(-4 * t),
) -> Curve:
    """Return a learner whose best accuracy falls by `fall` a doubling beyond the critical batch.

    Its best learning rate is 0.1 at batch size 32 and grows with the batch; a factor of e beside it costs
    `tolerance`.
    """

    def curve(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
        off = math.log(float(parameters["learning_rate"]) / (0.1 * batch_size / 32))
        best = top - fall * max(math.log2(batch_size / critical), 0) - tolerance * off**2
        return np.maximum(best, 0.1) * progress(np.arange(1, STEPS + 1) / STEPS)

    return curve


def largest(curve: Curve, target: float, rates: int = 400) -> int:
    """Return the largest batch size of 16 to 1024 that meets the target with some learning rate."""
    grid = np.geomspace(0.001, 10, rates)
    sizes = np.unique(np.geomspace(16, 1024, 200).round().astype(int))
    good = [b for b in sizes if max(curve(int(b), {"learning_rate": r}).max() for r in grid) >= target]
    return int(max(good))


@dataclass
class World:
    """Trials in simulated time: every running trial measures once a pass."""

    spec: TuningSpec
    curve: Curve
    run_noise: float = 0.002
    step_noise: float = 0.001
    crashing: bool = False
    """Whether the tuner dies after every single action, before it could do the next."""
    shuffled: bool = False
    fate: Callable[[Suggestion, int], Outcome | None] = lambda *_: None
    """An outcome that strikes a trial at a step (1, 2, ...), for instance a node that dies."""
    trains: Callable[[int], int] = lambda batch_size: batch_size
    """The batch size that the script trains when it is given one."""
    prints_losses: bool = False
    """Whether a run prints losses of its training first, for one pass."""
    jitter: float = 0.0
    """Noise of every measurement, whatever the seed: trainings on GPUs are not deterministic."""
    unit: str = ""
    """What the steps of a log count."""
    quota: int | None = None
    """Trials that the queue admits at once; the others wait."""
    earlier: tuple[History, ...] = ()
    """The studies that this one starts from."""
    trials: dict[int, Trial] = field(default_factory=dict)
    now: datetime = START
    passes: int = 0

    def run(self, limit: int = 1500) -> Decision:
        """Return the final decision."""
        while self.passes < limit:
            self.passes += 1
            decision = self.settle()
            if decision.is_final:
                return decision
            assert any(t.is_running for t in self.trials.values()), (
                f"waits for nothing: {message(decision, self.spec)}"
            )
            self.train()
        raise AssertionError(f"no end after {limit} passes: {message(decision, self.spec)}")

    def settle(self) -> Decision:
        """Do what is asked until nothing more is."""
        while True:
            order = list(self.trials.values())
            if self.shuffled:
                np.random.default_rng(self.passes).shuffle(order)  # type: ignore[arg-type]
            decision = decide(self.spec, order, self.now, self.earlier)
            stops, starts = list(decision.stop), list(decision.start)
            for stop in stops[: 1 if self.crashing else None]:
                assert self.trials[stop.number].is_running
                self.trials[stop.number] = replace(
                    self.trials[stop.number], outcome=stop.outcome, ended_at=self.now, judged=stop.judged
                )
            if decision.is_final and not (self.crashing and len(stops) > 1):
                return decision
            if self.crashing and stops:
                continue
            for suggestion in starts[: 1 if self.crashing else None]:
                assert suggestion.number not in self.trials
                running = sum(t.is_running for t in self.trials.values())
                assert running < self.spec.most_parallel_trials
                self.trials[suggestion.number] = Trial(suggestion)
                self.admit()
            if not starts:
                return decision

    def admit(self) -> None:
        """Let waiting trials run, as many as the queue admits."""
        for trial in [t for t in self.trials.values() if t.is_running and t.started_at is None]:
            if self.quota is None or len(self.training()) < self.quota:
                self.trials[trial.number] = replace(trial, started_at=self.now)

    def training(self) -> list[Trial]:
        """Return the trials that run and do not wait."""
        return [t for t in self.trials.values() if t.is_running and t.started_at is not None]

    def train(self) -> None:
        """Let every running trial measure once."""
        self.now += timedelta(minutes=1)
        self.admit()
        for trial in self.training():
            step = len(trial.measurements) + 1
            fate = self.fate(trial.suggestion, step)
            if fate is not None:
                self.end(trial, fate)
                continue
            if self.prints_losses and not trial.losses:
                self.trials[trial.number] = replace(trial, losses=self.losses(trial.suggestion))
                continue
            whole = self.measured(trial.suggestion)
            measured = Measurement(float(step), float(whole[step - 1]))
            seen = replace(trial, measurements=(*trial.measurements, measured), unit=self.unit)
            self.trials[trial.number] = seen
            if step == len(whole):
                met = any(self.spec.target.is_met(m.value) for m in seen.measurements)
                self.end(seen, Outcome.REACHED if met else Outcome.MISSED)

    def measured(self, suggestion: Suggestion) -> np.ndarray:
        """Return all that a run will measure: the same for the same seed, unless a check trains less."""
        batch_size = self.trains(suggestion.batch_size)
        original = repeated_by(suggestion, self.trials.values())
        is_less = original is not None and batch_size < self.trains(original.suggestion.batch_size)
        rng = np.random.default_rng([suggestion.seed, *[batch_size] * is_less])
        clean = self.curve(batch_size, suggestion.parameters)
        noise = rng.normal(0, self.run_noise) + rng.normal(0, self.step_noise, len(clean))
        noise += np.random.default_rng(suggestion.number).normal(0, self.jitter, len(clean))
        return np.asarray(clean + noise)

    def losses(self, suggestion: Suggestion) -> tuple[float, ...]:
        """Return the first losses that a run prints."""
        rng = np.random.default_rng([suggestion.seed, self.trains(suggestion.batch_size)])
        rate = float(suggestion.parameters["learning_rate"])
        return tuple(round(2.5 - rate / 100 * step + rng.normal(0, 0.01), 6) for step in range(8))

    @property
    def history(self) -> History:
        """The study so far."""
        return History.of(self.spec, list(self.trials.values()))

    @property
    def trained(self) -> int:
        """Steps of all trials together."""
        return sum(len(trial.measurements) for trial in self.trials.values())

    def end(self, trial: Trial, outcome: Outcome, **changed: Any) -> None:
        """End a trial."""
        self.trials[trial.number] = replace(trial, outcome=outcome, ended_at=self.now, **changed)
