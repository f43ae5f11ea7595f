"""Validate a TrainJob at the boundary.

No API server has checked a file on a laptop, so this checks what Trainer's schema and webhook check, and what
the tuner relies on. All mistakes are reported at once. The result is a copy in plain values.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.training_runtime import API_GROUP, API_VERSION, CLUSTER_KIND, KINDS, RuntimeReference
from autotuner.job.validation import (
    Validated,
    brief,
    check_container,
    check_metadata,
    check_names,
    check_resources,
    read_as,
)
from autotuner.job.warnings import has_run, never_joined, rendezvous, would_run
from autotuner.job.wrappers import names

KIND: Final = "TrainJob"
RESERVED: Final = frozenset(
    {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
)
"""Variables that only Trainer may set; its webhook refuses them in a TrainJob."""
MAX_VARIABLES: Final = 64
"""Maximum entries of `trainer.env`: the schema allows 128, and a trial adds its own variables."""
MAX_NODES: Final = 100_000
MAX_PROCESSES_PER_NODE: Final = 10_000
_FIELDS: Final = {
    "spec": names("activeDeadlineSeconds initializer managedBy runtimePatches runtimeRef suspend trainer"),
    "spec.trainer": names("args command env image numNodes numProcPerNode resourcesPerNode"),
}
"""The fields of a TrainJob in Trainer 2.3, by their place."""
_RENAMED: Final = {
    "podSpecOverrides": "spec.runtimePatches",
    "podTemplateOverrides": "spec.runtimePatches",
    "resources": "spec.trainer.resourcesPerNode",
}
_MOST_UNKNOWN: Final = 20
"""Maximum number of unknown fields to report; a hostile manifest may have thousands."""
_POD: Final = r"node-\d+-\d+"
"""What a pod's name has behind that of the TrainJob."""
MULTIKUEUE: Final = "kueue.x-k8s.io/multikueue"


def validate(manifest: object) -> Validated:
    """Return a TrainJob with all mistakes that can be found without its runtime; never raises."""
    read = read_as(manifest, API_VERSION, KIND, f"must be the kind {KIND} of {API_VERSION}")
    if read.mistakes:
        return read
    checked = read.manifest
    mistakes = list(check_metadata(checked.get("metadata")))
    _check_spec(checked.get("spec"), mistakes)
    if not mistakes:
        trainer, name = checked["spec"]["trainer"], checked["metadata"]["name"]
        mistakes += check_names("spec.trainer", trainer, name, _POD, "$(PET_MASTER_ADDR)")
    return Validated(checked, tuple(mistakes), () if mistakes else tuple(_warnings(checked)))


def _warnings(checked: Mapping[str, Any]) -> Iterator[Mistake]:
    metadata, spec = checked["metadata"], checked["spec"]
    annotations = metadata.get("annotations") or {}
    if keys.TARGET in annotations:
        # A TrainJob has in its spec what a PyTorchJob has in its runPolicy.
        yield from would_run(metadata, spec.get("suspend"), annotations, "spec.suspend")
        yield from has_run(checked.get("status"))
    yield from islice(_unknown_fields(spec), _MOST_UNKNOWN)
    # Trainer sets no rendezvous id: each trial's is at its own address.
    yield from (found for found in rendezvous("spec.trainer", spec["trainer"]) if "restarts" in found.key)
    yield from never_joined("spec.trainer", spec["trainer"], spec["trainer"].get("numNodes") or 1)


