"""The samplers that propose settings: the frontier sampler, or one of Optuna's own.

`FrontierSampler` can be used in any Optuna study that maximises a batch size and reports the metric of every
epoch:

    def objective(trial):
        batch_size = trial.suggest_int("batch_size", 256, 32768, log=True)
        learning_rate = trial.suggest_float("learning_rate", 1e-3, 10, log=True)
        for epoch, accuracy in enumerate(train(batch_size, learning_rate), start=1):
            trial.report(accuracy, epoch)
        return batch_size

    sampler = FrontierSampler("accuracy >= 0.759", run_length=90)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({"batch_size": 256, "learning_rate": 0.1})

`decide` uses the same model without an Optuna study, with all data of its own records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autotuner.search.beliefs import Beliefs
from autotuner.search.memory import Memory, digest_of
from autotuner.search.optuna_study import ask
from autotuner.search.space import BATCH_SIZE, Space
from autotuner.spec import (
    Choice,
    Dimension,
    FloatDimension,
    IntegerDimension,
    IntegerRange,
    Target,
    TuningSpec,
)
from autotuner.spec.target import parse_target
from autotuner.study.history import History
from autotuner.study.layout_bounds import nearest
from autotuner.study.setting import Setting
from autotuner.trial import Measurement, Outcome, Purpose, Suggestion, Trial

_STOCK: Final[Mapping[str, Callable[[int], BaseSampler]]] = {
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def propose(beliefs: Beliefs, number: int, incumbent: Setting | None) -> Setting:
    """Return the setting that the sampler of the spec proposes for trial `number`; its batch has a layout."""
    # A trial that waits for a slot of the cluster is proposed again at every poll.
    key = digest_of(beliefs.digest, repr((number, incumbent)).encode())
    return _PROPOSALS.of(key, lambda: _propose(beliefs, number, incumbent))


_PROPOSALS: Final[Memory[Setting]] = Memory(20_000)


def _propose(beliefs: Beliefs, number: int, incumbent: Setting | None) -> Setting:
    spec = beliefs.history.spec
    stock = _STOCK.get(spec.sampler)
    if stock is None:
        return beliefs.propose(number, incumbent)
    digest = hashlib.sha256(f"{spec.seed}/{number}".encode()).digest()
    found = ask(beliefs.history, beliefs.space, stock(int.from_bytes(digest[:4], "big")))
    return nearest(beliefs.history, found)


class FrontierSampler(BaseSampler):
    """Proposes the largest batch size that still meets a target, with a model of learning curves.

    Args:
        target: Metric, comparison and threshold, such as `accuracy >= 0.93`; the metric is the value that
            trials report.
        batch_size: Name of the parameter to maximise, an integer.
        learning_rate: Name of the parameter that scales with the batch size, if there is one.
        run_length: The last step that a whole run reports; if None, it is learned from completed trials.
        seed: Seed of the proposals.

    The first trial's parameters count as known-good, so they should be enqueued. Of a pruned trial only the
    beginning is known.
    """

    def __init__(
        self,
        target: str,
        *,
        batch_size: str = BATCH_SIZE,
        learning_rate: str | None = "learning_rate",
        run_length: float | None = None,
        seed: int = 0,
    ) -> None:
        self._target = Target.model_validate(parse_target(target))
        self._batch_size, self._learning_rate = batch_size, learning_rate
        self._run_length, self._seed = run_length, seed
        self._independent = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that all finished trials share; none before the first."""
        del trial
        space = optuna.search_space.intersection_search_space(
            study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        )
        batch = space.get(self._batch_size)
        if not isinstance(batch, IntDistribution) or batch.low < 1 or len(space) < 2:  # noqa: PLR2004 (it and one more)
            return {}
        return {name: space[name] for name in sorted(space) if not space[name].single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values to try next."""
        if self._batch_size not in search_space:
            return {}
        history = self._history(study, search_space)
        if not history.trials:
            return {}
        beliefs = Beliefs(history, Space.of(history.spec))
        found = beliefs.propose(trial.number, beliefs.incumbent)
        return {self._batch_size: found.batch_size, **found.parameters}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 (as optuna declares it)
        """Return a random value: before the first trial has finished, and for parameters that vary."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _history(self, study: Study, search_space: Mapping[str, BaseDistribution]) -> History:
        told = [t for t in study.get_trials(deepcopy=False) if set(search_space) <= set(t.params)]
        batch = search_space[self._batch_size]
        assert isinstance(batch, IntDistribution)  # noqa: S101 (checked in sample_relative)
        first = dict(told[0].params) if told else {self._batch_size: batch.low}
        space = {n: _dimension(d) for n, d in search_space.items() if n != self._batch_size}
        spec = TuningSpec(
            target=self._target,
            batch_size=IntegerRange(minimum=batch.low, maximum=batch.high),
            search_space=space,
            learning_rate=self._learning_rate if self._learning_rate in space else None,
            run_length=self._run_length,
            seed=self._seed,
            baseline_batch_size=first[self._batch_size],
            baseline_parameters={name: first[name] for name in space if name in first},
        )
        return History.of(spec, [self._trial(t, space, first=t is told[0]) for t in told])

    def _trial(self, told: FrozenTrial, space: Mapping[str, Dimension], *, first: bool) -> Trial:
        outcomes = {
            TrialState.COMPLETE: Outcome.MISSED,  # it has run to its end, whatever its result
            TrialState.PRUNED: Outcome.HOPELESS,
            TrialState.FAIL: Outcome.FAILED,
        }
        suggestion = Suggestion(
            number=told.number,
            batch_size=told.params[self._batch_size],
            parameters={name: told.params[name] for name in space},
            seed=0,
            purpose=Purpose.BASELINE if first else Purpose.SEARCH,
        )
        measured = tuple(Measurement(step, value) for step, value in sorted(told.intermediate_values.items()))
        return Trial(suggestion, measured, outcomes.get(told.state))


def _dimension(distribution: BaseDistribution) -> Dimension:
    if isinstance(distribution, CategoricalDistribution):
        return Choice(values=tuple(distribution.choices))  # type: ignore[arg-type] # a choice is never None here
    if isinstance(distribution, IntDistribution):
        return IntegerDimension(minimum=distribution.low, maximum=distribution.high, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)  # noqa: S101 (optuna has these three)
    return FloatDimension(minimum=distribution.low, maximum=distribution.high, log=distribution.log)
