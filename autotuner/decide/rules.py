"""The rules that start trials and end a study, in order: the first that returns a step decides.

The job runs unchanged (`run_baseline`). With one of Optuna's own samplers, the batch size is doubled while
the target is met (`climb`). The sampler proposes trials (`propose`). Once a larger batch is unlikely, the
start of the answer's run is repeated with a smaller batch, which must make a difference (`check_batch`). In
doubt the study ends without a confirmation (`leave_in_doubt`). Else runs with fresh seeds must reach the
target with the answer's setting, or a larger one that is likely to pass (`confirm`). A failed confirmation is
data, and the search continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from autotuner.decide.checks import next_check, running_check
from autotuner.decide.decision import NO_FACTS, Facts, Phase, Reason
from autotuner.decide.failures import Fault, failure, is_programs_fault, to_check, to_retry
from autotuner.decide.standing import Standing
from autotuner.errors import Unrealisable
from autotuner.search.known_good import RUNS as KNOWN_GOOD_RUNS
from autotuner.search.sampler import propose as proposal
from autotuner.study.finding import Reason as Doubt
from autotuner.study.findings.batch_check import repeated_by
from autotuner.study.history import curve
from autotuner.study.layout_bounds import bounds, nearest
from autotuner.study.setting import Setting, setting
from autotuner.trial import Outcome, Purpose, Suggestion, Trial

BASELINE_RUNS: Final = 2
"""Runs of the unchanged job that met the target and were interrupted, after which the study continues without
knowing how long a run is."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Start nothing now."""

    phase: Phase
    reason: Reason
    facts: Facts = NO_FACTS


@dataclass(frozen=True, slots=True)
class Finish(Wait):
    """End the study."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a trial, as soon as a slot is free."""

    suggestion: Suggestion
    phase: Phase
    reason: Reason
    facts: Facts = NO_FACTS


Step = Start | Wait
Rule = Callable[[Standing], Step | None]


def next_step(standing: Standing) -> Step:
    """Return the step of the first rule that applies."""
    return next(step for rule in RULES if (step := rule(standing)) is not None)


def require_layouts(standing: Standing) -> Step | None:
    """End a study whose annotations allow no batch size with a layout."""
    try:
        bounds(standing.history)
    except Unrealisable as error:
        return Finish(Phase.FAILED, Reason.NO_LAYOUT, Facts(detail=str(error)))
    return None


def give_up_on_failures(standing: Standing) -> Step | None:
    """End a study whose program fails, or whose trials the cluster loses again and again."""
    found = failure(standing.history, standing.now)
    if found is None:
        return None
    trial = found.trial
    facts = Facts(
        number=trial.number,
        outcome=trial.outcome,
        batch_size=trial.suggestion.batch_size,
        count=found.count,
        detail=trial.message,
    )
    return Finish(Phase.FAILED, _REASONS[found.fault], facts)


_REASONS: Final[Mapping[Fault, Reason]] = {
    Fault.PROGRAM: Reason.PROGRAM_FAILS,
    Fault.NO_METRIC: Reason.METRIC_NOT_FOUND,
    Fault.CLUSTER: Reason.CLUSTER_LOSES_TRIALS,
}


def stop_without_effect(standing: Standing) -> Step | None:
    """End a study whose settings have no effect: any answer would be false."""
    for finding in standing.findings:
        if finding.reason is Doubt.NOT_WIRED:
            return Finish(Phase.FAILED, Reason.NOT_WIRED, Facts(detail=finding.message))
    return None


def hold_in_doubt(standing: Standing) -> Step | None:
    """Start nothing while the reading of a log is in doubt; running trials continue, and are read again."""
    doubtful = next((t for t in standing.history.trials if t.doubt), None)
    if doubtful is None:
        return None
    facts = Facts(number=doubtful.number, detail=doubtful.doubt)
    return Wait(Phase.INVALID, Reason.METRIC_IN_DOUBT, facts)


