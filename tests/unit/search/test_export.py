"""The export: every reader of the storage, whatever it knows of constraints, finds our answer as the best."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from autotuner.errors import Conflict
from autotuner.search.export import export
from autotuner.study.setting import Setting
from autotuner.trial import Outcome, Trial
from tests.builders import spec, suggestion, trial

ANSWER = Setting.of(64, {"learning_rate": 0.2})
LUCKY = suggestion(1, batch_size=128)
OTHER = suggestion(2, batch_size=64, parameters={"learning_rate": 0.9})
FOUND = suggestion(3, batch_size=64, parameters={"learning_rate": 0.2})
TRIALS = (
    trial(0),
    trial(1, tried=LUCKY),
    trial(2, tried=OTHER),
    trial(3, tried=FOUND),
    trial(4, (0.5, 0.58), Outcome.MISSED, tried=suggestion(4, batch_size=256)),
    trial(5, (0.5, 0.6), Outcome.HOPELESS, tried=suggestion(5, batch_size=16)),
    trial(6, (), Outcome.FAILED),
    trial(7, (), None),
)


def exported(tmp_path: Path, trials: tuple[Trial, ...] = TRIALS, **changed: str) -> optuna.Study:
    storage = f"sqlite:///{tmp_path}/study.db"
    export(
        spec({"batch_size": "32"}, **changed),
        trials,
        storage,
        "toy",
        answer=ANSWER,
        attributes={"target": "accuracy >= 0.9"},
    )
    return optuna.load_study(study_name="toy", storage=storage)


def test_misses_are_pruned_and_failures_failed(tmp_path: Path):
    states = [told.state for told in exported(tmp_path).trials]
    assert states == [
        TrialState.COMPLETE,
        TrialState.PRUNED,  # reached at a batch larger than the answer: not confirmed
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.PRUNED,
        TrialState.FAIL,
    ]


def test_the_best_trial_is_the_answer_with_and_without_constraints(tmp_path: Path):
    study = exported(tmp_path)
    assert study.best_value == 64
    assert study.best_trial.params == {"batch_size": 64, "learning_rate": 0.2}
    blind = study._storage.get_best_trial(study._study_id)  # what optuna-dashboard 0.21 asks
    assert blind.params == study.best_params


def test_constraints_are_in_both_forms(tmp_path: Path):
    missed = exported(tmp_path).trials[4]
    assert missed.system_attrs["constraints"] == [pytest.approx(0.32)]
    assert missed.system_attrs["constraints:target"] == pytest.approx(0.32)
    assert exported(tmp_path).trials[3].system_attrs["constraints"][0] <= 0


def test_a_run_that_met_the_target_in_single_precision_meets_the_constraint(tmp_path: Path):
    met = trial(0, (0.5, 0.8999999761581421), Outcome.REACHED, tried=FOUND)
    assert exported(tmp_path, (met,)).trials[0].state is TrialState.COMPLETE


def test_target_and_what_is_known_of_a_run_are_attributes(tmp_path: Path):
    study = exported(tmp_path)
    assert study.user_attrs["target"] == "accuracy >= 0.9"
    assert study.trials[4].user_attrs["accuracy"] == 0.58
    assert study.trials[4].user_attrs["outcome"] == "missed"
    assert study.trials[4].intermediate_values == {1: 0.5, 2: 0.58}


@pytest.mark.parametrize(
    "space",
    [
        "learning_rate: {min: 0.15, max: 0.3, log: true}",
        "learning_rate: {min: 0.15, max: 0.3, log: true}\noptimizer: [sgd, lars]",
        "other: {min: 1, max: 3, type: int}",
    ],
)
def test_a_search_space_that_was_changed_exports_what_was_tried(tmp_path: Path, space: str):
    exported(tmp_path)
    study = exported(tmp_path, search_space=space, batch_size="32..64")
    assert [told.params["batch_size"] for told in study.trials] == [32, 128, 64, 64, 256, 16, 32]
    assert study.trials[2].params["learning_rate"] == 0.9


def test_a_choice_that_was_removed_stays_in_what_was_tried(tmp_path: Path):
    tried = suggestion(0, parameters={"optimizer": "adam", "layers": 3})
    study = exported(tmp_path, (trial(0, tried=tried),), search_space="optimizer: [sgd, lars]")
    assert study.trials[0].params == {"batch_size": 32, "optimizer": "adam", "layers": 3}


def test_exporting_again_adds_what_is_new_and_judges_by_the_answer_of_now(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/study.db"
    assert export(spec(), TRIALS[:4], storage, "toy", answer=ANSWER) == 4
    assert export(spec(), TRIALS, storage, "toy", answer=ANSWER) == 3
    assert export(spec(), TRIALS, storage, "toy", answer=ANSWER) == 0
    larger = Setting.of(128, {"learning_rate": 0.1})
    export(spec(), TRIALS, storage, "toy", answer=larger)
    study = optuna.load_study(study_name="toy", storage=storage)
    assert study.best_value == 128
    assert len(study.trials) == 7


def test_somebody_elses_study_of_the_same_name_is_left_alone(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/study.db"
    theirs = optuna.create_study(storage=storage, study_name="toy")
    theirs.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(Conflict, match="not an export"):
        export(spec(), TRIALS, storage, "toy")
    assert len(optuna.load_study(study_name="toy", storage=storage).trials) == 1
