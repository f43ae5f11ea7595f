"""Find the runs whose batch is so large that they end before their first report.

A script that evaluates every thousand optimizer steps does so less often with a larger batch, because a run
of the same epochs has fewer steps. Beyond some batch size it prints nothing before it ends. Nothing is wrong,
but nothing can be confirmed there, so the search stays below it.
"""

from __future__ import annotations

from autotuner.study.finding import Finding, Reason
from autotuner.study.history import CLOSE, EPOCH, History, curve
from autotuner.trial import Outcome, Purpose, Trial


def ended_unreported(history: History) -> list[Finding]:
    """Return the trials that ended well before the first report of a run was due, by number.

    Such a trial has a larger batch than the unchanged job, whose runs have shown when their first report is
    due. After a change of the job, or a retry, it no longer counts.
    """
    unchanged = [t for t in history.trials if t.suggestion.purpose is Purpose.BASELINE and len(curve(t))]
    due, length = min((float(curve(t).steps[0]) for t in unchanged), default=0.0), history.own_length
    if due <= 1 or length is None or any(t.unit == EPOCH for t in unchanged):
        return []
    usual, metric = history.spec.baseline_batch_size, history.spec.target.metric
    found = []
    for trial in history.trials:
        if not is_silent(trial) or not history.is_current(trial):
            continue
        size = trial.suggestion.batch_size
        steps = length * usual / size
        if size > usual and steps <= (1 + CLOSE) * due:
            message = (
                f"trial {trial.number} ended without reporting {metric}: at batch size {size} a run has about"
                f" {steps:.0f} optimizer steps, and the unchanged job reports first at step {due:g}. Such"
                " batches are left out; to try them, let the script evaluate after every epoch and at its"
                " end, and request a retry"
            )
            found.append(Finding(Reason.ENDED_UNREPORTED, (trial.number,), message, ("batch_size",)))
    return found


def is_silent(trial: Trial) -> bool:
    """Return whether a run came to its own end without a measurement."""
    ended_well = trial.outcome is Outcome.MISSED or trial.is_complete is True
    return ended_well and not trial.measurements and not trial.doubt
