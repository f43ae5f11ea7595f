"""The registered TrainJob: a template that we never change except for our own annotations.

`TrainJob.from_manifest` reads and validates the job as its owner wrote it, once, together with the training
runtime that it refers to. How Trainer makes pods of the two: pkg/runtime/framework/plugins/torch/torch.go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.job.quantity import whole
from autotuner.job.training_runtime import API_VERSION, TrainingRuntime
from autotuner.job.trainjob_validation import KIND, runtime_reference, wellformed
from autotuner.spec import Shape, TuningSpec
from autotuner.trial import ParameterValue

__all__ = ["TrainJob", "devices", "nodes", "processes_per_node", "variables"]


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A registered TrainJob with its runtime: what trials are made from."""

    name: str
    namespace: str
    uid: str
    annotations: Mapping[str, str]
    manifest: Mapping[str, Any]
    runtime: TrainingRuntime

    @classmethod
    def from_manifest(cls, manifest: object, runtime: TrainingRuntime | None) -> TrainJob:
        """Read a TrainJob, from a file or from the API server.

        `runtime` is the one that `runtime_reference` names, None where there is none of that name.

        Raises:
            InvalidJob: If it cannot be tuned as it is written.
        """
        checked = wellformed(manifest)
        reference = runtime_reference(checked)
        if runtime is None or runtime.reference != reference:
            rule = f"there must be a {reference.kind} of that name"
            raise InvalidJob([Mistake("spec.runtimeRef.name", reference.name, rule, "torch-distributed")])
        _check_override(checked["spec"]["trainer"], runtime)
        metadata = checked["metadata"]
        return cls(
            name=str(metadata["name"]),
            namespace=str(metadata.get("namespace") or "default"),
            uid=str(metadata.get("uid") or ""),
            annotations=metadata.get("annotations") or {},
            manifest=checked,
            runtime=runtime,
        )

    @property
    def is_registered(self) -> bool:
        """Whether the job asks to be tuned."""
        return keys.TARGET in self.annotations

    @property
    def is_deleted(self) -> bool:
        """Whether the job is being deleted."""
        return "deletionTimestamp" in self.manifest["metadata"]

    @property
    def owner_reference(self) -> dict[str, Any]:
        """What makes the garbage collector remove an object with the job.

        It is no controller reference: Kueue does not queue the children of a queued job.
        """
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }

    @property
    def baseline(self) -> Mapping[str, ParameterValue]:
        """The known-good values of `spec.trainer.env`, by hyperparameter name.

        A value that only the runtime's container has counts too: Trainer merges both.
        """
        values: dict[str, ParameterValue] = {}
        for entry in variables(self.manifest, self.runtime):
            name, value = entry["name"], entry.get("value")
            if name.startswith(keys.ENV_PREFIX) and isinstance(value, str):
                values[name.removeprefix(keys.ENV_PREFIX).lower()] = value
        return values

    @property
    def shape(self) -> Shape:
        """The processes that the job runs; its nodes are alike, so all of them count as workers."""
        return Shape(
            masters=0,
            workers=nodes(self.manifest, self.runtime),
            processes_per_replica=processes_per_node(self.manifest, self.runtime),
            can_grow=True,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of all that the user can change: annotations, template and runtime."""
        asked = {key: value for key, value in self.annotations.items() if key.startswith(keys.PREFIX)}
        return _digest([asked, self.template])

    @property
    def template(self) -> str:
        """A hash of what trials are made from: the job's `spec`, suspended or not, and its runtime."""
        spec = {key: value for key, value in self.manifest["spec"].items() if key != "suspend"}
        return _digest([spec, self.runtime.fingerprint])

    def spec(self) -> TuningSpec:
        """Return what the job's annotations ask for; InvalidJob carries every mistake."""
        return TuningSpec.from_annotations(self.annotations, baseline=self.baseline, shape=self.shape)


def _check_override(trainer: Mapping[str, Any], runtime: TrainingRuntime) -> None:
    mistakes = [
        Mistake(
            f"spec.trainer.{key}",
            "[]",
            f"must have words, as Kueue drops an empty list and those of {runtime.reference} would be used",
            '["--epochs=5"]',
        )
        for key in ("command", "args")
        if trainer.get(key) == [] and runtime.container.get(key)
    ]
    if mistakes:
        raise InvalidJob(mistakes)


def nodes(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    """Return how many nodes, that is pods, a validated TrainJob runs on."""
    return int(manifest["spec"]["trainer"].get("numNodes") or runtime.nodes)


def processes_per_node(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    """Return how many processes run on each node of a validated TrainJob.

    As many as it says; else, for torchrun, as many as a node has GPUs, or processors where it has no GPUs.
    """
    trainer = manifest["spec"]["trainer"]
    if trainer.get("numProcPerNode") is not None:
        return int(trainer["numProcPerNode"])
    if not runtime.is_torch:
        return 1
    return _gpus(manifest, runtime) or max(1, _processors(_resources(manifest, runtime)))


def devices(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    """Return how many GPUs a TrainJob asks for, or how many processes it runs where it asks for none."""
    each = _gpus(manifest, runtime) or processes_per_node(manifest, runtime)
    return nodes(manifest, runtime) * each


def variables(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> list[dict[str, Any]]:
    """Return the environment of the training container, in the order in which Trainer writes it.

    The runtime's variables come first; the job's replace those of the same name where they are, and follow.
    """
    merged: dict[str, dict[str, Any]] = {}
    for container in (runtime.container, manifest["spec"]["trainer"]):
        merged |= {entry["name"]: entry for entry in container.get("env") or ()}
    return list(merged.values())


def _resources(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> Mapping[str, Any]:
    resources = manifest["spec"]["trainer"].get("resourcesPerNode")
    if resources is None:
        resources = runtime.container.get("resources")
    return resources if isinstance(resources, dict) else {}


def _gpus(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    resources = _resources(manifest, runtime)
    # Trainer counts every resource with this word in its name, such as gpu.intel.com/i915.
    requested = _largest(resources, "requests", lambda name: "gpu" in name.lower())
    return requested or _largest(resources, "limits", lambda name: "gpu" in name.lower())


def _processors(resources: Mapping[str, Any]) -> int:
    requested = _largest(resources, "requests", "cpu".__eq__)
    return requested or _largest(resources, "limits", "cpu".__eq__)


def _largest(resources: Mapping[str, Any], part: str, is_meant: Callable[[str], bool]) -> int:
    amounts = resources.get(part)
    found = [0]
    for name, amount in amounts.items() if isinstance(amounts, dict) else ():
        if is_meant(name):
            with contextlib.suppress(ValueError):  # of a runtime, which only the API server has checked
                found.append(whole(amount))
    return max(found)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
