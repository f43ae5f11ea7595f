"""The annotations of a job, parsed and validated.

`TuningSpec` is the single source of the annotations: its fields carry the key, the rule, the default and a
valid example of each. The parser, the messages, `autotuner schema` and the documentation are generated from
them. Annotations are untrusted input: nothing in them is evaluated, their sizes are bounded, and all mistakes
are reported at once, each with key, value, rule and example.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.keys import key_of
from autotuner.spec import parsers, search_space
from autotuner.spec.baseline import baseline_batch_size, baseline_parameters, default_space
from autotuner.spec.learning_rate import learning_rate_of
from autotuner.spec.pydantic_errors import rule_of
from autotuner.spec.target import parse_target
from autotuner.spec.values import (
    MAX_INTEGER,
    Choice,
    Dimension,
    IntegerDimension,
    IntegerRange,
    Price,
    Shape,
    Target,
    Value,
)
from autotuner.trial import ParameterValue

MAX_ANNOTATION: Final = 16 * 1024
"""Characters of one annotation; Kubernetes allows 256 KiB for all annotations of an object together."""

_MOST: Final = {
    "max_trials": 10_000,
    "parallel_trials": 256,
    "confirmations": 100,
    "processes_per_replica": 10_000,
    "samples": MAX_INTEGER,
}
"""The largest counts, so that an untrusted annotation cannot make a reconcile endless."""
AUTO: Final = "auto"
MOST_AUTO_TRIALS: Final = 8
"""Maximum number of trials at once with `parallel-trials: auto`: each trial that has ended makes the next one
better, so more at once find the answer sooner and cost more trials."""
MAX_KEY: Final = 128
"""Characters of an unknown key that are compared with the existing names."""


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
    """The parsed annotations of one job. Frozen; created by `from_annotations`."""

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
        "which hyperparameter is the learning rate",
        "learning_rate, else lr, else the only one with a name such as base_lr",
        "learning_rate",
        None,
    )
    micro_batch_size: Range | None = _annotation(
        "samples per process and forward pass; gradient accumulation makes up the rest of the batch",
        "one step holds the whole batch",
        "16..128",
        None,
    )
    workers: Range | None = _annotation(
        "Worker replicas, grown with the batch size", "as in the job", "1..8", None
    )
    processes_per_replica: Count | None = _annotation(
        "processes that one pod starts, if the manifest does not say it",
        "read from the manifest",
        "8",
        None,
    )
    run_length: Positive | None = _annotation(
        "the last step that the script reports, in the unit of its log (epochs or steps)",
        "learned from the baseline run",
        "90",
        None,
    )
    samples: Count | None = _annotation(
        "samples of an epoch, on all processes together: no batch is larger", "no limit", "1281167", None
    )
    max_trials: Count = _annotation("trials to start at most, without retries and checks", "100", "100", 100)
    max_gpu_hours: Positive | None = _annotation(
        "maximum GPU-hours (a process without a GPU counts as one)", "no limit", "200", None
    )
    gpu_hour_price: Annotated[Price | None, BeforeValidator(parsers.parse_price)] = _annotation(
        "price of a GPU-hour with its currency, for the report", "none", "2.50 USD", None
    )
    parallel_trials: Annotated[int | Literal["auto"], BeforeValidator(parsers.parse_count_or_auto)] = (
        _annotation(
            "trials that run at once; auto: another one whenever all of them run, up to"
            f" {MOST_AUTO_TRIALS}, so that at most one waits in the queue or for pods",
            "1",
            "4",
            1,
        )
    )
    trial_timeout: Annotated[timedelta | None, BeforeValidator(parsers.parse_duration)] = _annotation(
        "maximum duration of one trial, from the moment that all of its pods run",
        "the job's activeDeadlineSeconds, else no limit",
        "6h",
        None,
    )
    confirmations: Count = _annotation("fresh-seed runs that must confirm the answer", "3", "3", 3)
    sampler: Annotated[Literal["frontier", "gp", "tpe", "random"], BeforeValidator(parsers.parse_sampler)] = (
        _annotation("how the search proposes trials", "frontier", "frontier", "frontier")
    )
    log_format: Annotated[str, BeforeValidator(parsers.parse_log_format)] = _annotation(
        "format of the log: auto, or a format that `autotuner metrics --formats` lists",
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
    start_from: Annotated[tuple[str, ...], BeforeValidator(parsers.parse_jobs)] = _annotation(
        "jobs of the same namespace whose studies inform the search; their trials are never its own",
        "none",
        "resnet50, resnet101",
        (),
    )
    queue: Annotated[str | None, BeforeValidator(parsers.parse_queue)] = _annotation(
        "Kueue's LocalQueue in which trials wait for quota; the job itself carries no queue label, or Kueue"
        " would run it",
        "the job's own queue label, if it has one",
        "team-a",
        None,
    )
    retried_at: Annotated[datetime | None, BeforeValidator(parsers.parse_moment)] = _annotation(
        "failures and losses before this time no longer count; `autotuner retry` writes it",
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
            annotations: All annotations of the job; those without our prefix are ignored.
            baseline: `batch_size` and hyperparameters from the job's own environment, strings or numbers.
                Names that are not in the search space are ignored.
            shape: The job's processes; None: a single one.
            template: A hash of what trials are made from; empty if unknown.

        Raises:
            InvalidJob: With every mistake.
        """
        mistakes: list[Mistake] = []
        given = _known(annotations, mistakes)
        values = _parse_each(given, mistakes)
        _complete(values, baseline, given, mistakes)
        shape = shape or Shape()
        if "workers" in given and not shape.can_grow:
            rule = "must not be given if the job has no Worker replica: add one to pytorchReplicaSpecs"
            mistakes.append(
                Mistake(key_of("workers"), given["workers"], rule, "Worker: {replicas: 1, template: ...}")
            )
        if mistakes:
            raise InvalidJob(mistakes)
        return cls(**values, shape=shape, template=template)

    @property
    def most_parallel_trials(self) -> int:
        """The largest number of trials that may exist at once."""
        return MOST_AUTO_TRIALS if self.parallel_trials == AUTO else self.parallel_trials

    def attempt(self, template: str) -> str:
        """Return a hash of what decides whether a trial fails: the template, and how its log is read.

        A failure counts only while neither has changed.
        """
        return f"{template}/{self.reading}" if template else ""

    @property
    def reading(self) -> str:
        """A hash of what decides which values of a log are read."""
        read = (self.target.metric, self.metric_pattern, self.log_format)
        return hashlib.sha256(repr(read).encode()).hexdigest()[:8]


