"""The cap on trials over all jobs."""

from autotuner.daemon.places import Places


def test_without_a_limit_every_start_is_allowed():
    places = Places(None, [].append)
    assert all(places.ask("job", f"trial-{n}") for n in range(1000))


def test_a_start_beyond_the_limit_is_put_off_until_a_place_is_free():
    woken = []
    places = Places(1, woken.append)
    assert places.ask("a", "a-0")
    assert not places.ask("b", "b-0")
    places.release("a-0")
    assert woken == ["b"]
    assert places.ask("b", "b-0")


def test_a_job_whose_trial_has_just_ended_does_not_overtake_those_that_wait():
    places = Places(1, lambda _job: None)
    places.ask("a", "a-0")
    places.ask("b", "b-0")
    places.release("a-0")
    assert not places.ask("a", "a-1")
    assert places.ask("b", "b-0")


def test_asking_again_for_a_trial_that_exists_is_allowed():
    places = Places(1, lambda _job: None)
    places.occupy("a-0")
    assert places.ask("a", "a-0")
    assert not places.ask("a", "a-1")


def test_a_job_that_wants_nothing_any_more_leaves_the_line():
    woken = []
    places = Places(1, woken.append)
    places.ask("a", "a-0")
    places.ask("b", "b-0")
    places.ask("c", "c-0")
    places.release("a-0")
    places.leave("b")
    assert woken == ["b", "c"]
    assert places.ask("c", "c-0")


def test_releasing_twice_frees_one_place():
    places = Places(2, lambda _job: None)
    places.ask("a", "a-0")
    places.ask("a", "a-1")
    places.release("a-0")
    places.release("a-0")
    assert places.ask("a", "a-2")
    assert not places.ask("a", "a-3")
