"""The cap on trials over all jobs."""

from autotuner.controller.trial_slots import TrialSlots


def test_without_a_limit_every_start_is_allowed():
    slots = TrialSlots(None, [].append)
    assert all(slots.ask("job", f"trial-{n}") for n in range(1000))


def test_a_start_beyond_the_limit_is_put_off_until_a_place_is_free():
    woken = []
    slots = TrialSlots(1, woken.append)
    assert slots.ask("a", "a-0")
    assert not slots.ask("b", "b-0")
    slots.release("a-0")
    assert woken == ["b"]
    assert slots.ask("b", "b-0")


def test_a_job_whose_trial_has_just_ended_does_not_overtake_those_that_wait():
    slots = TrialSlots(1, lambda _job: None)
    slots.ask("a", "a-0")
    slots.ask("b", "b-0")
    slots.release("a-0")
    assert not slots.ask("a", "a-1")
    assert slots.ask("b", "b-0")


def test_asking_again_for_a_trial_that_exists_is_allowed():
    slots = TrialSlots(1, lambda _job: None)
    slots.occupy("a-0")
    assert slots.ask("a", "a-0")
    assert not slots.ask("a", "a-1")


def test_a_job_that_wants_nothing_any_more_leaves_the_line():
    woken = []
    slots = TrialSlots(1, woken.append)
    slots.ask("a", "a-0")
    slots.ask("b", "b-0")
    slots.ask("c", "c-0")
    slots.release("a-0")
    slots.leave("b")
    assert woken == ["b", "c"]
    assert slots.ask("c", "c-0")


def test_releasing_twice_frees_one_place():
    slots = TrialSlots(2, lambda _job: None)
    slots.ask("a", "a-0")
    slots.ask("a", "a-1")
    slots.release("a-0")
    slots.release("a-0")
    assert slots.ask("a", "a-2")
    assert not slots.ask("a", "a-3")


def test_a_job_that_cannot_use_its_turn_lets_the_others_go_first_and_keeps_its_position():
    woken = []
    slots = TrialSlots(1, woken.append)
    slots.ask("a", "a-0")
    for job in ("fails", "b", "c"):
        assert not slots.ask(job, f"{job}-0")
    slots.release("a-0")
    assert woken == ["fails"]
    slots.pass_over("fails")
    assert woken == ["fails", "b"]
    assert slots.ask("b", "b-0")
    assert not slots.ask("fails", "fails-0")
    slots.release("b-0")
    assert not slots.ask("c", "c-0")
    assert slots.ask("fails", "fails-0")


def test_a_job_that_is_passed_over_and_leaves_is_forgotten():
    slots = TrialSlots(1, lambda _job: None)
    slots.ask("a", "a-0")
    slots.ask("b", "b-0")
    slots.pass_over("b")
    slots.leave("b")
    slots.pass_over("b")
    assert not slots.ask("b", "b-0")
    slots.release("a-0")
    assert not slots.ask("c", "c-0")
    assert slots.ask("b", "b-0")
