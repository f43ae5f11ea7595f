"""The samplers: ours in anyone's study, and optuna's in our search."""

import math

import optuna
import pytest

from autotuner.decide import decide
from autotuner.search.sampler import FrontierSampler
from autotuner.trial import Outcome, Purpose
from tests.builders import NOON, spec, suggestion, trial

optuna.logging.set_verbosity(optuna.logging.WARNING)


def train(batch_size: int, learning_rate: float) -> list[float]:
    off = math.log(learning_rate / (0.1 * batch_size / 32))
    best = 0.93 - 0.03 * max(math.log2(batch_size / 128), 0) - 0.05 * off**2
    return [max(best, 0.1) * (1 - math.exp(-0.4 * epoch)) for epoch in range(1, 13)]


def objective(asked: optuna.Trial) -> float:
    batch_size = asked.suggest_int("batch_size", 16, 1024, log=True)
    for epoch, value in enumerate(train(batch_size, asked.suggest_float("lr", 0.001, 10, log=True)), start=1):
        asked.report(value, epoch)
    return batch_size


def tune(seed: int = 0) -> optuna.Study:
    sampler = FrontierSampler("accuracy >= 0.9", learning_rate="lr", run_length=12, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({"batch_size": 32, "lr": 0.1})
    study.optimize(objective, n_trials=15)
    return study


def test_a_study_of_anyones_finds_the_frontier():
    met = [t.params["batch_size"] for t in tune().trials if max(t.intermediate_values.values()) >= 0.9]
    assert max(met) >= 180


def test_the_same_seed_suggests_the_same():
    assert [t.params for t in tune(3).trials] == [t.params for t in tune(3).trials]


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random", "frontier"])
def test_every_sampler_proposes_within_the_space(sampler: str):
    trials = [
        trial(0, (0.5, 0.8, 0.93), Outcome.REACHED, suggestion(0, purpose=Purpose.BASELINE)),
        trial(1, (0.4, 0.6, 0.7), Outcome.MISSED, suggestion(1, batch_size=64)),
        trial(2, (0.4, 0.6), Outcome.HOPELESS, suggestion(2, batch_size=100)),
        trial(3, (), None, suggestion(3, batch_size=50)),
    ]
    asked = spec(sampler=sampler, parallel_trials="2")
    (proposed,) = decide(asked, trials, NOON).start
    assert 16 <= proposed.batch_size <= 256
    assert 0.01 <= proposed.parameters["learning_rate"] <= 10
    assert decide(asked, trials, NOON).start == (proposed,)
