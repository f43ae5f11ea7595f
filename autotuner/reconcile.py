"""One pass over one job: observe, decide, act, record, publish.

The pass holds no state between calls: all that it knows, it has just read. The order is what makes a crash
between any two lines harmless: a trial's end is recorded before its remains are removed, trials are started
under names that are the same whoever asks, and the status is written once, last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import yaml

from autotuner import keys
from autotuner.backends.base import Backend, Observation
from autotuner.decide import decide
from autotuner.decide.decision import Decision, Phase, Reason
from autotuner.errors import InvalidJob
from autotuner.job.job import Job
from autotuner.job.trial_manifest import answer_patch, answered_job, answered_spec
from autotuner.spec import TuningSpec
from autotuner.status import Status, describe, describe_invalid, events, has_running
from autotuner.trial import Suggestion, Trial
from autotuner.wording import stop_message

_SETTLED = frozenset({str(Phase.DONE), str(Phase.FAILED)})


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What one pass saw and did.

    `decision` is None where the job is settled or cannot be tuned as it is written. `finished` are the
    trials that this pass recorded, `started` and `put_off` what the decision wanted started.
    """

    job: Job
    status: Status
    decision: Decision | None = None
    trials: tuple[Trial, ...] = ()
    finished: tuple[Trial, ...] = ()
    started: tuple[Suggestion, ...] = ()
    put_off: tuple[Suggestion, ...] = ()


Admit = Callable[[Suggestion], bool]
"""Returns whether a trial may start now: the say of whoever has several jobs to care for."""


def reconcile(backend: Backend, job: Job, now: datetime, admit: Admit = lambda _: True) -> Reconciliation:
    """Drive one registered job one step further.

    A start that `admit` refuses is put off: whoever refused has the job come again.

    Raises:
        BackendError: If the cluster or the machine did not do as asked; come again.
    """
    if is_settled(job):
        return Reconciliation(job, Status(job.annotations))
    try:
        spec = job.spec()
    except InvalidJob as error:
        return _reconcile_invalid(backend, job, error)

    seen = backend.observe(job, spec)
    finished = _record_ended(backend, job, seen)
    trials = merge(seen)
    decision = decide(spec, trials, now)
    stopped = _stopped(spec, decision, trials, now)
    for trial in stopped.values():
        backend.record(job, trial)
        backend.stop(job, trial.number)
    started, put_off = _start(backend, job, decision, admit)
    trials = (
        *(stopped.get(trial.number, trial) for trial in trials),
        *(Trial(suggestion) for suggestion in started),
    )
    notices = [*seen.notices]
    if put_off:
        notices.append(f"waits for a place for {len(put_off)} more trials: other jobs' trials take them all")
    suggestion = _confirmed(decision, trials) if spec.apply else None
    answered = None
    if suggestion is not None and spec.apply is True:
        if job.kind.takes_answer:
            answered = answered_spec(job, suggestion)
        else:
            made = answered_job(job, suggestion, spec.apply_as)
            backend.apply(job, made)
            notices.append(f"the answer runs as {job.kind.name} {made['metadata']['name']}")
    observed = (job if answered is None else job.with_spec(answered)).fingerprint
    status = describe(decision, spec, trials, observed, notices)
    if suggestion is not None and spec.apply == "patch":
        patch = yaml.safe_dump(answer_patch(job, suggestion), sort_keys=False)
        status = Status({**status.annotations, keys.PATCH: patch})
    backend.publish(job, status, events(job.annotations, status), answered)
    return Reconciliation(job, status, decision, trials, (*finished, *stopped.values()), started, put_off)


def _reconcile_invalid(backend: Backend, job: Job, error: InvalidJob) -> Reconciliation:
    """Start nothing, keep what runs, record what ends, and publish what is wrong.

    Where the mistake leaves unknown how logs are read, what ends stays unrecorded until it is fixed.
    """
    spec = job.readable_spec()
    trials: tuple[Trial, ...] | None = None
    finished: tuple[Trial, ...] = ()
    if spec is not None:
        seen = backend.observe(job, spec)
        finished = _record_ended(backend, job, seen)
        trials = merge(seen)
    status = describe_invalid(error, job.annotations, job.fingerprint, trials)
    backend.publish(job, status, events(job.annotations, status))
    return Reconciliation(job, status, trials=trials or (), finished=finished)


def withdraw(backend: Backend, job: Job) -> None:
    """Stop the trials of a job that is no longer to be tuned; the ledger stays."""
    for number in backend.existing(job):
        backend.stop(job, number)


def is_settled(job: Job) -> bool:
    """Return whether the job's own status says that nothing is left to do, for the job as it stands."""
    phase = job.annotations.get(keys.PHASE)
    if job.annotations.get(keys.OBSERVED) != job.fingerprint:
        return False
    if phase == Phase.INVALID:
        # Held for a mistake or for a doubt about the log: trials that still run are followed to their ends.
        is_wrong = job.annotations.get(keys.REASON) == Reason.INVALID_CONFIGURATION
        return is_wrong and not has_running(job.annotations)
    return phase in _SETTLED


def merge(seen: Observation) -> tuple[Trial, ...]:
    """Return every trial once, by number; the ledger's word counts where both have one."""
    by_number = {trial.number: trial for trial in (*seen.live, *seen.recorded)}
    return tuple(by_number[number] for number in sorted(by_number))


def _record_ended(backend: Backend, job: Job, seen: Observation) -> tuple[Trial, ...]:
    """Record the trials that ended by themselves, and remove what is left of the recorded ones.

    What ended while the reading of its log is in doubt is kept: once the user says how, it is read again.
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


def _stopped(
    spec: TuningSpec, decision: Decision, trials: tuple[Trial, ...], now: datetime
) -> dict[int, Trial]:
    """Return the trials that the decision ends, as they are to be recorded."""
    by_number = {trial.number: trial for trial in trials}
    return {
        stop.number: replace(
            by_number[stop.number],
            outcome=stop.outcome,
            ended_at=now,
            message=stop_message(stop, spec),
            is_complete=False,
        )
        for stop in decision.stop
    }


def _start(
    backend: Backend, job: Job, decision: Decision, admit: Admit
) -> tuple[tuple[Suggestion, ...], tuple[Suggestion, ...]]:
    """Start what may start; return what was started, and what was put off."""
    started: list[Suggestion] = []
    for suggestion in decision.start:
        if not admit(suggestion):
            break
        backend.start(job, suggestion)
        started.append(suggestion)
    return tuple(started), tuple(decision.start[len(started) :])


def _confirmed(decision: Decision, trials: tuple[Trial, ...]) -> Suggestion | None:
    """Return the suggestion that the final answer was measured with, once it is confirmed."""
    answer = decision.answer
    if not (decision.is_final and answer is not None and answer.is_confirmed):
        return None
    return answer.realised_by(trials)
