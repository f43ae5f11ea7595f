"""What the search believes of runs under way."""

from autotuner.search.beliefs import Beliefs
from autotuner.search.history import History
from autotuner.search.space import Space
from autotuner.trial import Outcome, Purpose
from tests.builders import spec, suggestion, trial

LENGTH = 20
PEAKED = (0.5, 0.93, *(0.88 - 0.03 * step for step in range(LENGTH - 2)))
FLAT = tuple(0.5 + 0.01 * step for step in range(LENGTH))


def chance(whole: tuple[float, ...], seen: int) -> float:
    """The chance of a run of which so much was seen, after four whole ones like it."""
    asked = spec(run_length=str(LENGTH))
    trials = [trial(0, whole, Outcome.MISSED, suggestion(0, purpose=Purpose.BASELINE))]
    trials += [trial(n, whole, Outcome.MISSED, suggestion(n, batch_size=40 + n)) for n in (1, 2, 3)]
    running = trial(4, whole[:seen], None, suggestion(4, batch_size=42))
    history = History.of(asked, [*trials, running])
    return Beliefs(history, Space.of(asked)).chance(running)


def test_a_peak_at_the_next_step_is_foreseen():
    assert chance(PEAKED, 1) > 0.5


def test_a_peak_that_has_passed_comes_no_more():
    assert chance(PEAKED, 4) < 0.2


def test_a_flat_curve_is_hopeless_early():
    assert chance(FLAT, 3) < 0.05
