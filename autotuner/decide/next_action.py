"""Decide what to do now: one pure function of the spec, the trials and the time.

`decide` is called after every change, on a cluster, on a laptop and in simulated time. It keeps no state
between calls: the process can be killed at any moment, and the next call reads the same trials and reaches
the same answer.

`autotuner.decide.stops` holds the rules that stop trials, `autotuner.decide.rules` those that start them and
end the study. `autotuner.search` computes the model of the search.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from autotuner.decide.checks import is_unchecked
from autotuner.decide.decision import Decision, Reason, Stop, StopReason
from autotuner.decide.rules import Finish, Start, Step, next_step
from autotuner.decide.standing import Standing
from autotuner.decide.stops import AS_JUDGED, AS_SEEN, StopRule, next_stop, verdict_stop
from autotuner.search.replay import replayed
from autotuner.spec import TuningSpec
from autotuner.study.finding import NOT_COUNTED
from autotuner.study.finding import Reason as Doubt
from autotuner.study.findings.data_size import largest_batch
from autotuner.study.history import History
from autotuner.study.layout_bounds import within_reach
from autotuner.trial import Outcome, Suggestion, Trial

WARNINGS: Final = frozenset(
    {
        Doubt.SEED_NOT_USED,
        Doubt.MET_AT_ONCE,
        Doubt.LOSS_FALLS,
        Doubt.NEVER_WORSE,
        Doubt.BATCH_NOT_FOLLOWED,
        Doubt.IN_DOUBT,
        Doubt.RATE_NOT_USED,
        Doubt.LARGER_THAN_DATA,
        Doubt.RUN_LENGTH_TOO_LONG,
        Doubt.SIZES_FAIL,
        Doubt.NO_MEMORY,
        Doubt.SETTINGS_FAIL,
        Doubt.OVERDUE,
    }
)
"""Doubts that are shown to the user and do not end the study."""
MAX_RESUMED: Final = 2
"""Maximum number of runs that do not count of which a status warns."""


def decide(
    spec: TuningSpec,
    trials: Iterable[Trial],
    now: datetime,
    earlier: tuple[History, ...] = (),
    *,
    is_batch_in_doubt: bool = False,
) -> Decision:
    """Return what to start, what to stop and what to publish.

    Args:
        spec: The parsed annotations of the job.
        trials: Every trial of the job, in any order, ended or running.
        now: The current time, for deadlines and costs; timezone-aware if the trials' own times are.
        earlier: Studies whose trials inform the search as prior data of other tasks.
        is_batch_in_doubt: Whether the job does not seem to pass on the batch size: the first trials then
            change nothing else, which shows it.
    """
    history = History.of(spec, trials)
    reach = within_reach(spec, largest_batch(history.trials, spec))
    standing = Standing.of(replace(history, spec=reach), now, earlier)
    standing = replace(standing, is_batch_in_doubt=is_batch_in_doubt)
    stops: dict[int, Stop] = {}
    # One after the other, each based on those before: so it makes no difference whether the process
    # dies between two of them.
    standing = _stopping(standing, AS_SEEN, stops)
    judged = replayed(standing.history, earlier)
    standing = replace(standing, history=judged.history)
    for trial in standing.history.running:
        verdict = judged.verdicts.get(trial.number)
        if verdict is not None:
            stops[trial.number] = verdict_stop(trial.number, verdict, judged.study)
            standing = standing.ending(trial.number, verdict.outcome)
    standing = _stopping(standing, AS_JUDGED, stops)
    standing, step, starts = _starting(standing)
    is_final = isinstance(step, Finish)
    if is_final:
        for trial in standing.history.running:
            stops[trial.number] = Stop(trial.number, Outcome.DOMINATED, StopReason.STUDY_ENDED)
    # If settings have no effect, an answer that was confirmed before this was detected is false, too.
    is_false = step.reason is Reason.NOT_WIRED
    return Decision(
        phase=step.phase,
        reason=step.reason,
        facts=step.facts,
        start=starts,
        stop=tuple(stops[number] for number in sorted(stops)),
        answer=None if is_false else standing.answer(step.reason if is_final else None),
        candidate=None if is_final else standing.candidate(),
        warnings=tuple(warning for warning in _warnings(standing) if warning != step.facts.detail),
        is_final=is_final,
    )


def _stopping(standing: Standing, rules: tuple[StopRule, ...], stops: dict[int, Stop]) -> Standing:
    """Return the standing after every stop that the rules ask for, and add them to `stops`."""
    while (stop := next_stop(standing, rules)) is not None:
        stops[stop.number] = stop
        standing = standing.ending(stop.number, stop.outcome)
    return standing


def _starting(standing: Standing) -> tuple[Standing, Step, tuple[Suggestion, ...]]:
    """Return the standing after every start for which a slot is free, the last step, and what was started."""
    starts: list[Suggestion] = []
    step = next_step(standing)
    while isinstance(step, Start) and standing.free_slots > 0:
        starts.append(step.suggestion)
        standing = standing.starting(step.suggestion)
        following = next_step(standing)
        if isinstance(following, Finish):
            break  # The results of a trial that was just started are not known yet.
        step = following
    return standing, step, tuple(starts)


def _warnings(standing: Standing) -> tuple[str, ...]:
    """Return the doubts that do not hold the study, and messages about runs that do not count."""
    resumed = [f for f in standing.findings if f.reason in NOT_COUNTED][-MAX_RESUMED:]
    silent = [f for f in standing.findings if f.reason is Doubt.ENDED_UNREPORTED][:1]
    others = [f for f in standing.findings if f.reason in WARNINGS]
    said = [finding.message for finding in (*others, *silent, *resumed)]
    confirmed = standing.confirmed
    if confirmed is not None and is_unchecked(standing, confirmed):
        said.append(
            f"nothing shows that the script trains a batch of {confirmed.batch_size}: its runs print their"
            " first value so late that a check would cost a whole run; report the batch size, as with"
            " sdk.report(epoch, ..., batch_size=...), print the loss of the training, or evaluate earlier"
        )
    return tuple(said)
