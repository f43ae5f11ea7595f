"""What to do now: one pure function of the spec, the trials and the time.

`decide` is asked again after every change in the world, on a cluster, on a laptop and in simulated time. It
keeps nothing between two calls: whatever it starts or stops, it can be killed right after, and the next call
reads the same story in the trials and goes on to the same answer.

The story of a tuning: the job runs unchanged (`baseline`); with one of optuna's own samplers, batch sizes are
doubled while they hold (`climb`); the sampler proposes (`search`); and once a larger batch is unlikely, fresh
seeds must reach the target with the answer's setting (`confirm`). A failed confirmation is data, and the
search goes on.

What the search believes (will this run reach the target? is a larger batch feasible?) is the affair of
`autotuner.search`; here stand the rules that hold whatever it believes: budgets, deadlines, failures, what
counts as confirmed.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

from autotuner.decision import Answer, Decision, Ended, Phase, Stop
from autotuner.errors import Unrealisable
from autotuner.faults import failure, is_programs_fault, to_run_again
from autotuner.realise import bounds, layout, nearest
from autotuner.search.beliefs import Beliefs
from autotuner.search.frontier import TOLERATED_MISSES
from autotuner.search.history import History, Setting, curve, setting
from autotuner.search.known_good import RUNS as KNOWN_GOOD_RUNS
from autotuner.search.known_good import known_good
from autotuner.search.replay import replayed
from autotuner.search.sampler import propose
from autotuner.search.space import Space
from autotuner.spec import TuningSpec
from autotuner.trial import Outcome, Purpose, Suggestion, Trial

ENOUGH: Final = 0.1
"""The search ends when the probability of a batch half a doubling larger is smaller."""
PATIENCE: Final = 25.0
"""Or than the square of its effort over this, in whole runs: early, one more trial still teaches much; late,
what the model has hoped for so long is not there."""
LEAST_EFFORT: Final = 0.25
"""Part of a run that a trial counts as at least: to start one costs something too."""
LIKELY: Final = 0.9
"""But never while a larger batch is likelier than this: nobody would believe the answer."""
STILL: Final = 2.0
"""A confirmation that has begun is finished as long as the probability is below so many times these."""


def decide(
    spec: TuningSpec, trials: Iterable[Trial], now: datetime, earlier: tuple[History, ...] = ()
) -> Decision:
    """Return what to start, what to stop and what to publish.

    Args:
        spec: What the user asks for.
        trials: Every trial of the job, in any order, ended or running.
        now: The present, for deadlines and costs; aware where the trials' own times are.
        earlier: Studies whose trials are told to the search as prior data of other tasks.
    """
    observed = History.of(spec, trials)
    late = [stop for trial in observed.running if (stop := _deadline(observed, trial, now)) is not None]
    ending = {stop.number: stop for stop in late}
    # From here on every run counts as far as it has been judged: see autotuner.search.replay.
    seen = replayed(observed.ending({stop.number: stop.outcome for stop in late}), earlier)
    for trial in seen.history.running:
        verdict = seen.verdicts.get(trial.number)
        if verdict is not None:
            ending[trial.number] = Stop(trial.number, verdict.outcome, verdict.reason)
    state = _State(
        seen.history.ending({number: stop.outcome for number, stop in ending.items()}), now, earlier
    )
    # One after the other, each in the light of those before: so it makes no difference whether the process
    # dies between two of them.
    while (stop := _first_stop(state)) is not None:
        ending[stop.number] = stop
        state = _State(state.history.ending({stop.number: stop.outcome}), now, earlier)
    decision = state.decision()
    if decision.is_final:
        for trial in state.history.running:
            ending[trial.number] = Stop(trial.number, Outcome.DOMINATED, "the tuning has ended")
    return Decision(
        phase=decision.phase,
        message=decision.message,
        start=decision.start,
        stop=tuple(ending[number] for number in sorted(ending)),
        answer=decision.answer,
        is_final=decision.is_final,
        ended=decision.ended,
    )


def seed_of(spec: TuningSpec, number: int) -> int:
    """Return the seed of a trial: another for every number, and for every seed of the search."""
    start = int.from_bytes(hashlib.sha256(str(spec.seed).encode()).digest()[:4], "big") % 2**30
    return start + number


def _first_stop(state: _State) -> Stop | None:
    """Return the running trial of the lowest number that no longer matters."""
    confirmed = state.confirmed
    for trial in state.history.running:
        if confirmed is not None and trial.suggestion.batch_size <= confirmed.batch_size:
            reason = f"no longer matters: batch size {confirmed.batch_size} is confirmed"
            return Stop(trial.number, Outcome.DOMINATED, reason)
    return None


def _deadline(history: History, trial: Trial, now: datetime) -> Stop | None:
    """Return the stop of a trial that has run too long; the wait for its pods does not count."""
    timeout = history.spec.trial_timeout
    if timeout is None or trial.started_at is None or now - trial.started_at < timeout:
        return None
    if history.has_reached(trial):
        return Stop(trial.number, Outcome.REACHED, f"has reached {history.spec.target}")
    if not len(curve(trial)):
        reason = f"reported no {history.spec.target.metric} within trial-timeout ({timeout})"
        return Stop(trial.number, Outcome.FAILED, reason)
    return Stop(trial.number, Outcome.MISSED, f"did not reach the target within trial-timeout ({timeout})")


@dataclass(frozen=True)
class _State:
    """Where the tuning stands, and what follows."""

    history: History
    now: datetime
    earlier: tuple[History, ...] = ()

    @property
    def spec(self) -> TuningSpec:
        return self.history.spec

    @cached_property
    def space(self) -> Space:
        return Space.of(self.spec)

    @cached_property
    def beliefs(self) -> Beliefs:
        return Beliefs(self.history, self.space, self.earlier)

    @cached_property
    def gpu_hours(self) -> float:
        return sum(trial.gpu_hours(self.now) for trial in self.history.trials)

    @cached_property
    def baseline(self) -> Setting:
        return Setting.of(self.spec.baseline_batch_size, self.spec.baseline_parameters)

    # --- what is confirmed -------------------------------------------------------------------------

    @cached_property
    def rejected(self) -> frozenset[Setting]:
        """Settings that too many confirmation runs missed the target with.

        One miss beside as many successes as are wanted may be the noise of a good setting; the model, which
        has the miss as data, says whether it is.
        """
        return frozenset(
            tried for tried in self.history.confirmations if self._missed(tried) > TOLERATED_MISSES
        )

    @cached_property
    def confirmed(self) -> Setting | None:
        """The largest batch that as many confirmation runs as are wanted have reached the target with."""
        held = [
            tried for tried in self.history.confirmations if self._reached(tried) >= self.spec.confirmations
        ]
        return max((s for s in held if s not in self.rejected), key=_by_size, default=None)

    def _reached(self, tried: Setting) -> int:
        return self.history.tally(tried)[0]

    def _missed(self, tried: Setting) -> int:
        return self.history.tally(tried)[1]

    @cached_property
    def incumbent(self) -> Setting | None:
        """What stands as the answer now, confirmed or not."""
        held = self.beliefs.incumbent(self.rejected)
        if held is None and self.baseline not in self.rejected and self._has_baseline_reached():
            held = self.baseline
        if self.confirmed is not None and (held is None or held.batch_size <= self.confirmed.batch_size):
            return self.confirmed
        return held

    def _has_baseline_reached(self) -> bool:
        runs = (t for t in self.history.trials if t.suggestion.purpose is Purpose.BASELINE)
        return any(map(self.history.has_reached, runs))

    def answer(self, ended: Ended | None = None) -> Answer | None:
        tried = self.incumbent
        if ended is not None and self.confirmed is not None:
            tried = self.confirmed
        if tried is None:
            return None
        told = [
            t
            for t in self.history.confirmations.get(tried, ())
            if self.history.has_reached(t) or self.history.has_missed(t)
        ]
        bests = [best for t in told if (best := curve(t).best(self.spec.target)) is not None]
        return Answer(
            batch_size=tried.batch_size,
            parameters=tried.parameters,
            confirmed=min(self._reached(tried), self.spec.confirmations),
            missed=self._missed(tried),
            confirmations=self.spec.confirmations,
            metric=statistics.median(bests) if bests else None,
            probability_larger=self.beliefs.probability_larger(tried.batch_size),
            gpu_hours=self.gpu_hours,
            ended=ended,
        )

    # --- what to do ----------------------------------------------------------------------------------

    def decision(self) -> Decision:
        """Return what to start and publish, or the end; what to stop has been seen to."""
        try:
            bounds(self.history)
        except Unrealisable as error:
            return Decision(Phase.FAILED, str(error), is_final=True, ended=Ended.PROGRAM_FAILS)
        failed = failure(self.history)
        if failed is not None:
            return self._final(Phase.FAILED, failed, Ended.PROGRAM_FAILS)
        if self.spec.paused:
            return Decision(Phase.PAUSED, f"paused; {self._running_text()}", answer=self.answer())
        return self._ending() or self._going_on()

    def _ending(self) -> Decision | None:
        limit = self.spec.max_gpu_hours
        if limit is not None and self.gpu_hours >= limit:
            return self._budget_end(f"max-gpu-hours ({limit:g}) is spent", Ended.GPU_HOURS_SPENT)
        if to_run_again(self.history):
            return None
        if self.history.spent >= self.spec.max_trials and not self.history.running:
            return self._spent()
        return None

    def _going_on(self) -> Decision:
        starts: list[Suggestion] = []
        history = self.history
        free = self.spec.parallel_trials - len(history.running)
        phase, message, final = Phase.SEARCHING, "", None
        state = self
        while True:
            step = state._next(has_place=len(starts) < free)
            if isinstance(step, Decision):
                final = step
                break
            phase, message, suggestion = step
            if suggestion is None or len(starts) >= free:
                break
            starts.append(suggestion)
            history = History.of(self.spec, (*history.trials, Trial(suggestion)))
            state = _State(history, self.now, self.earlier)
        if final is not None and not starts:
            return final
        return Decision(phase, message, tuple(starts), answer=self.answer())

    def _next(self, *, has_place: bool) -> tuple[Phase, str, Suggestion | None] | Decision:
        """Return the next trial to start were a place free, or the end."""
        history = self.history
        for lost in to_run_again(self.history):
            again = self._suggest(setting(lost), lost.suggestion.purpose, rerun_of=lost)
            return Phase.SEARCHING, f"runs trial {lost.number} again, which {_FATE.get(lost.outcome)}", again
        baseline = self._baseline_step()
        if baseline is not None:
            return baseline
        best = self.incumbent
        left = self.spec.max_trials - history.spent
        if best is not None:
            owed = self.spec.confirmations - self._reached(best)
            if self._is_enough(best) or left <= owed:
                return self._confirm(best)
        elif not history.running and self._is_enough(None):
            text = f"no batch size meets {self.spec.target}; {known_good(history).text(self.spec.target)}"
            return self._final(Phase.DONE, text, Ended.NOTHING_FEASIBLE)
        if left <= 0:
            if history.running:
                return Phase.SEARCHING, f"waits for the last trials; {self._running_text()}", None
            return self._spent()
        return self._searching(has_place=has_place)

    def _spent(self) -> Decision:
        return self._budget_end(f"max-trials ({self.spec.max_trials}) is spent", Ended.TRIALS_SPENT)

    def _searching(self, *, has_place: bool) -> tuple[Phase, str, Suggestion | None]:
        climbing = self._climb()
        if climbing is not None:
            text = f"climbs to batch size {climbing.batch_size}"
            return Phase.SEARCHING, text, self._suggest(climbing, Purpose.CLIMB)
        if not has_place:
            return Phase.SEARCHING, self._searching_text(), None
        tried = nearest(self.history, propose(self.beliefs, self.history.next_number, self.incumbent))
        return Phase.SEARCHING, self._searching_text(), self._suggest(tried, Purpose.SEARCH)

    def _baseline_step(self) -> tuple[Phase, str, Suggestion | None] | Decision | None:
        """Return the run of the job unchanged where one is still wanted."""
        runs = [
            t
            for t in self.history.trials
            if t.suggestion.purpose is Purpose.BASELINE
            and t.outcome is not Outcome.LOST
            and not is_programs_fault(self.history, t)
        ]
        reached = any(map(self.history.has_reached, runs))
        if reached and any(t.suggestion.purpose is not Purpose.BASELINE for t in self.history.trials):
            return None
        message = f"runs the job unchanged, at batch size {self.baseline.batch_size}"
        if any(t.is_running for t in runs):
            return None if reached else (Phase.SEARCHING, message, None)
        shown = known_good(self.history)
        if shown.needs_run and len(runs) < KNOWN_GOOD_RUNS:
            return Phase.SEARCHING, message, self._suggest(self.baseline, Purpose.BASELINE)
        if reached and not shown.is_met_by_chance:
            return None
        bests = [best for t in runs if (best := curve(t).best(self.spec.target)) is not None]
        shows = f"its best is {max(bests, key=self.spec.target.margin):g}" if bests else "it measured nothing"
        text = f"the job unchanged misses {self.spec.target}: {shows}; {shown.text(self.spec.target)}"
        return self._final(Phase.DONE, text, Ended.BASELINE_MISSES)

    def _is_enough(self, best: Setting | None) -> bool:
        """Return whether a larger batch is unlikely, or too unlikely for how long the search has taken."""
        larger = self.beliefs.probability_larger(0 if best is None else best.batch_size)
        if larger is None:
            return False
        bound = min(max(ENOUGH, (self._effort / PATIENCE) ** 2), LIKELY)
        return larger < (STILL * bound if best is not None and self._is_confirming(best) else bound)

    @property
    def _effort(self) -> float:
        """What the search has trained, in whole runs; what still runs counts as one, which it may become."""

        def length(trial: Trial) -> float:
            return self.history.length_of(trial.suggestion.batch_size) or math.inf

        searched = [t for t in self.history.trials if t.suggestion.purpose is Purpose.SEARCH]
        trained = (1.0 if t.is_running else curve(t).last_step / length(t) for t in searched)
        return sum(max(part, LEAST_EFFORT) for part in trained)

    def _settled(self, best: Setting) -> Ended:
        larger = self.beliefs.probability_larger(best.batch_size)
        return Ended.LARGER_UNLIKELY if larger is None or larger < ENOUGH else Ended.NOT_WORTH

    def _is_confirming(self, tried: Setting) -> bool:
        last = self.history.trials[-1]
        wanted = self._reached(tried) < self.spec.confirmations
        return wanted and last.suggestion.purpose is Purpose.CONFIRM and setting(last) == tried

    def _climb(self) -> Setting | None:
        """Return the next doubling while every one so far has held, for the samplers that know no better.

        Optuna's own propose from the whole range before they have seen enough; the frontier sampler, which
        starts at the known-good setting by itself, only pays for it.
        """
        if self.spec.sampler == "frontier":
            return None
        climbs = [t for t in self.history.trials if t.suggestion.purpose in {Purpose.BASELINE, Purpose.CLIMB}]
        top = max(climbs, key=lambda t: (t.suggestion.batch_size, t.number))
        if (
            top.is_running
            or not self.history.has_reached(top)
            or any(t.suggestion.purpose is Purpose.SEARCH for t in self.history.trials)
        ):
            return None
        size = min(2 * top.suggestion.batch_size, self.spec.batch_size.maximum)
        climbing = nearest(self.history, self.space.scaled(self.baseline, size))
        return climbing if climbing.batch_size > top.suggestion.batch_size else None

    def _confirm(self, tried: Setting) -> tuple[Phase, str, Suggestion | None] | Decision:
        runs = [
            t
            for t in self.history.confirmations.get(tried, ())
            if t.is_running or self.history.has_reached(t)
        ]
        reached = self._reached(tried)
        wanted = self.spec.confirmations
        if reached >= wanted:
            top = tried.batch_size >= self.spec.batch_size.maximum
            spent = not self._is_enough(tried)
            ended = Ended.LARGEST_ALLOWED if top else Ended.TRIALS_SPENT if spent else self._settled(tried)
            found = self.answer(ended)
            tally = "" if found is None else f"{found.tally} confirmation runs reached the target"
            return self._final(Phase.DONE, f"batch size {tried.batch_size}: {tally}; {ended}", ended)
        message = (
            f"confirms batch size {tried.batch_size}: {reached} of {wanted} runs have reached the target"
        )
        if len(runs) >= wanted or self.history.spent >= self.spec.max_trials:
            if not self.history.running:
                return self._spent()
            return Phase.CONFIRMING, message, None
        return Phase.CONFIRMING, message, self._suggest(tried, Purpose.CONFIRM)

    # --- words -------------------------------------------------------------------------------------------

    def _suggest(self, tried: Setting, purpose: Purpose, rerun_of: Trial | None = None) -> Suggestion:
        number = self.history.next_number
        unchanged = purpose is Purpose.BASELINE and rerun_of is None
        found = None if unchanged else layout(self.history, tried.batch_size)
        has_micro = found is not None and self.spec.micro_batch_size is not None
        return Suggestion(
            number=number,
            workers=found.workers if found is not None and self.spec.workers is not None else None,
            micro_batch_size=found.micro_batch if found is not None and has_micro else None,
            accumulation_steps=found.accumulation if found is not None and has_micro else None,
            batch_size=tried.batch_size,
            parameters=tried.parameters,
            seed=seed_of(self.spec, number) if rerun_of is None else rerun_of.suggestion.seed,
            purpose=purpose,
            rerun_of=None if rerun_of is None else rerun_of.number,
        )

    def _running_text(self) -> str:
        count = len(self.history.running)
        return f"{count} trial{'s' if count != 1 else ''} running"

    def _searching_text(self) -> str:
        best = self.incumbent
        held = f"the best so far is {best.batch_size}" if best else "none meets the target so far"
        return f"searches for a larger batch size; {held}"

    def _budget_end(self, text: str, ended: Ended) -> Decision:
        answer = self.answer(ended)
        if answer is None:
            held = f"nothing has met {self.spec.target}"
        else:
            seen = "confirmed" if answer.is_confirmed else f"confirmed by {answer.confirmed} runs only"
            held = f"batch size {answer.batch_size} is {seen}"
        return self._final(Phase.DONE, f"{text}; {held}", ended)

    def _final(self, phase: Phase, message: str, ended: Ended) -> Decision:
        return Decision(phase, message, answer=self.answer(ended), is_final=True, ended=ended)


_FATE: Final[dict[Outcome | None, str]] = {
    Outcome.LOST: "was lost",
    Outcome.OUT_OF_MEMORY: "ran out of memory, with a smaller micro-batch",
}


def _by_size(tried: Setting) -> tuple[int, str]:
    return tried.batch_size, tried.key
