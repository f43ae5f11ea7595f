"""The search benchmark: it scores what policies answer, and says how sure its numbers are."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from autotuner.study.setting import Setting
from tests.benchmarks.search import choices
from tests.benchmarks.search.calibration import CONFIRMED, FINAL, Claim, Listener, tables
from tests.benchmarks.search.families import load
from tests.benchmarks.search.policies import POLICIES
from tests.benchmarks.search.report import COLUMNS, standard_error, table
from tests.benchmarks.search.simulate import Move, Request, Score, simulate


@dataclass(frozen=True)
class Steep:
    """A problem in which batch sizes up to 100 are feasible, whatever the hyperparameters."""

    name: str = "steep"
    baseline: dict = field(default_factory=lambda: {"batch_size": 16, "learning_rate": 0.1})
    epochs: int = 2
    target: float = 0.9
    largest: int = 100
    annotations: dict = field(
        default_factory=lambda: {
            "autotuner.dev/target": "accuracy >= 0.9",
            "autotuner.dev/batch-size": "16..512",
            "autotuner.dev/search-space": '{"learning_rate": {"min": 0.01, "max": 10, "log": true}}',
            "autotuner.dev/run-length": "2",
        }
    )

    def run(self, batch_size, parameters, seed):
        return [0.5, 0.95 if batch_size <= self.largest else 0.6]

    def is_feasible(self, batch_size, parameters):
        return batch_size <= self.largest


class Answers:
    """A policy that trains the baseline repeatedly and gives the answers of the test."""

    def __init__(self, *sizes):
        self.sizes = list(sizes)

    def decide(self, runs):
        ended = sum(not run.is_running for run in runs)
        answer = (self.sizes[min(ended, len(self.sizes) - 1)], {})
        if ended < len(runs):
            return Move(answer=answer)
        return Move([Request(16, {})], answer=answer, done=ended == 3)


def score(problem="one", *, right_after=10.0, seed=0):
    return Score(problem, "some", seed, 5, 20, 10, 0.5, False, right_after)


def test_by_hand_doubles_while_it_holds_and_then_takes_a_half_step():
    found = simulate(Steep(), POLICIES["ladder"](Steep(), seed=0, parallel=1), name="ladder", seed=0)

    assert found.regret == pytest.approx(math.log2(100 / 91))
    assert not found.never_right
    assert not found.is_false


@dataclass(frozen=True)
class Known(Steep):
    """One that meets the target in the first of its runs only, above a batch size."""

    unlucky: int = 90

    def run(self, batch_size, parameters, seed):
        met = batch_size <= self.unlucky or seed == hash((0, 0)) % 2**32
        return [0.5, 0.95 if met else 0.6]

    def known_best(self, batch_size):
        return {"learning_rate": 1.0}


def test_the_oracle_goes_down_from_the_answer_until_its_runs_confirm():
    found = simulate(Known(), POLICIES["oracle"](Known(), seed=0, parallel=1), name="oracle", seed=0)

    assert found.regret == pytest.approx(math.log2(100 / round(100 * 2**-0.25)))
    assert found.trials == 3 + 3  # one reached and two missed at the answer itself
    assert not found.is_false


def test_the_oracle_keeps_the_known_good_setting_if_nothing_larger_confirms():
    problem = Known(unlucky=16)

    found = simulate(problem, POLICIES["oracle"](problem, seed=0, parallel=1), name="oracle", seed=0)

    assert found.regret == pytest.approx(math.log2(100 / 16))


def test_the_oracle_needs_a_problem_whose_best_settings_are_known():
    with pytest.raises(SystemExit, match="best settings of steep are not known"):
        POLICIES["oracle"](Steep(), seed=0, parallel=1)


@pytest.mark.parametrize("family", ["language-models", "tabular", "choices"])
def test_the_best_setting_is_feasible_up_to_the_answer(family):
    problem = load(family)[0]

    for size in (problem.largest, round(problem.largest / 2)):
        assert problem.is_feasible(size, {**problem.baseline, **problem.known_best(size)})


@pytest.mark.parametrize(
    ("sizes", "after"), [((16, 80, 80), 2), ((80, 16, 16), math.inf), ((16, 101), math.inf)]
)
def test_an_answer_is_right_from_when_it_holds_to_the_end(sizes, after):
    assert simulate(Steep(), Answers(*sizes), name="some", seed=0).right_after == after


def test_an_infeasible_answer_is_false_and_costs_the_whole_range():
    found = simulate(Steep(), Answers(101), name="some", seed=0)

    assert found.is_false
    assert found.regret == pytest.approx(math.log2(100 / 16) + 1)


def test_a_share_of_none_is_not_told_as_certain():
    never = next(statistic for title, statistic, _ in COLUMNS if title == "never right")
    scores = [score(str(i)) for i in range(30)]

    assert never(scores) == 0
    assert standard_error(scores, never, is_share=True) > 0.02


def test_seeds_of_one_problem_are_no_independent_evidence():
    regret = next(statistic for title, statistic, _ in COLUMNS if title == "regret")
    scores = [
        Score(str(i), "some", seed, 5, 20, 10, i % 2, False, 1.0) for i in range(20) for seed in range(9)
    ]

    assert standard_error(scores, regret, is_share=False) == pytest.approx(0.5 / math.sqrt(20), rel=0.2)


def test_a_median_that_is_never_reached_is_printed_as_never():
    assert "never" in table("a family", [score(right_after=math.inf)], ["some"])


def test_claims_are_binned_by_what_was_said():
    said = [
        Claim(FINAL, "one", 0.05, True),
        Claim(FINAL, "two", 0.06, False),
        Claim(CONFIRMED, "one", 1.0, True),
    ]

    text = tables("a family", said)

    assert "0.05 to 0.10       2       0.06   0.50" in text
    assert "0.90 to 1.00       1       1.00   1.00" in text


@pytest.mark.parametrize(("batch_size", "passes"), [(50, True), (200, False)])
def test_a_confirmation_that_was_broken_off_counts_as_what_it_would_have_been(batch_size: int, passes: bool):
    problem = Steep()
    listener = Listener(problem, POLICIES["autotuner"](problem, seed=0, parallel=1))
    listener.begun[Setting.of(batch_size, {"learning_rate": 0.1})] = 0.4
    assert listener.claims() == [Claim(CONFIRMED, problem.name, 0.4, passes)]


@pytest.mark.parametrize(
    ("family", "count"), [("language-models", 31), ("tabular", 12), ("real", 18), ("choices", 12)]
)
def test_a_family_has_its_problems(family, count):
    assert len(load(family)) == count


@pytest.mark.parametrize("number", range(choices.COUNT))
def test_the_largest_batch_size_of_a_choice_is_the_largest_that_any_optimizer_holds(number: int):
    problem = choices.drawn(number)

    def holds(size: float) -> bool:
        return any(
            problem.best(round(size), {"warmup": problem.warmup, "optimizer": name, "learning_rate": rate})
            >= problem.target
            for name in problem.optimizers
            for rate in np.geomspace(3e-5, 10, 2000)
        )

    assert problem.is_feasible(problem.baseline["batch_size"], problem.baseline)
    assert holds(0.99 * problem.largest)
    assert problem.largest == choices.BATCH_SIZES[1] or not holds(1.01 * problem.largest)
