"""Reconcile one job: observe, decide, act, record, publish.

A reconcile keeps no state between calls: it reads everything that it needs. The order makes a crash between
any two lines harmless: the end of a trial is recorded before the trial is removed, trials are started under
deterministic names, and the status is written once, last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import yaml

from autotuner import keys
from autotuner.backends.base import Backend, Observation, Study
from autotuner.decide import decide
from autotuner.decide.decision import Decision, Phase, Reason
from autotuner.errors import Conflict, InvalidJob, Refused
from autotuner.job.job import Job
from autotuner.job.trial_manifest import (
    answer_digest,
    answer_patch,
    answered_job,
    answered_spec,
    is_queued,
    tuned_name,
)
from autotuner.job.wiring_notices import wiring_notices
from autotuner.spec import TuningSpec
from autotuner.spec.tuning_spec import AUTO
from autotuner.status import (
    MAX_ANNOTATIONS,
    MAX_HELD_UP,
    MAX_MESSAGE,
    Event,
    Status,
    describe,
    describe_invalid,
    events,
    has_running,
    held_up_events,
    refused_events,
    warning_events,
)
from autotuner.study.history import History
from autotuner.study.hold_up import HoldUp, unexpected
from autotuner.study.logs.past_readings import with_doubts
from autotuner.trial import Outcome, Suggestion, Trial
from autotuner.wording import stop_message, warnings

_NOT_APPLIED: Final = "the answer cannot be applied, will retry: {}"
_CHANGED_SINCE: Final = (
    "the answer was applied before, and is not applied again, because it was removed from the job since: to"
    f" apply it again, set {keys.PREFIX}apply to false, and then to true"
)
_NO_ROOM: Final = (
    "the answer's patch has {} bytes, for which the job's annotations have no room: take the values from the"
    " answer"
)
_TO_APPLY: Final = ""
"""A fingerprint that no job has: the study is not settled before its answer is applied."""
_OF_RUNNING: Final = frozenset({"spec.runPolicy.suspend", f"label {keys.QUEUE_LABEL}"})
"""Fields that are warned of because the registered job itself would run: with `apply` it is asked to."""
_SETTLED = frozenset({str(Phase.DONE), str(Phase.FAILED)})


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result of one reconcile.

    `decision` is None if the job is settled or has mistakes. `finished` are the trials that this reconcile
    recorded, `started` and `put_off` the suggestions of the decision; `held_up` says which trials do not
    start, and why. `notices` are what the status says in addition to the decision.
    """

    job: Job
    status: Status
    decision: Decision | None = None
    trials: tuple[Trial, ...] = ()
    finished: tuple[Trial, ...] = ()
    started: tuple[Suggestion, ...] = ()
    put_off: tuple[Suggestion, ...] = ()
    held_up: tuple[HoldUp, ...] = ()
    notices: tuple[str, ...] = ()


Admit = Callable[[Suggestion], bool]
"""Returns whether a trial may start now, for a caller that reconciles several jobs."""


