"""A run whose batch is so large that it ends before its first report is no fault, and bounds the search."""

from dataclasses import replace
from datetime import timedelta

import pytest

from autotuner.decide import decide
from autotuner.decide.decision import Reason
from autotuner.study.findings.unreported import ended_unreported
from autotuner.study.history import History
from autotuner.trial import Measurement, Outcome, Purpose, Trial
from tests.builders import NOON, spec, suggestion

CURVE = (0.4, 0.6, 0.75, 0.83, 0.88, 0.9, 0.91, 0.915, 0.92, 0.925)
LATE = "ended without reporting accuracy: at batch size 512 a run has about 62 optimizer steps"


def run(number, size, values=(), outcome=Outcome.MISSED, distance=100.0, unit=""):
    """Return a complete run that reports every `distance` steps."""
    purpose = Purpose.SEARCH if number else Purpose.BASELINE
    measured = tuple(Measurement(distance * step, value) for step, value in enumerate(values, start=1))
    made = suggestion(
        number, batch_size=size, purpose=purpose, parameters={"learning_rate": 0.1 + number / 50}
    )
    return Trial(made, measured, outcome, is_complete=outcome is not Outcome.FAILED, unit=unit)


BASELINE = run(0, 32, CURVE, Outcome.REACHED)
WIDE = {"batch_size": "16..1024"}


@pytest.mark.parametrize(
    ("baseline", "silent", "is_found"),
    [
        (BASELINE, run(1, 512), True),
        (BASELINE, run(1, 300), True),  # 107 steps, and the last report may be before the last step
        (BASELINE, replace(run(1, 512, outcome=Outcome.FAILED), is_complete=True), True),
        (BASELINE, run(1, 128), False),  # 250 steps: it should have reported twice
        (BASELINE, run(1, 16), False),
        (BASELINE, run(1, 512, outcome=Outcome.FAILED), False),
        (run(0, 32, CURVE, Outcome.REACHED, distance=1), run(1, 512), False),
        (replace(BASELINE, unit="epoch"), run(1, 512), False),
    ],
    ids=[
        "too short",
        "nearly",
        "as a backend says it",
        "long enough",
        "small",
        "failed",
        "every step",
        "epochs",
    ],
)
def test_a_run_that_is_too_short_to_report_is_found(baseline, silent, is_found):
    found = ended_unreported(History.of(spec(**WIDE), [baseline, silent]))
    assert [f.trials for f in found] == [(1,)] * is_found


@pytest.mark.parametrize("outcome", [Outcome.MISSED, Outcome.FAILED])
def test_such_runs_do_not_end_the_study_and_no_batch_as_large_is_tried(outcome):
    silent = [run(number, size, (), outcome) for number, size in ((1, 512), (2, 700), (3, 1024))]
    trials = [BASELINE, *(replace(one, is_complete=True) for one in silent)]
    decision = decide(spec(**WIDE), trials, NOON)
    assert decision.reason is Reason.SEARCHING
    assert [LATE in warning for warning in decision.warnings] == [True]
    for number in range(4, 9):
        (suggested, *_) = decide(spec(**WIDE), trials, NOON).start
        assert suggested.batch_size < 512
        trials.append(
            replace(run(number, suggested.batch_size, CURVE, Outcome.REACHED), suggestion=suggested)
        )


def test_runs_that_should_have_reported_are_the_programs_fault_if_the_unchanged_job_fails_too():
    trials = [BASELINE, *(run(number, 128) for number in (1, 2, 3))]
    assert decide(spec(**WIDE), trials, NOON).reason is Reason.CHECKING_PROGRAM
    again = replace(BASELINE, suggestion=replace(BASELINE.suggestion, number=4), measurements=())
    silent = replace(again, outcome=Outcome.MISSED)
    assert decide(spec(**WIDE), [*trials, silent], NOON).reason is Reason.PROGRAM_FAILS


def test_after_a_retry_larger_batches_are_tried_again():
    silent = replace(run(1, 512), ended_at=NOON)
    for at, is_found in ((NOON - timedelta(hours=1), True), (NOON + timedelta(hours=1), False)):
        asked = spec(**WIDE, retried_at=at.isoformat())
        assert bool(ended_unreported(History.of(asked, [BASELINE, silent]))) is is_found
