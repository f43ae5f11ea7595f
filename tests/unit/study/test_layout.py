"""From a batch size to workers, micro-batch and accumulation."""

import math
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import Unrealisable
from autotuner.spec import IntegerRange, Shape
from autotuner.study import layout
from autotuner.study.history import History
from autotuner.study.layout import (
    Bounds,
    Layout,
    largest,
    largest_realisable,
    lay_out,
    memory_bound,
    realisable,
    smallest_realisable,
)
from autotuner.study.layout_bounds import MOST_SIZES, bounds, nearest, sizes, within_reach
from autotuner.study.setting import Setting
from autotuner.trial import Outcome
from tests.builders import spec, suggestion, trial

ONE_PROCESS = Bounds(workers=(0, 0), share=256)
ACCUMULATING = Bounds(workers=(0, 0), share=64, micro_batch=(1, 64))
GROWING = Bounds(workers=(1, 7), share=64, micro_batch=(8, 64))


@pytest.mark.parametrize(
    ("batch_size", "bounds", "expected"),
    [
        (256, ONE_PROCESS, Layout(workers=0, processes=1, micro_batch=256, accumulation=1)),
        (999, ONE_PROCESS, Layout(0, 1, 999, 1)),
        (32, ACCUMULATING, Layout(0, 1, 32, 1)),
        (64, ACCUMULATING, Layout(0, 1, 64, 1)),
        (128, ACCUMULATING, Layout(0, 1, 64, 2)),
        (66, ACCUMULATING, Layout(0, 1, 33, 2)),
        (128, GROWING, Layout(1, 2, 64, 1)),
        (256, GROWING, Layout(3, 4, 64, 1)),
        (512, GROWING, Layout(7, 8, 64, 1)),
        (2048, GROWING, Layout(7, 8, 64, 4)),
        # Without a Master, and with eight processes a pod.
        (512, Bounds(workers=(1, 4), share=64, masters=0), Layout(4, 4, 128, 1)),
        (1024, Bounds(workers=(0, 3), share=64, processes_per_replica=8), Layout(1, 16, 64, 1)),
        # Out of memory above 16: the same batch size, more steps or more workers.
        (128, Bounds((0, 0), 64, micro_batch=(1, 64), memory=16), Layout(0, 1, 16, 8)),
        (128, Bounds((1, 7), 64, micro_batch=(8, 64), memory=16), Layout(7, 8, 16, 1)),
        (128, Bounds((1, 7), share=64, memory=16), Layout(7, 8, 16, 1)),
    ],
)
def test_a_batch_size_gets_few_workers_and_then_few_steps(batch_size, bounds, expected):
    assert lay_out(batch_size, bounds) == expected
    assert expected.batch_size == batch_size


@pytest.mark.parametrize(
    ("batch_size", "bounds", "expected"),
    [
        (128, ACCUMULATING, 128),
        (127, ACCUMULATING, 126),  # 127 is a prime: 2 x 63, and the smaller of two as near
        (1, GROWING, 16),  # two processes with at least eight samples each
        (1000, Bounds(workers=(2, 2), share=400), 999),
        (5000, Bounds(workers=(0, 3), share=64, memory=100), 400),  # all the memory there is
        (10, Bounds(workers=(1, 2), share=8, masters=0, micro_batch=(8, 8)), 8),
    ],
)
def test_a_batch_size_without_a_layout_moves_to_the_nearest(batch_size, bounds, expected):
    assert realisable(batch_size, bounds) == expected


def test_a_batch_size_without_a_layout_is_an_error_that_names_the_nearest():
    with pytest.raises(Unrealisable, match="take 999"):
        lay_out(1000, Bounds(workers=(2, 2), share=400))


def test_a_micro_batch_is_never_split_into_crumbs():
    """2 x 61 samples at most 61 at once: 61 x 2 has the right product, too, and would crawl."""
    bounds = Bounds(workers=(0, 0), share=64, micro_batch=(1, 64), memory=30)
    assert lay_out(realisable(122, bounds), bounds).micro_batch >= 15


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"workers": (0, 0), "masters": 0}, "at least one worker"),
        ({"workers": (3, 1)}, "counts must not"),
        ({"workers": (-1, 1)}, "counts must not"),
        ({"processes_per_replica": 0}, "counts must not"),
        ({"share": 0}, "at least one sample"),
        ({"micro_batch": (0, 8)}, "at least one sample"),
        ({"micro_batch": (16, 64), "memory": 8}, "smaller micro-batches"),
        ({"memory": 0}, "does not fit"),
    ],
)
def test_bounds_that_allow_nothing_are_refused(bounds, message):
    with pytest.raises(Unrealisable, match=message):
        Bounds(**{"workers": (0, 1), "share": 8, **bounds})