def _unknown_fields(spec: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the fields that Trainer does not have; no mistakes, as a later version may have them."""
    for where, known in _FIELDS.items():
        given = spec if where == "spec" else spec["trainer"]
        for name in given:
            if name in known:
                continue
            elsewhere = [f"{place}.{name}" for place, held in _FIELDS.items() if name in held]
            near = [
                f"{where}.{each}" for each in difflib.get_close_matches(name[:64], sorted(known), 1, 0.75)
            ]
            remedy = [_RENAMED[name]] if name in _RENAMED else elsewhere or near or ["leave it out"]
            rule = "is no field of Trainer 2.3 here: kubectl refuses it, or else the API server drops it"
            yield Mistake(f"{where}.{name}", brief(given[name]), rule, remedy[0])


def runtime_reference(checked: Mapping[str, Any]) -> RuntimeReference:
    """Return the reference of a validated TrainJob to its runtime."""
    reference = checked["spec"]["runtimeRef"]
    return RuntimeReference(str(reference["name"]), str(reference.get("kind") or CLUSTER_KIND))


def _check_spec(spec: object, mistakes: list[Mistake]) -> None:
    if not isinstance(spec, dict):
        mistakes.append(Mistake("spec", brief(spec), "must be a mapping", "{runtimeRef: ..., trainer: ...}"))
        return
    _check_reference(spec.get("runtimeRef"), mistakes)
    if not isinstance(spec.get("suspend"), bool | None):
        mistakes.append(Mistake("spec.suspend", brief(spec["suspend"]), "must be true or false", "true"))
    if spec.get("managedBy") == MULTIKUEUE:
        rule = "must not be MultiKueue: the pods and logs of trials would be in another cluster"
        mistakes.append(Mistake("spec.managedBy", MULTIKUEUE, rule, f"{API_GROUP}/trainjob-controller"))
    patches = spec.get("runtimePatches") or []
    if not isinstance(patches, list) or not all(map(_is_patch, patches)):
        rule = "must be a list of patches, each with a manager"
        mistakes.append(Mistake("spec.runtimePatches", brief(patches), rule, "[{manager: example.com/me}]"))
    trainer = spec.get("trainer")
    if isinstance(trainer, dict):
        _check_trainer(trainer, mistakes)
    else:
        rule = "must be a mapping: the known-good values are in its env"
        mistakes.append(Mistake("spec.trainer", brief(trainer), rule, "{command: [...], env: [...]}"))


def _check_reference(reference: object, mistakes: list[Mistake]) -> None:
    name = reference.get("name") if isinstance(reference, dict) else None
    if not isinstance(reference, dict) or not isinstance(name, str) or not name:
        mistakes.append(
            Mistake("spec.runtimeRef", brief(reference), "must name a runtime", "{name: torch-distributed}")
        )
        return
    if reference.get("kind", CLUSTER_KIND) not in KINDS:
        rule = f"must be {' or '.join(KINDS)}"
        mistakes.append(Mistake("spec.runtimeRef.kind", brief(reference["kind"]), rule, CLUSTER_KIND))
    if reference.get("apiGroup", API_GROUP) != API_GROUP:
        rule = f"must be {API_GROUP}"
        mistakes.append(Mistake("spec.runtimeRef.apiGroup", brief(reference["apiGroup"]), rule, API_GROUP))


def _is_patch(patch: object) -> bool:
    return isinstance(patch, dict) and isinstance(patch.get("manager"), str)


def _check_trainer(trainer: Mapping[str, Any], mistakes: list[Mistake]) -> None:
    mistakes += check_container("spec.trainer", trainer)
    for key, most in (("numNodes", MAX_NODES), ("numProcPerNode", MAX_PROCESSES_PER_NODE)):
        value = trainer.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            rule = f"must be a whole number from 1 to {most}, without quotes"
            mistakes.append(Mistake(f"spec.trainer.{key}", brief(value), rule, "4"))
    env = trainer.get("env") or []
    if isinstance(env, list):
        written = [
            entry["name"] for entry in env if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        ]
        _check_names(written, mistakes)
    mistakes += check_resources("spec.trainer.resourcesPerNode", trainer.get("resourcesPerNode"))


def _check_names(names: list[str], mistakes: list[Mistake]) -> None:
    for name in sorted(RESERVED.intersection(names)):
        rule = "must be left out: Trainer sets it, and its webhook refuses it in a job"
        mistakes.append(Mistake(f"spec.trainer.env {name}", name, rule, "numNodes: 2"))
    for name in sorted(
        {name for name in names if names.count(name) > 1} if len(names) <= MAX_VARIABLES else ()
    ):
        rule = "must not occur twice: the schema refuses it"
        mistakes.append(Mistake(f"spec.trainer.env {name}", name, rule, f"- name: {name}"))
    if len(names) > MAX_VARIABLES:
        rule = f"must have at most {MAX_VARIABLES} entries, to leave room for those of a trial"
        mistakes.append(Mistake("spec.trainer.env", f"{len(names)} entries", rule, "envFrom in the runtime"))
