"""Check from the measurements that trials trained what they were asked to.

There are three checks, each a rule on the measurements. If runs of different settings have the same curve to
the last digit, the script ignores its variables. If a run continues where another one ended, it resumed a
checkpoint. The reported batch, step count or throughput must follow the batch size.

How many equal digits are enough? Curves coincide by chance if the metric is coarse (350 of 360 samples
right). So a value counts by the number of levels that it can take: `log2(3.5 x levels / spread)` bits, where
`levels` are those between the curve's extremes, and 3.5 accounts for the overlap of two normal noises.
`spread` is 1,000: the noise between runs is assumed to be at least a thousandth of the curve's extent. It is
200 if three batch sizes agree, because their curves differ by more than noise. A metric with fewer than 200
levels proves nothing. Each value counts once, and values at an end of the scale (0, 1, 100) never count, so
that two runs that both saturate or both learn nothing prove nothing. `ENOUGH` bits over all settings are a
finding: at a probability of 1e-12, no study has enough pairs for a false alarm.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from autotuner.trial import ParameterValue, Purpose, Trial

ENOUGH: Final = 40.0
"""Bits of coincidence that rule out chance."""
ENOUGH_SINGLE: Final = 30.0
"""The same for runs with fewer than `FEWEST_VALUES` values, of which several settings must agree."""
FEWEST_VALUES: Final = 3
"""Minimum number of different values of a curve."""
FEWEST_SINGLE: Final = 4
"""Settings that must agree if a run has only one or two values; the baseline, which learns, is one."""
FEWEST_BATCHES: Final = 3
"""Batch sizes that must agree if the digits alone do not decide."""
MOST_POINTS: Final = 200
"""Points of a curve that are compared."""
MOST_RUNS: Final = 200
"""Earlier runs with which a run is compared."""
MOST_GROUPS: Final = 20
"""Maximum number of groups of identical runs."""

_LARGEST_LATTICE: Final = 100_000
"""Samples of a validation set up to which values are recognised as its fractions."""
_MOST_DECIMALS: Final = 12
_SINGLE_PRECISION: Final = 6e-8
"""Rounding of a metric that was computed in 32 bits, and printed as if in 64."""
_ENDS: Final = frozenset({0.0, 1.0, 100.0})
_FEWEST_LEVELS: Final = 200
"""Levels of a metric below which equal values are common: a validation set with this many samples."""
_NORMAL: Final = 3.5
_COARSE, _FINE = 200.0, 1000.0
_REPORTED: Final = "batch_size"
_STEPS: Final = "steps_per_epoch"
_SAMPLES, _RATE = "samples_per_second", "steps_per_second"

Point = tuple[float, float]
SettingKey = tuple[int, tuple[tuple[str, ParameterValue], ...]]


class Reason(StrEnum):
    """The kind of a finding."""

    NOT_WIRED = "NotWired"
    """Settings have no effect: no answer of this study can be true."""
    SEED_NOT_USED = "SeedNotUsed"
    """Seeds have no effect: confirmations repeat the same run."""
    RESUMED = "Resumed"
    """A run continues another's training: it does not count."""
    BATCH_NOT_FOLLOWED = "BatchNotFollowed"
    """The reported quantities do not follow the batch size."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A doubt about runs: the reason, the numbers of the trials, a message for the user.

    `names` are the settings without effect. `continues` is the trial that a resumed run continues.
    """

    reason: Reason
    trials: tuple[int, ...]
    message: str
    names: tuple[str, ...] = ()
    continues: int | None = None


def findings(trials: Iterable[Trial], sign: int) -> tuple[Finding, ...]:
    """Return every doubt about the trials; `sign` is 1 if larger values are better, else -1."""
    known = tuple(sorted(trials, key=lambda trial: trial.number))
    return (*identical_runs(known), *resumed_runs(known, sign), *batch_doubts(known))


def identical_runs(trials: Sequence[Trial]) -> list[Finding]:
    """Return groups of runs whose curves are identical to the last digit over their common length."""
    found: list[Finding] = []
    for group in _groups(trials):
        settings = {_setting(trial) for trial, _ in group}
        if len(settings) > 1:
            if _is_not_wired(group):
                found.append(_not_wired(group))
        elif _bits_by(group, lambda trial: trial.suggestion.seed, _FINE) >= ENOUGH:
            found.append(_seed_not_used(group))
    return found