@pytest.mark.parametrize(
    ("fits", "failed", "expected"),
    [
        ([64], [], None),
        ([], [64], 32),
        ([48], [64], 48),
        ([16], [64, 128], 32),
        ([64, 128], [64], 32),  # it fitted once and failed once: the edge
        ([], [1], 0),
    ],
)
def test_out_of_memory_halves_the_micro_batch_unless_more_is_known_to_fit(fits, failed, expected):
    assert memory_bound(fits, failed) == expected


def test_accumulation_makes_memory_no_bound_on_the_batch_size():
    assert largest(Bounds((0, 3), 64, micro_batch=(1, 64), memory=8)) is None
    assert largest(Bounds((0, 3), 64, memory=8)) == 32
    assert largest(Bounds((0, 3), 64)) is None


@st.composite
def allowed(draw):
    fewest = draw(st.integers(0, 4))
    micro = draw(st.none() | st.tuples(st.integers(1, 40), st.integers(0, 100)).map(lambda p: (p[0], sum(p))))
    memory = draw(st.none() | st.integers(micro[0] if micro else 1, 200))
    return Bounds(
        workers=(fewest, fewest + draw(st.integers(0, 12))),
        share=micro[1] if micro else draw(st.integers(1, 300)),
        masters=draw(st.integers(0 if fewest else 1, 1)),
        processes_per_replica=draw(st.sampled_from([1, 2, 8])),
        micro_batch=micro,
        memory=memory,
    )


@given(st.integers(1, 20_000), allowed())
def test_a_realisable_batch_size_is_realised_exactly_and_within_every_bound(wanted, bounds):
    batch_size = realisable(wanted, bounds)
    found = lay_out(batch_size, bounds)
    assert found.batch_size == batch_size
    assert realisable(batch_size, bounds) == batch_size
    assert bounds.workers[0] <= found.workers <= bounds.workers[1]
    assert found.processes == bounds.processes(found.workers)
    assert bounds.fewest_at_once <= found.micro_batch <= bounds.most_at_once
    assert found.accumulation == 1 or bounds.micro_batch


@given(st.integers(1, 5_000), st.integers(1, 5_000), allowed())
def test_workers_grow_with_the_batch(one, other, bounds):
    smaller, larger = sorted([one, other])
    assert bounds.workers_for(smaller) <= bounds.workers_for(larger)


@given(st.integers(200, 20_000), st.integers(0, 9), st.integers(32, 100))
def test_with_micro_batches_rounding_is_small(wanted, workers, most):
    bounds = Bounds(workers=(0, workers), share=most, micro_batch=(1, most))
    assert abs(realisable(wanted, bounds) - wanted) <= 0.05 * wanted


def test_the_masters_pod_may_start_other_processes_than_a_workers():
    bounds = Bounds(workers=(0, 3), share=10, processes_per_replica=4, processes_per_master=1)
    assert lay_out(10, bounds) == Layout(0, 1, 10, 1)
    assert lay_out(50, bounds) == Layout(1, 5, 10, 1)
    assert lay_out(90, bounds) == Layout(2, 9, 10, 1)


# --- the largest batch size that can be realised ----------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "allowed", "smallest", "biggest"),
    [
        # 32,768 is no multiple of nine processes.
        (Bounds((1, 8), 128, micro_batch=(16, 128)), (256, 32_768), 256, 32_760),
        (ONE_PROCESS, (256, 32_768), 256, 32_768),
        (Bounds((0, 0), 1, processes_per_replica=8), (250, 1001), 256, 1000),
        (Bounds((0, 0), 1, processes_per_replica=8), (250, 255), None, None),
        (Bounds((0, 0), 64, memory=100), (1, 1000), 1, 100),
    ],
)
def test_the_largest_batch_size_is_the_largest_that_can_be_realised(bounds, allowed, smallest, biggest):
    within = IntegerRange(minimum=allowed[0], maximum=allowed[1])
    assert smallest_realisable(bounds, within) == smallest
    assert largest_realisable(bounds, within) == biggest


@given(allowed(), st.integers(1, 3_000), st.integers(0, 3_000))
def test_what_can_be_realised_lies_between_the_smallest_and_the_largest(bounds, low, width):
    within = IntegerRange(minimum=low, maximum=low + width)
    sizes = [size for size in range(low, low + width + 1) if realisable(size, bounds) == size]
    assert smallest_realisable(bounds, within) == min(sizes, default=None)
    assert largest_realisable(bounds, within) == max(sizes, default=None)


# --- bounded work -------------------------------------------------------------------------------------------


def steps(function: Callable[[], object]) -> int:
    """Return how many lines of the layout's arithmetic a call runs: work, whatever the machine."""
    counted = 0

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal counted
        if frame.f_code.co_filename != layout.__file__:
            return None
        counted += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return counted


PRIMES = (20_000_003, 2_147_483_647)


