"""Propose with Optuna's own samplers, on a study that is rebuilt from the trials each time.

The study is a pure function of the history: the same trials and seed give the same suggestion in any process.
Stopped trials are added as complete with a constraint, never as pruned: GPSampler ignores pruned trials, and
TPE ranks a pruned trial without a constraint above completed ones that missed.
"""

from __future__ import annotations

import math

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotuner.search.space import BATCH_SIZE, Space
from autotuner.spec import Target
from autotuner.study.history import History, curve
from autotuner.study.setting import Setting, setting
from autotuner.trial import CUT_SHORT, Outcome, Trial


def ask(history: History, space: Space, sampler: optuna.samplers.BaseSampler) -> Setting:
    """Return the next setting of the sampler."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([told for trial in history.trials if (told := tell(history, space, trial)) is not None])
    asked = study.ask(space.distributions)
    parameters = dict(asked.params)
    return Setting.of(int(parameters.pop(BATCH_SIZE)), parameters)


def tell(history: History, space: Space, trial: Trial) -> FrozenTrial | None:
    """Return the trial as an Optuna trial; None if it has no result or lies outside the current space."""
    if trial.outcome in CUT_SHORT:
        return None
    tried = setting(trial)
    params = {BATCH_SIZE: tried.batch_size, **space.complete(tried.parameters)}
    for name, distribution in space.distributions.items():
        if not isinstance(distribution, CategoricalDistribution):
            if not distribution._contains(distribution.to_internal_repr(params[name])):  # noqa: SLF001 (no public test)
                return None
        elif params[name] not in distribution.choices:
            return None
    measured = curve(trial)
    intermediate = {
        int(step): float(value) for step, value in zip(measured.steps, measured.values, strict=True)
    }
    if trial.is_running:
        return create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=space.distributions,
            intermediate_values=intermediate,
        )
    found = shortfall(trial, history.spec.target)
    if found is None:
        return None
    return create_trial(
        state=TrialState.COMPLETE,
        value=math.log2(tried.batch_size),
        params=params,
        distributions=space.distributions,
        intermediate_values=intermediate,
        constraints={"target": found},
    )


def shortfall(trial: Trial, target: Target) -> float | None:
    """Return by how much a trial misses the target, as Optuna's constraints: 0 or less is a success.

    A promising trial counts as one: it was stopped because it would almost certainly meet the target. So does
    a value that meets the target in single precision. None without a value.
    """
    best = curve(trial).best(target)
    if best is None:
        return None
    is_met = trial.outcome is Outcome.PROMISING or target.is_met(best)
    return min(-target.margin(best), 0.0) if is_met else -target.margin(best)