def resumed_runs(trials: Sequence[Trial], sign: int) -> list[Finding]:
    """Return runs that continue where an earlier one ended, by their steps or by their values.

    Runs that resumed another do not show where a run begins; another run may continue them in turn.
    """
    found: list[Finding] = []
    fresh: list[Member] = []
    known: list[Member] = []
    for trial in sorted(trials, key=lambda t: t.number):
        points = _points(trial)
        if len(points) < 2:  # noqa: PLR2004 (one point has no interval)
            continue
        member = (trial, points)
        earlier = [other for other in known[-MOST_RUNS:] if _ended_before(other[0], trial)]
        norm = fresh[-MOST_RUNS:]
        source = _continued_steps(member, earlier, norm, sign)
        source = source or _continued_values(member, earlier, norm, sign)
        known.append(member)
        if source is None:
            fresh.append(member)
            continue
        step, value = points[0]
        message = (
            f"trial {trial.number} begins at step {step:g} with {value:g}, where trial {source.number} ended:"
            " it seems to have resumed that trial's checkpoint, and is not counted; give each trial a folder"
            " of its own, such as $(AUTOTUNER_OUTPUT_DIR)"
        )
        found.append(Finding(Reason.RESUMED, (trial.number,), message, continues=source.number))
    return found


def batch_doubts(trials: Sequence[Trial]) -> list[Finding]:
    """Return runs whose reported batch, steps or throughput do not follow the batch size.

    Read from `extras`: `batch_size` must be the requested one, or the script ignores its variables;
    `steps_per_epoch` must decrease as the batch grows; `samples_per_second` / `steps_per_second` is the batch
    that is trained.
    """
    found = [finding for trial in trials if (finding := _reported_doubt(trial)) is not None]
    counted = [trial for trial in trials if trial.extras.get(_STEPS, 0.0) > 0]
    for trial in counted:
        first = counted[0]
        ratio = trial.suggestion.batch_size / first.suggestion.batch_size
        steps, before = trial.extras[_STEPS], first.extras[_STEPS]
        if not 0.5 < ratio < 2 and abs(steps - before) <= 0.01 * before and before > 2:  # noqa: PLR2004
            message = (
                f"an epoch has {steps:g} steps in trial {trial.number} at batch size"
                f" {trial.suggestion.batch_size}, and {before:g} in trial {first.number} at"
                f" {first.suggestion.batch_size}: the batch that is trained does not change"
            )
            found.append(
                Finding(Reason.BATCH_NOT_FOLLOWED, (first.number, trial.number), message, ("batch_size",))
            )
            break
    return found


# --- identical curves ----------------------------------------------------------------------------------

Member = tuple[Trial, tuple[Point, ...]]


def _groups(trials: Sequence[Trial]) -> Iterator[list[Member]]:
    """Yield groups of runs that are identical to the longest one over their own length; that one is first."""
    left = [(trial, points) for trial in trials if (points := _points(trial))]
    # One run per setting and seed is enough: a retry of a lost trial is expected to repeat it.
    seen: dict[tuple[SettingKey, int], Member] = {}
    for trial, points in left:
        key = (_setting(trial), trial.suggestion.seed)
        if key not in seen or len(points) > len(seen[key][1]):
            seen[key] = (trial, points)
    buckets: dict[Point, list[Member]] = {}
    for member in seen.values():
        buckets.setdefault(member[1][0], []).append(member)
    for bucket in buckets.values():
        rest = sorted(bucket, key=lambda member: (-len(member[1]), member[0].number))
        for _ in range(MOST_GROUPS):
            if len(rest) < 2:  # noqa: PLR2004 (a pair)
                break
            longest = dict(rest[0][1])
            shared = ((trial, _shared(points, longest)) for trial, points in rest)
            group = [(trial, points) for trial, points in shared if points]
            if len(group) > 1:
                yield group
            taken = {member[0].number for member in group}
            rest = [member for member in rest if member[0].number not in taken]


def _shared(points: Sequence[Point], longest: Mapping[float, float]) -> tuple[Point, ...]:
    """Return the points at the common steps of two curves if all of them are equal; else none.

    The curves of a ledger are thinned, and two of different lengths keep different steps.
    """
    common = tuple(point for point in points if point[0] in longest)[:MOST_POINTS]
    is_same = all(longest[step] == value for step, value in common)
    return common if is_same and len(common) >= min(len(points), FEWEST_VALUES) else ()