def hold_for_run_length(standing: Standing) -> Step | None:
    """Start nothing while `run-length` would end every run at its first report."""
    for finding in standing.findings:
        if finding.reason is Doubt.RUN_LENGTH_TOO_SHORT:
            return Wait(Phase.INVALID, Reason.RUN_LENGTH_TOO_SHORT, Facts(detail=finding.message))
    return None


def hold_while_paused(standing: Standing) -> Step | None:
    """Start nothing while the job is paused."""
    if not standing.spec.paused:
        return None
    return Wait(Phase.PAUSED, Reason.PAUSED, Facts(count=len(standing.history.running)))


def keep_within_gpu_hours(standing: Standing) -> Step | None:
    """End a study that has used its GPU-hours."""
    limit = standing.spec.max_gpu_hours
    if limit is None or standing.charged_gpu_hours < limit:
        return None
    return Finish(Phase.DONE, Reason.GPU_HOURS_SPENT)


def retry(standing: Standing) -> Step | None:
    """Retry a lost trial unchanged, or an out-of-memory trial with a smaller micro-batch.

    Not if the user has since taken its batch size, or one of its hyperparameters, out of the search.
    """
    for lost in to_retry(standing.history):
        if not _may_run(standing, lost):
            continue
        again = standing.suggest(setting(lost), lost.suggestion.purpose, rerun_of=lost)
        facts = Facts(number=lost.number, outcome=lost.outcome)
        return Start(again, Phase.SEARCHING, Reason.RETRYING, facts)
    return None


def _may_run(standing: Standing, lost: Trial) -> bool:
    tried, purpose = setting(lost), lost.suggestion.purpose
    # A check repeats a run with a smaller batch, which may be below the range.
    is_own = tried == standing.baseline or purpose in {Purpose.BASELINE, Purpose.CHECK}
    return is_own or standing.space.allows(tried)


def keep_within_trials(standing: Standing) -> Step | None:
    """End a study that has used all of its trials."""
    if standing.trials_left > 0 or standing.history.running:
        return None
    return Finish(Phase.DONE, Reason.TRIALS_SPENT)


def run_baseline(standing: Standing) -> Step | None:
    """Run the job unchanged until it meets the target; end the study if it misses it."""
    history = standing.history
    runs = [
        t
        for t in history.trials
        if t.suggestion.purpose is Purpose.BASELINE
        and t.outcome is not Outcome.LOST
        and not is_programs_fault(history, t)
    ]
    met = [t for t in runs if history.has_reached(t)]
    ended = [t for t in met if not t.is_running]
    is_shown = history.is_length_known or len(ended) >= BASELINE_RUNS
    has_gone_on = any(t.suggestion.purpose is not Purpose.BASELINE for t in history.trials)
    if met and is_shown and has_gone_on:
        return None
    if any(t.is_running for t in runs):
        return None if met and is_shown else Wait(Phase.SEARCHING, Reason.BASELINE_RUNNING)
    if ended and not is_shown:
        # It met the target and was interrupted: it has not shown how long a run is.
        again = standing.suggest(standing.baseline, Purpose.BASELINE, rerun_of=ended[-1])
        return Start(again, Phase.SEARCHING, Reason.BASELINE_RUNNING)
    own = standing.known_good
    if not runs or (own.needs_run and len(runs) < KNOWN_GOOD_RUNS):
        first = standing.suggest(standing.baseline, Purpose.BASELINE)
        return Start(first, Phase.SEARCHING, Reason.BASELINE_RUNNING)
    if met and not own.is_met_by_chance:
        return None
    target = standing.spec.target
    bests = [best for t in runs if (best := curve(t).best(target)) is not None]
    facts = Facts(value=max(bests, key=target.margin, default=None), detail=own.text(target))
    return Finish(Phase.DONE, Reason.BASELINE_MISSES, facts)


def check_program(standing: Standing) -> Step | None:
    """Find out who is at fault if the program has failed with settings that have never worked.

    The unchanged job runs again, then a failing batch size with hyperparameters that work at a smaller one
    (`failures.to_check`).
    """
    tried = to_check(standing.history)
    if tried is None or standing.trials_left <= 0:
        return None
    facts = Facts(batch_size=tried.batch_size)
    if any(setting(t) == tried for t in standing.history.running):
        return Wait(Phase.SEARCHING, Reason.CHECKING_PROGRAM, facts)
    purpose = Purpose.BASELINE if tried == standing.baseline else Purpose.SEARCH
    return Start(standing.suggest(tried, purpose), Phase.SEARCHING, Reason.CHECKING_PROGRAM, facts)


