"""The facts about a study that the rules of `decide` use, each computed once.

Nothing here decides. The model comes from `autotuner.search`, the possible layouts of a batch size from
`autotuner.study.layout_bounds`.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Final

from autotuner.decide.decision import Answer, Reason
from autotuner.search.beliefs import Beliefs
from autotuner.search.frontier import HALF_A_DOUBLING, TOLERATED_MISSES
from autotuner.search.known_good import KnownGood, known_good
from autotuner.search.space import Space
from autotuner.spec import TuningSpec
from autotuner.spec.tuning_spec import AUTO
from autotuner.study.finding import NOT_COUNTED, Finding
from autotuner.study.finding import Reason as Doubt
from autotuner.study.findings.at_once import met_at_once, met_at_once_but_first, never_worse
from autotuner.study.findings.batch_check import (
    BatchCheck,
    batch_checks,
)
from autotuner.study.findings.batch_in_metric import first_loss_falls, in_proportion_to_batch
from autotuner.study.findings.data_size import batches_larger_than_data
from autotuner.study.findings.failing_sizes import settings_that_fail, sizes_that_fail, sizes_without_memory
from autotuner.study.findings.proof import coincide, findings
from autotuner.study.findings.resumed import unsettled_runs
from autotuner.study.findings.unreported import ended_unreported
from autotuner.study.history import History, curve
from autotuner.study.layout_bounds import laid_out, layout
from autotuner.study.run_length import doubtful_length, overdue_runs
from autotuner.study.setting import Setting, setting
from autotuner.trial import Outcome, Purpose, Suggestion, Trial

ENOUGH: Final = 0.1
"""The search ends when the probability that a batch half a doubling larger is feasible falls below this."""
PATIENCE: Final = 25.0
"""Or below the square of (effort in whole runs / this): early, one more trial still gives much information;
late, a larger batch that the model has expected for so long does not exist. The effort of earlier studies
counts as far as they are of the same training."""
LEAST_EFFORT: Final = 0.25
"""Minimum fraction of a run that a trial counts as, because starting one also has a cost."""
LIKELY: Final = 0.9
"""The search never ends while a larger batch is likelier than this: the answer would not be credible."""
WORTH_CONFIRMING: Final = 0.125
"""Doublings by which a setting must exceed a confirmed answer to be confirmed in its place: less is not worth
several runs, and of several settings at the limit one would pass by luck."""
_MOST_PROBES: Final = 3
"""Trials that change the batch size alone where the job does not seem to pass it on."""
STILL: Final = 2.0
"""A confirmation that has started is finished while the probability is below this many times the limits."""


@dataclass(frozen=True)
class Standing:
    """The trials of a study at one moment, and the facts that follow from them.

    `findings` are doubts that the runs raise: settings without effect, resumed checkpoints.
    `checks` are the checks of the batch so far, whose measurements `history` leaves out.
    `is_batch_in_doubt` says that the job does not seem to pass on the batch size. `bests` are the best values
    of the confirmation runs, by number: with the measurements after a stop, which `history` leaves out.
    """

    history: History
    now: datetime
    findings: tuple[Finding, ...] = ()
    earlier: tuple[History, ...] = ()
    is_batch_in_doubt: bool = False
    bests: Mapping[int, float | None] = field(default_factory=dict)
    checks: tuple[BatchCheck, ...] = ()

    @classmethod
    def of(cls, history: History, now: datetime, earlier: tuple[History, ...] = ()) -> Standing:
        """Return the standing of a history.

        Left out of it are runs that resumed another's training, checks of the batch, and runs whose batch
        holds the whole data set. The latter do not count as failures of the program.
        """
        sign = history.spec.target.sign
        whole = batches_larger_than_data(history.trials, history.spec)
        length = doubtful_length(history.trials, history.spec)
        late = overdue_runs(history.trials, history.spec, now)
        silent = ended_unreported(history)
        target = history.spec.target
        scaled = in_proportion_to_batch(history.trials, target) or first_loss_falls(history.trials, target)
        at_once = (
            *met_at_once(history.trials, target),
            *(() if scaled else met_at_once_but_first(history.trials, target)),
            *never_worse(history.trials, target),
        )
        found = (*findings(history.trials, sign), *scaled, *at_once, *whole, *length, *late, *silent)
        resumed = {f.trials[0]: f.message for f in found if f.reason in NOT_COUNTED}
        waits = "it began where other runs end: more of its curve must show whether it resumed one of them"
        unsettled = dict.fromkeys(unsettled_runs(history.trials, sign), waits)
        kept = history.without_measurements({**unsettled, **resumed})
        kept = kept.without_measurements({f.trials[0]: f.message for f in whole}, Outcome.DOMINATED)
        checks, kept = batch_checks(kept.trials), kept.without_checks()
        found = (*found, *sizes_that_fail(kept), *sizes_without_memory(kept), *settings_that_fail(kept))
        confirming = (t for runs in kept.confirmations.values() for t in runs)
        bests = {t.number: curve(t).best(history.spec.target) for t in confirming}
        return cls(kept, now, found, earlier, bests=bests, checks=checks)

    def ending(self, number: int, outcome: Outcome) -> Standing:
        """Return the standing after a running trial was stopped."""
        return replace(self, history=self.history.ending(number, outcome))

    def starting(self, suggestion: Suggestion) -> Standing:
        """Return the standing after a trial has been started."""
        trials = (*self.history.trials, Trial(suggestion))
        return replace(self, history=replace(self.history, trials=trials))

    @property
    def spec(self) -> TuningSpec:
        """The parsed annotations of the job."""
        return self.history.spec

    @cached_property
    def space(self) -> Space:
        """The coordinates in which the search compares settings."""
        return Space.of(self.spec)

    @cached_property
    def beliefs(self) -> Beliefs:
        """The models of the search, given the trials."""
        return Beliefs(self.history, self.space, self.earlier)

    @cached_property
    def gpu_hours(self) -> float:
        """GPU-hours used by the study, including lost trials."""
        return sum(trial.gpu_hours(self.now) for trial in self.history.trials)

    @cached_property
    def charged_gpu_hours(self) -> float:
        """GPU-hours that count towards `max-gpu-hours`: lost trials and evicted runs use no budget."""
        kept = (t for t in self.history.trials if t.outcome is not Outcome.LOST)
        return sum(trial.last_run_gpu_hours(self.now) for trial in kept)

    @property
    def baseline(self) -> Setting:
        """The job's own setting."""
        return self.history.own_setting

    @cached_property
    def known_good(self) -> KnownGood:
        """What the runs of the job's own setting have shown."""
        return known_good(self.history)

    @cached_property
    def free_slots(self) -> int:
        """Number of trials that may be started now.

        With `parallel-trials: auto` at most one trial waits, in a queue or for its pods. Only when all trials
        run may another one start, because the cluster may have free capacity then.
        """
        free = self.spec.most_parallel_trials - len(self.history.running)
        if self.spec.parallel_trials != AUTO:
            return free
        is_waiting = any(trial.started_at is None for trial in self.history.running)
        return 0 if is_waiting else min(free, 1)

    @property
    def trials_left(self) -> int:
        """Number of trials that `max-trials` still allows."""
        return self.spec.max_trials - self.history.spent

    # --- what is confirmed -------------------------------------------------------------------------

    @cached_property
    def confirmed(self) -> Setting | None:
        """The setting with the largest batch that the required number of confirmation runs has confirmed."""
        believed = (tried for tried in self.beliefs.confirmed if self.doubt(tried) is None)
        return max(believed, key=self._by_evidence, default=None)

    def doubt(self, tried: Setting) -> Finding | None:
        """Return why no run of a setting confirms it; None if there is no such doubt."""
        doubts = (f for f in self.findings if f.reason is Doubt.IN_DOUBT and tried.batch_size >= f.batch_size)
        return next(doubts, None)

    def _by_evidence(self, tried: Setting) -> tuple[int, int, int, float, str]:
        """Return a key that orders settings by batch size, then by the results of their runs."""
        target = self.spec.target
        bests = [curve(t).best(target) for t in self.history.confirmations.get(tried, ())]
        margins = [target.margin(best) for best in bests if best is not None]
        typical = statistics.median(margins) if margins else -math.inf
        return tried.batch_size, -self.missed(tried), self.reached(tried), typical, tried.key

    def reached(self, tried: Setting) -> int:
        """Return the number of confirmation runs of a setting that have reached the target."""
        return self.history.tally(tried)[0]

    def missed(self, tried: Setting) -> int:
        """Return the number of complete runs of a setting that have missed the target."""
        return self.history.tally(tried)[1]

    @cached_property
    def incumbent(self) -> Setting | None:
        """The setting of the current answer, confirmed or not."""
        held, confirmed = self.beliefs.incumbent, self.confirmed
        if held is None and self.baseline not in self.beliefs.rejected and self._has_baseline_reached():
            held = self.baseline
        held = self._begun_in_place_of(held) or held
        if confirmed is None:
            return held
        worthy = confirmed.batch_size * 2**WORTH_CONFIRMING
        # One more run of a setting that could not be confirmed would not help.
        is_kept = held is None or held.batch_size < worthy or self.lacks(self._to_start(held)) is not None
        return confirmed if is_kept else held

    def _begun_in_place_of(self, held: Setting | None) -> Setting | None:
        """Return a setting whose confirmation has begun, if too little is left for that of another one.

        Near the end of a budget the largest setting that is likely to pass changes with each run, and none
        would be confirmed. One that is not much smaller and has not missed yet is preferred if a miss of the
        other would be one too many; any other one if it can be confirmed, and the other cannot.
        """
        if held is None or self.lacks(self._to_start(held, TOLERATED_MISSES)) is None:
            return None
        cannot = self.lacks(self._to_start(held)) is not None
        begun = [s for s in self.history.confirmations if s not in self.beliefs.rejected and s != held]
        possible = [s for s in begun if self._to_start(s) > 0 and self.lacks(self._to_start(s)) is None]
        near = held.batch_size / 2**HALF_A_DOUBLING
        wanted = [
            s for s in possible if cannot or (self.reached(s) and not self.missed(s) and s.batch_size >= near)
        ]
        return max(wanted, key=lambda s: (-self.missed(s), s.batch_size, s.key), default=None)

    def _to_start(self, tried: Setting, misses: int = 0) -> int:
        """Return the number of runs that a setting's confirmation still has to start, with so many misses."""
        running = sum(t.is_running for t in self.history.confirmations.get(tried, ()))
        spare = max(misses - self.missed(tried), 0)
        return max(self.spec.confirmations - self.reached(tried) - running + spare, 0)

    def _has_baseline_reached(self) -> bool:
        runs = (t for t in self.history.trials if t.suggestion.purpose is Purpose.BASELINE)
        return any(map(self.history.has_reached, runs))

    # --- when the search ends ----------------------------------------------------------------------

    def is_enough(self, best: Setting | None) -> bool:
        """Return whether a larger batch is unlikely, or too unlikely for the effort spent so far."""
        larger = self.beliefs.probability_larger(0 if best is None else best.batch_size)
        if larger is None:
            return False
        bound = min(max(ENOUGH, (self._effort / PATIENCE) ** 2), LIKELY)
        return larger < (STILL * bound if best is not None and self._is_confirming(best) else bound)

    def to_confirm(self, best: Setting) -> Setting:
        """Return the setting to confirm: the answer, or a larger one that is likelier than not to pass.

        The latter only once, before the answer's own confirmation has begun, and if `max-trials` and
        `max-gpu-hours` would still suffice for the answer after a failure. With one of Optuna's own samplers
        only settings that it has proposed are confirmed.
        """
        if self.spec.sampler != "frontier" or best in self.history.confirmations:
            return best
        bold = self.beliefs.bolder(best)
        if bold is None or self._has_overreached(bold):
            return best
        runs = 2 * self.spec.confirmations + TOLERATED_MISSES
        return bold if bold in self.history.confirmations or self.lacks(runs) is None else best

    def _has_overreached(self, bold: Setting) -> bool:
        """Return whether the confirmation of another setting that the search has not tried has failed.

        Of several settings at the limit, each confirmed by a few runs, one would pass by luck.
        """
        searched = {setting(t) for t in self.history.trials if t.suggestion.purpose is not Purpose.CONFIRM}
        others = self.history.confirmations.keys() - searched - {bold}
        return any(self.reached(tried) < self.spec.confirmations for tried in others)

    def owed(self, tried: Setting) -> int:
        """Return the number of runs that a confirmation may still take, with the misses that it tolerates.

        For a confirmed setting it is that of another one. For the job's own setting no miss counts: with few
        trials, one more of the search is worth more.
        """
        wanted, reached = self.spec.confirmations, self.reached(tried)
        if reached >= wanted:
            return wanted + TOLERATED_MISSES
        spare = 0 if tried == self.baseline else max(TOLERATED_MISSES - self.missed(tried), 0)
        return wanted - reached + spare

    def lacks(self, runs: int) -> Reason | None:
        """Return which budget does not suffice for a number of runs, each as long as the longest so far."""
        if self.trials_left < runs:
            return Reason.TRIALS_SPENT
        limit = self.spec.max_gpu_hours
        longest = max((trial.last_run_gpu_hours(self.now) for trial in self.history.trials), default=0.0)
        is_short = limit is not None and self.charged_gpu_hours + runs * longest > limit
        return Reason.GPU_HOURS_SPENT if is_short else None

    def is_larger_unlikely(self, best: Setting) -> bool:
        """Return whether a larger batch is unlikely, regardless of the effort so far."""
        larger = self.beliefs.probability_larger(best.batch_size)
        return larger is None or larger < ENOUGH

    @property
    def _effort(self) -> float:
        """Training effort of the search, in whole runs, with that of earlier studies of the same training.

        One more run is for the next trial. It counts before the trial starts, so that its start does not end
        the study.
        """
        before = sum(map(_effort, self.earlier))
        same = self.beliefs.same_training if before else 0.0
        return _effort(self.history) + same * before + 1.0

    def _is_confirming(self, tried: Setting) -> bool:
        last = next(t for t in reversed(self.history.trials) if t.suggestion.purpose is not Purpose.CHECK)
        wanted = self.reached(tried) < self.spec.confirmations
        return wanted and last.suggestion.purpose is Purpose.CONFIRM and setting(last) == tried

    # --- what follows ------------------------------------------------------------------------------

    def answer(self, reason: Reason | None = None) -> Answer | None:
        """Return the current answer or, with the reason of the end, the final one.

        A confirmed answer stays until a better one is confirmed.
        """
        tried = self.confirmed or self.incumbent
        return None if tried is None else self._evidence(tried, reason)

    def candidate(self) -> Answer | None:
        """Return the candidate to replace the confirmed answer, with the evidence so far."""
        tried = self.incumbent
        return None if tried is None or tried == (self.confirmed or tried) else self._evidence(tried, None)

    def _evidence(self, tried: Setting, reason: Reason | None) -> Answer:
        bests = [
            best
            for t in self.history.confirmations.get(tried, ())
            if (self.history.has_reached(t) or self.history.has_missed(t))
            and (best := self.bests.get(t.number)) is not None
        ]
        return Answer(
            batch_size=tried.batch_size,
            parameters=tried.parameters,
            confirmed=0 if self.doubt(tried) else min(self.reached(tried), self.spec.confirmations),
            missed=self.missed(tried),
            confirmations=self.spec.confirmations,
            metric=statistics.median(bests) if bests else None,
            probability_larger=self._probability_larger(tried.batch_size),
            gpu_hours=self.gpu_hours,
            reason=reason,
        )

    def _probability_larger(self, batch_size: int) -> float | None:
        """Return the probability that a larger batch is feasible; None if no larger one is allowed.

        It is 0 where a batch half a doubling larger is known not to fit into memory, or to fail. The search
        may still hope for one in between.
        """
        if batch_size >= self.spec.batch_size.maximum:
            return None
        larger = min(batch_size * 2**HALF_A_DOUBLING, self.spec.batch_size.maximum)
        bound = self.beliefs.bound
        is_too_large = bound is not None and larger >= bound
        return 0.0 if is_too_large else self.beliefs.probability_larger(batch_size)

    def suggest(self, tried: Setting, purpose: Purpose, rerun_of: Trial | None = None) -> Suggestion:
        """Return the next trial of a setting, with a layout that realises its batch size.

        A lost trial is retried unchanged.
        """
        number = self.history.next_number
        if rerun_of is not None and rerun_of.outcome is not Outcome.OUT_OF_MEMORY:
            return replace(rerun_of.suggestion, number=number, purpose=purpose, rerun_of=rerun_of.number)
        is_probe = purpose in {Purpose.SEARCH, Purpose.CLIMB} and rerun_of is None and self._probes_batch
        tried = Setting.of(tried.batch_size, self.baseline.parameters) if is_probe else tried
        suggestion = Suggestion(
            number=number,
            batch_size=tried.batch_size,
            parameters=tried.parameters,
            seed=self._seed(purpose) if rerun_of is None else rerun_of.suggestion.seed,
            purpose=purpose,
            rerun_of=None if rerun_of is None else rerun_of.number,
        )
        if purpose is Purpose.BASELINE and rerun_of is None:
            return suggestion
        return laid_out(suggestion, self.spec, layout(self.history, tried.batch_size))

    @property
    def _probes_batch(self) -> bool:
        """Whether the next trial changes the batch size alone, to show whether the script uses it."""
        others = [t for t in self.history.trials if not _is_baseline(t)]
        return self.is_batch_in_doubt and len(others) < _MOST_PROBES and not self._has_effect(others)

    def _has_effect(self, others: Sequence[Trial]) -> bool:
        """Return whether a run of another setting differs from the baseline, as far as is known."""
        baseline = next((t for t in reversed(self.history.trials) if _is_baseline(t)), None)
        return baseline is None or any(not coincide(baseline, t) for t in others)

    def _seed(self, purpose: Purpose) -> int:
        """Return the seed of a new trial: a fresh one, except for the first that differs from the baseline.

        That one repeats the baseline's seed: if its curve is the same to the last digit, settings have no
        effect. As long as no run shows one, the next repeats it as well, until the digits prove it.
        """
        others = [t for t in self.history.trials if not _is_baseline(t)]
        if purpose not in {Purpose.SEARCH, Purpose.CLIMB} or self._has_effect(others):
            return trial_seed(self.spec, self.history.draws)
        return next(t.suggestion.seed for t in reversed(self.history.trials) if _is_baseline(t))


def _is_baseline(trial: Trial) -> bool:
    return trial.suggestion.purpose is Purpose.BASELINE


def trial_seed(spec: TuningSpec, number: int) -> int:
    """Return the seed of a trial: different for every number of a draw and for every seed of the search."""
    start = int.from_bytes(hashlib.sha256(str(spec.seed).encode()).digest()[:4], "big") % 2**30
    return start + number


def _effort(history: History) -> float:
    """Return the training effort of a search, in whole runs.

    A running trial does not count, and a dominated one counts as a whole run: its end must not change the
    decision that ended it.
    """
    searched = [t for t in history.trials if t.suggestion.purpose is Purpose.SEARCH and not t.is_running]
    trained = (
        1.0 if t.outcome is Outcome.DOMINATED else curve(t).last_step / history.whole_length(t)
        for t in searched
    )
    return sum(max(part, LEAST_EFFORT) for part in trained)
