"""Find runs that continue where another trial ended: they have resumed its checkpoint, and do not count.

The same comparison finds runs that are perfect from the beginning, because they are evaluated on no samples.

A resumed run meets the target at its first measurement, and would be stopped there. So its first step is
compared with where fresh runs begin, and a first value that no fresh run began with is not counted before
more of them have come.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from autotuner.study.finding import (
    ENDS,
    FEWEST_SINGLE,
    FEWEST_VALUES,
    Finding,
    Member,
    Point,
    Reason,
    points_of,
)
from autotuner.study.history import EPOCH
from autotuner.study.quantum import quantum_of
from autotuner.study.setting import setting
from autotuner.trial import Trial

MOST_RUNS: Final = 200
"""Earlier runs with which a run is compared."""
NOISES: Final = 8.0
"""Minimum gain of a run, in usual changes of its last values, that shows where its setting begins."""
LEVELS: Final = 1000
"""Levels of a metric from which on two runs rarely end with the same one."""


def resumed_runs(trials: Sequence[Trial], sign: int) -> list[Finding]:
    """Return runs that continue where an earlier one ended, and runs that seem to be evaluated on nothing.

    The former are found by their steps or by their values. Neither kind shows where a fresh run begins, but
    another run may continue one that resumed. `sign` is 1 if larger values are better, else -1.
    """
    return _sorted_out(trials, sign)[0]


def unsettled_runs(trials: Sequence[Trial], sign: int) -> list[int]:
    """Return the running trials that began where fresh runs end, as long as the reason is unknown.

    They must not be stopped at a first measurement that meets the target: only more of the curve shows it.
    """
    return _sorted_out(trials, sign)[1]


def _sorted_out(trials: Sequence[Trial], sign: int) -> tuple[list[Finding], list[int]]:
    found: list[Finding] = []
    unsettled: list[int] = []
    fresh: list[Member] = []
    known: list[Member] = []
    for trial in sorted(trials, key=lambda t: t.number):
        points = points_of(trial)
        if not points:
            continue
        member = (trial, points)
        earlier = [other for other in known[-MOST_RUNS:] if _ended_before(other[0], trial)]
        norm = fresh[-MOST_RUNS:]
        if _evaluates_nothing(member, fresh, sign):
            found.append(_of_nothing(trial, points[0], fresh))
            continue
        source = _continued_steps(member, earlier, norm, sign)
        source = source or _continued_values(member, earlier, norm, sign)
        source = source or _continued_own(member, earlier, norm, sign)
        known.append(member)
        if source is not None:
            found.append(_finding(trial, points[0], source))
        elif (
            trial.is_running
            and len(points) < FEWEST_VALUES
            and ((earlier and _begins_high(points, norm, sign)) or _of_own(member, earlier, norm, sign))
        ):
            unsettled.append(trial.number)
        elif len(points) > 1 and not _is_late(member, norm):
            # One point has no interval.
            fresh.append(member)
    return found, unsettled


def _finding(trial: Trial, first: Point, source: Trial) -> Finding:
    step, value = first
    message = (
        f"trial {trial.number} begins at step {step:g} with {value:g}, where trial {source.number} ended:"
        " it seems to have resumed that trial's checkpoint, and is not counted; give each trial a folder"
        " of its own, such as $(AUTOTUNER_OUTPUT_DIR)"
    )
    return Finding(Reason.RESUMED, (trial.number,), message, continues=source.number)


def _of_nothing(trial: Trial, first: Point, fresh: Sequence[Member]) -> Finding:
    step, value = first
    other, points = fresh[-1]
    message = (
        f"trial {trial.number} at batch size {trial.suggestion.batch_size} measured {value:g} from step"
        f" {step:g} on, where trial {other.number} at {other.suggestion.batch_size} began with"
        f" {points[0][1]:g}: it seems to be evaluated on no samples, and is not counted; keep the last batch"
        " of the validation (drop_last=False), and give the validation a batch size of its own"
    )
    return Finding(Reason.EVALUATES_NOTHING, (trial.number,), message)


def _evaluates_nothing(member: Member, fresh: Sequence[Member], sign: int) -> bool:
    """Return whether a run has had the same perfect value from the beginning, which no fresh run ever had.

    An accuracy of `1 - errors / max(batches, 1)` is 1 without a batch. A larger batch is no reason to learn
    faster, and one that other runs are evaluated at is small enough.
    """
    trial, points = member
    values = {value for _, value in points}
    if len(values) > 1 or not values <= ENDS or (trial.is_running and len(points) < FEWEST_VALUES):
        return False
    is_largest = all(other.suggestion.batch_size < trial.suggestion.batch_size for other, _ in fresh)
    is_new = not any(value in values for _, before in fresh for _, value in before)
    return is_largest and is_new and _begins_high(points, fresh, sign)


def _continued_steps(
    member: Member, earlier: Sequence[Member], fresh: Sequence[Member], sign: int
) -> Trial | None:
    """Return the trial whose steps a run continues to count, if all fresh runs begin at the first steps.

    A run that was stopped may have trained on after its last known value. So the gap to it does not count for
    a run that begins where fresh runs have ended.
    """
    if not _is_late(member, fresh):
        return None
    points = member[1]
    first, interval = points[0][0], _interval(member, fresh)
    is_after_all = all(first > p[-1][0] * _steps_ratio(member[0], other) for other, p in fresh)
    start = fresh[0][1][0][1]
    gaps = [
        (first - before[-1][0], trial)
        for trial, before in reversed(earlier)
        if before[-1][0] <= first and sign * (points[0][1] - start) >= 0.5 * sign * (before[-1][1] - start)
    ]
    # A folder may be one of each setting.
    near = [trial for gap, trial in gaps if gap <= 1.5 * interval]
    near.sort(key=lambda trial: setting(trial) != setting(member[0]))
    if near or not (gaps and is_after_all):
        return next(iter(near), None)
    return min(gaps, key=lambda each: each[0])[1]


def _is_late(member: Member, fresh: Sequence[Member]) -> bool:
    """Return whether a run begins late and all fresh runs begin at the first steps."""
    if not fresh or any(_begins_late(p[0][0], _interval((t, p), ())) for t, p in fresh):
        return False
    return _begins_late(member[1][0][0], _interval(member, fresh))


def _continued_values(
    member: Member, earlier: Sequence[Member], fresh: Sequence[Member], sign: int
) -> Trial | None:
    """Return the trial whose last value a run begins with, if all fresh runs begin far below their last.

    A fast learner may begin high too, but not with a setting that another run has begun low with. With
    another setting, the run must also have nothing left to learn; and either several fresh runs agree on
    where a run begins, or the run has a batch no smaller than the one that it continues, hence no more
    updates in its first interval than that one had, which needed `FEWEST_VALUES` of them.
    """
    trial, points = member
    if not _begins_high(points, fresh, sign):
        return None
    if len(points) < FEWEST_VALUES:
        return None if trial.is_running else _repeated(member, earlier, fresh)
    firsts = [sign * p[0][1] for _, p in fresh]
    gain = _gain(fresh, sign)
    own = [sign * value for _, value in points]
    for other, before in reversed(earlier):
        is_same = setting(other) == setting(trial) and len(before) >= FEWEST_VALUES
        if is_same and own[0] >= sign * before[-1][1] - 0.05 * gain:
            return other
    if max(own) - own[0] > 0.1 * gain:
        return None
    agree = len(fresh) >= FEWEST_SINGLE and max(firsts) - min(firsts) <= 0.2 * gain
    for other, before in reversed(earlier):
        values = [sign * value for _, value in before]
        is_slower = (
            trial.suggestion.batch_size >= other.suggestion.batch_size
            and len(values) > FEWEST_VALUES
            and max(values[:FEWEST_VALUES]) < own[0] - 0.1 * gain
        )
        if abs(own[0] - values[-1]) <= 0.05 * gain and (agree or is_slower):
            return other
    return None


def _continued_own(
    member: Member, earlier: Sequence[Member], fresh: Sequence[Member], sign: int
) -> Trial | None:
    """Return the trial of the same setting whose last value a run begins with.

    A folder that is named after the hyperparameters is shared by the runs that confirm them. What the runs
    of other settings begin with does not matter then.
    """
    trial, points = member
    if trial.is_running and len(points) < FEWEST_VALUES:
        return None
    return _of_own(member, earlier, fresh, sign)


def _of_own(member: Member, earlier: Sequence[Member], fresh: Sequence[Member], sign: int) -> Trial | None:
    trial, points = member
    own = [(t, [sign * value for _, value in p]) for t, p in earlier if setting(t) == setting(trial)]
    firsts = [sign * p[0][1] for t, p in fresh if setting(t) == setting(trial)]
    begun = [sign * value for _, value in points[:FEWEST_VALUES]]
    return next((t for t, values in reversed(own) if firsts and _goes_on(begun, values, max(firsts))), None)


def _goes_on(begun: Sequence[float], values: Sequence[float], highest: float) -> bool:
    """Return whether first values are where another run of the setting came to after several values.

    The gain of that run must be far above its noise, and no fresh run of the setting may begin as high.
    """
    if len(values) < 2 * FEWEST_VALUES:
        return False
    gain = values[-1] - values[0]
    noise = statistics.median(abs(after - before) for before, after in pairwise(values[len(values) // 2 :]))
    is_high = begun[0] >= values[-1] - 0.05 * gain and min(begun) >= values[-1] - 0.1 * gain
    is_slow = max(values[:FEWEST_VALUES]) < begun[0] - 0.1 * gain and highest < begun[0] - 0.5 * gain
    return gain > NOISES * noise and is_high and is_slow


def _repeated(member: Member, earlier: Sequence[Member], fresh: Sequence[Member]) -> Trial | None:
    """Return the run that ended last, if a run with nothing left to train has evaluated its model again.

    Or the last one of its setting that has a curve, where each setting has a folder of its own.
    """
    trial, points = member
    same = [m for m in earlier if setting(m[0]) == setting(trial) and len(m[1]) >= FEWEST_VALUES]
    lasts = [max(group, key=_end) for group in (earlier, same) if group]
    source = next((other for other, before in lasts if {v for _, v in points} == {before[-1][1]}), None)
    if source is None:
        return None
    # Of few levels, two runs have the same one by chance. One value alone does not show how many there are.
    values = [value for _, known in fresh for _, value in known]
    return source if max(values) - min(values) >= LEVELS * quantum_of(values) else None


def _end(member: Member) -> tuple[float, int]:
    ended_at = member[0].ended_at
    return 0.0 if ended_at is None else ended_at.timestamp(), member[0].number


def _begins_high(points: Sequence[Point], fresh: Sequence[Member], sign: int) -> bool:
    """Return whether a run begins near where fresh runs end, of which each begins far below its last."""
    if not fresh:
        return False
    gain = _gain(fresh, sign)
    is_low = all(sign * (p[-1][1] - p[0][1]) > 0.5 * gain for _, p in fresh)
    highest = max(sign * p[0][1] for _, p in fresh)
    return gain > 0 and is_low and sign * points[0][1] - highest >= 0.7 * gain


def _gain(fresh: Sequence[Member], sign: int) -> float:
    first = statistics.median(sign * p[0][1] for _, p in fresh)
    return statistics.median(sign * p[-1][1] for _, p in fresh) - first


def _interval(member: Member, fresh: Sequence[Member]) -> float:
    """Return the steps between two measurements: a run's own, or with one point the widest of fresh runs."""
    trial, points = member
    if len(points) > 1:
        return points[1][0] - points[0][0]
    return max(
        (max(p[0][0], p[1][0] - p[0][0]) * _steps_ratio(trial, other) for other, p in fresh), default=0.0
    )


def _steps_ratio(trial: Trial, other: Trial) -> float:
    """Return by how much an epoch of a run may have more steps than one of another, whose batch is larger."""
    size = math.inf if trial.unit == EPOCH else trial.suggestion.batch_size
    return max(1.0, other.suggestion.batch_size / size)


def _begins_late(first: float, interval: float) -> bool:
    return interval > 0 and first > 2.5 * interval


def _ended_before(other: Trial, trial: Trial) -> bool:
    if other.is_running:
        return False
    if other.ended_at is not None and trial.started_at is not None:
        return other.ended_at <= trial.started_at
    return other.number < trial.number
