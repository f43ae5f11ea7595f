"""What the known-good setting's own runs say of the target."""

from autotuner.decide import decide
from autotuner.decide.decision import Reason
from autotuner.search.known_good import KnownGood, known_good
from autotuner.study.history import History
from autotuner.trial import Outcome, Purpose, Trial
from autotuner.wording import message
from tests.builders import NOON, spec, suggestion, trial


def runs(*bests: float) -> list[Trial]:
    """Runs of the unchanged job with these best values, of a target of 0.9."""
    return [
        trial(
            n,
            (best - 0.1, best),
            Outcome.REACHED if best >= 0.9 else Outcome.MISSED,
            suggestion(n, purpose=Purpose.BASELINE),
        )
        for n, best in enumerate(bests)
    ]


def shown(*bests: float) -> KnownGood:
    return known_good(History.of(spec(run_length="2"), runs(*bests)))


def test_one_run_that_meets_the_target_is_enough():
    assert not shown(0.93).needs_run
    assert not shown(0.93).is_met_by_chance


def test_a_miss_asks_for_more_runs_and_two_of_two_end_it():
    assert shown(0.88).needs_run
    assert not shown(0.88, 0.87).needs_run
    assert shown(0.88, 0.92).needs_run


def test_two_of_four_is_chance_and_three_of_four_is_not():
    assert shown(0.88, 0.92, 0.89, 0.91).is_met_by_chance
    assert not shown(0.88, 0.92, 0.93, 0.91).is_met_by_chance


def test_the_proposal_is_one_that_its_runs_meet_and_of_few_digits():
    proposal = shown(0.88, 0.92, 0.89, 0.91).proposal
    assert proposal is not None
    assert 0.85 < proposal < 0.89
    assert len(f"{proposal:g}") <= len("0.123")


def test_a_loss_is_proposed_larger():
    asked = spec(target="loss <= 2", run_length="2")
    told = [
        trial(
            n,
            (3.0, best),
            Outcome.MISSED if best > 2 else Outcome.REACHED,
            suggestion(n, purpose=Purpose.BASELINE),
        )
        for n, best in enumerate((1.9, 2.1, 2.1, 1.9))
    ]
    proposal = known_good(History.of(asked, told)).proposal
    assert proposal is not None
    assert 2.1 < proposal < 2.3


def test_the_study_ends_with_what_the_unchanged_job_did_and_a_target_that_it_meets():
    decision = decide(spec(run_length="2"), runs(0.88, 0.92, 0.89, 0.91), NOON)
    assert decision.is_final
    assert decision.reason is Reason.BASELINE_MISSES
    assert "your own setting met accuracy >= 0.9 in 2 of 4 runs" in message(decision, spec())
    assert "a target that it meets: accuracy >= 0.8" in message(decision, spec())


def test_the_study_begins_where_the_unchanged_job_met_the_target_in_three_of_four_runs():
    decision = decide(spec(run_length="2"), runs(0.88, 0.92, 0.93, 0.91), NOON)
    assert not decision.is_final
    assert [s.purpose for s in decision.start] == [Purpose.SEARCH]
