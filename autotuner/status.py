"""Convert a decision to the status annotations and Events of a job."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from autotuner import keys
from autotuner.decide.decision import Decision, Phase, Reason
from autotuner.errors import InvalidJob
from autotuner.spec import TuningSpec
from autotuner.study.hold_up import HoldUp
from autotuner.trial import Outcome, Trial
from autotuner.wording import COMPARED, IN_DOUBT, STOPPED_SHORT, message, outcome_now, reads

MAX_ANNOTATIONS: Final = 256 * 1024
"""Bytes that Kubernetes allows for the annotations of an object, keys included."""
MAX_MESSAGE: Final = 4096
"""Characters of the message annotation; a log's tail is in it when the user's program fails."""
MAX_READS: Final = 512
"""Characters of the annotation that shows the line of the first measurement."""

MAX_HELD_UP: Final = 5
"""Maximum number of trials whose hold-ups are shown; the others of a study mostly have the same."""


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


def describe(  # noqa: PLR0913 (the parts of a status)
    decision: Decision,
    spec: TuningSpec,
    trials: Sequence[Trial],
    observed: str,
    notices: Sequence[str] = (),
    *,
    doubts: Sequence[str] = (),
) -> Status:
    """Return the status for a decision.

    Args:
        decision: The newest decision.
        spec: The parsed annotations.
        trials: All trials, running ones included.
        observed: The fingerprint of the spec that the decision was made for.
        notices: What holds trials up, with the cluster's own messages; shown first.
        doubts: Warnings that trials may not train what they are asked to; shown last.
    """
    main = message(decision, spec)
    warnings = [text for text in decision.warnings if text not in main]
    # Behind "batch size 512 is confirmed", what speaks against it is easily overlooked.
    said = "; ".join([*notices, main, *(f"warning: {text}" for text in (*warnings, *doubts))])
    annotations = {
        keys.PHASE: str(decision.phase),
        keys.REASON: str(decision.reason),
        keys.MESSAGE: said[:MAX_MESSAGE],
        keys.TRIALS: _count(trials, spec),
        keys.OBSERVED: observed,
    }
    if first := reads(trials, spec):
        annotations[keys.READS] = first[:MAX_READS]
    if decision.answer is not None:
        annotations[keys.ANSWER] = json.dumps(decision.answer.as_json(), separators=(",", ":"))
    if decision.candidate is not None:
        annotations[keys.CANDIDATE] = json.dumps(decision.candidate.as_json(), separators=(",", ":"))
    return Status(annotations)


def describe_invalid(
    error: InvalidJob,
    before: Mapping[str, str],
    observed: str,
    trials: Sequence[Trial] | None = None,
    spec: TuningSpec | None = None,
) -> Status:
    """Return the status of a job whose annotations or manifest have mistakes.

    Args:
        error: The mistakes.
        before: The job's previous annotations; the answer, the count of trials and the read line are kept.
        observed: The fingerprint of the spec that has the mistakes.
        trials: All trials; None if they cannot be read.
        spec: The annotations without mistakes, if the trials can be read by them.
    """
    said = f"invalid configuration, no trial starts until it is fixed: {error}"
    kept = {key: before[key] for key in (keys.ANSWER, keys.TRIALS, keys.READS) if key in before}
    counted = {} if trials is None else {keys.TRIALS: _count(trials, spec)}
    return Status(
        {
            **kept,
            **counted,
            keys.PHASE: str(Phase.INVALID),
            keys.REASON: str(Reason.INVALID_CONFIGURATION),
            keys.MESSAGE: said[:MAX_MESSAGE],
            keys.OBSERVED: observed,
        }
    )


def describe_interrupted(before: Mapping[str, str]) -> dict[str, str]:
    """Return the status of a study that no tuner runs any more; the state of one that has ended stays.

    Args:
        before: The status annotations that the tuner wrote last; empty if it was interrupted before that.
    """
    found, running = dict(before), 0
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
        counts = json.loads(before.get(keys.TRIALS, "{}"))
        if running := counts.pop("running", 0):
            # An interrupted trial leaves no record: it starts again with the same number.
            counts["total"] -= running
            found[keys.TRIALS] = json.dumps(counts, separators=(",", ":"))
    phase = before.get(keys.PHASE)
    was_active = phase in {None, Phase.WAITING, Phase.SEARCHING, Phase.CONFIRMING}
    if was_active or (phase == Phase.PAUSED and running):
        last = f"; before that: {before[keys.MESSAGE]}" if keys.MESSAGE in before else ""
        said = f"interrupted, nothing runs: `autotuner tune` with the same file continues{last}"
        found[keys.PHASE], found[keys.REASON] = str(Phase.PAUSED), str(Reason.INTERRUPTED)
        found[keys.MESSAGE] = said[:MAX_MESSAGE]
    return found


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
    found: list[Event] = []
    if keys.READS in after and keys.READS not in before:
        found.append(Event("Normal", "MetricRead", f"reads {after[keys.READS]}"))
    if after[keys.PHASE] != before.get(keys.PHASE):
        kind: Literal["Normal", "Warning"] = (
            "Warning" if status.phase in {Phase.INVALID, Phase.FAILED} else "Normal"
        )
        found.append(Event(kind, _REASONS[status.phase], after[keys.MESSAGE][:1024]))
    return found


def held_up_events(before: Mapping[str, str], held_up: Sequence[HoldUp]) -> list[Event]:
    """Return an event for each hold-up that the status does not show yet.

    Args:
        before: The job's previous annotations.
        held_up: What holds trials up now.
    """
    said = before.get(keys.MESSAGE, "")
    new = [held for held in held_up[:MAX_HELD_UP] if held.subject not in said]
    return [Event("Warning", "TrialHeldUp", str(held)[:1024]) for held in new]


def refused_events(before: Mapping[str, str], refused: Sequence[str]) -> list[Event]:
    """Return an event for each refused start that the status does not show yet."""
    said = before.get(keys.MESSAGE, "")
    return [Event("Warning", "TrialRefused", text[:1024]) for text in refused if text not in said]


def warning_events(before: Mapping[str, str], status: Status, warnings: Sequence[str]) -> list[Event]:
    """Return an event for each warning about the job that the status shows for the first time.

    Args:
        before: The job's previous annotations.
        status: The status about to be written.
        warnings: The warnings about the job.
    """
    said, says = before.get(keys.MESSAGE, ""), status.annotations[keys.MESSAGE]
    new = [warning for warning in warnings if warning not in said and warning in says]
    return [Event("Warning", "JobWarning", warning[:1024]) for warning in new]


_REASONS: Final[Mapping[Phase, str]] = {
    Phase.WAITING: "StudyWaiting",
    Phase.SEARCHING: "StudyStarted",
    Phase.CONFIRMING: "StudyConfirming",
    Phase.DONE: "StudyDone",
    Phase.PAUSED: "StudyPaused",
    Phase.INVALID: "StudyInvalid",
    Phase.FAILED: "StudyFailed",
}


def _count(trials: Sequence[Trial], spec: TuningSpec | None) -> str:
    """Return the number of trials by outcome as JSON, such as `{"total":12,"running":1,"reached":7}`."""
    ended = Counter(str(t.outcome) if spec is None else outcome_now(t, spec) for t in trials if t.outcome)
    counts = {"total": len(trials)}
    running = sum(trial.is_running for trial in trials)
    if running:
        counts["running"] = running
    for outcome in (*Outcome, COMPARED, STOPPED_SHORT, IN_DOUBT):
        if ended[outcome]:
            counts[outcome.replace(" ", "_")] = ended[outcome]
    return json.dumps(counts, separators=(",", ":"))