def _is_not_wired(group: Sequence[Member]) -> bool:
    batches = {trial.suggestion.batch_size for trial, _ in group}
    if _bits_by(group, _setting, _FINE) >= ENOUGH or (
        len(batches) >= FEWEST_BATCHES
        and _bits_by(group, lambda t: t.suggestion.batch_size, _COARSE) >= ENOUGH
    ):
        return True
    settings = {_setting(trial) for trial, _ in group}
    has_baseline = any(trial.suggestion.purpose is Purpose.BASELINE for trial, _ in group)
    if len(settings) < FEWEST_SINGLE or not has_baseline:
        return False
    # A run of several points with a single value learns nothing; a run of one point may learn.
    single = [(trial, points) for trial, points in group if len(points) < FEWEST_VALUES]
    return _bits_by(single, _setting, _FINE, fewest=1) >= ENOUGH_SINGLE


def _bits_by(
    group: Sequence[Member], key: Callable[[Trial], Hashable], spread: float, fewest: int = FEWEST_VALUES
) -> float:
    """Return the bits of coincidence between the longest run and one run of each other key."""
    if not group:
        return 0.0
    best: dict[Hashable, float] = {}
    quantum = _quantum([value for _, value in group[0][1]])
    for trial, points in group:
        best[key(trial)] = max(best.get(key(trial), 0.0), _bits(points, quantum, spread, fewest))
    own = key(group[0][0])
    return sum(bits for other, bits in best.items() if other != own)


def _bits(points: Sequence[Point], quantum: float, spread: float, fewest: int) -> float:
    values = {value for _, value in points}
    informative = values - _ENDS
    if len(informative) < fewest:
        return 0.0
    extent = max(values) - min(values) if len(values) >= FEWEST_VALUES else abs(max(values, key=abs))
    levels = extent / quantum
    if levels < _FEWEST_LEVELS:
        return 0.0
    return len(informative) * max(0.0, math.log2(max(levels * _NORMAL / spread, 1.0)))


def _quantum(values: Sequence[float]) -> float:
    """Return the distance between two neighbouring values of the metric.

    This is one unit of the last decimal, or one sample of the validation set if all values are fractions of
    it.
    """
    distinct = np.array(sorted(set(values))[:50])
    decimals = max(_decimals(float(value)) for value in distinct)
    written = 10.0**-decimals
    # A fraction is printed as such or in percent.
    scale = 100.0 if distinct.max() > 1.5 else 1.0  # noqa: PLR2004
    return max(written, _lattice(distinct / scale, written / scale) * scale)


def _decimals(value: float) -> int:
    """Return the number of decimals of a value, ignoring the rounding of its last operation."""
    slack = 1e-12 * max(1.0, abs(value))
    written = (n for n in range(_MOST_DECIMALS) if abs(value - round(value, n)) <= slack)
    return next(written, _MOST_DECIMALS)


def _lattice(values: np.ndarray[tuple[int], np.dtype[np.float64]], written: float) -> float:
    sizes = np.arange(1, min(_LARGEST_LATTICE, int(min(1 / written, 1e9)) + 1) + 1, dtype=np.float64)
    tolerance = sizes * max(0.51 * written, _SINGLE_PRECISION)
    fits = np.ones(len(sizes), dtype=np.bool_)
    with np.errstate(all="ignore"):
        for value in values:
            fits &= np.abs(value * sizes - np.round(value * sizes)) <= tolerance
    first = int(np.argmax(fits))
    return float(1 / sizes[first]) if fits[first] else 0.0


def _not_wired(group: Sequence[Member]) -> Finding:
    numbers = tuple(sorted(trial.number for trial, _ in group))
    taken: dict[str, set[object]] = {}
    for trial, _ in group:
        for name, value in {"batch_size": trial.suggestion.batch_size, **trial.suggestion.parameters}.items():
            taken.setdefault(name, set()).add(value)
    names = tuple(sorted(name for name, values in taken.items() if len(values) > 1))
    shown = "; ".join(f"{name} = {', '.join(sorted(map(str, taken[name]))[:4])}" for name in names)
    points = group[0][1]
    values = ", ".join(f"{value:g}" for _, value in points[:4])
    message = (
        f"trials {', '.join(map(str, numbers[:6]))} measured the same to the last digit ({values}, ...)"
        f" with different settings ({shown}): the script does not use what it is given; pass on the"
        " variables, such as --batch-size=$(AUTOTUNER_BATCH_SIZE)"
    )
    return Finding(Reason.NOT_WIRED, numbers, message, names)


