"""Which checks of an answer's batch and learning rate are due, and whether they can be made at all.

A check repeats the start of a run (`autotuner.study.findings.batch_check`);
`autotuner.study.findings.proof` judges it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from autotuner.decide.standing import Standing
from autotuner.spec.values import FloatDimension
from autotuner.study.findings.batch_check import (
    CLOSE,
    EARLY,
    HALF,
    NEAR,
    SHARES,
    BatchCheck,
    has_telling_losses,
    noise_of_seeds,
    original_of,
)
from autotuner.study.findings.reported_batch import shows_batch
from autotuner.study.history import History, curve
from autotuner.study.layout_bounds import nearest
from autotuner.study.setting import Setting, setting
from autotuner.trial import Purpose, Suggestion, Trial


def next_check(standing: Standing, tried: Setting) -> Suggestion | None:
    """Return the next trial that checks whether the script trains a setting's batch; None if none is due.

    The check of the learning rate comes last. No check is due for a batch that is at most the job's own,
    before a run of the setting has ended, or if the run shows nothing before its second half, because the
    check would then cost a whole run.
    """
    original = _to_repeat(standing, tried)
    if original is None or _is_late(standing.history, original):
        return None
    if (unclear := _to_control(standing, tried)) is not None:
        return replace(standing.suggest(setting(unclear), Purpose.CHECK), seed=unclear.suggestion.seed)
    seed = original.suggestion.seed
    repeats = (t.suggestion for t in standing.history.trials if t.suggestion.seed == seed)
    begun = [repeat for repeat in repeats if repeat.purpose is Purpose.CHECK]
    sizes = {repeat.batch_size for repeat in begun if repeat.parameters == original.suggestion.parameters}
    for share in SHARES:
        wanted = Setting(max(round(share * tried.batch_size), 1), tried.items)
        found = nearest(standing.history, wanted)
        is_near = 1 / CLOSE <= found.batch_size / wanted.batch_size <= CLOSE
        is_new = found.batch_size not in sizes
        if is_near and is_new and not _is_shown(standing.checks, tried.batch_size, found.batch_size):
            return replace(standing.suggest(found, Purpose.CHECK), seed=seed)
    has_rate = any(repeat.parameters != original.suggestion.parameters for repeat in begun)
    return None if has_rate else _rate_check(standing, original)


def _to_control(standing: Standing, tried: Setting) -> Trial | None:
    """Return the run that must be repeated unchanged to show the effect of a setting's batch; else None.

    Half its batch has made little difference, or not much more than other seeds do. Where the losses are
    nearly the same, too, the answer is in doubt in any case.
    """
    if any(check.is_control and not check.differs for check in standing.checks):
        return None  # The training is deterministic.
    trials = standing.history.trials
    noise = noise_of_seeds(trials)
    controls = {(setting(t), t.suggestion.seed) for t in trials if t.suggestion.purpose is Purpose.CHECK}
    for check in standing.checks:
        one, repeated = check.original, setting(check.original)
        if check.trial.is_running or (repeated, one.suggestion.seed) in controls or shows_batch(one, trials):
            continue
        is_near = repeated == tried and check.seems_same and not check.has_close_losses
        if is_near or (repeated.batch_size >= tried.batch_size and check.is_within(noise)):
            return one
    return None


def _rate_check(standing: Standing, original: Trial) -> Suggestion | None:
    """Return the trial that repeats a run with a smaller learning rate; None if none is due.

    None is due after any check of a rate has made no difference, or after one of a rate at least as high has
    made a difference.
    """
    repeated, name = original.suggestion, standing.spec.learning_rate
    rate, dimension = repeated.parameters.get(name or ""), standing.spec.search_space.get(name or "")
    if name is None or not isinstance(rate, float) or not isinstance(dimension, FloatDimension):
        return None
    shown = ((c.differs, c.original.suggestion.parameters.get(name)) for c in standing.checks if c.is_of_rate)
    is_shown = any(not differs or (isinstance(r, float) and r >= rate) for differs, r in shown)
    smaller = float(f"{max(NEAR * rate, dimension.minimum):.4g}")
    if is_shown or not 0 < smaller * CLOSE < rate:
        return None
    tried = Setting.of(repeated.batch_size, {**repeated.parameters, name: smaller})
    return replace(standing.suggest(tried, Purpose.CHECK), seed=repeated.seed)


def _is_late(history: History, original: Trial) -> bool:
    """Return whether a check would cost nearly a whole run, as its first value comes late.

    The losses of the training may show the effect earlier.
    """
    if has_telling_losses(original):
        return False
    shown = curve(original)
    return not len(shown) or shown.steps[0] > EARLY * history.whole_length(original)


def is_unchecked(standing: Standing, tried: Setting) -> bool:
    """Return whether nothing shows that a setting's batch is trained, because its first value comes late.

    A script that reports its batch size or throughput shows it; so do the lengths of loops in its log.
    """
    original = _to_repeat(standing, tried)
    if original is None or not _is_late(standing.history, original):
        return False
    return not shows_batch(original, standing.history.trials)


def _to_repeat(standing: Standing, tried: Setting) -> Trial | None:
    """Return the run that a check of a setting's batch repeats; None for one of at most the job's own."""
    is_larger = tried.batch_size > standing.baseline.batch_size
    return original_of(standing.history.trials, tried) if is_larger else None


def _is_shown(checks: Iterable[BatchCheck], batch_size: int, smaller: int) -> bool:
    """Return whether a check of a batch at least as large rules out that only `smaller` is trained.

    That about half the batch is trained is ruled out only by a check with half of one: the values of nearly
    the same batch differ little, which may be chance.
    """
    is_half = batch_size >= HALF * smaller
    return any(
        check.shows_effect
        and (check.is_half or not is_half)
        and check.is_of_batch
        and check.original.suggestion.batch_size >= batch_size
        and check.trial.suggestion.batch_size >= smaller
        for check in checks
    )


def running_check(history: History) -> Suggestion | None:
    """Return the check that runs; None if none does."""
    running = (t.suggestion for t in history.running)
    return next((tried for tried in running if tried.purpose is Purpose.CHECK), None)
