"""The trials of a job for the search: in order, cleaned, and judged by the current target.

Whether a run met the target follows from its measurements, never from its recorded outcome, because the user
may have changed the target since. The outcome only says how a run *ended*, and therefore whether the
unobserved rest counts as a miss.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

from autotuner.spec import TuningSpec
from autotuner.study.curve import CURVES, Curve
from autotuner.study.run_length import stated_length
from autotuner.study.setting import Setting, setting
from autotuner.trial import Outcome, Purpose, Trial

APART: Final = 1.3
"""Ratio of batch sizes from which on a run shows whether its length depends on the batch size."""
CLOSE: Final = 0.15
"""Tolerance for the distance of reports, because epochs of whole batches are rounded."""
EPOCH: Final = "epoch"
"""The unit of `Trial.unit` whose number does not depend on the batch size."""
MOST_EPOCHS: Final = 1000
"""Maximum number of epochs: runs with more reports, one step apart, do not count epochs."""
LENGTHS: Final = frozenset(
    {
        "epochs", "num_epochs", "n_epochs", "nb_epochs", "max_epochs", "total_epochs", "train_epochs",
        "num_train_epochs", "training_epochs", "max_steps", "total_steps", "train_steps", "training_steps",
        "max_train_steps", "num_train_steps", "max_iters", "max_iterations", "total_timesteps",
    }
)  # fmt: skip
"""Names of a hyperparameter that sets the length of a run."""
RAN_OUT: Final = frozenset({Outcome.MISSED, Outcome.HOPELESS, Outcome.DIVERGED})
"""Outcomes with which a run that has not met the target counts as a miss."""


class Unit(StrEnum):
    """The unit of a run's steps."""

    EPOCH = "epoch"
    """Or anything else whose number does not depend on the batch size."""
    OPTIMIZER_STEP = "optimizer step"
    """Its number decreases as the batch grows."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class History:
    """The trials of one job by number, each number once."""

    spec: TuningSpec
    trials: tuple[Trial, ...]
    uncut: History | None = field(default=None, compare=False, repr=False)
    """The same runs with all measurements, if curves are cut here: it shows how long a run is."""
    discounted: frozenset[int] = frozenset()
    """The trials whose measurements are left out."""

    @classmethod
    def of(cls, spec: TuningSpec, trials: Iterable[Trial]) -> History:
        """Return the history; the order of `trials` does not matter.

        If a number occurs twice (in the ledger and as an object that is not deleted yet), the ended record
        counts, then the one with more measurements.
        """
        by_number: dict[int, Trial] = {}
        for trial in trials:
            known = by_number.get(trial.number)
            if known is None or _weight(trial) > _weight(known):
                by_number[trial.number] = trial
        return cls(spec, tuple(by_number[number] for number in sorted(by_number)))

    def cut(self, trials: Iterable[Trial]) -> History:
        """Return a history of these trials, with curves that end earlier than the runs themselves."""
        return replace(self, trials=tuple(trials), uncut=self.uncut or self)

    def ending(self, number: int, outcome: Outcome) -> History:
        """Return the history after a trial was stopped."""
        trials = (
            replace(trial, outcome=outcome, is_complete=False) if trial.number == number else trial
            for trial in self.trials
        )
        return replace(self, trials=tuple(trials))

    def without_measurements(self, reasons: Mapping[int, str], outcome: Outcome = Outcome.FAILED) -> History:
        """Return the history in which these trials have measured nothing, with the outcome of those ended."""
        if not reasons:
            return self
        trials = tuple(_discounted(trial, reasons, outcome) for trial in self.trials)
        return replace(self, trials=trials, discounted=self.discounted | reasons.keys())

    def without_checks(self) -> History:
        """Return the history in which the checks of the batch have measured nothing.

        They repeat a run's seed, and are stopped as soon as the comparison is over. A check that fails is not
        evidence against the program: its learning rate is that of a larger batch.
        """
        if not any(t.suggestion.purpose is Purpose.CHECK for t in self.trials):
            return self
        return replace(self, trials=tuple(map(_without_check, self.trials)))

    @cached_property
    def running(self) -> tuple[Trial, ...]:
        """Trials that have not ended."""
        return tuple(trial for trial in self.trials if trial.is_running)

    @property
    def next_number(self) -> int:
        """One more than the largest number in use; numbers are never reused."""
        return self.trials[-1].number + 1 if self.trials else 0

    @property
    def draws(self) -> int:
        """`next_number` without the checks: a check must change no later seed and no proposal."""
        return self.next_number - sum(t.suggestion.purpose is Purpose.CHECK for t in self.trials)

    @cached_property
    def own_setting(self) -> Setting:
        """The setting of the unchanged job."""
        return Setting.of(self.spec.baseline_batch_size, self.spec.baseline_parameters)

    @cached_property
    def working(self) -> frozenset[Setting]:
        """The settings with which a run has measured something and has not failed."""
        failed = {Outcome.FAILED, Outcome.OUT_OF_MEMORY}
        return frozenset(setting(t) for t in self.trials if len(curve(t)) and t.outcome not in failed)

    @property
    def spent(self) -> int:
        """Trials that count towards `max-trials`: a trial counts once, with its retries and its checks."""
        counted = (t for t in self.trials if t.suggestion.purpose is not Purpose.CHECK)
        return sum(trial.suggestion.rerun_of is None for trial in counted)

    @cached_property
    def _whole(self) -> tuple[float, ...]:
        """Last steps of runs that reached their own end."""
        return tuple(curve(t).last_step for t in self.trials if is_complete(t))

    @cached_property
    def _stated_length(self) -> float | None:
        """The length of a run as set by the user, unless a run contradicts it."""
        return stated_length(self.trials, self.spec)

    @property
    def is_length_stated(self) -> bool:
        """Whether the user has set the length of a run: then a run that continues is stopped there."""
        return self._stated_length is not None if self.uncut is None else self.uncut.is_length_stated

    @property
    def is_length_known(self) -> bool:
        """Whether the user has set the length of a run, or a complete run has shown it."""
        if self.uncut is not None:
            return self.uncut.is_length_known
        return self._stated_length is not None or any(self._whole)

    @cached_property
    def own_length(self) -> float | None:
        """The last step of a run of the unchanged job; None while unknown.

        As set by the user, else as the unchanged job has shown it, else the longest observed.
        """
        if self.uncut is not None:
            return self.uncut.own_length
        if self._stated_length is not None:
            return self._stated_length
        unchanged = [t for t in self.trials if t.suggestion.purpose is Purpose.BASELINE]
        shown = [curve(t).last_step for t in unchanged if is_complete(t)]
        ended = [curve(t).last_step for t in self.trials if t.outcome is not None]
        return max(shown, default=0.0) or max(self._whole, default=0.0) or max(ended, default=0.0) or None

    @cached_property
    def run_length(self) -> float | None:
        """The last step of a whole run at the known-good batch size; None while unknown.

        That of the unchanged job; or, if another run was clearly longer, that of the longest: then the script
        stops by itself when more training does not help. A run counts as far as it has come, if it is
        complete, or until it met the target, where it may have been stopped. With one report a run its step
        says nothing.
        """
        if self.uncut is not None:
            return self.uncut.run_length
        own = self.own_length
        if own is None or self._stated_length is not None or self.unit is Unit.UNKNOWN:
            return own
        usual, in_steps = self.spec.baseline_batch_size, self.unit is Unit.OPTIMIZER_STEP
        found = [
            shown * (t.suggestion.batch_size / usual if in_steps else 1) / self.share_of_length(t)
            for t in self.trials
            if len(curve(t)) > 1 and (shown := self._shown_length(t)) < math.inf
        ]
        return max((length for length in found if length > (1 + CLOSE) * own), default=own)

    def _shown_length(self, trial: Trial) -> float:
        """Return the last step that a run is known to train to, whenever its log is read; else infinity."""
        return curve(trial).last_step if is_complete(trial) else curve(trial).met_at(self.spec.target)

    @cached_property
    def unit(self) -> Unit:
        """The unit of the script's steps, as shown by runs at other batch sizes.

        A log that names its steps epochs counts epochs. If the first reports are half as far apart at twice
        the batch, the script reports once per epoch, in optimizer steps. In optimizer steps, a run of the
        same epochs is shorter with a larger batch; but so is one whose script stopped early, so no run may
        contradict it. A script that reports steps 1, 2, 3 is assumed to count epochs until then.
        """
        return _unit(self) if self.uncut is None else self.uncut.unit

    def length_of(self, batch_size: int) -> float | None:
        """Return the last step of a whole run at a batch size and the usual epochs; None while unknown."""
        if self.run_length is None or self.unit is not Unit.OPTIMIZER_STEP:
            return self.run_length
        return self.run_length * self.spec.baseline_batch_size / batch_size

    def expected_length(self, trial: Trial) -> float | None:
        """Return the last step of a whole run of the trial's setting; None while unknown."""
        usual = self.length_of(trial.suggestion.batch_size)
        return None if usual is None else usual * self.share_of_length(trial)

    def whole_length(self, trial: Trial) -> float:
        """Return the last step of a whole run of the trial's setting; infinity while unknown."""
        return self.expected_length(trial) or math.inf

    def share_of_length(self, trial: Trial) -> float:
        """Return how many times as many epochs a trial trains as the unchanged job, if it searches them."""
        found = LENGTHS.intersection(self.spec.search_space)
        if len(found) != 1:
            return 1.0
        (name,) = found
        own, its = self.spec.baseline_parameters.get(name), trial.suggestion.parameters.get(name)
        if not isinstance(own, (int, float)) or not isinstance(its, (int, float)) or min(own, its) <= 0:
            return 1.0
        return its / own

    def is_whole(self, trial: Trial) -> bool:
        """Return whether the trial has come to its last step, however its program ended."""
        is_shown = self.is_length_known or self._ends_alike
        is_measured = is_shown and self.unit is not Unit.UNKNOWN and len(curve(trial)) > 0
        return is_measured and curve(trial).last_step >= self.whole_length(trial)

    @cached_property
    def _ends_alike(self) -> bool:
        """Whether several runs of the unchanged job met the target and ended at one step, none of them well.

        Some programs exit with another code than 0 after every run, as with `sys.exit(main())` where `main`
        returns the accuracy.
        """
        unchanged = (t for t in self.trials if t.suggestion.purpose is Purpose.BASELINE and not t.is_running)
        ends = [curve(t).last_step for t in unchanged if self.has_reached(t)]
        return len(ends) > 1 and len(set(ends)) == 1

    def is_current(self, trial: Trial) -> bool:
        """Return whether a failure still counts: of the current template, and later than the last retry."""
        today = self.spec.attempt(self.spec.template)
        if trial.template and today and trial.template != today:
            return False
        retried = self.spec.retried_at
        return retried is None or trial.ended_at is None or trial.ended_at > retried

    @cached_property
    def lacked_memory(self) -> tuple[Trial, ...]:
        """Trials that ran out of memory. A changed job may have more, so earlier trials do not count."""
        ended = (t for t in self.trials if t.outcome is Outcome.OUT_OF_MEMORY)
        return tuple(trial for trial in ended if self.is_current(trial))

    @cached_property
    def confirmations(self) -> dict[Setting, list[Trial]]:
        """The confirmation runs, grouped by setting."""
        groups: dict[Setting, list[Trial]] = {}
        for trial in self.trials:
            if trial.suggestion.purpose is Purpose.CONFIRM:
                groups.setdefault(setting(trial), []).append(trial)
        return groups

    def tally(self, tried: Setting) -> tuple[int, int]:
        """Return how many confirmation runs of a setting reached the target, and how many runs missed it.

        The run that discovered the setting does not confirm it, because it was selected for its result. A run
        of the setting that missed counts, whatever its purpose.
        """
        runs = self.confirmations.get(tried, ())
        others = self._other_misses.get(tried, 0) if runs else 0
        return sum(map(self.has_reached, runs)), sum(map(self.has_missed, runs)) + others

    @cached_property
    def _other_misses(self) -> dict[Setting, int]:
        """Runs that missed the target and were not confirmations, by setting."""
        return Counter(
            setting(t)
            for t in self.trials
            if t.suggestion.purpose is not Purpose.CONFIRM and self.has_missed(t)
        )

    def has_reached(self, trial: Trial) -> bool:
        """Return whether the trial has met the current target; a run in doubt never counts."""
        return not trial.doubt and curve(trial).meets(self.spec.target)

    def has_missed(self, trial: Trial) -> bool:
        """Return whether the trial ended, or was stopped as a miss, without meeting the current target."""
        return (trial.outcome in RAN_OUT or is_complete(trial)) and not self.has_reached(trial)


