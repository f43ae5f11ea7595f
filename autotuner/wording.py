"""Write messages for people from decisions: the only place where these sentences are made.

The logic returns stable reasons and facts (`autotuner.decide.decision`); the sentences may change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from autotuner.decide.decision import Answer, Decision, Facts, Reason, Stop, StopReason
from autotuner.spec import Target, TuningSpec
from autotuner.study.history import curve, is_complete
from autotuner.trial import Measurement, Outcome, Purpose, Trial

_MAX_WARNINGS: Final = 5
"""Warnings of one kind that are shown."""
_DIGITS: Final = re.compile(r"[\d.]+")


def message(decision: Decision, spec: TuningSpec) -> str:
    """Return the state of a study, in one or two sentences."""
    return _MESSAGES[decision.reason](decision, spec)


def ending(reason: Reason) -> str:
    """Return why a study ended, as the rest of a line that starts with "stopped: "."""
    return _ENDINGS.get(reason, str(reason))


def stop_message(stop: Stop, spec: TuningSpec) -> str:
    """Return why a trial was stopped."""
    return _STOPS[stop.reason](stop.facts, spec)


STOPPED_SHORT: Final = "stopped short"
"""How a run ended that was stopped at a target which has since been raised."""
IN_DOUBT: Final = "in doubt"
"""How a run ended of which no value counts."""
COMPARED: Final = "compared"
"""How a check ended that was stopped: mostly because its curve has been compared with another one."""
_BY_TARGET: Final = frozenset(
    {Outcome.REACHED, Outcome.MISSED, Outcome.PROMISING, Outcome.HOPELESS, Outcome.DOMINATED}
)
"""Outcomes that depend on the target of the time."""
_BY_CHANCE: Final = frozenset({Outcome.REACHED, Outcome.PROMISING, Outcome.HOPELESS})
"""Those whose message states a value or a probability, and whether the run meets the target."""


def outcome_now(trial: Trial, spec: TuningSpec) -> str:
    """Return how a trial ended, by its measurements and the current target; empty while it runs.

    The recorded outcome is about the target of the time, and a user may change the target.
    """
    if trial.outcome is not None and trial.doubt:
        return IN_DOUBT
    if trial.outcome is None or trial.outcome not in _BY_TARGET:
        return str(trial.outcome or "")
    if curve(trial).meets(spec.target):
        return Outcome.REACHED
    if trial.outcome is Outcome.DOMINATED and trial.suggestion.purpose is Purpose.CHECK:
        return COMPARED
    if trial.outcome is Outcome.REACHED:
        return Outcome.MISSED if is_complete(trial) else STOPPED_SHORT
    return trial.outcome


def why_it_ended(trial: Trial, spec: TuningSpec) -> str:
    """Return the message of a trial's end, marked as of that time if the outcome has changed since.

    A run that was stopped for its low probability may have printed a value that meets the target since, and a
    user may have changed the target.
    """
    is_of_then = trial.outcome in _BY_CHANCE and outcome_now(trial, spec) != trial.outcome
    return f"when it was stopped: {trial.message}" if is_of_then and trial.message else trial.message


def reads(trials: Sequence[Trial], spec: TuningSpec) -> str:
    """Return the study's first measurement and the line that it was read from; empty before there is one."""
    first = next((t for t in sorted(trials, key=lambda t: t.number) if t.reads and t.measurements), None)
    if first is None:
        return ""
    return read_from(spec.target, first.measurements[0], first.unit, first.reads)


def read_from(target: Target, first: Measurement, unit: str, line: str) -> str:
    """Return what was read from a line: `accuracy=0.41 at epoch 1 from: ...`."""
    return f"{target.metric}={first.value:g} at {unit or 'step'} {first.step:g} from: {line}"


def warnings(decision: Decision | None, trials: Sequence[Trial], spec: TuningSpec) -> list[str]:
    """Return all warnings about a study: about its runs, its nodes and the reading of its logs."""
    seen = () if decision is None else decision.warnings
    return [*seen, *node_warnings(trials, spec.retried_at), *log_warnings(trials)]


def log_warnings(trials: Sequence[Trial]) -> list[str]:
    """Return warnings about the reading of the logs: each of the first trial that has it.

    The other trials run the same program, so most of their warnings are the same, but for the numbers.
    """
    shown: dict[str, str] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        for text in trial.warnings:
            shown.setdefault(_DIGITS.sub("#", text), f"the log of trial {trial.number}: {text}")
    return list(shown.values())[:_MAX_WARNINGS]


