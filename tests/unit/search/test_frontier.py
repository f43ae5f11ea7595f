"""How far a proposal reaches."""

import pytest

from autotuner.search.frontier import reach


@pytest.mark.parametrize(
    ("met", "furthest"),
    [
        ([], 1.0),
        ([False], 1.0),
        ([False, False], 0.5),
        ([False, True, False], 1.0),
        ([False] * 8, 0.5),
        ([False, False, True], 1.0),
    ],
    ids=[
        "a doubling at first",
        "still after one miss",
        "half after two in a row",
        "a success between counts",
        "no less than the end of a search asks about",
        "a doubling again after a success",
    ],
)
def test_two_misses_in_a_row_halve_the_step(met: list[bool], furthest: float):
    assert reach(met) == furthest
