"""What the user asks for: the annotations of a job, parsed.

`TuningSpec` is the one source of the annotations: its fields carry the key, the rule, the default and a
valid example of each, and the parser, the messages, `autotuner schema` and the documentation are all made
from them. Annotations are strangers' input: nothing in them is evaluated, their sizes are bounded, and all
mistakes are reported at once, each with key, value, rule and example.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.spec import parsers, search_space
from autotuner.spec.pydantic_errors import rule_of
from autotuner.spec.target import parse_target
from autotuner.spec.values import (
    MAX_INTEGER,
    Choice,
    Dimension,
    FloatDimension,
    IntegerDimension,
    IntegerRange,
    Shape,
    Target,
    Value,
    environment_value,
)
from autotuner.trial import ParameterValue

__all__ = [
    "Choice",
    "Dimension",
    "FloatDimension",
    "IntegerDimension",
    "IntegerRange",
    "Shape",
    "Target",
    "TuningSpec",
    "environment_value",
]

MAX_ANNOTATION: Final = 16 * 1024
"""Characters of one annotation; Kubernetes allows 256 KiB for all of an object together."""

_DEFAULT_SPREAD: Final = 10.0
"""Without a search space, the learning rate is sought this far below its baseline, and above it as far
beyond what linear scaling to the largest batch size asks for."""

_MOST: Final = {
    "max_trials": 10_000,
    "parallel_trials": 256,
    "confirmations": 100,
    "processes_per_replica": 10_000,
}
"""The largest counts: a stranger's annotation must not make one reconcile endless."""
_MAX_RULE: Final = 500
"""Characters of a rule; some repeat what a parser of YAML or regular expressions said."""
MAX_KEY: Final = 128
"""Characters of an unknown key that are compared with the names that exist."""


def _annotation(meaning: str, default_text: str, example: str, default: object = ...) -> Any:  # noqa: ANN401 (as pydantic.Field)
    return Field(
        default=default,
        description=meaning,
        examples=[example],
        json_schema_extra={"default_text": default_text},
    )


Range = Annotated[IntegerRange, BeforeValidator(parsers.parse_range)]
Boolean = Annotated[bool, BeforeValidator(parsers.parse_boolean)]
Count = Annotated[int, BeforeValidator(parsers.parse_count)]
Positive = Annotated[float, BeforeValidator(parsers.parse_positive)]
Space = Annotated[dict[str, Dimension], BeforeValidator(search_space.parse_space)]