def reconcile(
    backend: Backend,
    job: Job,
    now: datetime,
    admit: Admit = lambda _: True,
    script: str | None = None,
) -> Reconciliation:
    """Reconcile one registered job.

    A start that `admit` refuses is put off; the caller must reconcile the job again when a slot is free.
    `script` is the text of the training script, if it can be read.

    Raises:
        BackendError: If a call to the cluster or the machine failed; reconcile again later.
    """
    if is_settled(job):
        return Reconciliation(job, Status(job.annotations))
    try:
        spec = job.spec()
    except InvalidJob as error:
        return _reconcile_invalid(backend, job, error)

    seen = _with_whole_runs(spec, _without_past_doubts(spec, backend.observe(job, spec), now))
    seen = replace(seen, recorded=with_doubts(seen.recorded, spec))
    finished = _record_ended(backend, job, seen)
    trials = merge(seen)
    earlier, left_out = _earlier(backend, job, spec)
    wiring = wiring_notices(job, spec, trials, script)
    is_in_doubt = any(warning.name == "batch_size" and warning.is_seen for warning in wiring)
    decision = decide(spec, trials, now, earlier, is_batch_in_doubt=is_in_doubt)
    stopped = _stopped(spec, decision, trials, now)
    for trial in stopped.values():
        backend.record(job, trial)
        backend.stop(job, trial.number)
    started, put_off, refused = _start(backend, job, decision, admit)
    trials = (
        *(stopped.get(trial.number, trial) for trial in trials),
        *(Trial(suggestion) for suggestion in started),
    )
    notices = [*refused, *map(str, seen.held_up[:MAX_HELD_UP]), *seen.notices, *left_out]
    if put_off:
        notices.append(
            f"waits for a slot for {len(put_off)} more trials: the trials of all jobs use them all"
        )
    suggestion = _confirmed(decision, trials) if spec.apply else None
    applied = _apply(backend, job, spec, suggestion) if spec.apply is True else _Applied()
    notices += applied.notices
    found = _warnings_now(job, seen, applied)
    warned = replace(decision, warnings=(*warnings(decision, trials, spec), *found))
    doubts = [str(warning) for warning in wiring_notices(job, spec, trials, script)]
    observed = _observed(job, applied)
    status = describe(warned, spec, trials, observed, notices, doubts=doubts)
    if suggestion is not None and spec.apply == "patch":
        status = _with_patch(job, status, yaml.safe_dump(answer_patch(job, suggestion), sort_keys=False))
    if applied.digest:
        status = Status({**status.annotations, keys.APPLIED: applied.digest})
    held_up = unexpected(seen.held_up, trials) if spec.parallel_trials == AUTO else tuple(seen.held_up)
    happened = [
        *events(job.annotations, status),
        *refused_events(job.annotations, refused),
        *held_up_events(job.annotations, held_up),
        *warning_events(job.annotations, status, warned.warnings),
    ]
    status = _publish(backend, job, status, happened, applied)
    recorded = (*finished, *stopped.values())
    return Reconciliation(job, status, decision, trials, recorded, started, put_off, held_up, tuple(notices))


@dataclass(frozen=True, slots=True)
class _Applied:
    """What applying an answer has come to.

    `spec` is the job's spec with the answer, still to be written. `digest` is that of the answer which was
    applied last, this one or an earlier one. `is_held` says that the cluster does not allow it now. `is_this`
    says that the registered job itself is to run with this answer.
    """

    spec: Mapping[str, Any] | None = None
    digest: str = ""
    is_this: bool = False
    is_held: bool = False
    notices: tuple[str, ...] = ()


def _apply(backend: Backend, job: Job, spec: TuningSpec, suggestion: Suggestion | None) -> _Applied:
    """Apply a confirmed answer, unless it was applied before: its owner may have suspended or removed it."""
    before = job.annotations.get(keys.APPLIED, "")
    if suggestion is None:
        return _Applied(digest=before)
    digest = answer_digest(job, suggestion, spec.apply_as)
    answered = answered_spec(job, suggestion, queued=is_queued(job))
    if before == digest:
        if job.kind.takes_answer:
            is_changed = job.with_spec(answered).template != job.template
            notices = (_CHANGED_SINCE,) if is_changed else ()
            return _Applied(digest=digest, is_this=not is_changed, notices=notices)
        name = spec.apply_as or tuned_name(job)
        return _Applied(digest=digest, notices=(f"the answer was applied as {job.kind.name} {name}",))
    if job.kind.takes_answer:
        return _Applied(answered, digest, is_this=True)
    made = answered_job(job, suggestion, spec.apply_as)
    try:
        backend.apply(job, made)
    except (Conflict, Refused) as error:
        return _Applied(is_held=True, notices=(_NOT_APPLIED.format(error),))
    return _Applied(
        digest=digest, notices=(f"the answer runs as {job.kind.name} {made['metadata']['name']}",)
    )


def _with_patch(job: Job, status: Status, patch: str) -> Status:
    """Return the status with the answer's patch, if the annotations of the job have room for it.

    The patch has whole lists of the job, such as the `args` of its container, which may hold a script. The
    cluster would refuse the whole status.
    """
    theirs = {k: v for k, v in job.annotations.items() if not k.startswith(keys.STATUS_PREFIX)}
    patched = {**status.annotations, keys.PATCH: patch}
    taken = sum(len(key.encode()) + len(text.encode()) for key, text in {**theirs, **patched}.items())
    if taken <= MAX_ANNOTATIONS:
        return Status(patched)
    said = f"{_NO_ROOM.format(len(patch.encode()))}; {status.annotations[keys.MESSAGE]}"[:MAX_MESSAGE]
    return Status({**status.annotations, keys.MESSAGE: said})


