"""Whole tunings of synthetic learners: the right answer, whatever happens on the way."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pytest

from autotuner.decide.decision import Decision, Phase, Reason
from autotuner.spec import Shape
from autotuner.spec.tuning_spec import MOST_AUTO_TRIALS
from autotuner.trial import Outcome, ParameterValue, Purpose
from autotuner.wording import message
from tests.simulation.learners import STEPS, World, hill, largest, spec


def told(decision: Decision) -> tuple[object, ...]:
    """What a user learns; the cost may differ with the number of passes."""
    assert decision.answer is not None
    answer = decision.answer
    return answer.batch_size, dict(answer.parameters), answer.confirmed, decision.reason


def test_the_answer_is_confirmed_feasible_and_near_the_largest():
    curve = hill()
    decision = World(spec(), curve).run()
    assert decision.phase is Phase.DONE
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert decision.reason in {Reason.LARGER_UNLIKELY, Reason.GAIN_TOO_SMALL}
    best = largest(curve, 0.9)
    assert best / math.sqrt(2) <= decision.answer.batch_size <= best * 1.05


def test_a_script_that_asserts_an_even_share_tunes_to_its_end():
    """As DeepSpeed does: the batch must be a multiple of all processes."""
    good = hill()

    def strict(batch_size: int, parameters: Mapping[str, ParameterValue]) -> np.ndarray:
        assert batch_size % 6 == 0, batch_size
        return good(batch_size, parameters)

    shape = Shape(masters=1, workers=2, processes_per_replica=2)
    asked = spec({"batch_size": 36, "learning_rate": 0.1}).model_copy(update={"shape": shape})
    decision = World(asked, strict).run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert decision.answer.batch_size % 6 == 0


def test_everything_feasible_ends_at_the_largest_batch_allowed():
    decision = World(spec(), hill(critical=4096)).run()
    assert decision.answer is not None
    assert decision.answer.batch_size == 1024
    assert decision.reason is Reason.LARGEST_ALLOWED


def test_a_search_ends_at_the_largest_batch_size_that_has_a_layout():
    """32,768 is no multiple of nine processes; 32,760 is the largest that is."""
    changed = {
        "batch_size": "256..32768",
        "workers": "1..8",
        "micro_batch_size": "16..128",
        "search_space": "learning_rate: {min: 0.01, max: 1000, log: true}",
    }
    asked = spec({"batch_size": 256, "learning_rate": 0.8}, **changed)
    world = World(asked, hill(critical=1e6))
    decision = world.run()
    assert decision.answer is not None
    assert decision.answer.batch_size == 32_760
    assert decision.answer.is_confirmed
    assert decision.reason is Reason.LARGEST_ALLOWED
    assert len(world.trials) < 20


def test_a_baseline_that_misses_is_reported_with_its_best_value():
    decision = World(spec(), hill(top=0.85)).run()
    assert decision.reason is Reason.BASELINE_MISSES
    assert decision.answer is None
    assert "0.8" in message(decision, spec())


def test_a_target_in_percent_for_a_metric_in_fractions_ends_at_once():
    world = World(spec(target="accuracy >= 90"), hill())
    decision = world.run()
    assert decision.reason is Reason.BASELINE_MISSES
    assert len(world.trials) <= 2


@pytest.mark.parametrize("crashing", [False, True])
@pytest.mark.parametrize("parallel", ["1", "3"])
def test_crashes_and_the_order_of_trials_do_not_change_the_answer(crashing: bool, parallel: str):
    plain = World(spec(parallel_trials=parallel), hill())
    other = World(spec(parallel_trials=parallel), hill(), crashing=crashing, shuffled=True)
    assert told(plain.run()) == told(other.run())
    assert list(plain.trials) == sorted(other.trials)


def test_lost_trials_are_run_again_with_their_seed_and_use_no_budget():
    lost: set[int] = set()

    def fate(suggestion, step):
        if step == 3 and suggestion.rerun_of is None and suggestion.number % 3 == 1:
            lost.add(suggestion.number)
            return Outcome.LOST
        return None

    world = World(spec(), hill(), fate=fate)
    decision = world.run()
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    again = {t.suggestion.rerun_of: t.suggestion for t in world.trials.values()}
    assert lost
    for number in lost:
        first, second = world.trials[number].suggestion, again[number]
        assert (first.seed, first.batch_size, first.parameters) == (
            second.seed,
            second.batch_size,
            second.parameters,
        )
    # Budgets that end the study: what was lost is not counted against them.
    plain = World(spec(max_trials="6"), hill())
    disturbed = World(spec(max_trials="6"), hill(), fate=fate)
    lost.clear()
    assert plain.run().reason is disturbed.run().reason is Reason.TRIALS_SPENT
    assert lost
    # One trial is kept for a confirmation run that misses.
    assert 5 <= plain.history.spent <= 6
    assert 5 <= disturbed.history.spent <= 6 < len(disturbed.trials)


def test_a_trial_that_is_lost_again_and_again_ends_the_tuning_with_a_remedy():
    world = World(spec(), hill(), fate=lambda *_: Outcome.LOST)
    decision = world.run()
    assert decision.phase is Phase.FAILED
    assert len(world.trials) == 4
    assert "lost" in message(decision, spec())


def test_a_program_that_fails_three_times_ends_the_tuning():
    world = World(spec(), hill(), fate=lambda *_: Outcome.FAILED)
    decision = world.run()
    assert (decision.phase, decision.reason) == (Phase.FAILED, Reason.PROGRAM_FAILS)
    assert len(world.trials) == 3


def test_memory_bounds_the_batch_where_nothing_accumulates():
    world = World(
        spec(),
        hill(critical=4096),
        fate=lambda s, _: Outcome.OUT_OF_MEMORY if s.batch_size > 300 else None,
    )
    decision = world.run()
    assert decision.answer is not None
    assert 200 <= decision.answer.batch_size <= 300


def test_memory_shrinks_the_micro_batch_where_it_may():
    def fate(suggestion, _step):
        at_once = suggestion.micro_batch_size or suggestion.batch_size
        return Outcome.OUT_OF_MEMORY if at_once > 40 else None

    world = World(spec(micro_batch_size="4..128"), hill(critical=4096), fate=fate)
    decision = world.run()
    assert decision.answer is not None
    assert decision.answer.batch_size >= 900


def test_a_diverged_run_is_a_miss_at_no_further_cost():
    def fate(suggestion, _step):
        return Outcome.DIVERGED if suggestion.batch_size > 100 else None

    world = World(spec(), hill(), fate=fate)
    decision = world.run()
    assert Outcome.DIVERGED in {t.outcome for t in world.trials.values()}
    assert decision.answer is not None
    assert decision.answer.is_confirmed
    assert decision.answer.batch_size <= 100
    diverged = [t for t in world.trials.values() if t.outcome is Outcome.DIVERGED]
    assert not {t.suggestion.rerun_of for t in world.trials.values()} & {t.number for t in diverged}
    assert all(t.ended_at - t.started_at == timedelta(minutes=1) for t in diverged)


def test_every_running_trial_is_in_stop_when_the_budget_is_spent():
    world = World(spec(parallel_trials="3", max_gpu_hours="0.4"), hill())
    decision = world.run()
    assert decision.reason is Reason.GPU_HOURS_SPENT
    assert not [t for t in world.trials.values() if t.is_running]


def test_trials_are_never_more_than_allowed():
    world = World(spec(max_trials="6"), hill())
    decision = world.run()
    assert world.history.spent <= 6
    assert decision.is_final


@pytest.mark.parametrize("budget", [{"max_trials": "8"}, {"max_trials": "9"}, {"max_gpu_hours": "1.5"}])
def test_a_budget_that_ends_the_search_leaves_enough_for_the_confirmation(budget):
    decision = World(spec(**budget), hill()).run()
    assert decision.reason in {Reason.TRIALS_SPENT, Reason.GPU_HOURS_SPENT}
    assert decision.answer is not None
    assert decision.answer.batch_size > 32
    assert decision.answer.is_confirmed


@dataclass
class Counting(World):
    """A world that counts the trials that run and those that wait, whenever it trains."""

    counts: list[tuple[int, int]] = field(default_factory=list)

    def train(self) -> None:
        self.admit()
        waiting = sum(t.is_running and t.started_at is None for t in self.trials.values())
        self.counts.append((len(self.training()), waiting))
        super().train()


@pytest.mark.parametrize("crashing", [False, True])
def test_auto_takes_what_the_queue_gives_and_keeps_one_trial_waiting_at_most(crashing):
    world = Counting(spec(parallel_trials="auto", max_trials="8"), hill(), quota=3, crashing=crashing)
    assert world.run().is_final
    assert max(running for running, _ in world.counts) == 3
    assert max(waiting for _, waiting in world.counts) == 1


def test_auto_stays_below_its_limit_where_the_cluster_has_room_for_all():
    world = Counting(spec(parallel_trials="auto"), hill())
    for _ in range(STEPS + 4):  # the baseline alone, and a few passes more
        world.settle()
        world.train()
    assert max(running for running, _ in world.counts) == MOST_AUTO_TRIALS


def test_auto_ends_a_study_for_which_the_queue_admits_one_trial_at_a_time():
    world = Counting(spec(parallel_trials="auto", max_trials="4"), hill(), quota=1)
    decision = world.run()
    assert decision.is_final
    assert set(world.counts) <= {(1, 0), (1, 1)}


def test_several_trials_at_once_try_different_places():
    world = World(spec(parallel_trials="4"), hill())
    world.run()
    tried = [
        (t.suggestion.batch_size, t.suggestion.parameters["learning_rate"])
        for t in world.trials.values()
        if t.suggestion.purpose is Purpose.SEARCH
    ]
    assert len(tried) == len(set(tried))
