"""Validate a PyTorchJob at the boundary: what the cluster would refuse, and what the tuner relies on.

No API server has checked a file on a laptop, so this checks what the CustomResourceDefinition and the
operator's webhook check (training-operator v1.9, pkg/webhooks/pytorch/pytorchjob_webhook.go). All findings
are reported at once: mistakes, because of which the job would not be created or cannot be tuned, and warnings
about a job that can be tuned but may not do what its owner expects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.fields import check_fields
from autotuner.job.lookup import mapping, pod_count, sequence
from autotuner.job.quantity import exact
from autotuner.job.warnings import warnings
from autotuner.spec.untrusted_yaml import plain

API_VERSION: Final = "kubeflow.org/v1"
KIND: Final = "PyTorchJob"
CONTAINER: Final = "pytorch"
"""The container of each replica that the training operator treats as the training process."""
REPLICAS: Final = ("Master", "Worker")

_NAME: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""DNS-1035, as in the training operator's webhook; on a laptop it names a folder."""
_VARIABLE: Final = re.compile(r"[ -<>-~]+")
"""Printable ASCII without `=`."""
_MANAGERS: Final = "kubeflow.org/training-operator"
_ADDRESSES: Final = frozenset({"MASTER_ADDR", "PET_MASTER_ADDR", "PET_RDZV_ENDPOINT"})
_POD_NAMES: Final = r"(?:master|worker)-\d+"
_KATIB: Final = re.compile(r"\$\{trialParameters\.(\w+)\}")
_WHERE: Final = "spec.pytorchReplicaSpecs"


@dataclass(frozen=True, slots=True)
class Validated:
    """A PyTorchJob as plain values, with its mistakes and warnings.

    Args:
        manifest: The job; valid if there are no mistakes.
        mistakes: What must change.
        warnings: What may differ from what its owner expects.
    """

    manifest: Mapping[str, Any]
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Mistake, ...] = ()


def validate(manifest: object, *, needs_images: bool = True) -> Validated:
    """Return a PyTorchJob with all mistakes and warnings; never raises.

    Args:
        manifest: A document as it was read.
        needs_images: Whether it will run on a cluster, which refuses a container without an image.
    """
    read = read_as(manifest, API_VERSION, KIND, f"must be the kind {KIND} of {API_VERSION}, or TrainJob")
    if read.mistakes:
        return read
    checked = read.manifest
    unknown, wrong = check_fields(checked)
    mistakes = [Mistake(w.where, brief(w.value), w.rule, w.example) for w in wrong]
    ignored: list[Mistake] = []
    for field in unknown:
        value = brief(field.value)
        if field.nearest:
            # The intended field would change what runs.
            rule = f"must be an existing field; the nearest is {field.nearest}"
            mistakes.append(Mistake(field.where, value, rule, f"{field.nearest}: {value}"))
        else:
            rule = "must be removed or moved: there is no such field here, and the API server drops it"
            ignored.append(Mistake(field.where, value, rule, field.elsewhere or "metadata.annotations"))
    mistakes += check_metadata(checked.get("metadata"))
    mistakes += _spec(checked.get("spec"))
    found = [] if mistakes else [*_policies(checked), *_images(checked)]
    imageless = [m for m in found if m.key.endswith(".image")]
    mistakes += [m for m in found if needs_images or m not in imageless]
    if not needs_images:
        ignored += imageless
    if not mistakes:
        mistakes += _own_names(checked)
        ignored += warnings(checked)
    return Validated(checked, tuple(mistakes), tuple(ignored))


