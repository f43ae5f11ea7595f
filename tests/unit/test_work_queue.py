"""The work queue: its logic in virtual time, and its lock with real threads."""

import math
import threading

from hypothesis import given
from hypothesis import strategies as st

from autotuner.controller.work_queue import Agenda, WorkQueue


def test_a_key_that_is_added_twice_is_worked_on_once():
    agenda = Agenda()
    agenda.add("a")
    agenda.add("a")
    assert agenda.take(0) == "a"
    agenda.done("a")
    assert agenda.take(0) is None


def test_a_key_added_while_it_is_worked_on_waits_for_that_work():
    agenda = Agenda()
    agenda.add("a")
    agenda.take(0)
    agenda.add("a")
    assert agenda.take(0) is None
    agenda.done("a")
    assert agenda.take(0) == "a"


def test_keys_come_in_the_order_in_which_they_were_added():
    agenda = Agenda()
    for key in "abc":
        agenda.add(key)
    assert [agenda.take(0) for _ in range(3)] == ["a", "b", "c"]


def test_a_key_for_later_is_not_due_before():
    agenda = Agenda()
    agenda.add_at("a", 10)
    assert agenda.take(9.9) is None
    assert agenda.next_due() == 10
    assert agenda.take(10) == "a"


def test_the_earliest_of_two_moments_wins():
    agenda = Agenda()
    agenda.add_at("a", 10)
    agenda.add_at("a", 5)
    agenda.add_at("a", 20)
    assert agenda.take(5) == "a"
    agenda.done("a")
    assert agenda.take(100) is None


def test_what_is_due_later_is_forgotten_when_it_is_worked_on_now():
    agenda = Agenda()
    agenda.add_at("a", 10)
    agenda.add("a")
    agenda.take(0)
    agenda.done("a")
    assert agenda.take(100) is None
    assert agenda.next_due() is None


def test_a_failing_key_comes_again_after_twice_the_time_up_to_a_limit():
    agenda = Agenda(first_delay=1, longest_delay=5)
    now, delays = 0.0, []
    agenda.add("a")
    for _ in range(5):
        assert agenda.take(now) == "a"
        delays.append(agenda.fail("a", now))
        agenda.done("a")
        assert agenda.take(now + delays[-1] - 0.1) is None
        now += delays[-1]
    assert delays == [1, 2, 4, 5, 5]


def test_a_server_that_asks_for_more_time_gets_it():
    assert Agenda(first_delay=1).fail("a", 0, at_least=30) == 30
    assert Agenda(longest_delay=300).fail("a", 0, at_least=math.inf) == 300


def test_success_forgets_the_failures():
    agenda = Agenda(first_delay=1)
    agenda.fail("a", 0)
    agenda.succeed("a")
    assert agenda.fail("a", 0) == 1


def test_a_thousand_failures_in_a_row_do_not_overflow():
    agenda = Agenda(longest_delay=300)
    for _ in range(2000):
        delay = agenda.fail("a", 0)
    assert delay == 300


def test_what_a_failing_work_causes_waits_for_the_back_off():
    agenda = Agenda(first_delay=1)
    agenda.add("a")
    agenda.take(0)
    agenda.add("a")
    agenda.fail("a", 0)
    agenda.done("a")
    assert agenda.take(0.5) is None
    assert agenda.take(1) == "a"


@given(st.lists(st.tuples(st.sampled_from(["add", "later", "take", "done", "fail"]), st.sampled_from("abc"))))
def test_no_key_is_ever_in_work_twice_and_none_is_lost(steps):
    agenda, now = Agenda(first_delay=1), 0.0
    in_work, wanted = set(), set()
    for what, key in steps:
        now += 0.5
        if what == "add":
            agenda.add(key)
            wanted.add(key)
        elif what == "later":
            agenda.add_at(key, now + 2)
            wanted.add(key)
        elif what == "take":
            taken = agenda.take(now)
            if taken is not None:
                assert taken not in in_work
                in_work.add(taken)
                wanted.discard(taken)
        elif key in in_work:
            if what == "fail":
                agenda.fail(key, now)
                wanted.add(key)
            agenda.done(key)
            in_work.discard(key)
    for key in list(in_work):
        agenda.done(key)
    left = set()
    while (taken := agenda.take(now + 1000)) is not None:
        left.add(taken)
        agenda.done(taken)
    assert wanted <= left


def test_threads_share_the_work_and_end_when_the_queue_is_closed():
    queue, seen, lock = WorkQueue(), [], threading.Lock()
    all_seen = threading.Event()

    def work():
        while (key := queue.take()) is not None:
            with lock:
                seen.append(key)
                if len(seen) == 100:
                    all_seen.set()
            queue.done(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        queue.add(str(number))
    assert all_seen.wait(30)
    queue.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(seen) == sorted(map(str, range(100)))


def test_a_key_for_later_wakes_a_thread_that_waits():
    waits, taken = threading.Event(), []
    moments = iter([0.0, 0.0, 10.0])

    def clock() -> float:
        # Asked first by the thread that is about to wait, then by `add`, then by the thread that was woken.
        waits.set()
        return next(moments)

    queue = WorkQueue(clock)
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    assert waits.wait(30)
    queue.add("late", after=5)
    thread.join(30)
    assert taken == ["late"]
