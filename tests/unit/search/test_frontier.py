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
