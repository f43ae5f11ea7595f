"""From a batch size to workers, micro-batch and accumulation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import Unrealisable
from autotuner.study.layout import Bounds, Layout, largest, lay_out, memory_bound, realisable

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
    layout = lay_out(batch_size, bounds)
    assert layout.batch_size == batch_size
    assert realisable(batch_size, bounds) == batch_size
    assert bounds.workers[0] <= layout.workers <= bounds.workers[1]
    assert layout.processes == bounds.processes(layout.workers)
    assert bounds.fewest_at_once <= layout.micro_batch <= bounds.most_at_once
    assert layout.accumulation == 1 or bounds.micro_batch


@given(st.integers(1, 5_000), st.integers(1, 5_000), allowed())
def test_workers_grow_with_the_batch(one, other, bounds):
    smaller, larger = sorted([one, other])
    assert bounds.workers_for(smaller) <= bounds.workers_for(larger)


@given(st.integers(200, 20_000), st.integers(0, 9), st.integers(32, 100))
def test_with_micro_batches_rounding_is_small(wanted, workers, most):
    bounds = Bounds(workers=(0, workers), share=most, micro_batch=(1, most))
    assert abs(realisable(wanted, bounds) - wanted) <= 0.05 * wanted
