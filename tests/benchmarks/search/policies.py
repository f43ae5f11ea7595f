"""The search under test, and what a careful user would run instead of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import optuna

from autotuner.decide import decide
from autotuner.decide.decision import Decision
from autotuner.spec import TuningSpec
from autotuner.study.history import History
from autotuner.trial import Measurement, Outcome, Suggestion, Trial
from tests.benchmarks.search.problems import Problem, SolvedProblem
from tests.benchmarks.search.simulate import Move, Policy, Request, Run, Setting

optuna.logging.set_verbosity(optuna.logging.ERROR)


def search_space(problem: Problem) -> Mapping[str, Any]:
    """Return the hyperparameters' ranges."""
    space: Mapping[str, Any] = json.loads(problem.annotations["autotuner.dev/search-space"])
    return space


def batch_sizes(problem: Problem) -> tuple[int, int]:
    """Return the smallest and the largest batch size allowed."""
    low, high = problem.annotations["autotuner.dev/batch-size"].split("..")
    return int(low), int(high)


def margin(problem: Problem, run: Run) -> float:
    """Return by how much the best value so far beats the target."""
    sign = -1 if "<=" in problem.annotations["autotuner.dev/target"] else 1
    return max(sign * (v - problem.target) if math.isfinite(v) else -math.inf for v in run.curve)


class Autotuner:
    """The project's own decision function."""

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int,
        parallel: int,
        earlier: tuple[History, ...] = (),
        **annotations: str,
    ) -> None:
        asked = {"parallel-trials": str(parallel), "seed": str(seed)}
        asked |= {key.replace("_", "-"): value for key, value in annotations.items()}
        self.spec = TuningSpec.from_annotations(
            {**problem.annotations, **{f"autotuner.dev/{key}": value for key, value in asked.items()}},
            baseline=problem.baseline,
        )
        self.earlier = earlier
        self.suggestions: dict[int, Suggestion] = {}
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.trials: list[Trial] = []
        self.last: Decision | None = None

    def decide(self, runs: Sequence[Run]) -> Move:
        """Return what the project's decision function decides."""
        self.trials = [self._trial(run) for run in runs]
        self.now += timedelta(minutes=1)
        decision = self.last = decide(self.spec, self.trials, self.now, self.earlier)
        self.suggestions.update({s.number: s for s in decision.start})
        default, answer = self.spec.baseline_parameters, decision.answer
        return Move(
            start=[
                Request(s.batch_size, {**default, **s.parameters}, s.seed, s.number) for s in decision.start
            ],
            stop={stop.number: str(stop.outcome.value) for stop in decision.stop},
            answer=None if answer is None else (answer.batch_size, {**default, **answer.parameters}),
            done=decision.is_final,
        )

    def _trial(self, run: Run) -> Trial:
        outcome = None
        if run.stopped is not None:
            outcome = Outcome(run.stopped)
        elif not run.is_running:
            reached = any(map(self.spec.target.is_met, run.curve))
            outcome = Outcome.REACHED if reached else Outcome.MISSED
        measured = tuple(Measurement(step=i + 1, value=v) for i, v in enumerate(run.curve))
        return Trial(suggestion=self.suggestions[run.number], measurements=measured, outcome=outcome)


