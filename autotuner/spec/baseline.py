"""Complete a spec with the job's own values: its batch size and its hyperparameters.

They come from the environment of the training container. All mistakes are added to one list, so that they are
reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.keys import key_of
from autotuner.spec.learning_rate import learning_rate_among
from autotuner.spec.values import (
    MAX_INTEGER,
    Dimension,
    FloatDimension,
    IntegerDimension,
    IntegerRange,
    environment_value,
)
from autotuner.trial import ParameterValue

_DEFAULT_SPREAD: Final = 10.0
"""Without a search space, the learning rate is searched from its baseline divided by this factor to this
factor times what linear scaling to the largest batch size gives."""


def baseline_batch_size(
    allowed: IntegerRange | None, baseline: Mapping[str, ParameterValue], mistakes: list[Mistake]
) -> int:
    """Return the job's own batch size; without one, add a mistake and return 1."""
    where = f"env {keys.ENV_BATCH_SIZE}"
    if "batch_size" not in baseline:
        rule = "must be the batch size that the job uses today, in the environment of its training container"
        mistakes.append(Mistake(where, "", rule, f'{{name: {keys.ENV_BATCH_SIZE}, value: "256"}}'))
        return 1
    text = str(baseline["batch_size"])
    try:
        size = IntegerDimension(minimum=1, maximum=MAX_INTEGER).parse(text)
    except ValueError:
        mistakes.append(Mistake(where, text, f"must be a whole number from 1 to {MAX_INTEGER}", '"256"'))
        return 1
    if allowed is not None and size not in allowed:
        rule = f"must lie within {key_of('batch_size')} ({allowed}); widen that"
        example = f"{min(size, allowed.minimum)}..{max(size, allowed.maximum)}"
        mistakes.append(Mistake(where, text, rule, example))
    return size


def default_space(
    values: dict[str, Any],
    baseline: Mapping[str, ParameterValue],
    batch_size: int,
    mistakes: list[Mistake],
) -> None:
    """Search only the learning rate, around the job's current value."""
    name = values.get("learning_rate") or learning_rate_among(baseline) or "learning_rate"
    variable = keys.environment_name(name)
    text = str(baseline.get(name, ""))
    try:
        rate = FloatDimension(minimum=1e-30, maximum=1e30).parse(text)
    except ValueError:
        rule = (
            "must be a learning rate above 0, in the environment of the training container: without"
            f" {key_of('search_space')} the search starts from it; or add a search space"
        )
        mistakes.append(Mistake(f"env {variable}", text, rule, f'{{name: {variable}, value: "0.1"}}'))
        return
    allowed = values.get("batch_size")
    growth = allowed.maximum / batch_size if allowed is not None else 1.0
    space = FloatDimension(
        minimum=rate / _DEFAULT_SPREAD, maximum=rate * _DEFAULT_SPREAD * max(growth, 1.0), log=True
    )
    values["search_space"] = {name: space}


def baseline_parameters(
    space: Mapping[str, Dimension], baseline: Mapping[str, ParameterValue], mistakes: list[Mistake]
) -> dict[str, ParameterValue]:
    """Return the baseline's values of the hyperparameters in the search space."""
    parameters: dict[str, ParameterValue] = {}
    for name, dimension in space.items():
        if name not in baseline:
            continue
        try:
            parameters[name] = dimension.parse(baseline[name])
        except ValueError as error:
            value = environment_value(baseline[name])
            rule = f"{error}, as {key_of('search_space')} requires"
            example = "a range or list that contains the value"
            mistakes.append(Mistake(f"env {keys.environment_name(name)}", value, rule, example))
    return parameters
