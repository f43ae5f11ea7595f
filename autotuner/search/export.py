"""A ledger as an Optuna study in a storage, for optuna-dashboard and the like.

An export only: nothing reads it back. Exporting again adds the trials that are not there yet, so it can be
repeated while a tuning runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import optuna
from optuna.trial import TrialState, create_trial

from autotuner.errors import BackendError
from autotuner.search.optuna_study import tell
from autotuner.search.space import BATCH_SIZE, Space
from autotuner.spec import TuningSpec
from autotuner.study.history import History
from autotuner.study.setting import setting
from autotuner.trial import Trial

_NUMBER: Final = "autotuner:number"


def export(spec: TuningSpec, trials: Iterable[Trial], storage: str, name: str) -> int:
    """Write the finished trials that the study does not hold yet, and return how many those were.

    Args:
        spec: What the job asks for.
        trials: The job's trials; running ones are passed over.
        storage: A storage URL as Optuna takes it, such as `sqlite:///resnet50.db`.
        name: The study's name.

    Raises:
        BackendError: If the storage cannot be opened or written.
    """
    history = History.of(spec, (trial for trial in trials if not trial.is_running))
    space = Space.of(spec)
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        known = {trial.user_attrs.get(_NUMBER) for trial in study.get_trials(deepcopy=False)}
        fresh = [trial for trial in history.trials if trial.number not in known]
        for trial in fresh:
            study.add_trial(_exported(history, space, trial))
    except Exception as error:  # each of Optuna's storages, and the drivers under them, has errors of its own
        raise BackendError(
            f"the Optuna storage {storage!r} cannot be written: {error}; give a URL such as sqlite:///tuning.db"
        ) from error
    return len(fresh)


def _exported(history: History, space: Space, trial: Trial) -> optuna.trial.FrozenTrial:
    told = tell(history, space, trial)
    if told is None:
        tried = setting(trial)
        told = create_trial(
            state=TrialState.FAIL,
            params={BATCH_SIZE: tried.batch_size, **space.complete(tried.parameters)},
            distributions=space.distributions,
        )
    told.user_attrs = {
        _NUMBER: trial.number,
        "purpose": str(trial.suggestion.purpose),
        "outcome": str(trial.outcome),
        "seed": trial.suggestion.seed,
        "message": trial.message,
    }
    told.datetime_start, told.datetime_complete = trial.started_at, trial.ended_at
    return told