def annotation_fields() -> Iterable[tuple[str, FieldInfo]]:
    """Yield every annotation that a user may write: its key and its field."""
    for name, field in TuningSpec.model_fields.items():
        if field.description is not None:
            yield key_of(name), field


def default_text_of(field: FieldInfo) -> str:
    """Return the default of a field, for people."""
    extra = field.json_schema_extra
    return str(extra["default_text"]) if isinstance(extra, dict) else ""


def example_of(field: FieldInfo) -> str:
    """Return a valid value of a field."""
    return str((field.examples or [""])[0])


def _known(annotations: Mapping[str, str], mistakes: list[Mistake]) -> dict[str, str]:
    """Return the annotations with our prefix by field name; unknown and oversized ones are mistakes."""
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
            mistakes.append(Mistake(key, value, rule, example_of(fields[key][1])))
        else:
            given[key.removeprefix(keys.PREFIX).replace("-", "_")] = value
    for key, field in annotation_fields():
        if field.is_required() and key not in annotations:
            mistakes.append(Mistake(key, "", "must be given", example_of(field)))
    return given


def _parse_each(given: Mapping[str, str], mistakes: list[Mistake]) -> dict[str, Any]:
    """Return the parsed values; annotations that do not parse are mistakes."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        try:
            values[name] = _parser(name).validate_python(text)
        except ValidationError as error:
            example = example_of(TuningSpec.model_fields[name])
            mistakes.append(Mistake(key_of(name), text, rule_of(error.errors()[0]), example))
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
    batch_size = baseline_batch_size(values.get("batch_size"), baseline, mistakes)
    values["baseline_batch_size"] = batch_size
    _keep_within_samples(values, batch_size, mistakes)
    if "search_space" not in given:
        default_space(values, baseline, batch_size, mistakes)
    space: dict[str, Dimension] = values.get("search_space", {})
    if "learning_rate" in values and space and values["learning_rate"] not in space:
        rule = f"must be a hyperparameter of the search space: {', '.join(space)}"
        mistakes.append(Mistake(key_of("learning_rate"), values["learning_rate"], rule, next(iter(space))))
    if "learning_rate" not in given:
        values["learning_rate"] = learning_rate_of(space)
    rate = space.get(values.get("learning_rate") or "")
    if isinstance(rate, Choice | IntegerDimension) or (rate is not None and rate.minimum <= 0):
        rule = f"{values['learning_rate']}, the learning rate, must be a range above 0 with log: true"
        example = example_of(TuningSpec.model_fields["search_space"])
        mistakes.append(Mistake(key_of("search_space"), given.get("search_space", ""), rule, example))
    values["baseline_parameters"] = baseline_parameters(space, baseline, mistakes)
    for name, most in _MOST.items():
        value = values.get(name, 1)
        if value != AUTO and not 1 <= value <= most:
            mistakes.append(Mistake(key_of(name), given[name], f"must be a number from 1 to {most}", "3"))


def _keep_within_samples(values: dict[str, Any], own: int, mistakes: list[Mistake]) -> None:
    """Bound the batch sizes by the samples of an epoch, where they are given."""
    allowed, samples = values.get("batch_size"), values.get("samples")
    if allowed is None or samples is None or samples < 1:
        return
    if samples < allowed.minimum:
        rule = f"must be at least the smallest batch size of {key_of('batch_size')} ({allowed}); lower that"
        mistakes.append(Mistake(key_of("samples"), str(samples), rule, str(allowed.minimum)))
        return
    if samples < own:
        rule = (
            f"must be at least the job's own batch size ({own}), because no batch is larger than the samples"
            f" of an epoch; correct it, or lower env {keys.ENV_BATCH_SIZE}"
        )
        mistakes.append(Mistake(key_of("samples"), str(samples), rule, str(own)))
        return
    values["batch_size"] = IntegerRange(minimum=allowed.minimum, maximum=min(allowed.maximum, samples))
