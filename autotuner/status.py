"""Convert a decision to the status annotations and Events of a job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from autotuner import keys
from autotuner.decide.decision import Decision, Phase, Reason
from autotuner.errors import InvalidJob
from autotuner.spec import TuningSpec
from autotuner.trial import Outcome, Trial
from autotuner.wording import message

MAX_MESSAGE: Final = 4096
"""Characters of the message annotation; it holds the end of a log when the user's program fails."""


@dataclass(frozen=True, slots=True)
class Status:
    """The status annotations: key -> value."""

    annotations: Mapping[str, str]

    @property
    def phase(self) -> Phase:
        """The phase of the study."""
        return Phase(self.annotations[keys.PHASE])


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the job."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def describe(
    decision: Decision,
    spec: TuningSpec,
    trials: Sequence[Trial],
    observed: str,
    notices: Sequence[str] = (),
) -> Status:
    """Return the status for a decision.

    Args:
        decision: The newest decision.
        spec: The parsed annotations.
        trials: All trials, running ones included.
        observed: The hash of the spec that the decision was made for.
        notices: What delays trials, in the cluster's own words; they come first in the message.
    """
    text = "; ".join([*notices, message(decision, spec), *decision.warnings])
    annotations = {
        keys.PHASE: str(decision.phase),
        keys.REASON: str(decision.reason),
        keys.MESSAGE: text[:MAX_MESSAGE],
        keys.TRIALS: _count(trials),
        keys.OBSERVED: observed,
    }
    if decision.answer is not None:
        annotations[keys.ANSWER] = json.dumps(decision.answer.as_json(), separators=(",", ":"))
    if decision.candidate is not None:
        annotations[keys.CANDIDATE] = json.dumps(decision.candidate.as_json(), separators=(",", ":"))
    return Status(annotations)


def describe_invalid(
    error: InvalidJob, before: Mapping[str, str], observed: str, trials: Sequence[Trial] | None = None
) -> Status:
    """Return the status of a job whose annotations or manifest have mistakes.

    Args:
        error: The mistakes.
        before: The job's previous annotations; the answer and the count of trials are kept.
        observed: The hash of the spec that has the mistakes.
        trials: All trials; None if they cannot be read.
    """
    text = f"invalid configuration, no trial starts until it is fixed: {error}"
    kept = {key: before[key] for key in (keys.ANSWER, keys.TRIALS) if key in before}
    counted = {} if trials is None else {keys.TRIALS: _count(trials)}
    return Status(
        {
            **kept,
            **counted,
            keys.PHASE: str(Phase.INVALID),
            keys.REASON: str(Reason.INVALID_CONFIGURATION),
            keys.MESSAGE: text[:MAX_MESSAGE],
            keys.OBSERVED: observed,
        }
    )


def has_running(annotations: Mapping[str, str]) -> bool:
    """Return whether a status counts running trials."""
    try:
        counts = json.loads(annotations.get(keys.TRIALS, "{}"))
    except (ValueError, RecursionError):
        return True
    return not isinstance(counts, dict) or bool(counts.get("running"))


def events(before: Mapping[str, str], status: Status) -> list[Event]:
    """Return the Events for a change of status.

    Args:
        before: The job's previous annotations.
        status: The new status.
    """
    after = status.annotations
    if after[keys.PHASE] == before.get(keys.PHASE):
        return []
    warning = status.phase in {Phase.INVALID, Phase.FAILED}
    return [Event("Warning" if warning else "Normal", _REASONS[status.phase], after[keys.MESSAGE][:1024])]


_REASONS: Final[Mapping[Phase, str]] = {
    Phase.WAITING: "StudyWaiting",
    Phase.SEARCHING: "StudyStarted",
    Phase.CONFIRMING: "StudyConfirming",
    Phase.DONE: "StudyDone",
    Phase.PAUSED: "StudyPaused",
    Phase.INVALID: "StudyInvalid",
    Phase.FAILED: "StudyFailed",
}


def _count(trials: Sequence[Trial]) -> str:
    """Return the number of trials by outcome as JSON, such as `{"total":12,"running":1,"reached":7}`."""
    counts = {"total": len(trials)}
    running = sum(trial.is_running for trial in trials)
    if running:
        counts["running"] = running
    for outcome in Outcome:
        count = sum(trial.outcome is outcome for trial in trials)
        if count:
            counts[str(outcome)] = count
    return json.dumps(counts, separators=(",", ":"))
