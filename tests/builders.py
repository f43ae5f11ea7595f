"""Jobs, specs and trials for tests: valid as they come, and each test says only what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from autotuner import keys
from autotuner.job.job import Job
from autotuner.spec import Shape, TuningSpec
from autotuner.trial import Measurement, Outcome, ParameterValue, Purpose, Suggestion, Trial

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""A moment; tests bring their own time."""

BASELINE: Mapping[str, ParameterValue] = {"batch_size": "32", "learning_rate": "0.1"}


def annotations(**changed: str | None) -> dict[str, str]:
    """Return a job's annotations; `max_trials="5"` sets that one, and None leaves one out."""
    values: dict[str, str | None] = {
        "target": "accuracy >= 0.9",
        "batch_size": "16..256",
        "search_space": "learning_rate: {min: 0.01, max: 10, log: true}",
        **changed,
    }
    return {
        keys.PREFIX + name.replace("_", "-"): value for name, value in values.items() if value is not None
    }


def spec(
    baseline: Mapping[str, ParameterValue] = BASELINE, shape: Shape | None = None, **changed: str | None
) -> TuningSpec:
    """Return the spec that `annotations(**changed)` ask for."""
    return TuningSpec.from_annotations(annotations(**changed), baseline=baseline, shape=shape)


def container(
    command: Sequence[str] | None = ("python", "train.py"),
    args: Sequence[str] = (),
    env: Sequence[Mapping[str, Any]] | None = None,
    **more: object,
) -> dict[str, Any]:
    """Return the container `pytorch`, with the baseline's values in its environment unless `env` is given."""
    made: dict[str, Any] = {"name": "pytorch", "image": "registry/toy:1", **more}
    if command is not None:
        made["command"] = list(command)
    if args:
        made["args"] = list(args)
    values = {keys.environment_name(name): str(value) for name, value in BASELINE.items()}
    made["env"] = [{"name": k, "value": v} for k, v in values.items()] if env is None else list(env)
    return made


def replica(made: Mapping[str, Any] | None = None, replicas: int | None = 1) -> dict[str, Any]:
    """Return a replica of one container."""
    counted = {} if replicas is None else {"replicas": replicas}
    return {**counted, "template": {"spec": {"containers": [dict(made or container())]}}}


def manifest(
    name: str = "toy",
    master: Mapping[str, Any] | None = None,
    worker: Mapping[str, Any] | None = None,
    asked: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    **spec_fields: object,
) -> dict[str, Any]:
    """Return a PyTorchJob with a Master, and with Workers where `worker` is given."""
    replicas = {"Master": dict(master or replica())}
    if worker is not None:
        replicas["Worker"] = dict(worker)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": name,
            "annotations": dict(annotations() if asked is None else asked),
            **(metadata or {}),
        },
        "spec": {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": replicas, **spec_fields},
    }


def job(**changed: Any) -> Job:
    """Return the job of `manifest(**changed)`."""
    return Job.from_manifest(manifest(**changed))


def suggestion(number: int = 0, **changed: Any) -> Suggestion:
    """Return a suggestion at the baseline."""
    fields: dict[str, Any] = {
        "number": number,
        "batch_size": 32,
        "parameters": {"learning_rate": 0.1},
        "seed": number,
        "purpose": Purpose.SEARCH,
        **changed,
    }
    return Suggestion(**fields)


def trial(
    number: int = 0,
    values: Sequence[float] = (0.5, 0.95),
    outcome: Outcome | None = Outcome.REACHED,
    tried: Suggestion | None = None,
    minutes: float = 30,
    **changed: Any,
) -> Trial:
    """Return a trial that started at noon and measured `values` at steps 1, 2, ...; None still runs."""
    fields: dict[str, Any] = {
        "measurements": tuple(Measurement(float(step), value) for step, value in enumerate(values, start=1)),
        "outcome": outcome,
        "started_at": NOON,
        "ended_at": None if outcome is None else NOON + timedelta(minutes=minutes),
        **changed,
    }
    return Trial(tried or suggestion(number), **fields)