def _reconcile_invalid(backend: Backend, job: Job, error: InvalidJob) -> Reconciliation:
    """Start nothing, keep running trials, record ended ones, and publish the mistakes.

    If a mistake concerns the reading of logs, ended trials stay unrecorded until it is fixed.
    """
    spec = job.readable_spec()
    trials: tuple[Trial, ...] | None = None
    finished: tuple[Trial, ...] = ()
    if spec is not None:
        seen = _with_whole_runs(spec, backend.observe(job, spec))
        finished = _record_ended(backend, job, seen)
        trials = merge(seen)
    status = describe_invalid(error, job.annotations, job.fingerprint, trials, spec)
    if applied := job.annotations.get(keys.APPLIED):
        status = Status({**status.annotations, keys.APPLIED: applied})
    backend.publish(job, status, events(job.annotations, status))
    return Reconciliation(job, status, trials=trials or (), finished=finished)


def _warnings_now(job: Job, seen: Observation, applied: _Applied) -> list[str]:
    """Return the warnings of the backend, without those that are wrong once the job itself is to run."""
    of_running = {str(mistake) for mistake in job.warnings if applied.is_this and mistake.key in _OF_RUNNING}
    return [text for text in seen.warnings if text not in of_running]


def _observed(job: Job, applied: _Applied) -> str:
    """Return the fingerprint of the job as it is after this reconcile."""
    if applied.is_held:
        return _TO_APPLY
    return (job if applied.spec is None else job.with_spec(applied.spec)).fingerprint


def _publish(
    backend: Backend, job: Job, status: Status, happened: Sequence[Event], applied: _Applied
) -> Status:
    """Publish the status with the applied answer, and return it; without the answer if that is refused."""
    try:
        backend.publish(job, status, happened, applied.spec)
    except Refused as error:
        # The status shows the answer, although the job does not run with it.
        said = f"{_NOT_APPLIED.format(error)}; {status.annotations[keys.MESSAGE]}"[:MAX_MESSAGE]
        kept = {key: text for key, text in status.annotations.items() if key != keys.APPLIED}
        status = Status({**kept, keys.MESSAGE: said, keys.OBSERVED: _TO_APPLY})
        backend.publish(job, status, happened)
    return status


def withdraw(backend: Backend, job: Job) -> None:
    """Stop the trials of a job that is no longer registered; the ledger stays."""
    for number in backend.existing(job):
        backend.stop(job, number)


def is_settled(job: Job) -> bool:
    """Return whether the status says that nothing is left to do for the job as it is now."""
    phase = job.annotations.get(keys.PHASE)
    if job.annotations.get(keys.OBSERVED) != job.fingerprint:
        return False
    if phase == Phase.INVALID:
        # Held because of a mistake or a doubt about the log: running trials are followed to their end.
        is_wrong = job.annotations.get(keys.REASON) == Reason.INVALID_CONFIGURATION
        return is_wrong and not has_running(job.annotations)
    return phase in _SETTLED


def merge(seen: Observation) -> tuple[Trial, ...]:
    """Return every trial once, by number; the ledger takes precedence."""
    by_number = {trial.number: trial for trial in (*seen.live, *seen.recorded)}
    return tuple(by_number[number] for number in sorted(by_number))


def _without_past_doubts(spec: TuningSpec, seen: Observation, now: datetime) -> Observation:
    """Return the observation with trials marked as lost whose logs are in doubt and no longer needed.

    The job was changed since, or its owner has requested a retry: they are run again.
    """
    today = spec.attempt(spec.template)

    def settled(trial: Trial) -> Trial:
        is_of_old = bool(trial.template and today and trial.template != today)
        began = trial.started_at or now
        is_retried = spec.retried_at is not None and began <= spec.retried_at
        if not trial.doubt or not (is_of_old or is_retried):
            return trial
        said = "its metric was in doubt when the job was changed or retried"
        ended = trial.ended_at or now
        return replace(trial, outcome=Outcome.LOST, doubt="", message=said, ended_at=ended, is_complete=False)

    return replace(seen, live=[settled(trial) for trial in seen.live])