def check_batch(standing: Standing) -> Step | None:
    """Check that the script trains the answer's batch, before it is confirmed; runs at once may do both.

    The answer is final only after the checks (`autotuner.study.findings.batch_check`). None is due for one
    that is in doubt already.
    """
    best = standing.incumbent
    if best is None or not _is_to_be_confirmed(standing, best):
        return None
    is_confirmed, tried = _next_to_confirm(standing, best)
    if standing.doubt(tried) is not None:
        return None
    running = running_check(standing.history)
    if running is not None:
        return _checking(standing, running) if is_confirmed else None
    if standing.free_slots <= 0:
        is_due = is_confirmed and next_check(standing, tried) is not None
        return Wait(Phase.CONFIRMING, Reason.CONFIRMING, _confirmation(standing, best)) if is_due else None
    check = next_check(standing, tried)
    if check is None:
        return None
    return Start(check, Phase.CONFIRMING, Reason.CHECKING_BATCH, _checking(standing, check).facts)


def _checking(standing: Standing, check: Suggestion) -> Wait:
    original = repeated_by(check, standing.history.trials)
    number, size, rate = None, None, ""
    if original is not None:
        number, repeated, name = original.number, original.suggestion, standing.spec.learning_rate
        size = check.batch_size if check.batch_size != repeated.batch_size else None
        if name is not None and check.parameters != repeated.parameters:
            rate = f"{name} {check.parameters[name]:.4g}"
    facts = Facts(number=number, batch_size=size, detail=rate)
    return Wait(Phase.CONFIRMING, Reason.CHECKING_BATCH, facts)


def _is_to_be_confirmed(standing: Standing, best: Setting) -> bool:
    # A trial that leaves too little for the confirmation after it would leave the answer in doubt.
    return standing.is_enough(best) or standing.lacks(1 + standing.owed(best)) is not None


def _next_to_confirm(standing: Standing, best: Setting) -> tuple[bool, Setting]:
    """Return whether the answer is confirmed, and the setting that its checks and confirmations are about."""
    is_confirmed = standing.reached(best) >= standing.spec.confirmations
    return is_confirmed, best if is_confirmed else standing.to_confirm(best)


def leave_in_doubt(standing: Standing) -> Step | None:
    """End a study if the setting to confirm is in doubt: runs with fresh seeds would not tell."""
    best = standing.incumbent
    if best is None or not _is_to_be_confirmed(standing, best):
        return None
    _, tried = _next_to_confirm(standing, best)
    if (doubt := standing.doubt(tried)) is None:
        return None
    facts = Facts(batch_size=tried.batch_size, detail=doubt.message)
    return Finish(Phase.DONE, Reason.ANSWER_IN_DOUBT, facts)


def confirm(standing: Standing) -> Step | None:
    """Confirm the incumbent, or a bolder setting, with fresh seeds, once the search is done."""
    best = standing.incumbent
    if best is None or not _is_to_be_confirmed(standing, best):
        return None
    history, wanted, reached = standing.history, standing.spec.confirmations, standing.reached(best)
    if reached >= wanted:
        return _confirmed(standing, best, standing.lacks(1 + standing.owed(best)))
    if standing.free_slots <= 0:
        return _under_way(standing, best)
    tried = standing.to_confirm(best)
    facts = _confirmation(standing, tried)
    runs = [t for t in history.confirmations.get(tried, ()) if t.is_running or history.has_reached(t)]
    if len(runs) < wanted and standing.trials_left > 0:
        return Start(standing.suggest(tried, Purpose.CONFIRM), Phase.CONFIRMING, Reason.CONFIRMING, facts)
    if history.running:
        return Wait(Phase.CONFIRMING, Reason.CONFIRMING, facts)
    return Finish(Phase.DONE, Reason.TRIALS_SPENT)


