"""Compare the batch size of a trial with the one that its command trains.

Scripts such as those of Hugging Face's Trainer take the batch of one process and the steps of accumulation,
and manifests compute them: `--per_device_train_batch_size=$((AUTOTUNER_BATCH_SIZE / 8))`. With a divisor that
is not the number of processes, or that leaves a rest, another batch is trained than the one that is reported.
So the trials of some batch sizes are made, and the values of their options are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from autotuner import keys
from autotuner.errors import Unrealisable
from autotuner.job.batch_options import is_accumulation, is_of_all
from autotuner.job.job import Job
from autotuner.job.lookup import sequence
from autotuner.job.options import containers
from autotuner.job.processes import JOINED, PROCESSES, stated
from autotuner.job.trial_manifest import trial_manifest
from autotuner.job.wiring_warning import SET_WITH, WiringWarning
from autotuner.spec import TuningSpec
from autotuner.study.layout import Bounds, lay_out
from autotuner.study.layout_bounds import bounds_of, laid_out, nearest_size
from autotuner.trial import Suggestion

_LONGEST: Final = 1 << 14
"""Maximum characters of the commands that are read once more for each of the trials."""
_PARTS: Final = f"{keys.ENV_MICRO_BATCH_SIZE} and {keys.ENV_ACCUMULATION_STEPS}"


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a command of a trial trains: the batch of a process, times the steps, times the processes."""

    where: str
    name: str
    shown: str
    each: int
    steps: int
    processes: int

    @property
    def batch_size(self) -> int:
        return self.each * self.steps * self.processes


def trained_batches(job: Job, spec: TuningSpec, *, accumulates: bool = False) -> Iterator[WiringWarning]:
    """Yield a warning if trials would train another batch than the one that they are given, or may do so.

    `accumulates` says that the script reads the steps of accumulation by itself.
    """
    if _length(job) > _LONGEST:
        return
    found = job.kind.processes(job.manifest)
    # In the job itself, what depends on the variables of a trial is unknown.
    depends = any(value is None for sizes in found.sizes for value in sizes.values.values())
    if not depends:
        return
    try:
        limits = bounds_of(spec)
    except Unrealisable:
        return
    made = {size: _trained(job, spec, size, limits) for size in _tried(spec, limits)}
    for commands in zip(*made.values(), strict=False):
        tried = {size: trained for size, trained in zip(made, commands, strict=True) if trained is not None}
        varies = len({(trained.each, trained.steps) for trained in tried.values()}) > 1
        wrong = next((size for size, trained in tried.items() if trained.batch_size != size), None)
        doubt = found.apart or ("" if stated(job.annotations) else found.problem or found.assumption)
        if varies and doubt:
            # Where the layout needs their number, another message says so.
            if spec.micro_batch_size is None and spec.workers is None:
                yield _question(*next(iter(tried.items())), doubt, is_apart=bool(found.apart))
            return
        if wrong is not None and varies and not accumulates:
            yield _warning(wrong, tried[wrong])
            return


def _length(job: Job) -> int:
    whole, _ = job.kind.with_inherited(job.manifest)
    words = (
        str(word)
        for _, container in containers(whole)
        for field in ("command", "args")
        for word in sequence(container.get(field))
    )
    return sum(map(len, words))


def _question(size: int, trained: _Trained, doubt: str, *, is_apart: bool) -> WiringWarning:
    # No number of processes makes one group of several.
    what = "the pods may train apart" if is_apart else "how many there are is uncertain"
    remedy = "let all pods join one group" if is_apart else f"state that in {PROCESSES}"
    rule = f"is what each process of a trial with batch size {size} has, and {what} ({doubt}): {remedy}"
    example = JOINED if is_apart else f'{PROCESSES}: "8"'
    return WiringWarning(trained.where, trained.shown, rule, example)


def _warning(size: int, trained: _Trained) -> WiringWarning:
    rule = (
        f"is what a trial with batch size {size} has, and on {trained.processes} processes this trains"
        f" {trained.batch_size}: pass on {_PARTS}, {SET_WITH}"
    )
    remedy = f"--{trained.name}=$({keys.ENV_MICRO_BATCH_SIZE})"
    return WiringWarning(trained.where, trained.shown, rule, remedy)


def _tried(spec: TuningSpec, limits: Bounds) -> list[int]:
    """Return batch sizes that trials may have, the job's own first."""
    own, allowed = spec.baseline_batch_size, spec.batch_size
    next_one = own + limits.processes(limits.workers[0])
    asked = (own, next_one, allowed.minimum, (own + allowed.maximum) // 2, allowed.maximum)
    near = [nearest_size(size, limits, allowed) for size in asked]
    return list(dict.fromkeys(size for size in near if size is not None))


def _trained(job: Job, spec: TuningSpec, size: int, limits: Bounds) -> list[_Trained | None]:
    """Return what the commands of a trial train; None for one whose options do not show it."""
    suggestion = Suggestion(0, size, dict(spec.baseline_parameters), 0)
    trial = trial_manifest(job, laid_out(suggestion, spec, lay_out(size, limits)))
    processes = job.kind.shape(trial, job.annotations).processes
    return [_multiplied(each.where, each.values, processes) for each in job.kind.processes(trial).sizes]


def _multiplied(where: str, values: Mapping[str, int | None], processes: int) -> _Trained | None:
    used = {name: value for name, value in values.items() if not is_of_all(name)}
    each = {value for name, value in used.items() if not is_accumulation(name)}
    steps = {value for name, value in used.items() if is_accumulation(name)} or {1}
    # With the batch of all, a script finds out the steps by itself.
    if len(each) != 1 or len(steps) != 1 or None in each | steps or any(map(is_of_all, values)):
        return None
    name = next(name for name in used if not is_accumulation(name))
    shown = ", ".join(f"{name}={value}" for name, value in used.items())
    return _Trained(where, name, shown, each.pop() or 0, steps.pop() or 0, processes)
