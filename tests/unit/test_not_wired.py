"""What `decide` does when the runs show that settings have no effect, or that a run resumed another's."""

import math
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from autotuner.decide import decide
from autotuner.decide.decision import Phase, Reason
from autotuner.status import describe
from autotuner.trial import Measurement, Outcome, Purpose
from autotuner.wording import message
from tests.builders import NOON, spec, suggestion, trial

LATER = NOON + timedelta(hours=1)


def curve(seed, steps=12, start=0):
    """A learning curve with noise of its own, to the digits that scripts print."""
    return tuple(
        round(0.95 - 0.9 * math.exp(-0.4 * (start + step)) + 0.01 * math.sin(seed * 17.3 + step * 2.1), 4)
        for step in range(1, steps + 1)
    )


def runs(*values, seeds=None):
    made = [trial(0, values[0], tried=suggestion(0, purpose=Purpose.BASELINE))]
    for number, shown in enumerate(values[1:], start=1):
        tried = suggestion(number, batch_size=32 * 2**number, parameters={"learning_rate": 0.1 * number})
        made.append(trial(number, shown, tried=tried))
    return made


def test_a_script_that_ignores_its_variables_gets_no_answer():
    trials = runs(*[curve(1)] * 4)
    decision = decide(spec(), trials, NOON)
    assert (decision.phase, decision.reason, decision.is_final) == (Phase.FAILED, Reason.NOT_WIRED, True)
    assert "AUTOTUNER_BATCH_SIZE" in message(decision, spec())
    assert (decision.answer, decision.candidate) == (None, None)


def test_the_first_trial_after_the_baseline_repeats_its_seed():
    # That distinguishes a script that uses its seed and nothing else.
    baseline = trial(0, curve(1), tried=suggestion(0, purpose=Purpose.BASELINE, seed=5))
    (first,) = decide(spec(), [baseline], NOON).start
    assert (first.purpose, first.seed) == (Purpose.SEARCH, 5)
    (second,) = decide(spec(), runs(curve(1), curve(2)), NOON).start
    assert second.seed not in {0, 1}


def test_a_seed_is_repeated_until_some_setting_has_an_effect():
    # Three values of two digits prove little; a script that draws its noise from the seed shows them again.
    baseline = trial(0, (0.51, 0.84, 0.91), tried=suggestion(0, purpose=Purpose.BASELINE, seed=5))
    same = trial(1, (0.51, 0.84, 0.91), tried=suggestion(1, batch_size=64, seed=5))
    other = trial(1, (0.51, 0.84, 0.92), tried=suggestion(1, batch_size=64, seed=5))
    assert [start.seed for start in decide(spec(), [baseline, same], NOON).start] == [5]
    assert [start.seed for start in decide(spec(), [baseline, other], NOON).start] != [5]


def test_a_script_that_uses_nothing_but_its_seed_gets_no_answer():
    trials, chance = [], random.Random(0)
    noise = {}
    for _ in range(12):
        decision = decide(spec(), trials, NOON)
        if not decision.start:
            break
        (tried,) = decision.start
        shown = noise.setdefault(
            tried.seed, [round(0.96 - 0.4 / e + chance.gauss(0, 0.002), 4) for e in range(1, 9)]
        )
        trials.append(trial(tried.number, shown, tried=tried, is_complete=True))
    assert (decision.phase, decision.reason) == (Phase.FAILED, Reason.NOT_WIRED)
    assert len(trials) <= 5


@pytest.mark.parametrize("is_used", [False, True])
def test_where_the_batch_size_is_not_passed_on_trials_change_it_alone_until_it_has_an_effect(is_used):
    trials = []
    for _ in range(12):
        decision = decide(spec(), trials, NOON, is_batch_in_doubt=True)
        if not decision.start:
            break
        (tried,) = decision.start
        chance = random.Random(f"{tried.seed} {tried.parameters} {tried.batch_size if is_used else ''}")
        shown = [round(0.96 - 0.4 / e + chance.gauss(0, 0.002), 4) for e in range(1, 9)]
        trials.append(trial(tried.number, shown, tried=tried, is_complete=True))
    first = [t.suggestion for t in trials[:3]]
    assert first[1].parameters == first[0].parameters
    assert first[1].batch_size > first[0].batch_size
    if is_used:
        assert first[2].parameters != first[0].parameters
        assert decision.reason is not Reason.NOT_WIRED
    else:
        assert (decision.phase, decision.reason, len(trials)) == (Phase.FAILED, Reason.NOT_WIRED, 3)


def test_runs_of_different_settings_that_differ_go_on():
    assert decide(spec(), runs(curve(1), curve(2), curve(3)), NOON).phase is not Phase.FAILED


def test_a_run_that_resumes_another_counts_for_nothing_and_is_stopped():
    fresh = runs(curve(1), curve(2))
    tried = suggestion(2, batch_size=128)
    started = tuple(m for m in trial(0, curve(2, steps=15)).measurements if m.step > 12)
    resumed = trial(2, (), None, tried, measurements=started, started_at=LATER)
    decision = decide(spec(), [*fresh, resumed], NOON)
    assert [(stop.number, stop.outcome) for stop in decision.stop] == [(2, Outcome.FAILED)]
    ended = decide(
        spec(), [*fresh, trial(2, (), Outcome.REACHED, tried, measurements=started, started_at=LATER)], NOON
    )
    assert ended.answer is None or ended.answer.batch_size < 128
    assert any("trial 2 begins at step 13" in warning for warning in ended.warnings)


