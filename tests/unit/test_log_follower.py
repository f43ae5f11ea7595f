"""Following a log in bounded pieces: nothing twice, nothing lost, whatever the pieces."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.backends.kubernetes.logs import LogFollower, continued
from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader
from autotuner.trial import Measurement

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Node:
    """A pod's log as a kubelet serves it: `sinceTime` counts whole seconds, `limitBytes` cuts anywhere."""

    def __init__(self):
        self.lines = []
        self.requests = 0

    def write(self, seconds, text):
        moment = START + timedelta(seconds=seconds)
        self.lines.append((moment, text))

    def read(self, since, limit):
        self.requests += 1
        start = datetime.fromisoformat(since) if since else datetime.min.replace(tzinfo=UTC)
        text = "".join(
            f"{moment.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {line}\n"
            for moment, line in self.lines
            if moment >= start
        )
        return text.encode()[:limit].decode(errors="replace")


def follower(limit=1 << 20):
    return LogFollower(LogReader(parse_target("val_accuracy >= 0.9")), limit)


def steps(following):
    return [measurement.step for measurement in following.parser.measurements]


def test_each_line_is_taken_once_though_its_second_is_read_again():
    node, following = Node(), follower()
    for step in range(1, 6):
        node.write(0.1 * step, f"val_accuracy=0.{step} epoch={step}")
        following.poll(node.read)
        following.poll(node.read)
    assert steps(following) == [1, 2, 3, 4, 5]
    assert following.is_whole


def test_equal_lines_with_equal_timestamps_all_count():
    node, following = Node(), follower()
    for _ in range(3):
        node.write(1, "val_accuracy=0.5")
    following.poll(node.read)
    node.write(1, "val_accuracy=0.5")
    following.poll(node.read)
    assert steps(following) == [1, 2, 3, 4]


def test_lines_that_overtake_each_other_are_not_lost():
    node, following = Node(), follower()
    node.write(1.9, "val_accuracy=0.1 epoch=1")
    following.poll(node.read)
    node.write(1.2, "val_accuracy=0.2 epoch=2")
    following.poll(node.read)
    assert steps(following) == [1, 2]


def test_a_log_that_was_rotated_continues():
    node, following = Node(), follower()
    for step in (1, 2, 3):
        node.write(1 + step / 10, f"val_accuracy=0.1 epoch={step}")
    following.poll(node.read)
    del node.lines[:2]
    node.write(1.9, "val_accuracy=0.1 epoch=4")
    following.poll(node.read)
    assert steps(following) == [1, 2, 3, 4]


def test_a_long_log_is_read_in_pieces():
    node, following = Node(), follower(limit=2000)
    for step in range(1, 101):
        node.write(step, f"val_accuracy=0.1 epoch={step} {'x' * 50}")
    following.poll(node.read)
    assert following.is_whole
    assert steps(following) == list(range(1, 101))
    assert node.requests > 3


def test_one_poll_is_bounded_and_the_next_continues():
    node, following = Node(), follower(limit=500)
    for step in range(1, 1001):
        node.write(step, f"val_accuracy=0.1 epoch={step}")
    looks = 0
    while not following.is_whole:
        before = node.requests
        following.poll(node.read)
        assert node.requests - before <= 16
        looks += 1
    assert looks > 5
    assert steps(following) == list(range(1, 1001))


def test_a_second_that_floods_does_not_hold_up_what_follows():
    node, following = Node(), follower(limit=1000)
    node.write(0, "val_accuracy=0.1 epoch=1")
    for _ in range(1000):
        node.write(1, "y" * 100)
    node.write(2, "val_accuracy=0.2 epoch=2")
    for _ in range(4):
        following.poll(node.read)
    assert following.is_whole
    assert steps(following) == [1, 2]


def test_a_line_longer_than_a_piece_is_passed_over():
    node, following = Node(), follower(limit=1000)
    node.write(0, "z" * 5000)
    node.write(1, "val_accuracy=0.2 epoch=2")
    following.poll(node.read)
    assert steps(following) == [2]


def test_an_unfinished_line_waits_for_its_end_until_the_log_is_closed():
    following = follower()
    stamp = "2026-01-01T12:00:00.5Z"
    following.poll(lambda _since, _limit: f"{stamp} val_accuracy=0.9")
    assert not following.parser.measurements
    following.poll(lambda _since, _limit: f"{stamp} val_accuracy=0.93")
    following.close()
    assert following.parser.measurements == (Measurement(1, 0.93),)


def test_what_carries_no_timestamp_is_passed_over():
    following = follower()
    following.poll(lambda _since, _limit: "unable to retrieve container logs\naccuracy=0.9\n")
    assert not following.parser.measurements


def restarted(following, limit=1 << 20):
    return LogFollower(
        LogReader(parse_target("val_accuracy >= 0.9")), limit, resumed=following.checkpoint(20)
    )


def test_after_a_restart_a_log_that_is_whole_is_read_whole():
    node, following = Node(), follower()
    for step in range(1, 101):
        node.write(step, f"val_accuracy=0.1 epoch={step}")
    following.poll(node.read)
    again = restarted(following)
    again.poll(node.read)
    assert again.measurements == following.measurements


@pytest.mark.parametrize(
    "line", ["val_accuracy=0.{0} epoch={0}", "val_accuracy=0.{0}"], ids=["steps", "no steps"]
)
@pytest.mark.parametrize("kept", [0, 3, 10])
def test_after_a_restart_a_log_that_was_rotated_continues_where_it_was_left(line, kept):
    node, following = Node(), follower()
    for step in range(1, 21):
        node.write(step / 4, line.format(step))
    following.poll(node.read)
    node.lines = node.lines[len(node.lines) - kept :]
    again = restarted(following)
    again.poll(node.read)
    assert again.measurements == following.measurements
    for step in range(21, 41):
        node.write(step / 4, line.format(step))
    again.poll(node.read)
    assert [m.step for m in again.measurements] == list(range(1, 41))
    twice = restarted(again)
    twice.poll(node.read)
    assert twice.measurements[-1] == again.measurements[-1]


def test_after_a_restart_what_was_measured_counts_while_the_log_does_not_answer():
    node, following = Node(), follower()
    node.write(1, "val_accuracy=0.9 epoch=1")
    following.poll(node.read)
    assert restarted(following).measurements == (Measurement(1, 0.9),)


def test_a_step_that_is_read_again_is_not_doubled():
    earlier = [Measurement(1, 0.1), Measurement(2, 0.2)]
    assert continued(earlier, [Measurement(2, 0.3)]) == (Measurement(1, 0.1), Measurement(2, 0.3))
    assert continued(earlier, [Measurement(1, 0.3)])[-1] == Measurement(3, 0.3)
    assert continued((), earlier) == continued(earlier, ()) == tuple(earlier)


@given(
    gaps=st.lists(st.sampled_from([0, 0.001, 0.4, 1.0, 3.0]), min_size=1, max_size=60),
    looks=st.sets(st.integers(0, 60)),
    limit=st.integers(400, 3000),
)
def test_whenever_one_looks_every_line_is_taken_exactly_once(gaps, looks, limit):
    node, following, now = Node(), follower(limit), 0.0
    for step, gap in enumerate(gaps, start=1):
        now += gap
        node.write(now, f"val_accuracy=0.1 epoch={step}")
        if step in looks:
            following.poll(node.read)
    for _ in range(20):
        following.poll(node.read)
        if following.is_whole:
            break
    assert steps(following) == list(range(1, len(gaps) + 1))
