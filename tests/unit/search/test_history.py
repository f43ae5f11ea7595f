"""What a step of the script is, and how long a run at another batch size is."""

from collections.abc import Sequence

import pytest

from autotuner.study.history import History, Unit
from autotuner.trial import Measurement, Outcome, Purpose, Trial
from tests.builders import spec, suggestion


def run(number: int, size: int, steps: Sequence[float], outcome: Outcome | None) -> Trial:
    purpose = Purpose.SEARCH if number else Purpose.BASELINE
    measured = tuple(Measurement(float(step), 0.5) for step in steps)
    return Trial(suggestion(number, batch_size=size, purpose=purpose), measured, outcome)


BASELINE = run(0, 32, range(100, 1001, 100), Outcome.REACHED)
EPOCHS = run(0, 32, range(1, 31), Outcome.REACHED)


@pytest.mark.parametrize(
    ("trials", "unit", "length"),
    [
        ([BASELINE], Unit.UNKNOWN, 1000),
        ([BASELINE, run(1, 64, range(100, 501, 100), Outcome.HOPELESS)], Unit.UNKNOWN, 1000),
        ([BASELINE, run(1, 64, range(100, 501, 100), Outcome.MISSED)], Unit.OPTIMIZER_STEP, 500),
        ([BASELINE, run(1, 64, range(100, 1001, 100), Outcome.MISSED)], Unit.EPOCH, 1000),
        ([BASELINE, run(1, 64, (50, 100), None)], Unit.OPTIMIZER_STEP, 500),
        ([EPOCHS], Unit.EPOCH, 30),
        ([EPOCHS, run(1, 64, (1, 2), None)], Unit.EPOCH, 30),
        ([EPOCHS, run(1, 64, range(1, 16), Outcome.MISSED)], Unit.OPTIMIZER_STEP, 15),
        ([run(0, 32, [1], Outcome.MISSED)], Unit.EPOCH, 1),
    ],
    ids=[
        "nothing is known at first",
        "a run that was stopped shows no end",
        "half as long at twice the batch",
        "as long at twice the batch",
        "reports half as far apart at twice the batch",
        "steps 1, 2, 3 count epochs",
        "and go on doing so",
        "until a whole run is half as long",
        "one report a run",
    ],
)
def test_runs_at_other_batch_sizes_show_what_a_step_is(trials: list[Trial], unit: Unit, length: float):
    history = History.of(spec(run_length=None), trials)
    assert history.unit is unit
    assert history.length_of(64) == length


def test_the_length_that_the_user_gives_is_that_of_the_known_good_batch():
    whole = run(1, 128, range(25, 251, 25), Outcome.MISSED)
    history = History.of(spec(run_length="1000"), [BASELINE, whole])
    assert history.length_of(32) == 1000
    assert history.length_of(256) == 125
