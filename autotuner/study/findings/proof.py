"""Check from the measurements that trials trained what they were asked to.

There are four checks, each a rule on the measurements. If runs of different settings have the same curve to
the last digit, the script ignores its variables. If a run continues where another one ended, it resumed a
checkpoint. The reported batch, step count or throughput must follow the batch size. If a run with a smaller
batch and nothing else changed has the same curve, both trained one batch.

How many equal digits are enough? Curves coincide by chance if the metric is coarse (350 of 360 samples
right). So a value counts by the number of levels that it can take: `log2(3.5 x levels / spread)` bits, where
`levels` are those between the curve's extremes, and 3.5 accounts for the overlap of two normal noises.
`spread` is 1,000: the noise between runs is assumed to be at least a thousandth of the curve's extent. It is
200 if three batch sizes agree, because their curves differ by more than noise, and 50 if four agree that are
far apart: where the learning rate times the steps of an epoch differs by a factor of four, so do the first
epochs, by several percent at least. Otherwise a metric with fewer than 200 levels proves nothing. Each value
counts once, and values at an end of the scale (0, 1, 100) never count, so that two runs that both saturate or
both learn nothing prove nothing. `ENOUGH` bits over all settings are a finding: at a probability of 1e-12, no
study has enough pairs for a false alarm. A check of the batch is planned, so few pairs are compared, and its
batch is smaller by a tenth at least, at the same learning rate: `ENOUGH_CHECKED` bits are enough, with the
spread of 50. In 36 such pairs of the real trainings of tests/benchmarks, no two curves shared more than one
value before the first that differed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from autotuner.spec.learning_rate import learning_rate_among
from autotuner.study.finding import (
    ENDS,
    FAR,
    FEWEST_BATCHES,
    FEWEST_SINGLE,
    FEWEST_VALUES,
    Finding,
    Member,
    Point,
    Reason,
    points_of,
)
from autotuner.study.findings.alike import beginnings_alike
from autotuner.study.findings.batch_check import BatchCheck, batch_checks, has_telling_losses
from autotuner.study.findings.reported_batch import batch_doubts
from autotuner.study.findings.resumed import resumed_runs
from autotuner.study.logs.loops import loop_doubts
from autotuner.study.quantum import quantum_of
from autotuner.study.setting import Setting, setting
from autotuner.trial import Purpose, Trial

ENOUGH: Final = 40.0
"""Bits of coincidence that rule out chance."""
ENOUGH_SINGLE: Final = 30.0
"""The same for runs with fewer than `FEWEST_VALUES` values, of which several settings must agree."""
ENOUGH_CHECKED: Final = 20.0
"""The same for a check of the batch."""
BITS_OF_LOSSES: Final = 10.0
"""What equal first losses of all checks count for: a script that accumulates may print those of its
micro-batches, which do not depend on the batch."""
FEWEST_FAR: Final = 4
"""The same for a coarse metric, if they lie far apart."""
FAR_STEPS: Final = 4.0
"""Ratio of learning rate times steps of an epoch in runs that are far apart."""
MOST_POINTS: Final = 200
"""Points of a curve that are compared."""
MOST_GROUPS: Final = 20
"""Maximum number of groups of identical runs."""

_FEWEST_LEVELS: Final = 200
"""Levels of a metric below which equal values are common: a validation set with this many samples."""
_FEWEST_RUNS: Final = 3
"""Runs of one setting that must agree for a coarse metric."""
_NORMAL: Final = 3.5
_FAR, _COARSE, _FINE = 50.0, 200.0, 1000.0
_SHOWN: Final = 4


def findings(trials: Iterable[Trial], sign: int) -> tuple[Finding, ...]:
    """Return every doubt about the trials; `sign` is 1 if larger values are better, else -1."""
    known = tuple(sorted(trials, key=lambda trial: trial.number))
    others = [trial for trial in known if trial.suggestion.purpose is not Purpose.CHECK]
    alike = identical_runs(others) or batch_not_trained(known)
    return (
        *alike,
        *beginnings_alike(known),
        *rate_not_used(known),
        *resumed_runs(known, sign),
        *batch_doubts(known),
        *loop_doubts(known),
    )


def identical_runs(trials: Sequence[Trial]) -> list[Finding]:
    """Return groups of runs whose curves are identical to the last digit over their common length."""
    found: list[Finding] = []
    for group in _groups(trials):
        settings = {setting(trial) for trial, _ in group}
        if len(settings) > 1:
            if _is_not_wired(group):
                found.append(_not_wired(group))
        elif _is_without_seed(group):
            found.append(_seed_not_used(group))
    return found


def batch_not_trained(trials: Sequence[Trial]) -> list[Finding]:
    """Return the checks that have shown that their originals did not train their batch; or that may have.

    The latter, of runs that are the same in a few coarse values, are only warnings. The bits of all checks
    count together: each might have differed.
    """
    checks = (c for c in batch_checks(trials) if c.is_of_batch and not c.differs)
    same = [(check, points) for check in checks if (points := check.common)]
    if not same:
        return []
    # A script that ignores its seed repeats the same check.
    distinct = {(setting(check.trial), points, _fewest(check)) for check, points in same}
    quantum = _quantum(trials)
    bits = sum(_checked_bits(points, quantum, fewest) for _, points, fewest in distinct)
    of_losses = max(
        BITS_OF_LOSSES if _fewest(check) == 1 else min(_bits_of_losses(check), BITS_OF_LOSSES)
        for check, _ in same
    )
    is_shown = bits + of_losses >= ENOUGH_CHECKED
    return [
        Finding(
            Reason.NOT_WIRED if is_shown else Reason.BATCH_NOT_FOLLOWED,
            check.numbers,
            _same(check, points),
            ("batch_size",),
        )
        for check, points in same
        if is_shown or check.is_over
    ]


def rate_not_used(trials: Sequence[Trial]) -> list[Finding]:
    """Return a warning for each check of the learning rate that has shown no effect of it.

    The batch of the answer is trained and meets the target all the same, so there is an answer.
    """
    found: list[Finding] = []
    of_rate = [check for check in batch_checks(trials) if check.is_of_rate and not check.differs]
    for check in of_rate:
        if not (points := check.common):
            continue
        if _checked_bits(points, _quantum(trials)) >= ENOUGH_CHECKED or check.is_over:
            one, other = check.original.suggestion, check.trial.suggestion
            name = next(n for n, value in other.parameters.items() if one.parameters.get(n) != value)
            message = (
                f"trial {other.number} with {name} {other.parameters[name]:.4g} measured the same to the last"
                f" digit as trial {one.number} with {one.parameters[name]:.4g}, with the same seed and batch"
                f" size: the script seems to train with another {name} than it is given; look for a maximum,"
                " a fixed value, or one that is read from elsewhere"
            )
            found.append(Finding(Reason.RATE_NOT_USED, check.numbers, message, (name,)))
    return found


def _fewest(check: BatchCheck) -> int:
    """Return how many different values a check must have to count: one, if the losses before are the same."""
    return 1 if has_telling_losses(check.original) and check.has_same_losses else FEWEST_VALUES


def _bits_of_losses(check: BatchCheck) -> float:
    """Return the bits of coincidence of a check's losses, if all are those of its original.

    The metric may be one of the losses, and counts once.
    """
    one, other = check.original.losses, check.trial.losses
    common = other[: len(one)]
    if common != one[: len(other)]:
        return 0.0
    measured = {value for trial in (check.original, check.trial) for _, value in points_of(trial)}
    own = [loss for loss in common if math.isfinite(loss) and loss not in measured]
    return _checked_bits(list(enumerate(own)), quantum_of(own)) if own else 0.0


def _quantum(trials: Sequence[Trial]) -> float:
    """Return the distance between neighbouring values of the metric, as all runs show it."""
    return quantum_of([value for trial in trials for _, value in points_of(trial)])


def _checked_bits(points: Sequence[Point], quantum: float, fewest: int = FEWEST_VALUES) -> float:
    """Return the bits of coincidence of a check and its original that share these points."""
    return _bits(points, quantum, _FAR, fewest, 0)


def _same(check: BatchCheck, points: Sequence[Point]) -> str:
    one, other = check.original, check.trial
    shown = ", ".join(f"{value:g}" for _, value in points[:_SHOWN]) + ", ..." * (len(points) > _SHOWN)
    return (
        f"trial {other.number} at batch size {other.suggestion.batch_size} measured the same to the last"
        f" digit as trial {one.number} at {one.suggestion.batch_size} ({shown}), with the same seed and"
        " hyperparameters: the script seems to train a smaller batch than it is given; look for a maximum, a"
        " rounding, a data set smaller than the batch, a retry with a smaller batch when memory runs out, or"
        " results of an earlier trial that are read again"
    )


def coincide(one: Trial, other: Trial) -> bool:
    """Return whether two runs of one seed have measured the same wherever both have measured."""
    if one.suggestion.seed != other.suggestion.seed:
        return False
    known = dict(points_of(one))
    common = [point for point in points_of(other) if point[0] in known]
    return bool(common) and all(known[step] == value for step, value in common)


# --- identical curves ----------------------------------------------------------------------------------


def _groups(trials: Sequence[Trial]) -> Iterator[list[Member]]:
    """Yield groups of runs of which each is identical to the longest as far as it goes, that one first."""
    left = [(trial, points) for trial in trials if (points := points_of(trial))]
    # One run of a setting and seed is enough: a retry of a lost trial repeats it.
    seen: dict[tuple[Setting, int], Member] = {}
    for trial, points in left:
        key = (setting(trial), trial.suggestion.seed)
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
    if _bits_by(group, setting, _FINE) >= ENOUGH or (
        len(batches) >= FEWEST_BATCHES and _bits_by(group, _batch_size, _COARSE) >= ENOUGH
    ):
        return True
    if (
        len(batches) >= FEWEST_FAR
        and _is_far(group)
        and _bits_by(group, _batch_size, _FAR, fewest_levels=0) >= ENOUGH
    ):
        return True
    settings = {setting(trial) for trial, _ in group}
    has_baseline = any(trial.suggestion.purpose is Purpose.BASELINE for trial, _ in group)
    if len(settings) < FEWEST_SINGLE or not has_baseline:
        return False
    # A run of several points with a single value learns nothing; a run of one point may learn.
    single = [(trial, points) for trial, points in group if len(points) < FEWEST_VALUES]
    return _bits_by(single, setting, _FINE, fewest=1) >= ENOUGH_SINGLE


def _is_without_seed(group: Sequence[Member]) -> bool:
    """Return whether runs of one setting coincide although their seeds differ.

    Three runs decide for a coarse metric, too: with another seed a model starts from other weights.
    """
    if _bits_by(group, _seed, _FINE) >= ENOUGH:
        return True
    return len(group) >= _FEWEST_RUNS and _bits_by(group, _seed, _FAR, fewest_levels=0) >= ENOUGH


def _is_far(group: Sequence[Member]) -> bool:
    """Return whether the runs of a group differ much in batch size and in how far an epoch takes them."""
    batches = [trial.suggestion.batch_size for trial, _ in group]
    steps = [_rate(trial) / trial.suggestion.batch_size for trial, _ in group]
    return max(batches) >= FAR * min(batches) and max(steps) >= FAR_STEPS * min(steps)


def _rate(trial: Trial) -> float:
    """Return the learning rate of a trial, 1 if it has none that is known by its name and positive."""
    name = learning_rate_among(trial.suggestion.parameters)
    value = trial.suggestion.parameters.get(name or "")
    return value if isinstance(value, float) and value > 0 else 1.0


def _bits_by(
    group: Sequence[Member],
    key: Callable[[Trial], Hashable],
    spread: float,
    fewest: int = FEWEST_VALUES,
    fewest_levels: float = _FEWEST_LEVELS,
) -> float:
    """Return the bits of coincidence between the longest run and one run of each other key."""
    if not group:
        return 0.0
    best: dict[Hashable, float] = {}
    quantum = quantum_of([value for _, value in group[0][1]])
    for trial, points in group:
        best[key(trial)] = max(
            best.get(key(trial), 0.0), _bits(points, quantum, spread, fewest, fewest_levels)
        )
    own = key(group[0][0])
    return sum(bits for other, bits in best.items() if other != own)


def _bits(points: Sequence[Point], quantum: float, spread: float, fewest: int, fewest_levels: float) -> float:
    values = {value for _, value in points}
    informative = values - ENDS
    if len(informative) < fewest:
        return 0.0
    extent = max(values) - min(values) if len(values) >= FEWEST_VALUES else abs(max(values, key=abs))
    levels = extent / quantum
    if levels < fewest_levels:
        return 0.0
    return len(informative) * max(0.0, math.log2(max(levels * _NORMAL / spread, 1.0)))


def bits_of_value(value: float, values: Sequence[float]) -> float:
    """Return the bits of coincidence if another run has the same value; `values` show the metric's levels."""
    return _bits([(0.0, value)], quantum_of(values), _FINE, 1, _FEWEST_LEVELS)


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


def _batch_size(trial: Trial) -> int:
    return trial.suggestion.batch_size


def _seed(trial: Trial) -> int:
    return trial.suggestion.seed