def read_as(manifest: object, api_version: str, kind: str, rule: str) -> Validated:
    """Return a document as plain values, with a mistake by the rule if its version or kind differs."""
    if not isinstance(manifest, dict):
        return Validated({}, (Mistake("file", brief(manifest), "must hold one object", f"kind: {kind}"),))
    try:
        checked: dict[str, Any] = plain(manifest)
    except ValueError as error:
        return Validated({}, (Mistake("file", "", f"{error}; must be plain YAML", f"kind: {kind}"),))
    wanted = {"apiVersion": api_version, "kind": kind}
    return Validated(
        checked,
        tuple(
            Mistake(key, brief(checked.get(key)), rule, f"{key}: {value}")
            for key, value in wanted.items()
            if checked.get(key) != value
        ),
    )


def replica_count(replica: Mapping[str, Any]) -> int:
    """Return how many pods a replica of a checked job has."""
    return pod_count(replica)


def check_metadata(metadata: object) -> Iterator[Mistake]:
    """Yield the mistakes of an object's metadata."""
    if not isinstance(metadata, dict):
        yield Mistake("metadata", brief(metadata), "must be a mapping", "{name: resnet50}")
        return
    name = metadata.get("name")
    if name is None and metadata.get("generateName"):
        rule = (
            f"must be given: generateName {brief(metadata['generateName'])!r} creates a new job each time,"
            " and a study belongs to one"
        )
        yield Mistake(
            "metadata.name", "", rule, f"{brief(metadata['generateName']).rstrip('-') or 'resnet50'}"
        )
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "must be at most 63 lower-case letters, digits and dashes, starting with a letter"
        yield Mistake("metadata.name", brief(name), rule, "resnet50")
    yield from _check_strings("metadata", metadata)


def _check_strings(where: str, metadata: object) -> Iterator[Mistake]:
    """Yield the annotations and labels of an object, or of its pods, that are not strings."""
    for key in ("annotations", "labels"):
        given = mapping(metadata).get(key) or {}
        if not isinstance(given, dict):
            rule, example = "must be a mapping of strings", f'{{{keys.TARGET}: "accuracy >= 0.9"}}'
            yield Mistake(f"{where}.{key}", brief(given), rule, example)
            continue
        for written, value in given.items():
            if not isinstance(value, str) and (value is not None or where == "metadata"):
                rule = f"must be a string, like all {key} in Kubernetes; put it in quotes"
                place = written if where == "metadata" else f"{where}.{key} {written}"
                shown = brief(value).lower() if isinstance(value, bool) else brief(value)[:80]
                yield Mistake(place, brief(value), rule, f'"{shown}"')


def _spec(spec: object) -> Iterator[Mistake]:
    replicas = spec.get("pytorchReplicaSpecs") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(replicas, dict) or not replicas:
        yield Mistake(_WHERE, brief(replicas), "must have replicas", "Master: {replicas: 1, template: ...}")
        return
    for kind, replica in replicas.items():
        if kind not in REPLICAS:
            near = next((known for known in REPLICAS if known.lower() == kind.lower()), "Worker")
            rule = f"must be {' or '.join(REPLICAS)}, the only replicas of the training operator"
            yield Mistake(_WHERE, kind, rule, near)
        else:
            yield from _replica(f"{_WHERE}.{kind}", kind, replica)


def _replica(where: str, kind: str, replica: object) -> Iterator[Mistake]:
    if not isinstance(replica, dict):
        yield Mistake(where, brief(replica), "must be a mapping", "{replicas: 1, template: ...}")
        return
    count = replica.get("replicas")
    is_whole = isinstance(count, int) and not isinstance(count, bool)
    if kind == "Master" and (not is_whole or count != 1):
        rule = "must be 1 for a Master, and must be given; otherwise the operator's webhook refuses the job"
        yield Mistake(f"{where}.replicas", brief(count), rule, "replicas: 1")
    elif count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        rule = "must be a whole number of at least 1, without quotes; otherwise the operator refuses the job"
        yield Mistake(f"{where}.replicas", brief(count), rule, "replicas: 1")
    containers = _containers(replica)
    container = next((c for c in containers if isinstance(c, dict) and c.get("name") == CONTAINER), None)
    if container is None or not all(isinstance(c, dict) for c in containers):
        names = ", ".join(brief(c.get("name")) for c in containers if isinstance(c, dict))
        rule = f"must have a container named {CONTAINER}, where the training runs"
        yield Mistake(f"{where}.template.spec.containers", names, rule, f"- name: {CONTAINER}")
        return
    yield from check_container(f"{where} container {CONTAINER}", container)
    yield from check_resources(f"{where} container {CONTAINER}.resources", container.get("resources"))
    yield from _check_strings(f"{where}.template.metadata", mapping(replica.get("template")).get("metadata"))