def _with_whole_runs(spec: TuningSpec, seen: Observation) -> Observation:
    """Return the observation with trials marked as missed whose program failed after its last step.

    Some programs fail at exit, for example in the threads of their process group, when the training is
    already complete.
    """
    failed = [t for t in seen.live if t.outcome is Outcome.FAILED and not t.doubt]
    if not failed:
        return seen
    history = History.of(spec, merge(seen))
    trained = {t.number for t in failed if history.is_whole(t)}
    live = [
        replace(t, outcome=Outcome.MISSED, message=f"it failed after its last step: {t.message}")
        if t.number in trained
        else t
        for t in seen.live
    ]
    return replace(seen, live=live)


def _record_ended(backend: Backend, job: Job, seen: Observation) -> tuple[Trial, ...]:
    """Record the trials that ended by themselves, and remove the recorded ones.

    A trial that ended while the reading of its log is in doubt is kept: its log is read again once the user
    has set how to read it.
    """
    recorded = {trial.number for trial in seen.recorded}
    ended = tuple(t for t in seen.live if not t.is_running and not t.doubt and t.number not in recorded)
    for trial in ended:
        backend.record(job, trial)
    recorded |= {trial.number for trial in ended}
    for trial in seen.live:
        if trial.number in recorded:
            backend.stop(job, trial.number)
    return ended


def _earlier(backend: Backend, job: Job, spec: TuningSpec) -> tuple[tuple[History, ...], list[str]]:
    """Return the studies that the search starts from, and a notice for each one that it cannot use."""
    found: list[History] = []
    notices: list[str] = []
    for name in spec.start_from:
        if name == job.name:
            continue  # `wiring_notices` warns of it.
        try:
            study = backend.study(job, name)
            history = None if study is None else _history(study)
        except InvalidJob as error:
            notices.append(f"the search starts without {name}: {error.mistakes[0]}")
            continue
        except Conflict as error:
            notices.append(f"the search starts without {name}: {error}")
            continue
        if study is None or history is None or not any(t.measurements for t in history.trials):
            reason = "there is no other job of this name" if study is None else "it has no trials"
            notices.append(f"the search starts without {name}: {reason}")
        elif study.job.annotations.get(keys.REASON) == Reason.NOT_WIRED:
            notices.append(f"the search starts without {name}: its settings had no effect on its training")
        elif study.job.annotations.get(keys.REASON) == Reason.ANSWER_IN_DOUBT:
            notices.append(f"the search starts without {name}: what its runs trained is in doubt")
        else:
            found.append(history)
    return tuple(found), notices


def _history(study: Study) -> History:
    spec = study.job.spec()
    return History.of(spec, with_doubts(study.trials, spec))


def _stopped(
    spec: TuningSpec, decision: Decision, trials: tuple[Trial, ...], now: datetime
) -> dict[int, Trial]:
    """Return the records of the trials that the decision stops."""
    by_number = {trial.number: trial for trial in trials}
    return {
        stop.number: replace(
            by_number[stop.number],
            outcome=stop.outcome,
            ended_at=now,
            message=stop_message(stop, spec),
            is_complete=False,
            judged=stop.judged,
        )
        for stop in decision.stop
    }


def _start(
    backend: Backend, job: Job, decision: Decision, admit: Admit
) -> tuple[tuple[Suggestion, ...], tuple[Suggestion, ...], tuple[str, ...]]:
    """Start the trials that are admitted.

    Returns:
        Those that were started, those that were put off, and a notice if the cluster's rules forbid the next.
    """
    started: list[Suggestion] = []
    for suggestion in decision.start:
        if not admit(suggestion):
            break
        try:
            backend.start(job, suggestion)
        except Refused as error:
            # Running trials continue, and their logs are read.
            return tuple(started), (), (f"trial {suggestion.number} cannot start, will retry: {error}",)
        started.append(suggestion)
    return tuple(started), tuple(decision.start[len(started) :]), ()


def _confirmed(decision: Decision, trials: tuple[Trial, ...]) -> Suggestion | None:
    """Return the suggestion that the final answer was measured with, once it is confirmed."""
    answer = decision.answer
    if not (decision.is_final and answer is not None and answer.is_confirmed):
        return None
    return answer.realised_by(trials)