@pytest.mark.parametrize("first", [13, 1], ids=["its steps go on", "its steps begin anew"])
def test_a_run_that_begins_at_the_target_does_not_count_as_reached_at_once(first):
    fresh = runs(curve(1), curve(2))
    tried = suggestion(2, batch_size=128, purpose=Purpose.CONFIRM)

    def decided(count):
        values = curve(2, steps=12 + count)[12:]
        measured = tuple(Measurement(first + n, value) for n, value in enumerate(values))
        resumed = trial(2, (), None, tried, measurements=measured, started_at=LATER)
        return decide(spec(), [*fresh, resumed], LATER)

    # By its steps one measurement shows it; by its values three do, and until then it goes on.
    assert [s.outcome for s in decided(1).stop] == ([Outcome.FAILED] if first > 1 else [])
    assert [s.outcome for s in decided(2).stop] == ([Outcome.FAILED] if first > 1 else [])
    assert [s.outcome for s in decided(3).stop] == [Outcome.FAILED]


def test_a_fast_run_that_begins_high_and_improves_counts():
    fresh = runs(curve(1), curve(2))
    measured = tuple(Measurement(n, value) for n, value in enumerate((0.7, 0.85, 0.93), start=1))
    fast = trial(2, (), None, suggestion(2, batch_size=128), measurements=measured, started_at=LATER)
    (stop,) = decide(spec(), [*fresh, fast], LATER).stop
    assert stop.outcome in {Outcome.REACHED, Outcome.PROMISING}


def test_a_batch_that_is_reported_as_another_than_asked_gets_no_answer():
    trials = runs(curve(1), curve(2))
    wrong = trial(2, curve(3), tried=suggestion(2, batch_size=128), extras={"batch_size": 32.0})
    assert decide(spec(), [*trials, wrong], NOON).reason is Reason.NOT_WIRED


@pytest.mark.parametrize("confirmed", [0, 3])
def test_an_answer_whose_check_seems_to_train_the_same_batch_is_not_confirmed(confirmed):
    def ran(number, values, purpose, batch_size=256, seed=9, outcome=Outcome.REACHED):
        tried = suggestion(
            number, batch_size=batch_size, parameters={"learning_rate": 0.8}, purpose=purpose, seed=seed
        )
        return trial(number, values, outcome, tried, unit="epoch", losses=losses(seed))

    baseline = trial(0, curve(1), tried=suggestion(0, purpose=Purpose.BASELINE), unit="epoch")
    half, near = (
        ran(n, [v + 0.001 for v in curve(2)[:3]], Purpose.CHECK, size, outcome=Outcome.DOMINATED)
        for n, size in ((2, 128), (3, 215))
    )
    fresh = [ran(4 + n, curve(10 + n), Purpose.CONFIRM, seed=20 + n) for n in range(confirmed)]
    trials = [baseline, ran(1, curve(2), Purpose.SEARCH), half, near, *fresh]
    checked = [*trials, replace_rate(ran(9, curve(5)[:1], Purpose.CHECK, outcome=Outcome.DOMINATED))]
    decision = decide(spec(), checked, NOON)
    assert (decision.phase, decision.reason, decision.is_final) == (Phase.DONE, Reason.ANSWER_IN_DOUBT, True)
    assert decision.answer is not None
    assert (decision.answer.batch_size, decision.answer.confirmed) == (256, 0)
    assert "batch size 256 cannot be confirmed: the first losses" in message(decision, spec())


def test_a_confirmed_answer_stays_where_a_larger_batch_is_in_doubt():
    def ran(number, batch_size, seed, purpose=Purpose.CONFIRM, shift=0.0, outcome=Outcome.REACHED, rate=0.4):
        tried = suggestion(
            number, batch_size=batch_size, parameters={"learning_rate": rate}, purpose=purpose, seed=seed
        )
        shown = [v + shift for v in curve(seed)][: None if outcome is Outcome.REACHED else 3]
        first = losses(seed) if shift < 0.1 else losses(number)
        return trial(number, shown, outcome, tried, unit="epoch", losses=first)

    over = {"purpose": Purpose.CHECK, "outcome": Outcome.DOMINATED}
    baseline = trial(0, curve(1), tried=suggestion(0, purpose=Purpose.BASELINE), unit="epoch")
    own = [
        ran(1, 150, 9, Purpose.SEARCH),
        ran(2, 75, 9, shift=0.1, **over),
        ran(3, 126, 9, shift=0.1, **over),
    ]
    own += [ran(4 + n, 150, 20 + n) for n in range(3)]
    larger = [ran(8, 256, 30, Purpose.SEARCH), ran(9, 128, 30, shift=0.001, **over)]
    larger += [ran(10, 215, 30, shift=0.001, **over), ran(11, 256, 30, shift=0.1, rate=0.3364, **over)]
    decision = decide(spec(), [baseline, *own, *larger], NOON)
    assert (decision.reason, decision.is_final) == (Reason.ANSWER_IN_DOUBT, True)
    assert decision.answer is not None
    assert (decision.answer.batch_size, decision.answer.is_confirmed) == (150, True)
    assert "batch size 256 cannot be confirmed" in message(decision, spec())


def losses(seed):
    """Return the first losses of a training."""
    return tuple(round(2.3026 - 0.0137 * step - 0.003 * seed, 4) for step in range(8))


def replace_rate(check):
    """Return a check of the learning rate."""
    return replace(check, suggestion=replace(check.suggestion, parameters={"learning_rate": 0.6727}))


def test_seeds_without_effect_are_reported():
    trials = runs(curve(1), curve(2))
    same = [
        trial(n, curve(2), tried=suggestion(n, batch_size=64, purpose=Purpose.CONFIRM, seed=100 + n))
        for n in (2, 3)
    ]
    decision = decide(spec(), [*trials, *same], NOON)
    assert not decision.is_final
    status = describe(decision, spec(), [*trials, *same], "x")
    assert "AUTOTUNER_SEED" in status.annotations["status.autotuner.dev/message"]
