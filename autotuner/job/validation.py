"""What a PyTorchJob must be for us to rely on it: checked once, where it comes in.

A file on a laptop has met no API server, so this is what the training operator's webhook checks, and what we
rely on besides. All mistakes are reported at once. What passes is a copy of plain values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.spec.untrusted_yaml import plain

API_VERSION: Final = "kubeflow.org/v1"
KIND: Final = "PyTorchJob"
CONTAINER: Final = "pytorch"
"""The container of each replica that the training operator treats as the training process."""
_NAME: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""DNS-1035, as the training operator's webhook has it; on a laptop it names a folder."""
_VARIABLE: Final = re.compile(r"[ -<>-~]+")
"""Printable ASCII without `=`."""
REPLICAS: Final = ("Master", "Worker")


def wellformed(manifest: object) -> dict[str, Any]:
    """Return a copy of a PyTorchJob that is fit to be tuned.

    Raises:
        InvalidJob: If it is no PyTorchJob, or one without a container `pytorch` in each replica.
    """
    if not isinstance(manifest, dict):
        raise InvalidJob([Mistake("file", _brief(manifest), "it must hold one object", f"kind: {KIND}")])
    try:
        checked: dict[str, Any] = plain(manifest)
    except ValueError as error:
        raise InvalidJob([Mistake("file", "", f"{error}; write plain YAML", f"kind: {KIND}")]) from None
    mistakes: list[Mistake] = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if checked.get(key) != wanted:
            rule = f"only a {KIND} of {API_VERSION} can be tuned; write"
            mistakes.append(Mistake(key, _brief(checked.get(key)), rule, f"{key}: {wanted}"))
    if not mistakes:
        _check_metadata(checked.get("metadata"), mistakes)
        _check_spec(checked.get("spec"), mistakes)
    if mistakes:
        raise InvalidJob(mistakes)
    return checked


def replica_count(replica: Mapping[str, Any]) -> int:
    """Return how many pods a replica of a checked job has."""
    return int(replica.get("replicas", 1))


def _check_metadata(metadata: object, mistakes: list[Mistake]) -> None:
    if not isinstance(metadata, dict):
        mistakes.append(Mistake("metadata", _brief(metadata), "it must be a mapping", "{name: resnet50}"))
        return
    name = metadata.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "write at most 63 lower-case letters, digits and dashes, from a letter"
        mistakes.append(Mistake("metadata.name", _brief(name), rule, "resnet50"))
    for key in ("annotations", "labels"):
        given = metadata.get(key) or {}
        if not isinstance(given, dict):
            rule, example = "it must be a mapping of strings", f'{{{keys.TARGET}: "accuracy >= 0.9"}}'
            mistakes.append(Mistake(f"metadata.{key}", _brief(given), rule, example))
            continue
        for written, value in given.items():
            if not isinstance(value, str):
                rule = f"Kubernetes takes only strings as {key}; put it in quotes"
                mistakes.append(Mistake(written, _brief(value), rule, f'"{_brief(value)[:80]}"'))


def _check_spec(spec: object, mistakes: list[Mistake]) -> None:
    replicas = spec.get("pytorchReplicaSpecs") if isinstance(spec, dict) else None
    where = "spec.pytorchReplicaSpecs"
    if not isinstance(spec, dict) or not isinstance(replicas, dict) or not replicas:
        rule = "the job must have replicas"
        mistakes.append(Mistake(where, _brief(replicas), rule, "Master: {replicas: 1, template: ...}"))
        return
    for kind, replica in replicas.items():
        if kind not in REPLICAS:
            rule = f"the training operator knows only {' and '.join(REPLICAS)}; write one of them"
            mistakes.append(Mistake(where, kind, rule, "Worker"))
            continue
        _check_replica(f"{where}.{kind}", kind, replica, mistakes)
    if not mistakes and not sum(map(replica_count, replicas.values())):
        mistakes.append(Mistake(where, "0", "the job must have a process", "Worker: {replicas: 1, ...}"))
    policy = spec.get("runPolicy")
    if policy is not None and not isinstance(policy, dict):
        mistakes.append(Mistake("spec.runPolicy", _brief(policy), "it must be a mapping", "{suspend: true}"))


def _check_replica(where: str, kind: str, replica: object, mistakes: list[Mistake]) -> None:
    if not isinstance(replica, dict):
        mistakes.append(
            Mistake(where, _brief(replica), "it must be a mapping", "{replicas: 1, template: ...}")
        )
        return
    count = replica.get("replicas", 1)
    if (
        not isinstance(count, int)
        or isinstance(count, bool)
        or count < 0
        or (kind == "Master" and count != 1)
    ):
        rule = "a Master has 1 replica" if kind == "Master" else "it must be a whole number"
        mistakes.append(Mistake(f"{where}.replicas", _brief(count), rule, "1"))
    try:
        containers = replica["template"]["spec"]["containers"]
        names = [container.get("name") for container in containers]
        container = containers[names.index(CONTAINER)]
        _check_container(f"{where} container {CONTAINER}", container, mistakes)
    except (KeyError, TypeError, AttributeError, ValueError):
        rule = f"each replica must have a container named {CONTAINER}, where the training runs"
        mistakes.append(Mistake(f"{where}.template.spec.containers", "", rule, f"- name: {CONTAINER}"))


def _check_container(where: str, container: Mapping[str, Any], mistakes: list[Mistake]) -> None:
    for key in ("command", "args"):
        value = container.get(key) or []
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            rule = "it must be a list of strings; put numbers in quotes"
            mistakes.append(Mistake(f"{where}.{key}", _brief(value), rule, '["python", "train.py"]'))
    folder = container.get("workingDir")
    if folder is not None and not isinstance(folder, str):
        mistakes.append(Mistake(f"{where}.workingDir", _brief(folder), "it must be a path", "/workspace"))
    env = container.get("env") or []
    if not isinstance(env, list) or not all(map(_is_variable, env)):
        rule = "it must be a list of names, in ASCII and without =, and values"
        mistakes.append(Mistake(f"{where}.env", _brief(env), rule, '- {name: LR, value: "0.1"}'))
        return
    for entry in env:
        if not isinstance(entry.get("value", ""), str):
            rule = "Kubernetes takes only strings as values; put it in quotes"
            value = entry.get("value")
            mistakes.append(Mistake(f"{where}.env {entry['name']}", _brief(value), rule, f'"{value}"'))


def _is_variable(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    source = entry.get("valueFrom")
    return bool(_VARIABLE.fullmatch(entry["name"])) and (source is None or isinstance(source, dict))


def _brief(value: object) -> str:
    return "" if value is None else str(value)