def _under_way(standing: Standing, best: Setting) -> Wait:
    """Wait for the trials that run, and name their purpose: the next confirmation may be another's."""
    confirming = [t for t in standing.history.running if t.suggestion.purpose is Purpose.CONFIRM]
    check = running_check(standing.history)
    if not confirming and check is not None:
        return _checking(standing, check)
    if not confirming:
        return Wait(Phase.SEARCHING, Reason.SEARCHING, Facts(batch_size=best.batch_size))
    facts = _confirmation(standing, setting(confirming[-1]))
    return Wait(Phase.CONFIRMING, Reason.CONFIRMING, facts)


def _confirmation(standing: Standing, tried: Setting) -> Facts:
    return Facts(batch_size=tried.batch_size, count=standing.reached(tried))


def _confirmed(standing: Standing, best: Setting, spent: Reason | None) -> Finish:
    if best.batch_size >= standing.spec.batch_size.maximum:
        reason = Reason.LARGEST_ALLOWED
    elif spent is not None and not standing.is_enough(best):
        reason = spent
    elif standing.is_larger_unlikely(best):
        reason = Reason.LARGER_UNLIKELY
    else:
        reason = Reason.GAIN_TOO_SMALL
    return Finish(Phase.DONE, reason)


def give_up_without_feasible(standing: Standing) -> Step | None:
    """End a study if no batch size meets the target and none is expected to."""
    if standing.incumbent is not None or standing.history.running or not standing.is_enough(None):
        return None
    said = standing.known_good.text(standing.spec.target)
    return Finish(Phase.DONE, Reason.NOTHING_FEASIBLE, Facts(detail=said))


def wait_for_last_trials(standing: Standing) -> Step | None:
    """Wait for running trials once `max-trials` have been started."""
    if standing.trials_left > 0:
        return None
    return Wait(Phase.SEARCHING, Reason.WAITING_FOR_TRIALS, Facts(count=len(standing.history.running)))


def climb(standing: Standing) -> Step | None:
    """Double the batch while the target is met, for samplers without prior knowledge.

    Optuna's own samplers propose from the whole range until they have enough data. The frontier sampler
    starts at the known-good setting by itself; for it this rule would only cost trials.
    """
    history = standing.history
    if standing.spec.sampler == "frontier":
        return None
    climbs = [t for t in history.trials if t.suggestion.purpose in {Purpose.BASELINE, Purpose.CLIMB}]
    top = max(climbs, key=lambda t: (t.suggestion.batch_size, t.number))
    has_searched = any(t.suggestion.purpose is Purpose.SEARCH for t in history.trials)
    if top.is_running or not history.has_reached(top) or has_searched:
        return None
    size = min(2 * top.suggestion.batch_size, standing.spec.batch_size.maximum)
    tried = nearest(history, standing.space.scaled(standing.baseline, size))
    if tried.batch_size <= top.suggestion.batch_size:
        return None
    facts = Facts(batch_size=tried.batch_size)
    return Start(standing.suggest(tried, Purpose.CLIMB), Phase.SEARCHING, Reason.CLIMBING, facts)


def propose(standing: Standing) -> Step:
    """Start what the sampler proposes."""
    best = standing.incumbent
    facts = Facts(batch_size=None if best is None else best.batch_size)
    if standing.free_slots <= 0:
        # A proposal costs a fit of the model, so none is made that cannot start.
        return Wait(Phase.SEARCHING, Reason.SEARCHING, facts)
    tried = proposal(standing.beliefs, standing.history.draws, best)
    return Start(standing.suggest(tried, Purpose.SEARCH), Phase.SEARCHING, Reason.SEARCHING, facts)


RULES: Final[tuple[Rule, ...]] = (
    require_layouts,
    stop_without_effect,
    hold_in_doubt,
    hold_for_run_length,
    give_up_on_failures,
    hold_while_paused,
    keep_within_gpu_hours,
    retry,
    keep_within_trials,
    run_baseline,
    check_program,
    check_batch,
    leave_in_doubt,
    confirm,
    give_up_without_feasible,
    wait_for_last_trials,
    climb,
    propose,
)
