"""An answer, and the trials that stand for it."""

from __future__ import annotations

from autotuner.decide.decision import Answer
from autotuner.trial import Outcome, Purpose
from tests.builders import suggestion, trial

ANSWER = Answer(64, {"learning_rate": 0.2}, 3, 3)


def confirming(number: int, micro_batch: int, outcome: Outcome = Outcome.REACHED, **changed):
    tried = {
        "batch_size": 64,
        "parameters": {"learning_rate": 0.2},
        "purpose": Purpose.CONFIRM,
        "micro_batch_size": micro_batch,
        **changed,
    }
    return trial(number, outcome=outcome, tried=suggestion(number, **tried))


def test_an_answer_is_realised_as_its_newest_trial_ran_and_never_as_one_that_did_not_fit():
    trials = [
        confirming(1, 32, Outcome.OUT_OF_MEMORY),
        confirming(2, 16),
        confirming(4, 64, Outcome.OUT_OF_MEMORY),
        confirming(3, 8),
        confirming(5, 1, batch_size=32),
        confirming(6, 1, parameters={"learning_rate": 0.3}),
    ]
    found = ANSWER.realised_by(trials)
    assert found is not None
    assert (found.number, found.micro_batch_size) == (3, 8)
    assert ANSWER.realised_by(trials[:1]) is None