def check_container(where: str, container: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the mistakes of a training container: command, working directory and environment."""
    for key in ("command", "args"):
        value = container.get(key) or []
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            rule = "must be a list of strings; put numbers in quotes"
            yield Mistake(f"{where}.{key}", brief(value), rule, '["python", "train.py"]')
            continue
        if (katib := next((m for word in value if (m := _KATIB.search(word))), None)) is not None:
            rule = "must not be a placeholder of Katib, which nothing replaces here: use the trial's variable"
            yield Mistake(f"{where}.{key}", katib[0], rule, f"$({keys.environment_name(katib[1])})")
    folder = container.get("workingDir")
    if folder is not None and not isinstance(folder, str):
        yield Mistake(f"{where}.workingDir", brief(folder), "must be a path", "/workspace")
    env = container.get("env") or []
    if not isinstance(env, list) or not all(map(_is_variable, env)):
        rule = "must be a list of entries with a name, in ASCII without =, and a value"
        yield Mistake(f"{where}.env", brief(env), rule, '- {name: LR, value: "0.1"}')
        return
    for entry in env:
        # In Kubernetes, `value:` without a value is an empty string.
        value = entry.get("value")
        if value is not None and not isinstance(value, str):
            rule = "must be a string; put it in quotes"
            yield Mistake(f"{where}.env {entry['name']}", brief(value), rule, f'"{value}"')


def check_resources(where: str, resources: object) -> Iterator[Mistake]:
    """Yield the mistakes of what a container asks for."""
    if resources is None:
        return
    if not isinstance(resources, dict):
        yield Mistake(where, brief(resources), "must be a mapping", "{limits: {nvidia.com/gpu: 1}}")
        return
    for name in sorted(map(str, resources.keys() - {"requests", "limits", "claims"})):
        rule = "must be in limits or requests: the API server drops it here, and the pod does not get it"
        yield Mistake(
            f"{where} {name}", brief(resources[name]), rule, f"limits: {{{name}: {resources[name]}}}"
        )
    for part in ("requests", "limits"):
        amounts = resources.get(part) or {}
        if not isinstance(amounts, dict):
            rule = "must be a mapping of resource names to quantities"
            yield Mistake(f"{where}.{part}", brief(amounts), rule, "{nvidia.com/gpu: 1}")
            continue
        for name, amount in amounts.items():
            try:
                number = exact(amount)
            except ValueError:
                yield Mistake(f"{where}.{part} {name}", brief(amount), "must be a quantity", "500m")
                continue
            # Resources of device plug-ins have the name of a domain.
            if "/" in name and number.denominator != 1:
                rule = "must be a whole number: Kubernetes gives a container no part of a device"
                yield Mistake(f"{where}.{part} {name}", brief(amount), rule, "1")


def _policies(manifest: Mapping[str, Any]) -> Iterator[Mistake]:
    spec = manifest["spec"]
    elastic = spec.get("elasticPolicy")
    if isinstance(elastic, dict):
        if "Worker" not in spec["pytorchReplicaSpecs"]:
            rule = "must come with a Worker: the operator's webhook refuses an elastic job without one"
            yield Mistake("spec.elasticPolicy", brief(elastic), rule, "Worker: {replicas: 2, template: ...}")
        if elastic.get("nProcPerNode") is not None and spec.get("nprocPerNode") is not None:
            rule = (
                "must not be given with spec.nprocPerNode: the operator's webhook refuses both; keep that one"
            )
            where, value = "spec.elasticPolicy.nProcPerNode", brief(elastic["nProcPerNode"])
            yield Mistake(where, value, rule, f'spec.nprocPerNode: "{value}"')
    manager = (spec.get("runPolicy") or {}).get("managedBy")
    if manager is not None and manager != _MANAGERS:
        rule = "must be the training operator of this cluster: pods and logs would be in another cluster"
        yield Mistake("spec.runPolicy.managedBy", manager, rule, _MANAGERS)


def _images(manifest: Mapping[str, Any]) -> Iterator[Mistake]:
    for kind, replica in manifest["spec"]["pytorchReplicaSpecs"].items():
        for container in _containers(replica):
            if not container.get("image"):
                where = f"{_WHERE}.{kind} container {brief(container.get('name'))}.image"
                rule = "must be given; otherwise the operator's webhook refuses the container"
                yield Mistake(where, "", rule, "registry/resnet50:1")


def _own_names(manifest: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the places that name a pod of the job: the pods of a trial have other names."""
    spec, job = manifest["spec"], manifest["metadata"]["name"]
    if "Master" in spec["pytorchReplicaSpecs"]:
        address = "$(MASTER_ADDR)"
    else:
        address = "$(PET_RDZV_ENDPOINT)" if isinstance(spec.get("elasticPolicy"), dict) else ""
    for kind, replica in spec["pytorchReplicaSpecs"].items():
        pod = mapping(mapping(mapping(replica).get("template")).get("spec"))
        for key in ("initContainers", "containers"):
            for container in map(mapping, sequence(pod.get(key))):
                where = f"{_WHERE}.{kind} container {brief(container.get('name'))}"
                # The operator's own init container waits for the Master, and init containers have no address.
                remedy = "leave it out" if key == "initContainers" else address
                yield from check_names(
                    where, container, job, _POD_NAMES, remedy or "add a Master: $(MASTER_ADDR)"
                )


def check_names(
    where: str, container: Mapping[str, Any], job: str, pod: str, address: str
) -> Iterator[Mistake]:
    """Yield a mistake for each text of a container that names a pod of the job.

    Args:
        where: The container's place, for people.
        container: A container of a valid job.
        job: The job's name, which the names of its pods begin with.
        pod: Regular expression for what follows.
        address: What to write in its place.
    """
    named = re.compile(rf"(?<![-\w.]){re.escape(job)}-{pod}")
    rule = "must not name a pod of the job: the pods of a trial have other names"
    for key in ("command", "args"):
        for word in sequence(container.get(key)):
            if isinstance(word, str) and (match := named.search(word)) is not None:
                example = f"{address}, which the operator sets" if address.startswith("$") else address
                yield Mistake(f"{where}.{key}", match[0], rule, example)
    for entry in map(mapping, sequence(container.get("env"))):
        name, value = brief(entry.get("name")), entry.get("value")
        # The operator sets its own after the job's, so those hold, and no value of the job can refer to them.
        if name not in _ADDRESSES and isinstance(value, str) and (match := named.search(value)) is not None:
            yield Mistake(f"{where} env {name}", match[0], f"{rule}, and env cannot refer to them", address)


def _containers(replica: object) -> list[Any]:
    template = replica.get("template") if isinstance(replica, dict) else None
    pod = template.get("spec") if isinstance(template, dict) else None
    containers = pod.get("containers") if isinstance(pod, dict) else None
    return containers if isinstance(containers, list) else []


def _is_variable(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    source = entry.get("valueFrom")
    return bool(_VARIABLE.fullmatch(entry["name"])) and (source is None or isinstance(source, dict))


def brief(value: object) -> str:
    """Return a value as an error shows it; an empty text for None."""
    return "" if value is None else str(value)
