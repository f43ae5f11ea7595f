"""Export a ledger as an Optuna study, for optuna-dashboard and similar programs.

Nothing reads it back. The study maximises the batch size. A trial is COMPLETE if it met the target and does
not contradict the answer. It is PRUNED if it missed, or if its batch is larger than the answer's (or the
same, with other hyperparameters): such a run was lucky, or is not confirmed. So the best trial is the answer
for every reader, also for those that do not know constraints: optuna-dashboard 0.21 takes the largest value
of all COMPLETE trials.

A repeated export adds the new trials, so it can be repeated while a study runs. Optuna does not allow changes
of finished trials, so the study is replaced if the target, the answer or the search space has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotuner.errors import BackendError, Conflict
from autotuner.search.optuna_study import shortfall
from autotuner.search.space import BATCH_SIZE, Space
from autotuner.spec import Target, TuningSpec
from autotuner.study.history import History, curve
from autotuner.study.setting import Setting, setting
from autotuner.trial import CUT_SHORT, ParameterValue, Trial

_NUMBER: Final = "autotuner:number"
_CONTENT: Final = "autotuner:content"
"""The study's attribute with a hash of what its trials were judged by; it marks the study as an export."""


def export(  # noqa: PLR0913 (two of them are optional)
    spec: TuningSpec,
    trials: Iterable[Trial],
    storage: str,
    name: str,
    *,
    answer: Setting | None = None,
    attributes: Mapping[str, object] | None = None,
) -> int:
    """Write the finished trials that the study does not have yet, and return their number.

    Args:
        spec: The parsed annotations of the job.
        trials: The job's trials; running ones are skipped.
        storage: A storage URL of Optuna, for example `sqlite:///resnet50.db`.
        name: The study's name.
        answer: The batch size and hyperparameters of the answer, if there is one.
        attributes: Attributes of the study for the dashboard, as JSON values.

    Raises:
        BackendError: If the storage cannot be opened or written.
        Conflict: If the storage has a study with this name that is not an export.
    """
    finished = History.of(spec, (trial for trial in trials if not trial.is_running)).trials
    distributions = _distributions(spec, finished)
    judged_by = [
        str(spec.target),
        None if answer is None else answer.key,
        {key: distribution_to_json(held) for key, held in distributions.items()},
    ]
    content = hashlib.sha256(json.dumps(judged_by).encode()).hexdigest()[:16]
    exported = [_exported(spec.target, distributions, trial, answer) for trial in finished]
    try:
        study = _opened(storage, name, content)
        for key, value in (attributes or {}).items():
            study.set_user_attr(key, value)
        known = {trial.user_attrs.get(_NUMBER) for trial in study.get_trials(deepcopy=False)}
        fresh = [trial for trial in exported if trial.user_attrs[_NUMBER] not in known]
        study.add_trials(fresh)
    except Conflict:
        raise
    except Exception as error:  # each of Optuna's storages, and each driver, has its own errors
        raise BackendError(
            f"the Optuna storage {storage!r} cannot be written: {error}; give a URL, for example"
            " sqlite:///tuning.db"
        ) from error
    return len(fresh)


def _opened(storage: str, name: str, content: str) -> optuna.Study:
    """Return the study to add to: a new one if there is none, or if its trials were judged differently."""
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    held = study.get_trials(deepcopy=False)
    if _CONTENT not in study.user_attrs and any(_NUMBER not in trial.user_attrs for trial in held):
        raise Conflict(
            f"the Optuna storage {storage!r} has a study {name!r} that is not an export of the autotuner:"
            " name another storage"
        )
    if held and study.user_attrs.get(_CONTENT) != content:
        optuna.delete_study(study_name=name, storage=storage)
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.set_user_attr(_CONTENT, content)
    return study


def _distributions(spec: TuningSpec, trials: Iterable[Trial]) -> dict[str, BaseDistribution]:
    """Return the current space, widened so that it contains the settings of all trials."""
    tried: dict[str, list[ParameterValue]] = {}
    for trial in trials:
        for key, value in _parameters(trial).items():
            tried.setdefault(key, []).append(value)
    today = Space.of(spec).distributions
    return {name: _widened(today.get(name), tried.get(name, [])) for name in dict.fromkeys((*today, *tried))}


def _widened(today: BaseDistribution | None, values: list[ParameterValue]) -> BaseDistribution:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if isinstance(today, CategoricalDistribution) or len(numbers) < len(values):
        choices = today.choices if isinstance(today, CategoricalDistribution) else ()
        return CategoricalDistribution(tuple(dict.fromkeys((*choices, *values))))
    if isinstance(today, IntDistribution) and all(isinstance(number, int) for number in numbers):
        low, high = int(min(today.low, *numbers, today.high)), int(max(today.high, *numbers, today.low))
        return IntDistribution(low, high, log=today.log and low >= 1)
    bounds = [today.low, today.high] if isinstance(today, IntDistribution | FloatDistribution) else []
    lowest, highest = float(min(bounds + numbers)), float(max(bounds + numbers))
    log = isinstance(today, FloatDistribution) and today.log and lowest > 0
    return FloatDistribution(lowest, highest, log=log)


def _exported(
    target: Target, distributions: Mapping[str, BaseDistribution], trial: Trial, answer: Setting | None
) -> FrozenTrial:
    tried, measured = setting(trial), curve(trial)
    params = _parameters(trial)
    missed_by = shortfall(trial, target)
    met = missed_by is not None and missed_by <= 0
    if met:
        state = TrialState.COMPLETE if _agrees(tried, answer) else TrialState.PRUNED
    else:
        state = TrialState.FAIL if trial.outcome in CUT_SHORT else TrialState.PRUNED
    told = create_trial(
        state=state,
        value=float(tried.batch_size) if state is TrialState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        intermediate_values=dict(zip(map(int, measured.steps), map(float, measured.values), strict=True)),
        constraints=None if missed_by is None else {"target": missed_by},  # as Optuna 5 writes them
        # As optuna-dashboard 0.21 and Optuna before 5 read them.
        system_attrs={} if missed_by is None else {"constraints": [missed_by]},
        user_attrs={
            _NUMBER: trial.number,
            "purpose": str(trial.suggestion.purpose),
            "outcome": str(trial.outcome),
            "met_target": met,
            target.metric: measured.best(target),
            "seed": trial.suggestion.seed,
            "message": trial.message,
        },
    )
    told.datetime_start, told.datetime_complete = trial.started_at, trial.ended_at
    return told


def _agrees(tried: Setting, answer: Setting | None) -> bool:
    """Return whether a run that met the target does not contradict the answer."""
    return answer is None or tried.batch_size < answer.batch_size or tried.key == answer.key


def _parameters(trial: Trial) -> dict[str, Any]:
    """Return the trial's parameters, without hyperparameters that it left to the script."""
    tried = setting(trial)
    return {BATCH_SIZE: tried.batch_size, **tried.parameters}