def _discounted(trial: Trial, reasons: Mapping[int, str], outcome: Outcome) -> Trial:
    if trial.number not in reasons:
        return trial
    ended = None if trial.is_running else outcome
    return replace(trial, measurements=(), outcome=ended, message=reasons[trial.number], is_complete=False)


def _without_check(trial: Trial) -> Trial:
    if trial.suggestion.purpose is not Purpose.CHECK:
        return trial
    kept = {None, Outcome.LOST, Outcome.OUT_OF_MEMORY}  # which are run again
    outcome = trial.outcome if trial.outcome in kept else Outcome.DOMINATED
    return replace(trial, measurements=(), outcome=outcome, is_complete=False)


def is_complete(trial: Trial) -> bool:
    """Return whether the run reached its own end.

    If it was not recorded, a run that missed counts as complete, and so does a baseline that met the target:
    before the length of a run is known, a baseline is not stopped at the target.
    """
    if trial.is_complete is not None:
        return trial.is_complete
    is_baseline = trial.suggestion.purpose is Purpose.BASELINE
    return trial.outcome is Outcome.MISSED or (trial.outcome is Outcome.REACHED and is_baseline)


def _unit(history: History) -> Unit:
    length, usual = history.own_length, history.spec.baseline_batch_size
    if any(t.unit == EPOCH for t in history.trials):
        return Unit.EPOCH
    if length is None:
        return Unit.UNKNOWN
    unchanged = [t for t in history.trials if t.suggestion.purpose is Purpose.BASELINE]
    gaps = [gap for t in unchanged if (gap := _gap(curve(t))) is not None]
    counts = bool(gaps) and gaps[0] == 1 and length <= MOST_EPOCHS
    others = [
        (t, t.suggestion.batch_size / usual)
        for t in history.trials
        if len(curve(t)) and not 1 / APART < t.suggestion.batch_size / usual < APART
    ]
    spread = [(gap, ratio) for t, ratio in others if (gap := _gap(curve(t))) is not None]
    if gaps and not counts and any(abs(gap * ratio / gaps[0] - 1) < CLOSE for gap, ratio in spread):
        return Unit.OPTIMIZER_STEP  # it reports once per epoch, in optimizer steps
    # A run that was stopped has not shown its own end.
    relative = [(t, curve(t).last_step / history.share_of_length(t) / length, ratio) for t, ratio in others]
    whole = [each for each in relative if each[0].outcome is Outcome.MISSED and is_complete(each[0])]
    if whole:
        is_shorter = all(_is_shorter(shown, ratio, exactly=counts) for _, shown, ratio in whole)
        is_beyond = counts and any(shown * ratio > 1 + CLOSE for _, shown, ratio in relative)
        return Unit.OPTIMIZER_STEP if is_shorter and not is_beyond else Unit.EPOCH
    # With one report per run its progress decides nothing.
    return Unit.EPOCH if counts or not gaps else Unit.UNKNOWN


def _is_shorter(length: float, ratio: float, *, exactly: bool) -> bool:
    """Return whether a run at `ratio` times the batch size is as much shorter as its optimizer steps are.

    `length` is relative to that of the known-good batch. If every step is reported the two agree `exactly`;
    otherwise the last report may be before the last step, and the nearer of this and an equal length holds.
    """
    if exactly:
        return abs(length * ratio - 1) < CLOSE
    return math.log(max(length, 1e-9)) / -math.log(ratio) > 0.5  # noqa: PLR2004 (the nearer of 0 and 1)


def _gap(seen: Curve) -> float | None:
    """Return the number of steps between a run's first two reports; None while they may be one evaluation."""
    if len(seen) < 2 or (len(seen) == 2 and seen.values[0] == seen.values[1]):  # noqa: PLR2004
        return None
    return float(seen.steps[1] - seen.steps[0])


def curve(trial: Trial) -> Curve:
    """Return the learning curve of the trial."""
    return CURVES.of(trial)


def _weight(trial: Trial) -> tuple[bool, int, str]:
    return not trial.is_running, len(trial.measurements), str(trial.outcome)
