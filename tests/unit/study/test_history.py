"""What a step of the script is, and how long a run at another batch size is."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from autotuner.study.history import History, Unit
from autotuner.trial import Measurement, Outcome, Purpose, Trial
from tests.builders import spec, suggestion


def run(number: int, size: int, steps: Sequence[float], outcome: Outcome | None) -> Trial:
    purpose = Purpose.SEARCH if number else Purpose.BASELINE
    measured = tuple(Measurement(float(step), 0.5 + 0.01 * at) for at, step in enumerate(steps))
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
        ([EPOCHS, run(1, 64, range(1, 20), Outcome.MISSED)], Unit.EPOCH, 30),
        (
            [EPOCHS, run(1, 64, range(1, 16), Outcome.MISSED), run(2, 128, range(1, 16), Outcome.HOPELESS)],
            Unit.EPOCH,
            30,
        ),
        (
            [BASELINE, *(run(n, 64, range(100, n + 1, 100), Outcome.MISSED) for n in (500, 900))],
            Unit.EPOCH,
            1000,
        ),
        ([EPOCHS, run(1, 64, range(1, 45), Outcome.MISSED)], Unit.EPOCH, 44),
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
        "and not a little more than that: it stopped early",
        "and no other run is longer than it could be",
        "of whole runs one is as long",
        "a longer run shows that the first one stopped early",
        "one report a run",
    ],
)
def test_runs_at_other_batch_sizes_show_what_a_step_is(trials: list[Trial], unit: Unit, length: float):
    history = History.of(spec(run_length=None), trials)
    assert history.unit is unit
    assert history.length_of(64) == length


def test_a_log_that_names_its_steps_epochs_counts_epochs():
    stopped_early = run(1, 64, range(1, 16), Outcome.MISSED)
    named = replace(EPOCHS, unit="epoch")
    assert History.of(spec(run_length=None), [EPOCHS, stopped_early]).unit is Unit.OPTIMIZER_STEP
    assert History.of(spec(run_length=None), [named, stopped_early]).unit is Unit.EPOCH


def test_a_longer_run_in_optimizer_steps_shows_the_length_at_the_known_good_batch():
    longer = run(1, 64, range(50, 751, 50), Outcome.MISSED)
    history = History.of(spec(run_length=None), [BASELINE, longer])
    assert (history.unit, history.run_length, history.length_of(64)) == (Unit.OPTIMIZER_STEP, 1500, 750)


def test_whole_batches_make_no_run_longer():
    rounded = run(1, 300, range(10, 111, 10), Outcome.MISSED)
    history = History.of(spec(run_length=None), [BASELINE, rounded])
    assert (history.unit, history.run_length) == (Unit.OPTIMIZER_STEP, 1000)


def test_the_step_of_a_single_report_is_no_length():
    # At 26 samples a run of the same epochs has more optimizer steps, and the report is at their end.
    single = run(0, 32, [1000], Outcome.REACHED)
    history = History.of(spec(run_length=None), [single, run(1, 26, [1231], Outcome.MISSED)])
    assert history.run_length == 1000


def test_the_length_that_the_user_sets_is_not_that_of_a_longer_run():
    history = History.of(spec(run_length="30"), [EPOCHS, run(1, 64, range(1, 45), Outcome.MISSED)])
    assert history.run_length == 30


def test_the_length_that_the_user_gives_is_that_of_the_known_good_batch():
    whole = run(1, 128, range(25, 251, 25), Outcome.MISSED)
    history = History.of(spec(run_length="1000"), [BASELINE, whole])
    assert history.length_of(32) == 1000
    assert history.length_of(256) == 125


def test_a_run_is_as_long_as_the_epochs_that_are_searched():
    space = "{learning_rate: {min: 0.001, max: 10, log: true}, epochs: {min: 5, max: 40, type: int}}"
    own = {"batch_size": 32, "learning_rate": 0.1, "epochs": 10}

    def epochs(number: int, count: int, size: int) -> Trial:
        tried = suggestion(number, batch_size=size, parameters={"learning_rate": 0.1, "epochs": count})
        measured = tuple(Measurement(float(step), 0.5 + 0.01 * step) for step in range(1, count + 1))
        return Trial(tried, measured, Outcome.MISSED)

    first = replace(epochs(0, 10, 32), outcome=Outcome.REACHED, is_complete=True)
    first = replace(first, suggestion=replace(first.suggestion, purpose=Purpose.BASELINE))
    half, twice = epochs(1, 5, 64), epochs(2, 20, 32)
    history = History.of(spec(baseline=own, search_space=space, run_length=None), [first, half, twice])
    assert history.unit is Unit.EPOCH  # a run of half the epochs at twice the batch is not one of fewer steps
    assert history.run_length == 10
    assert [history.expected_length(t) for t in history.trials] == [10, 5, 20]
    assert all(map(history.is_whole, history.trials))