class TuningSpec(Value):
    """What one job asks of the tuner. Frozen; made by `from_annotations`."""

    target: Annotated[Target, BeforeValidator(parse_target)] = _annotation(
        "the metric and the value that a run must reach; its presence registers the job",
        "required",
        "accuracy >= 0.93",
    )
    batch_size: Range = _annotation(
        "the smallest and largest global batch size allowed", "required", "256..32768"
    )
    search_space: Space = _annotation(
        "hyperparameters to tune, as YAML: a range {min, max, log, type: float or int} or a list of choices",
        "the learning rate, around its baseline",
        "'learning_rate: {min: 0.05, max: 20, log: true}'",
        {},
    )
    learning_rate: Annotated[str | None, BeforeValidator(parsers.parse_name)] = _annotation(
        "which hyperparameter is the learning rate", "learning_rate, else lr", "learning_rate", None
    )
    micro_batch_size: Range | None = _annotation(
        "samples that one process may take at once; gradient accumulation makes up the rest",
        "one step holds the whole batch",
        "16..128",
        None,
    )
    workers: Range | None = _annotation(
        "Worker replicas, grown with the batch size", "as in the job", "1..8", None
    )
    processes_per_replica: Count | None = _annotation(
        "processes that one pod starts, where the manifest does not say it",
        "read from the manifest",
        "8",
        None,
    )
    run_length: Positive | None = _annotation(
        "the last step that the script reports, in its own unit of steps",
        "learned from the baseline run",
        "90",
        None,
    )
    max_trials: Count = _annotation("trials to start at most", "100", "100", 100)
    max_gpu_hours: Positive | None = _annotation(
        "GPU-hours to use at most (a process without a GPU counts as one)", "no limit", "200", None
    )
    parallel_trials: Count = _annotation("trials that run at once", "1", "4", 1)
    trial_timeout: Annotated[timedelta | None, BeforeValidator(parsers.parse_duration)] = _annotation(
        "how long one trial may run, from the moment all of its pods run",
        "no limit",
        "6h",
        None,
    )
    confirmations: Count = _annotation("fresh-seed runs that must confirm the answer", "3", "3", 3)
    sampler: Annotated[Literal["frontier", "gp", "tpe", "random"], BeforeValidator(parsers.parse_sampler)] = (
        _annotation("how the search proposes trials", "frontier", "frontier", "frontier")
    )
    log_format: Annotated[str, BeforeValidator(parsers.parse_log_format)] = _annotation(
        "how the log tells the metric: auto, or a format that `autotuner metrics --formats` lists",
        "auto",
        "huggingface",
        "auto",
    )
    metric_pattern: Annotated[str | None, BeforeValidator(parsers.parse_pattern)] = _annotation(
        "regular expression (RE2) for a log line that carries the metric: one group, or groups named value"
        " and step",
        "name=value, name: value, and JSON",
        r"'top1\s+(?P<value>[0-9.]+) at epoch (?P<step>\d+)'",
        None,
    )
    queue: Annotated[str | None, BeforeValidator(parsers.parse_queue)] = _annotation(
        "Kueue's LocalQueue in which trials wait for quota; the job itself carries no queue label, or Kueue"
        " would run it",
        "the job's own queue label, if it has one",
        "team-a",
        None,
    )
    retried_at: Annotated[datetime | None, BeforeValidator(parsers.parse_moment)] = _annotation(
        "failures and losses before this moment no longer count; `autotuner retry` writes it",
        "none",
        "2026-11-25T20:00:00Z",
        None,
    )
    seed: Count = _annotation("the search's seed", "0", "0", 0)
    paused: Boolean = _annotation("start nothing new while true", "false", "'true'", False)
    apply: Annotated[bool | Literal["patch"], BeforeValidator(parsers.parse_apply)] = _annotation(
        "run the job with the answer once it is confirmed; a TrainJob as a new job. patch: change nothing of"
        " the job, and put the answer into the status as a patch",
        "false",
        "'true'",
        False,
    )
    apply_as: Annotated[str | None, BeforeValidator(parsers.parse_job_name)] = _annotation(
        "name of the TrainJob that `apply` makes of the answer", "<job>-tuned", "resnet50-large", None
    )

    baseline_batch_size: int = Field(exclude=True)
    baseline_parameters: dict[str, ParameterValue] = Field(default={}, exclude=True)
    shape: Shape = Field(default=Shape(), exclude=True)
    template: str = Field(default="", exclude=True)

    @classmethod
    def from_annotations(
        cls,
        annotations: Mapping[str, str],
        *,
        baseline: Mapping[str, ParameterValue],
        shape: Shape | None = None,
        template: str = "",
    ) -> TuningSpec:
        """Parse the annotations of a job.

        Args:
            annotations: All annotations of the job; those outside of our prefix are passed over.
            baseline: `batch_size` and hyperparameters as the job's own environment carries them, strings
                or numbers. Names that are not in the search space are the job's own affair.
            shape: The job's processes; a single one where None.
            template: A hash of what trials are made from; empty where unknown.

        Raises:
            InvalidJob: With every mistake.
        """
        mistakes: list[Mistake] = []
        given = _known(annotations, mistakes)
        values = _parse_each(given, mistakes)
        _complete(values, baseline, given, mistakes)
        shape = shape or Shape()
        if "workers" in given and not shape.can_grow:
            rule = "must not be given where the job has no Worker replica: add one to pytorchReplicaSpecs"
            mistakes.append(
                Mistake(_key("workers"), given["workers"], rule, "Worker: {replicas: 1, template: ...}")
            )
        if mistakes:
            raise InvalidJob(mistakes)
        return cls(**values, shape=shape, template=template)

    def attempt(self, template: str) -> str:
        """Return under what a trial of a template succeeds or fails: the template, and how its log is read.

        A failure counts only as long as both are what they were.
        """
        reading = hashlib.sha256(
            repr((self.target.metric, self.metric_pattern, self.log_format)).encode()
        ).hexdigest()[:8]
        return f"{template}/{reading}" if template else ""