@pytest.mark.parametrize("prime", PRIMES)
@pytest.mark.parametrize("micro", [(1, 3), (1, 1), (1, 46_341), (1, 1_000_000), (3, 2**31 - 1)])
@pytest.mark.parametrize("workers", [(0, 0), (1, 8), (0, 2**31 - 1)])
def test_no_batch_size_costs_more_than_the_root_of_its_samples(prime, micro, workers):
    bounds = Bounds(workers=workers, share=micro[1], micro_batch=micro)
    within = IntegerRange(minimum=256, maximum=prime)
    most = 50 + 5 * math.isqrt(prime)
    found = largest_realisable(bounds, within)
    assert found is not None
    assert steps(lambda: largest_realisable(bounds, within)) < most
    assert steps(lambda: smallest_realisable(bounds, within)) < most
    assert steps(lambda: realisable(prime, bounds)) < 2 * most
    assert steps(lambda: lay_out(found, bounds)) < 2 * most


def test_a_small_micro_batch_at_a_large_prime_is_laid_out_in_a_few_steps():
    bounds = Bounds(workers=(0, 0), share=3, micro_batch=(1, 3))
    assert realisable(PRIMES[1], bounds) == PRIMES[1]
    assert lay_out(PRIMES[1], bounds) == Layout(0, 1, 1, PRIMES[1])
    assert steps(lambda: lay_out(PRIMES[1], bounds)) < 100


# --- a job's own layouts ------------------------------------------------------------------------------------


def history(shape: Shape, batch_size: str, own: int, **changed: str) -> History:
    asked = spec({"batch_size": str(own), "learning_rate": "0.1"}, shape, batch_size=batch_size, **changed)
    return History.of(asked, ())


@pytest.mark.parametrize(
    ("processes", "own", "wanted", "expected"),
    [
        (8, 256, 1001, 1000),
        (8, 256, 100_000, 4096),
        (8, 256, 1, 256),
        # The job's own batch size is no multiple of its processes: what they have in common counts.
        (8, 260, 1001, 1000),
        (8, 260, 1003, 1004),
        (8, 257, 1003, 1003),
        (1, 257, 1003, 1003),
    ],
)
def test_batch_sizes_are_multiples_of_the_processes_without_micro_batches(processes, own, wanted, expected):
    known = history(
        Shape(masters=1, workers=1, processes_per_replica=processes // 2 or 1) if processes > 1 else Shape(),
        "256..4099",
        own,
    )
    assert nearest(known, Setting.of(wanted, {})).batch_size == expected


@pytest.mark.parametrize(
    ("shape", "allowed", "changed", "expected"),
    [
        (Shape(), "256..32768", {"workers": "1..8", "micro_batch_size": "16..128"}, (256, 32_760)),
        (Shape(processes_per_replica=6), "250..4099", {"workers": "1..1"}, (252, 4092)),
        (Shape(processes_per_replica=8), "250..4099", {}, (256, 4096)),
        (Shape(), "250..4099", {}, (250, 4099)),
        # The job's own batch size, 256, has no layout, and stays within.
        (Shape(processes_per_replica=3), "256..4099", {"micro_batch_size": "1..64"}, (256, 4095)),
        (Shape(masters=1, workers=6), "256..257", {"micro_batch_size": "1..64"}, (256, 257)),
    ],
)
def test_the_reach_of_a_search_ends_at_what_can_be_realised(shape, allowed, changed, expected):
    asked = history(shape, allowed, 256, **changed).spec
    low, high = expected
    assert within_reach(asked).batch_size == IntegerRange(minimum=low, maximum=high)
    assert within_reach(asked).baseline_batch_size == 256


@pytest.mark.parametrize(
    ("shape", "allowed", "changed", "expected"),
    [
        (Shape(), "250..4099", {}, None),
        (Shape(masters=1, workers=31), "250..400", {}, (256, 288, 320, 352, 384)),
        (
            Shape(processes_per_replica=64),
            "256..512",
            {"micro_batch_size": "1..2"},
            (256, 320, 384, 448, 512),
        ),
    ],
)
def test_the_search_knows_which_batch_sizes_have_a_layout(shape, allowed, changed, expected):
    found = sizes(history(shape, allowed, 256, **changed))
    assert found == expected


def test_of_very_many_batch_sizes_the_search_knows_some():
    found = sizes(history(Shape(masters=1, workers=31), "256..2147483647", 256))
    assert found is not None
    assert len(found) <= MOST_SIZES
    assert all(size % 32 == 0 for size in found)


def test_a_range_without_any_layout_is_refused_with_the_nearest_batch_size():
    known = history(Shape(masters=1, workers=6), "256..257", 256, micro_batch_size="1..64")
    with pytest.raises(Unrealisable, match=r"no batch size from 256\.\.257 .* nearest that can is 259"):
        nearest(known, Setting.of(256, {}))


@pytest.mark.parametrize(("template", "memory"), [("old/x", None), ("", 256)])
def test_memory_that_the_job_lacked_before_it_was_changed_bounds_no_micro_batch(template, memory):
    asked = spec(micro_batch_size="8..1024").model_copy(update={"template": "new"})
    lacked = trial(1, (), Outcome.OUT_OF_MEMORY, suggestion(1, micro_batch_size=512), template=template)
    assert bounds(History.of(asked, [lacked])).memory == memory