def _seed_not_used(group: Sequence[Member]) -> Finding:
    numbers = tuple(sorted(trial.number for trial, _ in group))
    message = (
        f"trials {', '.join(map(str, numbers[:6]))} measured the same to the last digit with different seeds:"
        " the script does not use AUTOTUNER_SEED, so its confirmations prove no more than one run does"
    )
    return Finding(Reason.SEED_NOT_USED, numbers, message, ("seed",))


# --- resumed runs --------------------------------------------------------------------------------------


def _continued_steps(
    member: Member, earlier: Sequence[Member], fresh: Sequence[Member], sign: int
) -> Trial | None:
    """Return the trial whose step count a run continues, if all fresh runs start at the beginning."""
    points = member[1]
    if not _begins_late(points) or not fresh or any(_begins_late(p) for _, p in fresh):
        return None
    first, interval = points[0][0], points[1][0] - points[0][0]
    for trial, before in reversed(earlier):
        gap = first - before[-1][0]
        start = fresh[0][1][0][1]
        is_as_good = sign * (points[0][1] - start) >= 0.5 * sign * (before[-1][1] - start)
        if 0 <= gap <= 1.5 * interval and is_as_good:
            return trial
    return None


def _continued_values(
    member: Member, earlier: Sequence[Member], fresh: Sequence[Member], sign: int
) -> Trial | None:
    """Return the trial whose last value a run starts with, if fresh runs start far below their last one.

    A fast learner may also start high. So the run must also have nothing left to learn; and either several
    fresh runs agree on the value at the start, or the run's batch is not smaller than that of the run it
    continues, so its first interval has no more updates than that run had, which needed `FEWEST_VALUES` of
    them.
    """
    trial, points = member
    if not fresh or len(points) < FEWEST_VALUES:
        return None
    firsts = [sign * p[0][1] for _, p in fresh]
    lasts = [sign * p[-1][1] for _, p in fresh]
    gain = statistics.median(lasts) - statistics.median(firsts)
    own = [sign * value for _, value in points]
    is_low = all(last - first > 0.5 * gain for first, last in zip(firsts, lasts, strict=True))
    if gain <= 0 or not is_low or own[0] - max(firsts) < 0.7 * gain or max(own) - own[0] > 0.1 * gain:
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


def _begins_late(points: Sequence[Point]) -> bool:
    interval = points[1][0] - points[0][0]
    return interval > 0 and points[0][0] > 2.5 * interval


def _ended_before(other: Trial, trial: Trial) -> bool:
    if other.is_running:
        return False
    if other.ended_at is not None and trial.started_at is not None:
        return other.ended_at <= trial.started_at
    return other.number < trial.number


# --- what is reported in addition to the metric --------------------------------------------------------


def _reported_doubt(trial: Trial) -> Finding | None:
    asked = trial.suggestion.batch_size
    extras: Mapping[str, float] = trial.extras
    reason, trained = Reason.NOT_WIRED, extras.get(_REPORTED)
    if trained is None and extras.get(_RATE, 0.0) > 0 and _SAMPLES in extras:
        # Rates may be those of one process only.
        reason, trained = Reason.BATCH_NOT_FOLLOWED, extras[_SAMPLES] / extras[_RATE]
    if trained is None or abs(trained - asked) <= 0.2 * asked:
        return None
    message = (
        f"trial {trial.number} was asked for batch size {asked}, and reports {trained:g}: pass on"
        " AUTOTUNER_BATCH_SIZE, which counts all processes and accumulation steps together"
    )
    return Finding(reason, (trial.number,), message, ("batch_size",))


def _points(trial: Trial) -> tuple[Point, ...]:
    """Return the finite measurements in order of step, the last one of each step."""
    values = {m.step: m.value for m in trial.measurements if math.isfinite(m.step) and m.is_finite}
    return tuple(sorted(values.items()))


def _setting(trial: Trial) -> SettingKey:
    return trial.suggestion.batch_size, tuple(sorted(trial.suggestion.parameters.items()))
