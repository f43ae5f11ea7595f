"""Warn in the status of variables that the manifest does not pass on, until runs show their effect.

And of annotations that are valid and do not do what their owner expects, of several hyperparameters that may
be the learning rate, and of a program that may start more processes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from autotuner import keys
from autotuner.job.config_maps import with_files
from autotuner.job.job import Job
from autotuner.job.options import MAX_TEXT
from autotuner.job.processes import PROCESSES, assumed, shown_elsewhere, stated
from autotuner.job.python_programs import SPAWNS
from autotuner.job.trained_batch import trained_batches
from autotuner.job.unset import LAYOUT, own_layout
from autotuner.job.wiring import reads, references, wiring_warnings
from autotuner.job.wiring_warning import WiringWarning
from autotuner.spec import TuningSpec
from autotuner.spec.learning_rate import rates_in
from autotuner.study.formats.reading import Metric
from autotuner.trial import Purpose, Trial

_SPAWNS: Final = re.compile(rf"^[^#\n]{{0,200}}?(?:{SPAWNS})[^\n]{{0,80}}", re.MULTILINE)
"""A script that starts processes by itself."""


def wiring_notices(
    job: Job, spec: TuningSpec, trials: Sequence[Trial] = (), script: str | None = None
) -> list[WiringWarning]:
    """Return the warnings about a job's wiring that its trials have not answered.

    A warning about something that the manifest does not show is dropped once a run at another setting than
    the job's own has measured something: then the curves show whether settings have an effect.
    """
    ended = [trial for trial in trials if not trial.is_running and trial.variables is not None]
    read = {name for trial in ended for name in trial.variables or ()} if ended else None
    is_shown = any(t.measurements and t.suggestion.purpose is not Purpose.BASELINE for t in trials)
    whole, inherited = job.kind.with_inherited(job.manifest)
    found = wiring_warnings(
        whole,
        list(spec.search_space),
        script,
        read,
        processes=spec.shape.processes,
        inherited=inherited,
        files=job.files,
    )
    steps = keys.parameter_name(keys.ENV_ACCUMULATION_STEPS)
    accumulates = steps in (read or ()) or reads(script or "", steps)
    has_whole = any(warning.gives_whole for warning in found)
    return [
        *(warning for warning in found if warning.is_seen or not is_shown),
        *(() if has_whole else trained_batches(job, spec, accumulates=accumulates)),
        *_fixed_layout(whole, spec, inherited),
        *_reversed_target(spec),
        *_several_rates(spec),
        *_assumed_processes(job),
        *_mounted_processes(job),
        *_spawned(job, spec, script or ""),
        *_too_few_trials(spec),
        *_starts_from_itself(job, spec),
    ]


def _assumed_processes(job: Job) -> Iterator[WiringWarning]:
    """Yield a warning if the number of processes is an assumption."""
    warning = assumed(job.kind.processes(job.manifest), job.annotations)
    if warning is not None:
        yield WiringWarning(warning.key, warning.value, warning.rule, warning.example)


def _mounted_processes(job: Job) -> Iterator[WiringWarning]:
    """Yield a warning if scripts of ConfigMaps start other processes than the job shows."""
    if not job.files:
        return
    whole, _ = job.kind.with_inherited(job.manifest)
    found = job.kind.processes(with_files(whole, job.files))
    warning = shown_elsewhere(found, job.kind.processes(job.manifest), job.annotations)
    if warning is not None:
        yield WiringWarning(warning.key, warning.value, warning.rule, warning.example)


def _spawned(job: Job, spec: TuningSpec, script: str) -> Iterator[WiringWarning]:
    """Yield a warning if the script starts processes that the manifest does not show."""
    match = _SPAWNS.search(script[:MAX_TEXT])
    is_alone = spec.shape.processes_per_replica == 1 and stated(job.annotations) is None
    if match is not None and is_alone:
        rule = (
            f"starts processes by itself; if they train, {keys.ENV_BATCH_SIZE} is the batch of all of them,"
            f" and each takes its part: state their number in {PROCESSES} (1 if they do not train)"
        )
        line = match[0].strip().splitlines()[0]
        yield WiringWarning("a line of the script", line, rule, f'{PROCESSES}: "4"')


def _too_few_trials(spec: TuningSpec) -> Iterator[WiringWarning]:
    """Yield a warning if the trials do not suffice to confirm any answer."""
    needed = 1 + spec.confirmations
    if spec.max_trials < needed:
        rule = (
            f"must be at least {needed} to confirm an answer: the first trial runs the job unchanged, and an"
            f" answer needs {spec.confirmations} confirmation runs; a search for a larger batch needs more"
        )
        yield WiringWarning(keys.key_of("max_trials"), str(spec.max_trials), rule, str(10 * needed))


def _starts_from_itself(job: Job, spec: TuningSpec) -> Iterator[WiringWarning]:
    """Yield a warning if the earlier studies include the job's own."""
    if job.name in spec.start_from:
        rule = (
            "names the job itself, and its own trials count anyway: leave it out, or rename the job to search"
            " again and start from this study"
        )
        where, others = keys.key_of("start_from"), [n for n in spec.start_from if n != job.name]
        remedy = ", ".join(others) or f"name: {job.name}-2"
        yield WiringWarning(where, ", ".join(spec.start_from), rule, remedy)


def _fixed_layout(
    manifest: Mapping[str, Any], spec: TuningSpec, inherited: Collection[str]
) -> Iterator[WiringWarning]:
    """Yield a warning for each part of the layout that the job passes on, and no trial sets."""
    if spec.micro_batch_size is not None:
        return
    used = list(references(manifest, inherited))
    has_batch = any(reference.variable == keys.ENV_BATCH_SIZE for reference in used)
    for found in used:
        if found.variable in LAYOUT:
            rule = (
                f"{found.variable} is the job's own in all trials, which set it only with the annotation"
                f" {keys.key_of('micro_batch_size')}: add it, or pass on {keys.ENV_BATCH_SIZE} alone"
            )
            most = own_layout(spec)[0]
            example = f"{keys.key_of('micro_batch_size')}: {max(most // 4, 1)}..{most}"
            name = "" if has_batch else "batch_size"
            yield WiringWarning(found.where, found.text, rule, example, name=name)


def _reversed_target(spec: TuningSpec) -> Iterator[WiringWarning]:
    """Yield a warning if a model meets the target by being bad: `loss >= 0.6`, `accuracy <= 0.9`."""
    target = spec.target
    last = re.split(r"[\s_/.-]", target.metric)[-1]  # of `accuracy_drop`, smaller is better
    metric = Metric(last, target.threshold)
    is_loss = metric.is_loss and target.sign > 0 and target.threshold > 0
    if is_loss or (metric.is_share and not metric.is_error_rate and target.sign < 0):
        better, comparison = ("smaller", "<=") if is_loss else ("larger", ">=")
        rule = f"of this metric, {better} values are usually better, and a model that learns nothing meets it"
        example = f'"{target.metric} {comparison} {target.threshold:g}"'
        yield WiringWarning(keys.key_of("target"), str(target), rule, example)


def _several_rates(spec: TuningSpec) -> Iterator[WiringWarning]:
    """Yield a warning if the search does not know which of several hyperparameters is the learning rate."""
    rates = rates_in(spec.search_space)
    if spec.learning_rate is None and len(rates) > 1:
        rule = (
            "more than one of these may be the learning rate, so the search expects of none that its best"
            f" value follows the batch size: name the most important one with {keys.key_of('learning_rate')}"
        )
        yield WiringWarning(keys.key_of("search_space"), ", ".join(rates), rule, rates[0])
