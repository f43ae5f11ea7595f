"""The model's answers to the questions of `decide`, given the trials.

Will this running trial reach the target? Which setting is the answer? Is a larger batch feasible? Which
setting should be tried next? The model's hyperparameters are fitted to the ended trials, each time that their
number has grown by about a fifth, so that not every trial costs a fit. Everything else uses all trials,
running ones included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from autotuner.search.curves import Curves, evidence, model_of, still_to_come
from autotuner.search.data import Seen, points
from autotuner.search.ended import Ended, Tally, frontier_of, judge_of, rejected_of
from autotuner.search.ensemble import Ensemble
from autotuner.search.frontier import (
    FURTHEST,
    HELD,
    TOLERATED_MISSES,
    Frontier,
    Worth,
    candidates,
    expectation_alone,
    gain_over,
    reach,
)
from autotuner.search.memory import Memory, digest_of
from autotuner.search.model import Posterior
from autotuner.search.random_numbers import generator
from autotuner.search.space import Space
from autotuner.study.curve import Array
from autotuner.study.findings.failing_sizes import failing_sizes, has_failed
from autotuner.study.findings.unreported import ended_unreported
from autotuner.study.history import History, curve
from autotuner.study.layout_bounds import nearest, sizes
from autotuner.study.setting import Setting, setting
from autotuner.trial import CUT_SHORT, Outcome, Purpose, Trial

WHOLE: Final = frozenset({Outcome.MISSED, Outcome.DIVERGED})
"""Outcomes of runs that could not get further."""
ROUNDED: Final = 0.3
"""Relative difference from the expected length up to which the end of a run is its own end."""
TRY_LARGEST_AFTER: Final = 4
"""Number of proposals after which the largest allowed batch is tried once: the model only extrapolates there,
and the frontier need not fall everywhere. It is cheap, because a hopeless run is soon stopped."""
FAR: Final = 0.7
"""Fraction of the largest batch size from which on a trial counts as one at the largest."""
FITS_ABOUT: Final = 1.1
"""A batch closer than this factor to the smallest one that ran out of memory is not tried."""
APART: Final = frozenset({Purpose.CONFIRM, Purpose.CHECK})
"""Purposes of running trials that are not part of the search."""


@dataclass(frozen=True)
class Beliefs:
    """The model's answers for one history: a pure function of it, with cached results."""

    history: History
    space: Space
    earlier: tuple[History, ...] = ()
    """Earlier studies: prior data of other tasks, never trials of this one."""

    @cached_property
    def _ended(self) -> tuple[Trial, ...]:
        # Dominated trials are left out: their end must not change the decision that ended them.
        return tuple(
            t
            for t in self.history.trials
            if not t.is_running and t.outcome is not Outcome.DOMINATED and (len(curve(t)) or self._is_bad(t))
        )

    def _is_bad(self, trial: Trial) -> bool:
        """Return whether a run's setting broke its training, maybe before the first value.

        It diverged, or the program failed, which it does not with the job's own setting.
        """
        return self._is_broken(trial) or _has_diverged(trial)

    def _is_broken(self, trial: Trial) -> bool:
        """Return whether the program failed at a setting that has not worked, so its curve has no end."""
        history = self.history
        return (
            has_failed(history, trial)
            and setting(trial) not in history.working
            and not history.has_reached(trial)
        )

    @cached_property
    def _running(self) -> tuple[Trial, ...]:
        return tuple(t for t in self.history.running if len(curve(t)))

    def _seen(self, trial: Trial) -> Seen:
        found = self.history.expected_length(trial)
        shown = curve(replace(trial, measurements=()) if self._is_broken(trial) else trial)
        last = shown.last_step
        if found is not None and trial.outcome is Outcome.MISSED and abs(last / found - 1) < ROUNDED:
            found = last  # epochs of whole batches are rounded
        length = None if found == self.history.run_length else found
        return Seen(setting(trial), shown, _has_diverged(trial), length)

    @cached_property
    def settled(self) -> Posterior | None:
        """The model of the curves of ended trials; None before the first has ended."""
        return model_of(self._curves) if self._has_data else None

    @property
    def _has_data(self) -> bool:
        return any(t.outcome not in CUT_SHORT and len(curve(t)) for t in self._ended)

    @property
    def _curves(self) -> Curves:
        runs = tuple(map(self._seen, self._ended))
        return Curves(self.space, self.history.spec.target, self.history.run_length or 1.0, runs)

    @property
    def _is_whole(self) -> tuple[bool, ...]:
        return tuple(t.outcome in WHOLE or self._is_bad(t) for t in self._ended)

    @property
    def frontier(self) -> Frontier | None:
        """The frontier according to the ended trials; None before the first has ended."""
        return None if self._frontier_data is None else frontier_of(self._frontier_data)

    @cached_property
    def _frontier_data(self) -> Ended | None:
        if not self._has_data:
            return None
        spec = self.history.spec
        return Ended(
            curves=self._curves,
            is_silent=tuple(t.outcome in CUT_SHORT for t in self._ended),
            is_whole=self._is_whole,
            earlier=tuple(
                (found._curves, found._is_whole)  # noqa: SLF001 (the same class)
                for found in (Beliefs(h, Space.of(h.spec)) for h in self.earlier)
                if found._has_data  # noqa: SLF001
            ),
            limits=self._limits,
            seed=spec.seed,
            confirmations=spec.confirmations,
            confirming=self._confirming,
            sizes=sizes(self.history),
        )

    @cached_property
    def digest(self) -> bytes:
        """A digest of everything that the results depend on."""
        studies = (self.history, *self.earlier)
        trials = (
            (t.suggestion, t.outcome, t.is_complete, t.doubt, curve(t).digest)
            for study in studies
            for t in study.trials
        )
        return digest_of(repr((self.space, *(study.spec for study in studies), *trials)).encode())

    @cached_property
    def posterior(self) -> Posterior | None:
        """The model of all curves, including running trials; None before the first trial has ended."""
        settled = self.settled
        if settled is None or not self._running:
            return settled
        worst, length = float(settled.data.margin.min()), self.history.run_length or 1.0
        running = [self._seen(trial) for trial in self._running]
        return settled.joined(points(self.space, self.history.spec.target, length, running, worst=worst))

    @cached_property
    def ensemble(self) -> Ensemble | None:
        """The ensemble given all trials, running ones included with their predicted ends."""
        if self.frontier is None:
            return None
        if not self._running:
            return self.frontier.ensemble
        posterior = self.posterior
        assert posterior is not None  # noqa: S101 (a frontier has one)
        runs = [self._seen(trial) for trial in self._running]
        first = len(posterior.data.place) - len(runs)
        return self.frontier.ensemble.given(
            evidence(posterior, self._curves, runs, [first + i for i in range(len(runs))])
        )

    @property
    def bound(self) -> int | None:
        """The smallest batch size that is too large, for memory, to work or to report; None without one.

        A changed job may have more memory, so it starts afresh, as after a retry.
        """
        numbers = {number for found in ended_unreported(self.history) for number in found.trials}
        silent = (t for t in self.history.trials if t.number in numbers and self.history.is_current(t))
        lacking = self.history.lacked_memory if self.history.spec.micro_batch_size is None else ()
        bound = failing_sizes(self.history).bound
        over = [t.suggestion.batch_size for t in (*silent, *lacking)]
        return min([*over, *([] if bound is None else [bound])], default=None)

    @property
    def _limits(self) -> tuple[int, int]:
        """The smallest batch size, and the largest that memory holds and whose runs work and report."""
        low, high = self.space.batch_sizes
        too_large = self.bound
        if too_large is None:
            return low, high
        # Every attempt that runs out of memory costs a trial, so the gap is halved, on a log scale.
        works = (s.batch_size for s in self.history.working)
        fits = max((size for size in works if size < too_large), default=low)
        edge = fits if too_large < FITS_ABOUT * fits else self._between(fits, too_large)
        return low, max(min(high, edge), low)

    def _between(self, fits: int, too_large: int) -> int:
        """Return the batch size to try between one that works and one that does not; the first without any.

        It is a batch size with a layout: otherwise the search would expect a larger one that is never tried.
        """
        middle, possible = math.isqrt(fits * too_large), sizes(self.history)
        if possible is None:
            return middle
        between = [size for size in possible if fits < size < too_large]
        return max((size for size in between if size <= middle), default=min(between, default=fits))

    def chance(self, trial: Trial) -> float:
        """Return the probability that a running trial that has not met the target meets it at a later step.

        The average of two: the model of curves takes a run among bad ones for a bad one too easily, and the
        ensemble, given what the run's own curve says of its end, is too sure of where settings end.
        """
        return 0.5 * (self.chance_by_curves(trial) + self._chance_by_ends(trial))

    def chance_by_curves(self, trial: Trial) -> float:
        """Return the probability of `chance` according to the model of curves alone, which is cheap."""
        found = self._under_way(trial)
        if found is None:
            return 0.5
        posterior, run, length, column = found
        return float((still_to_come(posterior, run, length, column) >= 0).mean())

    def _chance_by_ends(self, trial: Trial) -> float:
        found, data = self._under_way(trial), self._frontier_data
        if found is None or data is None:
            return 0.5
        posterior, run, _, column = found
        return judge_of(data).reaches(evidence(posterior, self._curves, [run], [column]))

    def _under_way(self, trial: Trial) -> tuple[Posterior, Seen, float, int] | None:
        """Return the posterior, a running trial's data, its length, and its number among the runs."""
        posterior, length = self.posterior, self.history.expected_length(trial)
        if posterior is None or length is None or not len(curve(trial)):
            return None
        column = len(posterior.data.place) - len(self._running) + self._running.index(trial)
        return posterior, self._seen(trial), length, column

    @cached_property
    def rejected(self) -> frozenset[Setting]:
        """Settings of which too many confirmation runs have missed the target: none of them is the answer.

        One miss next to the required number of successes may be noise of a good setting; the models have the
        miss as data and decide.
        """
        return rejected_of(self._confirming)

    @cached_property
    def _confirming(self) -> tuple[Tally, ...]:
        return tuple((tried, *self.history.tally(tried)) for tried in self.history.confirmations)

    def is_held(self, trial: Trial) -> bool:
        """Return whether a running trial's setting could be the answer, and is expected to be confirmed."""
        if self.ensemble is None or setting(trial) in self.rejected:
            return False
        place = self.space.coordinates(setting(trial))[None]
        owed = np.array([[self.history.spec.confirmations, TOLERATED_MISSES]])
        return bool(self.ensemble.confirmable(place, owed)[0] >= HELD)

    @property
    def same_training(self) -> float:
        """The probability that the earlier studies are of this training; 0 without a model."""
        data = self._frontier_data
        return (
            0.0 if data is None else _SAME.of(data.digest, lambda: frontier_of(data).ensemble.same_training)
        )

    @property
    def incumbent(self) -> Setting | None:
        """The setting of the current answer, confirmed or not."""
        data = self._frontier_data
        return None if data is None else _INCUMBENTS.of(data.digest, lambda: frontier_of(data).incumbent)

    def probability_larger(self, batch_size: int) -> float | None:
        """Return the probability that a batch half a doubling larger is feasible; None without a model."""
        data = self._frontier_data
        if data is None:
            return None
        key = digest_of(data.digest, repr(batch_size).encode())
        return _LARGER.of(key, lambda: frontier_of(data).probability_larger(batch_size))

    def bolder(self, answer: Setting) -> Setting | None:
        """Return a setting to confirm in place of the answer: larger, and likelier than not to be confirmed.

        It is the one with the largest expected gain in doublings; None if there is none. The trials of a
        search only approach the largest batch size, and each costs a run; here the confirmation itself takes
        the last step. All of its runs are fresh, because none has discovered the setting.
        """
        data = self._frontier_data
        if data is None:
            return None
        key = digest_of(data.digest, repr(answer.batch_size).encode())
        places = _BOLDER.of(key, lambda: frontier_of(data).bolder(answer.batch_size, data.confirmations))
        settings = map(self._realised, places)
        larger = (s for s in settings if s.batch_size > answer.batch_size and s not in self.rejected)
        return next(larger, None)

    def propose(self, number: int, incumbent: Setting | None) -> Setting:
        """Return the setting to try next: the largest expected gain in doublings over the incumbent.

        Running trials are assumed to end as predicted (the Kriging believer of Ginsbourger et al. 2010,
        section 4.2), so that several trials at once explore different places.
        """
        if self.frontier is None or self.ensemble is None:
            rng = generator(self.history.spec.seed, number)
            return self._realised(self.space.scattered(rng.random((1, self.space.size)))[0])
        known = self._known_answer(incumbent)
        if known is not None:
            return known
        low, high = self.frontier.limits
        ensemble, best = self._believing(self.ensemble, 0 if incumbent is None else incumbent.batch_size)
        met = [
            t.outcome is Outcome.PROMISING or self.history.has_reached(t)
            for t in self._ended
            if t.suggestion.purpose is Purpose.SEARCH
        ]
        octaves = math.log2(best) if best else math.log2(low) - 1
        explored = self._explored - octaves
        worth: Worth = gain_over(octaves, max(reach(met), explored))
        smallest = min(max(low, self._above(best)), high)
        # The models are the less certain the further away a batch is: without this bound, settings would be
        # proposed far above the answer because nothing is known of them.
        furthest = best * 2 ** max(FURTHEST, explored)
        largest = min(max(furthest, smallest), high) if best else high
        if self._must_try_largest(best, high):
            worth, smallest, largest = expectation_alone, high, high
        # A confirmation has already shown that a rejected setting does not meet the target, whatever the
        # models say.
        places = candidates(self.frontier, ensemble, worth, (smallest, largest), number)
        settings = (self._realised(place) for place in places)
        return next((s for s in settings if s not in self.rejected), None) or self._realised(places[0])

    def _believing(self, ensemble: Ensemble, best: int) -> tuple[Ensemble, int]:
        """Return the ensemble and the largest feasible batch size if running trials end as predicted.

        A trial at the largest allowed batch size does not count as feasible before it has ended: nothing
        would be left to propose.
        """
        under_way = [t for t in self.history.running if t.suggestion.purpose not in APART]
        if not under_way:
            return ensemble, best
        places = np.array([self.space.coordinates(setting(t)) for t in under_way])
        silent = [i for i, t in enumerate(under_way) if not len(curve(t))]
        if silent:
            ensemble = ensemble.given(ensemble.believed(places[silent]))
        ends = ensemble.chance(places)[1]
        met = [t.suggestion.batch_size for t, end in zip(under_way, ends, strict=True) if end >= 0]
        _, high = self._limits
        return ensemble, max([best, *(size for size in met if size < high)])

    def _above(self, batch_size: int) -> int:
        """Return the smallest batch size above another one that has a layout, as far as is known."""
        return next((size for size in sizes(self.history) or () if size > batch_size), batch_size + 1)

    def _known_answer(self, incumbent: Setting | None) -> Setting | None:
        """Return the largest confirmed answer of an earlier study that is left to try; None without one.

        They come first, one trial for each study: what has met the target of a similar training may leap over
        most of the search.
        """
        if self._proposals >= len(self.earlier):
            return None
        best = 0 if incumbent is None else incumbent.batch_size
        tried = {setting(trial) for trial in self.history.trials}
        confirmed = (Beliefs(study, Space.of(study.spec)).confirmed for study in self.earlier)
        answers = (max(found, key=lambda s: (s.batch_size, s.key)) for found in confirmed if found)
        here = [self._realised(self.space.adapted(found)) for found in answers]
        left = [s for s in here if best < s.batch_size <= self._limits[1] and s not in tried]
        return max(left, key=lambda s: (s.batch_size, s.key), default=None)

    @property
    def _explored(self) -> float:
        """Doublings up to which a leap to an earlier answer has met the target; 0 without earlier studies.

        Below them nothing is extrapolated. Without this, a leap whose confirmation fails would be followed by
        the steps that it had left out.
        """
        met = (t.suggestion.batch_size for t in self._ended if self.history.has_reached(t))
        return math.log2(max(met, default=1)) if self.earlier else 0.0

    @cached_property
    def confirmed(self) -> tuple[Setting, ...]:
        """The settings that the required number of confirmation runs has confirmed, and that are allowed."""
        wanted = self.history.spec.confirmations
        return tuple(
            s
            for s, reached, _ in self._confirming
            if reached >= wanted and s not in self.rejected and self.space.allows(s)
        )

    def _realised(self, place: Array) -> Setting:
        return nearest(self.history, self.space.setting(place))

    def _must_try_largest(self, best: int, high: int) -> bool:
        """Return whether the largest allowed batch must be tried next, because no trial was near it."""
        is_seen = any(t.suggestion.batch_size >= FAR * high for t in self.history.trials)
        return self._proposals >= TRY_LARGEST_AFTER and not is_seen and 2 * best < high

    @property
    def _proposals(self) -> int:
        """Number of trials that the search has proposed."""
        return sum(t.suggestion.purpose is Purpose.SEARCH for t in self.history.trials)


def _has_diverged(trial: Trial) -> bool:
    """Return whether a run's metric became NaN or infinite, maybe before its first finite value."""
    is_never_finite = bool(trial.measurements) and not len(curve(trial))
    return trial.outcome is Outcome.DIVERGED or (trial.outcome is Outcome.MISSED and is_never_finite)


_INCUMBENTS: Final[Memory[Setting | None]] = Memory(20_000)
_LARGER: Final[Memory[float]] = Memory(20_000)
_BOLDER: Final[Memory[Array]] = Memory(20_000)
_SAME: Final[Memory[float]] = Memory(20_000)