def annotation_fields() -> Iterable[tuple[str, FieldInfo]]:
    """Yield every annotation that a user may write: its key, and the field that describes it."""
    for name, field in TuningSpec.model_fields.items():
        if field.description is not None:
            yield _key(name), field


def annotation_table() -> list[dict[str, str]]:
    """Return the annotations as rows of key, meaning, default and example, for people."""
    return [
        {
            "key": key,
            "meaning": field.description or "",
            "default": _default_text(field),
            "example": _example(field),
        }
        for key, field in annotation_fields()
    ]


def annotation_schema() -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) of a job's annotations, which are strings."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Annotations of a job that the autotuner tunes",
        "type": "object",
        "properties": {
            key: {
                "type": "string",
                "maxLength": MAX_ANNOTATION,
                "description": f"{field.description}; default: {_default_text(field)}",
                "examples": [_example(field).strip("'")],
            }
            for key, field in annotation_fields()
        },
        "required": [key for key, field in annotation_fields() if field.is_required()],
        # Other people's annotations pass; an unknown one under our prefix does not.
        "patternProperties": {f"^(?!{re.escape(keys.PREFIX)})": {}},
        "additionalProperties": False,
    }


def _key(name: str) -> str:
    return keys.PREFIX + name.replace("_", "-")


def _default_text(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra["default_text"]) if isinstance(extra, dict) else ""


def _example(field: FieldInfo) -> str:
    return str((field.examples or [""])[0])


def _known(annotations: Mapping[str, str], mistakes: list[Mistake]) -> dict[str, str]:
    """Return the annotations under our prefix by field name; unknown and oversized ones are mistakes."""
    fields = {key: (key, field) for key, field in annotation_fields()}
    given: dict[str, str] = {}
    for key, value in annotations.items():
        if not key.startswith(keys.PREFIX):
            continue
        if key not in fields:
            names = ", ".join(known.removeprefix(keys.PREFIX) for known in fields)
            nearest = difflib.get_close_matches(key[:MAX_KEY], list(fields), n=1, cutoff=0.0)
            rule = f"the name of this annotation must be one of {names}"
            mistakes.append(Mistake(key, str(value), rule, nearest[0]))
        elif len(value) > MAX_ANNOTATION:
            rule = f"must have at most {MAX_ANNOTATION} characters"
            mistakes.append(Mistake(key, value, rule, _example(fields[key][1])))
        else:
            given[key.removeprefix(keys.PREFIX).replace("-", "_")] = value
    for key, field in annotation_fields():
        if field.is_required() and key not in annotations:
            mistakes.append(Mistake(key, "", "must be given", _example(field)))
    return given


