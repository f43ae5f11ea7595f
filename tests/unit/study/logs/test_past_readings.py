"""Values of the ledger count only while they are what the target means."""

import pytest

from autotuner.study.logs.past_readings import with_doubts
from autotuner.trial import Measurement, Outcome, Trial
from tests.builders import spec, suggestion

LINE = "epoch 1 val_accuracy 0.41 val_loss 0.9"


def recorded(asked, line: str = LINE, values=(0.41, 0.93)) -> Trial:
    """Return a trial that was recorded when the annotations were `asked`."""
    measurements = tuple(Measurement(float(n), value) for n, value in enumerate(values, start=1))
    template = asked.attempt("1234")
    return Trial(suggestion(), measurements, Outcome.REACHED, template=template, reads=line)


def doubt(before: dict[str, str], now: dict[str, str], line: str = LINE, values=(0.41, 0.93)) -> str:
    """Return the doubt about a trial that was recorded before a change; without values, if there is one."""
    (found,) = with_doubts([recorded(spec(**before), line, values)], spec(**now))
    assert bool(found.doubt) is not bool(found.measurements)
    return found.doubt


OWN = {"target": "val_accuracy >= 0.9"}


@pytest.mark.parametrize(
    "now",
    [
        {"target": "val_accuracy >= 0.5"},
        {"target": "val_accuracy >= 0.9", "log_format": "key-value"},
        # A table is not read from one of its lines.
        {"target": "val_accuracy >= 0.9", "log_format": "csv"},
        {"target": "val_accuracy >= 0.9", "metric_pattern": r"val_accuracy (?P<value>\S+)"},
        {"target": "val accuracy >= 0.9"},
    ],
)
def test_values_that_are_read_as_before_count(now):
    assert doubt(OWN, now) == ""


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"target": "val_loss <= 0.5"}, "0.41 was read from 'epoch 1 val_accuracy 0.41 val_loss 0.9', where"),
        ({"target": "val_loss <= 0.5"}, "where val_loss is 0.9"),
        ({"target": "test_accuracy >= 0.9"}, "where no test_accuracy is read now"),
        ({**OWN, "metric_pattern": r"val_loss (?P<value>\S+)"}, "where val_accuracy is 0.9"),
        ({**OWN, "metric_pattern": r"ema (?P<value>\S+)"}, "where no val_accuracy is read now"),
    ],
)
def test_values_of_another_reading_are_in_doubt(now, said):
    assert said in doubt(OWN, now)


def test_percentages_are_no_fractions_after_the_targets_unit_has_changed():
    assert "it looks like a percentage" in doubt(
        {"target": "accuracy >= 90"}, {"target": "accuracy >= 0.9"}, "accuracy 41%", (41.0, 93.0)
    )
    assert "look like fractions" in doubt(
        {"target": "accuracy >= 0.9"}, {"target": "accuracy >= 90"}, "accuracy 41%", (0.41, 0.93)
    )


def test_a_run_below_one_percent_next_to_better_ones_counts():
    asked = spec(target="accuracy >= 76")
    line = "accuracy 0.4"
    runs = [recorded(asked, line, (40.0, 77.0)), recorded(asked, line, (0.4, 0.5))]
    assert not any(trial.doubt for trial in with_doubts(runs, asked))


def test_trials_of_which_nothing_is_known_are_as_they_were():
    bare = Trial(suggestion(), (Measurement(1.0, 0.41),), Outcome.MISSED)
    assert with_doubts([bare], spec(target="val_loss <= 0.5")) == (bare,)
