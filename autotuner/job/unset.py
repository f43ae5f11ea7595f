"""Find references to variables that the unchanged job, the baseline, does not have.

Kubernetes leaves `$(NAME)` as it is if there is no such variable, so the script would get that text as a
value. The baseline changes nothing of the job: it has the hyperparameters and the layout that the job's own
env gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake, Unrealisable
from autotuner.job.wiring import Reference, references
from autotuner.keys import key_of
from autotuner.spec import TuningSpec, environment_value
from autotuner.spec.values import Choice
from autotuner.study.layout import lay_out
from autotuner.study.layout_bounds import bounds_of
from autotuner.trial import ParameterValue

_ALWAYS: Final = frozenset({keys.ENV_BATCH_SIZE, keys.ENV_SEED, keys.ENV_TRIAL, keys.ENV_OUTPUT_DIR})
"""Variables that every trial has; the last one on a cluster only if the job names a folder."""
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
LAYOUT: Final = (keys.ENV_MICRO_BATCH_SIZE, keys.ENV_ACCUMULATION_STEPS)
"""Variables that a trial has with the annotation `micro-batch-size` only."""


def unset_variables(
    manifest: Mapping[str, Any],
    spec: TuningSpec,
    baseline: Mapping[str, ParameterValue],
    inherited: Collection[str] = (),
) -> Iterator[Mistake]:
    """Yield a mistake for each variable that the manifest refers to, and the baseline does not have.

    And one if the layout in the job's own env is not that of its batch size. `inherited` names the fields of
    the containers that are those of a TrainJob's runtime.
    """
    known = _ALWAYS | set(map(keys.environment_name, spec.baseline_parameters))
    for found in references(manifest, inherited):
        if not found.is_in_env and found.variable not in known:
            rule, example = _remedy(found, spec)
            yield Mistake(found.where, found.text, rule, example)
    given = [str(baseline.get(keys.parameter_name(name), "")) for name in LAYOUT]
    if spec.micro_batch_size is None or not all(map(_WHOLE.fullmatch, given)):
        return
    batch_size = math.prod(map(int, given)) * spec.shape.processes
    if batch_size != spec.baseline_batch_size:
        own = own_layout(spec)
        has_layout = math.prod(own) * spec.shape.processes == spec.baseline_batch_size
        what = "set both to the job's own layout" if has_layout else "set that to what the job trains"
        rule = (
            f"makes a batch of {batch_size} with {LAYOUT[1]} {given[1]} and {spec.shape.processes} processes,"
            f" and {keys.ENV_BATCH_SIZE} is {spec.baseline_batch_size}: {what}"
        )
        whole = f'{{name: {keys.ENV_BATCH_SIZE}, value: "{batch_size}"}}'
        yield Mistake(f"env {LAYOUT[0]}", given[0], rule, " x ".join(map(str, own)) if has_layout else whole)


def _remedy(found: Reference, spec: TuningSpec) -> tuple[str, str]:
    variable = found.variable
    if variable in LAYOUT:
        value = str(own_layout(spec)[LAYOUT.index(variable)])
        needs = "" if spec.micro_batch_size else f", and the annotation {key_of('micro_batch_size')}"
    else:
        name = keys.parameter_name(variable)
        if name not in spec.search_space:
            names = ", ".join(map(keys.environment_name, spec.search_space))
            rule = f"no trial has {variable}: pass on one of {keys.ENV_BATCH_SIZE}, {names}, or add it to env"
            return rule, f'{{name: {variable}, value: "1"}}'
        dimension, needs = spec.search_space[name], ""
        first = dimension.values[0] if isinstance(dimension, Choice) else dimension.minimum
        value = environment_value(first)
    rule = (
        f"the unchanged job, the first trial, has no {variable}, and its script would get this text: add the"
        f" known-good value to env{needs}"
    )
    return rule, f'{{name: {variable}, value: "{value}"}}'


def own_layout(spec: TuningSpec) -> tuple[int, int]:
    """Return the micro-batch and the accumulation steps of the job's own batch size on its own processes."""
    try:
        found = lay_out(spec.baseline_batch_size, bounds_of(spec.model_copy(update={"workers": None})))
    except Unrealisable:
        return max(spec.baseline_batch_size // spec.shape.processes, 1), 1
    return found.micro_batch, found.accumulation
