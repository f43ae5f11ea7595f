"""Which setting stands as the answer, and how far a proposal reaches."""

import numpy as np
import pytest

from autotuner.search.ensemble import Ensemble
from autotuner.search.frontier import Frontier, reach
from autotuner.search.space import Space
from autotuner.study.setting import Setting
from tests.builders import spec


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


class Known:
    """A member of an ensemble that knows by the learning rate how likely a confirmation is."""

    def __init__(self, space: Space, chances: dict[float, float]) -> None:
        self.space, self.chances = space, chances

    def confirmable(self, places, owed):
        del owed
        return np.array(
            [self.chances[self.space.setting(place).parameters["learning_rate"]] for place in places]
        )


@pytest.mark.parametrize("chances", [{0.1: 1.0, 0.2: 0.942, 0.9: 0.6}, {0.1: 0.6, 0.2: 1.0, 0.9: 0.942}])
def test_of_settings_of_one_batch_size_the_likeliest_is_the_answer(chances: dict[float, float]):
    space = Space.of(spec())
    tried = [Setting.of(64, {"learning_rate": rate}) for rate in chances]
    frontier = Frontier(
        space=space,
        ensemble=Ensemble([Known(space, chances)], [0.0], 1.0),
        tried=tried,
        limits=(16, 256),
        seed=0,
        owed=[(3, 1)] * len(tried),
    )
    best = frontier.incumbent
    assert best is not None
    assert chances[best.parameters["learning_rate"]] == 1.0


class Falling:
    """A member of an ensemble with a chance that falls with the batch size, and is the same for any rate."""

    def __init__(self, space: Space, chances: dict[int, float]) -> None:
        self.space, self.chances = space, chances

    def confirmable(self, places, owed):
        assert [*owed[0]] == [3, 1]
        sizes = [self.space.setting(place).batch_size for place in places]
        return np.array(
            [max((p for b, p in self.chances.items() if size <= b), default=0.0) for size in sizes]
        )

    def chance(self, places, spare):
        del spare
        return self.confirmable(places, [(3, 1)]), np.zeros(len(places))


def below(chances: dict[int, float], high: int = 256) -> Frontier:
    space = Space.of(spec())
    ensemble = Ensemble([Falling(space, chances)], [0.0], 1.0)
    limits, tried = (16, high), [Setting.of(64, {"learning_rate": 0.1})]
    return Frontier(space=space, ensemble=ensemble, tried=tried, limits=limits, seed=0, owed=[(3, 1)])


@pytest.mark.parametrize(
    ("chances", "high", "largest"),
    [
        ({96: 0.6}, 256, 96),
        ({80: 0.9, 120: 0.55}, 256, 120),
        ({80: 0.9, 90: 0.5}, 256, 80),
        ({80: 0.6, 256: 0.45}, 256, 80),
        ({256: 1.0}, 256, 128),
        ({256: 1.0}, 100, 100),
    ],
    ids=[
        "as far as it is likely",
        "much larger, less likely",
        "little larger, less likely",
        "never an unlikely one",
        "a doubling at most",
        "no more than memory holds",
    ],
)
def test_the_boldest_setting_to_confirm_has_the_largest_expected_gain(
    chances: dict[int, float], high: int, largest: int
):
    frontier = below(chances, high)
    best = frontier.space.setting(frontier.bolder(64, 3)[0]).batch_size
    assert largest / 1.03 < best <= largest


@pytest.mark.parametrize(("chances", "high"), [({256: 0.49}, 256), ({64: 0.9}, 256), ({256: 1.0}, 64)])
def test_nothing_bolder_is_confirmed_where_nothing_larger_is_likely(chances: dict[int, float], high: int):
    assert len(below(chances, high).bolder(64, 3)) == 0