def node_warnings(trials: Sequence[Trial], since: datetime | None = None) -> list[str]:
    """Return a warning about each node that has lost several trials, those with most losses first.

    Args:
        trials: All trials.
        since: The time of the user's last retry; losses before it do not count.
    """
    lost: dict[str, list[int]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        is_past = since is not None and trial.ended_at is not None and trial.ended_at <= since
        if trial.outcome is Outcome.LOST and trial.node and not is_past:
            lost.setdefault(trial.node, []).append(trial.number)
    repeated = sorted((n for n in lost if len(lost[n]) > 1), key=lambda n: -len(lost[n]))
    return [
        f"node {node} has lost {len(lost[node])} trials ({', '.join(map(str, lost[node][-_MAX_WARNINGS:]))}):"
        " check it, or cordon it"
        for node in repeated[:_MAX_WARNINGS]
    ]


def _program_fails(decision: Decision, spec: TuningSpec) -> str:
    facts = decision.facts
    return f"{facts.count} trials in a row failed; the last one: {_fault(facts, spec)}"


def _fault(facts: Facts, spec: TuningSpec) -> str:
    if facts.detail:
        return facts.detail
    if facts.outcome is Outcome.OUT_OF_MEMORY:
        return f"out of memory at the job's own batch size {facts.batch_size}"
    if facts.outcome is Outcome.FAILED:
        return "it printed no message; see its log"
    metric = spec.target.metric
    return f"it reported no {metric}: print lines such as {metric}=0.93, or set metric-pattern"


def _cluster_loses_trials(decision: Decision, _spec: TuningSpec) -> str:
    detail = f" ({decision.facts.detail})" if decision.facts.detail else ""
    remedy = "check its nodes and quotas, and what deletes jobs and pods there"
    return f"the cluster lost one trial {decision.facts.count} times{detail}: {remedy}"


def _baseline_misses(decision: Decision, spec: TuningSpec) -> str:
    best = decision.facts.value
    shown = "it measured nothing" if best is None else f"its best is {best:g}"
    if spec.run_length is not None:
        shown += f" up to step {spec.run_length:g} of its log, which run-length says is the last"
    return f"the job unchanged misses {spec.target}: {shown}; {decision.facts.detail}"


def _checking_batch(decision: Decision, _spec: TuningSpec) -> str:
    facts = decision.facts
    repeats = f"repeats the start of trial {facts.number}"
    if facts.detail:
        changed = f"with {facts.detail}"
        rule = "its values must differ if the script uses what it is given"
    elif facts.batch_size is not None:
        changed = f"at batch size {facts.batch_size}"
        rule = "its values must differ if the script trains the batch that it is given"
    else:
        rule = "if its digits differ, the effect of half the batch may be chance"
        return f"{repeats} with nothing changed: {rule}"
    return f"{repeats} {changed}, with nothing else changed: {rule}"


def _retrying(decision: Decision, _spec: TuningSpec) -> str:
    is_memory = decision.facts.outcome is Outcome.OUT_OF_MEMORY
    fate = "ran out of memory, with a smaller micro-batch" if is_memory else "was lost"
    return f"retries trial {decision.facts.number}, which {fate}"


def _searching(decision: Decision, _spec: TuningSpec) -> str:
    best = decision.facts.batch_size
    held = "none meets the target so far" if best is None else f"the best so far is {best}"
    return f"searches for a larger batch size; {held}"


def _confirming(decision: Decision, spec: TuningSpec) -> str:
    facts = decision.facts
    return (
        f"confirms batch size {facts.batch_size}: {facts.count} of {spec.confirmations} runs have reached"
        " the target"
    )


def _budget(name: str, limit: Callable[[TuningSpec], float | None]) -> Callable[[Decision, TuningSpec], str]:
    def worded(decision: Decision, spec: TuningSpec) -> str:
        # A confirmed answer ends the study before the last trial, if no other one could be confirmed.
        is_confirmed = decision.answer is not None and decision.answer.is_confirmed
        left = "leaves no room to try and confirm a larger batch" if is_confirmed else "is used up"
        return f"{name} ({limit(spec):g}) {left}; {_held(decision.answer, spec)}"

    return worded


def _held(answer: Answer | None, spec: TuningSpec) -> str:
    if answer is None:
        return f"nothing has met {spec.target}"
    runs = f"{answer.confirmed} run{'s' if answer.confirmed != 1 else ''}"
    seen = "confirmed" if answer.is_confirmed else f"confirmed by {runs} only" if answer.confirmed else ""
    return f"batch size {answer.batch_size} is {seen or 'not confirmed'}"


def _confirmed(decision: Decision, _spec: TuningSpec) -> str:
    answer = decision.answer
    found = "" if answer is None else f"batch size {answer.batch_size}: {answer.tally} confirmation runs"
    return f"{found} reached the target; {ending(decision.reason)}"


def _running(count: int) -> str:
    return f"{count} trial{'s' if count != 1 else ''} running"


_MESSAGES: Final[Mapping[Reason, Callable[[Decision, TuningSpec], str]]] = {
    Reason.NO_LAYOUT: lambda decision, _: decision.facts.detail,
    Reason.PROGRAM_FAILS: _program_fails,
    Reason.METRIC_NOT_FOUND: lambda decision, spec: _fault(decision.facts, spec),
    Reason.METRIC_IN_DOUBT: lambda decision, _: (
        f"no trial starts until this is settled: in trial {decision.facts.number} {decision.facts.detail}"
    ),
    Reason.RUN_LENGTH_TOO_SHORT: lambda decision, _: (
        f"no trial starts until this is settled: {decision.facts.detail}"
    ),
    Reason.NOT_WIRED: lambda decision, _: decision.facts.detail,
    Reason.ANSWER_IN_DOUBT: lambda decision, _: (
        f"batch size {decision.facts.batch_size} cannot be confirmed: {decision.facts.detail}"
    ),
    Reason.CLUSTER_LOSES_TRIALS: _cluster_loses_trials,
    Reason.PAUSED: lambda decision, _: f"paused; {_running(decision.facts.count)}",
    Reason.BASELINE_RUNNING: lambda _, spec: (
        f"runs the job unchanged, at batch size {spec.baseline_batch_size}"
    ),
    Reason.CHECKING_PROGRAM: lambda decision, _: (
        "the last trials failed, with settings that have not worked before: runs batch size"
        f" {decision.facts.batch_size} with hyperparameters that have, to see which settings are at fault"
    ),
    Reason.CHECKING_BATCH: _checking_batch,
    Reason.BASELINE_MISSES: _baseline_misses,
    Reason.RETRYING: _retrying,
    Reason.CLIMBING: lambda decision, _: f"climbs to batch size {decision.facts.batch_size}",
    Reason.SEARCHING: _searching,
    Reason.CONFIRMING: _confirming,
    Reason.WAITING_FOR_TRIALS: lambda decision, _: (
        f"waits for the last trials; {_running(decision.facts.count)}"
    ),
    Reason.NOTHING_FEASIBLE: lambda decision, spec: (
        f"no batch size meets {spec.target}; {decision.facts.detail}"
    ),
    Reason.TRIALS_SPENT: _budget("max-trials", lambda spec: spec.max_trials),
    Reason.GPU_HOURS_SPENT: _budget("max-gpu-hours", lambda spec: spec.max_gpu_hours),
    Reason.LARGER_UNLIKELY: _confirmed,
    Reason.GAIN_TOO_SMALL: _confirmed,
    Reason.LARGEST_ALLOWED: _confirmed,
}

_ENDINGS: Final[Mapping[Reason, str]] = {
    Reason.LARGER_UNLIKELY: "a larger batch is unlikely",
    Reason.GAIN_TOO_SMALL: "the expected gain of another trial is too small",
    Reason.LARGEST_ALLOWED: "the largest batch size allowed is confirmed",
    Reason.TRIALS_SPENT: "max-trials leaves no room for more",
    Reason.GPU_HOURS_SPENT: "max-gpu-hours leaves no room for more",
    Reason.BASELINE_MISSES: "the job unchanged misses the target",
    Reason.NOTHING_FEASIBLE: "no batch size meets the target",
    Reason.PROGRAM_FAILS: "the program fails",
    Reason.METRIC_NOT_FOUND: "a run that ended well printed no metric",
    Reason.NOT_WIRED: "settings have no effect on the training",
    Reason.ANSWER_IN_DOUBT: "what runs at a large batch have trained is in doubt",
    Reason.CLUSTER_LOSES_TRIALS: "the cluster keeps losing its trials",
    Reason.NO_LAYOUT: "no batch size has a layout",
}

_STOPS: Final[Mapping[StopReason, Callable[[Facts, TuningSpec], str]]] = {
    StopReason.REACHED: lambda _, spec: f"has reached {spec.target}",
    StopReason.RESUMED: lambda facts, _: facts.detail,
    StopReason.EVALUATES_NOTHING: lambda facts, _: facts.detail,
    StopReason.LARGER_THAN_DATA: lambda facts, _: facts.detail,
    StopReason.BATCH_CHECKED: lambda facts, _: facts.detail,
    StopReason.DIVERGED: lambda facts, spec: f"{spec.target.metric} became {facts.value}",
    StopReason.TIMEOUT: lambda _, spec: (
        f"did not reach the target within trial-timeout ({spec.trial_timeout})"
    ),
    StopReason.TIMEOUT_WITHOUT_METRIC: lambda _, spec: (
        f"reported no {spec.target.metric} within trial-timeout ({spec.trial_timeout})"
    ),
    StopReason.LARGER_CONFIRMED: lambda facts, _: (
        f"no longer matters: batch size {facts.batch_size} is confirmed"
    ),
    StopReason.WHOLE_LENGTH: lambda facts, spec: (
        f"has run its {facts.value:g} steps and misses {spec.target}"
    ),
    StopReason.HOPELESS: lambda facts, spec: f"reaches {spec.target} with probability {facts.value:.2f} only",
    StopReason.PROMISING: lambda _, spec: f"reaches {spec.target} almost surely",
    StopReason.STUDY_ENDED: lambda *_: "the study has ended",
}