class Optuna:
    """Optuna alone, used well: maximise log2(batch size) under the constraint of the target.

    Starts from the known-good baseline, stops a trial as soon as it reaches the target, and with a
    pruner stops the hopeless ones. Its answer is the largest batch size seen to reach the target.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int,
        parallel: int,
        sampler: str,
        pruner: str = "none",
        trials: int = 40,
    ) -> None:
        samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
            "tpe": lambda: optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=parallel > 1
            ),
            "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        }
        pruners: dict[str, optuna.pruners.BasePruner] = {
            "none": optuna.pruners.NopPruner(),
            "median": optuna.pruners.PercentilePruner(50.0, n_startup_trials=4, n_warmup_steps=5),
        }
        self.problem, self.parallel, self.budget = problem, parallel, trials
        self.study = optuna.create_study(
            direction="maximize", sampler=samplers[sampler](), pruner=pruners[pruner]
        )
        self.study.enqueue_trial(dict(problem.baseline))
        low, high = batch_sizes(problem)
        self.space = {"batch_size": optuna.distributions.IntDistribution(low, high, log=True)} | {
            name: _distribution(one) for name, one in search_space(problem).items()
        }
        self.live: dict[int, optuna.Trial] = {}
        self.asked = 0
        self.best: Setting | None = None

    def decide(self, runs: Sequence[Run]) -> Move:
        """Tell the study what has been measured, and ask it for as many trials as there is room for."""
        stop: dict[int, str] = {}
        for run in runs:
            trial = self.live.get(run.number)
            if trial is None:
                continue
            best = max(margin(self.problem, run), -1e9)
            trial.report(best, run.epochs)
            reached = best >= 0
            pruned = not reached and run.is_running and trial.should_prune()
            if not (reached or pruned or not run.is_running):
                continue
            if run.is_running:
                stop[run.number] = "reached" if reached else "hopeless"
            trial.set_constraint("target", -best)
            self.study.tell(trial, math.log2(run.batch_size))
            del self.live[run.number]
            if reached and (self.best is None or run.batch_size > self.best[0]):
                self.best = (run.batch_size, dict(run.parameters))
        start = []
        while len(self.live) < self.parallel and self.asked < self.budget:
            trial = self.study.ask(self.space)
            self.live[self.asked] = trial
            drawn = dict(trial.params)
            size = drawn.pop("batch_size")
            start.append(Request(size, {**self.problem.baseline, **drawn}, number=self.asked))
            self.asked += 1
        return Move(start, stop, self.best, done=not self.live and not start)


def _distribution(one: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(one, list):
        return optuna.distributions.CategoricalDistribution(one)
    if one.get("type") == "int":
        return optuna.distributions.IntDistribution(one["min"], one["max"], log=one.get("log", False))
    return optuna.distributions.FloatDistribution(one["min"], one["max"], log=one.get("log", False))


class Ladder:
    """What a careful engineer does by hand: double the batch, retune the learning rate, halve the last step.

    At each batch size four learning rates are tried around the square-root rule, everything else as in the
    known-good setting; a run is stopped when it reaches the target. When no rate holds at twice the batch,
    the same is tried at 1.4 times. The answer is run twice more, and given up for the one before it when
    either run misses.
    """

    RATES = (1.0, 1.41, 0.71, 2.0)
    """Times the square-root rule."""
    LAST_GROWTH = math.sqrt(2)

    def __init__(self, problem: Problem, *, seed: int, parallel: int) -> None:
        if parallel != 1:
            raise ValueError(f"--parallel is {parallel}: must be 1 for ladder, by hand, one at a time")
        rates = search_space(problem)["learning_rate"]
        self.problem, self.confirming, self.growth, self.asked = problem, 0, 2.0, 0
        self.held: list[Setting] = []
        self.plan: list[Setting] = []
        self.limits = (rates["min"], rates["max"])
        self.top = batch_sizes(problem)[1]

    def decide(self, runs: Sequence[Run]) -> Move:
        """Return the next run of the ladder once the one before has ended."""
        if not runs:
            return self._start((self.problem.baseline["batch_size"], dict(self.problem.baseline)), {})
        run = runs[-1]
        reached = margin(self.problem, run) >= 0
        if run.is_running and not reached:
            return Move(answer=self._answer())
        stop = {run.number: "reached"} if run.is_running else {}
        if self.confirming:
            return self._confirmed(stop, reached=reached)
        if reached:
            self.held.append((run.batch_size, dict(run.parameters)))
            self.plan = []
        elif not self.held:
            return Move(stop=stop, done=True)
        if not self.plan:
            if not reached:
                self.growth = self.LAST_GROWTH if self.growth > self.LAST_GROWTH else 1.0
            self.plan = self._next()
        if not self.plan:
            self.confirming = 2
            return self._start(self.held[-1], stop)
        return self._start(self.plan.pop(0), stop)

    def _confirmed(self, stop: Mapping[int, str], *, reached: bool) -> Move:
        self.confirming -= 1
        if not reached:
            self.held.pop()
            self.confirming = 2 if len(self.held) > 1 else 0
        if not self.confirming or not self.held:
            return Move(stop=stop, answer=self._answer(), done=True)
        return self._start(self.held[-1], stop)

    def _next(self) -> list[Setting]:
        """Return the settings to try at the next batch size, none where there is no larger one."""
        size, parameters = self.held[-1]
        larger = min(round(size * self.growth), self.top)
        if larger <= size:
            return []
        rate = parameters["learning_rate"] * math.sqrt(larger / size)
        low, high = self.limits
        return [
            (larger, {**parameters, "learning_rate": min(max(rate * times, low), high)})
            for times in self.RATES
        ]

    def _answer(self) -> Setting | None:
        return self.held[-1] if self.held else None

    def _start(self, wanted: Setting, stop: Mapping[int, str]) -> Move:
        size, parameters = wanted
        self.asked += 1
        return Move([Request(size, parameters, number=self.asked - 1)], stop, self._answer())


class Oracle:
    """A bound for all policies: it knows the best setting at every batch size, and only confirms it.

    From the largest feasible batch size down in quarters of a doubling, until three runs of a setting have
    reached the target before two have missed it, as the search confirms. What it lacks is lost to noise, not
    to the search: no policy can be expected to have less regret.
    """

    STEP = 2**-0.25
    REACHED, MISSED = 3, 2

    def __init__(self, problem: Problem, *, seed: int, parallel: int) -> None:
        if parallel != 1:
            raise ValueError(f"--parallel is {parallel}: must be 1 for oracle, one run at a time")
        if not isinstance(problem, SolvedProblem):
            raise SystemExit(f"oracle: the best settings of {problem.name} are not known")
        self.problem, self.size = problem, float(problem.largest)
        self.answer: Setting = (problem.baseline["batch_size"], dict(problem.baseline))
        self.reached = self.missed = 0
        self.setting = self._best()

    def decide(self, runs: Sequence[Run]) -> Move:
        """Return the next run of the present setting, or of that of the next smaller batch size."""
        stop = {}
        if runs:
            run = runs[-1]
            has_reached = margin(self.problem, run) >= 0
            if run.is_running and not has_reached:
                return Move(answer=self.answer)
            stop = {run.number: "reached"} if run.is_running else {}
            self.reached, self.missed = self.reached + has_reached, self.missed + (not has_reached)
        if self.reached == self.REACHED:
            self.answer = self.setting
            return Move(stop=stop, answer=self.answer, done=True)
        if self.missed == self.MISSED:
            self.size, self.reached, self.missed = self.size * self.STEP, 0, 0
            self.setting = self._best()
        if self.setting[0] <= self.answer[0]:
            return Move(stop=stop, answer=self.answer, done=True)
        return Move([Request(*self.setting)], stop, self.answer)

    def _best(self) -> Setting:
        size = round(self.size)
        return size, {**self.problem.baseline, **self.problem.known_best(size)}


POLICIES: Mapping[str, Callable[..., Policy]] = {
    "ladder": Ladder,
    "oracle": Oracle,
    "autotuner": Autotuner,
    "gp": partial(Optuna, sampler="gp"),
    "gp+median": partial(Optuna, sampler="gp", pruner="median"),
    "tpe": partial(Optuna, sampler="tpe"),
    "tpe+median": partial(Optuna, sampler="tpe", pruner="median"),
    "random": partial(Optuna, sampler="random"),
}