def _parse_each(given: Mapping[str, str], mistakes: list[Mistake]) -> dict[str, Any]:
    """Return the parsed value of each annotation that parses; the others are mistakes."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        try:
            values[name] = _parser(name).validate_python(text)
        except ValidationError as error:
            example = _example(TuningSpec.model_fields[name])
            mistakes.append(Mistake(_key(name), text, rule_of(error.errors()[0]), example))
    return values


@cache
def _parser(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TuningSpec.model_fields[name].rebuild_annotation())


def _complete(
    values: dict[str, Any],
    baseline: Mapping[str, ParameterValue],
    given: Mapping[str, str],
    mistakes: list[Mistake],
) -> None:
    """Add to the parsed values what the baseline says, and what follows from several of them."""
    batch_size = _baseline_batch_size(values.get("batch_size"), baseline, mistakes)
    values["baseline_batch_size"] = batch_size
    if "search_space" not in given:
        _default_space(values, baseline, batch_size, mistakes)
    space: dict[str, Dimension] = values.get("search_space", {})
    if "learning_rate" in values and space and values["learning_rate"] not in space:
        rule = f"must be a hyperparameter of the search space: {', '.join(space)}"
        mistakes.append(Mistake(_key("learning_rate"), values["learning_rate"], rule, next(iter(space))))
    if "learning_rate" not in given:
        values["learning_rate"] = next((n for n in ("learning_rate", "lr") if n in space), None)
    rate = space.get(values.get("learning_rate") or "")
    if isinstance(rate, Choice | IntegerDimension) or (rate is not None and rate.minimum <= 0):
        rule = f"{values['learning_rate']}, the learning rate, must be a range above 0 with log: true"
        example = _example(TuningSpec.model_fields["search_space"])
        mistakes.append(Mistake(_key("search_space"), given.get("search_space", ""), rule, example))
    values["baseline_parameters"] = _baseline_parameters(space, baseline, mistakes)
    for name, most in _MOST.items():
        if not 1 <= values.get(name, 1) <= most:
            mistakes.append(Mistake(_key(name), given[name], f"must be a number from 1 to {most}", "3"))


def _baseline_batch_size(
    allowed: IntegerRange | None, baseline: Mapping[str, ParameterValue], mistakes: list[Mistake]
) -> int:
    """Return the job's own batch size; 1 beside a mistake where it has none."""
    where = f"env {keys.ENV_BATCH_SIZE}"
    if "batch_size" not in baseline:
        rule = "must be the batch size that the job uses today, in the environment of its training container"
        mistakes.append(Mistake(where, "", rule, f'{{name: {keys.ENV_BATCH_SIZE}, value: "256"}}'))
        return 1
    text = str(baseline["batch_size"])
    try:
        size = IntegerDimension(minimum=1, maximum=MAX_INTEGER).parse(text)
    except ValueError as error:
        mistakes.append(Mistake(where, text, f"must be a whole number above 0, and {error}", '"256"'))
        return 1
    if allowed is not None and size not in allowed:
        rule = f"must lie within {_key('batch_size')} ({allowed}); widen that"
        example = f"{min(size, allowed.minimum)}..{max(size, allowed.maximum)}"
        mistakes.append(Mistake(where, text, rule, example))
    return size


def _default_space(
    values: dict[str, Any],
    baseline: Mapping[str, ParameterValue],
    batch_size: int,
    mistakes: list[Mistake],
) -> None:
    """Search the learning rate alone, around the value that the job uses today."""
    named = values.get("learning_rate")
    name = named or next((n for n in ("learning_rate", "lr") if n in baseline), "learning_rate")
    variable = keys.environment_name(name)
    text = str(baseline.get(name, ""))
    try:
        rate = FloatDimension(minimum=1e-30, maximum=1e30).parse(text)
    except ValueError:
        rule = (
            "must be a learning rate above 0, in the environment of the training container: without"
            f" {_key('search_space')} the search starts from it; or add a search space"
        )
        mistakes.append(Mistake(f"env {variable}", text, rule, f'{{name: {variable}, value: "0.1"}}'))
        return
    allowed = values.get("batch_size")
    growth = allowed.maximum / batch_size if allowed is not None else 1.0
    space = FloatDimension(
        minimum=rate / _DEFAULT_SPREAD, maximum=rate * _DEFAULT_SPREAD * max(growth, 1.0), log=True
    )
    values["search_space"] = {name: space}


def _baseline_parameters(
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
            rule = f"must agree with {_key('search_space')}, and {error}"
            example = "a range or list that holds the value"
            mistakes.append(Mistake(f"env {keys.environment_name(name)}", value, rule, example))
    return parameters
