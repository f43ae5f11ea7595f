"""Read the scripts that a job mounts from ConfigMaps of its own file.

They serve warnings only. On a cluster the controller sees the job and no ConfigMap, so whatever decides about
trials, such as the number of processes, must be in the job itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from autotuner.job.expansion import words_of
from autotuner.job.lookup import mapping, sequence
from autotuner.job.options import MAX_TEXT
from autotuner.job.training_runtime import CONTAINER as NODE
from autotuner.job.validation import CONTAINER
from autotuner.job.wrappers import base

ConfigMaps = Mapping[tuple[str, str], Mapping[str, str]]
"""The data of ConfigMaps, by namespace and name; the namespace is empty where none is given."""
_MOST: Final = 64
"""Maximum number of files that are read."""
_END: Final = "END_OF_A_FILE_OF_A_CONFIG_MAP"


def config_maps_among(documents: Iterable[object]) -> ConfigMaps:
    """Return the ConfigMaps among the documents of a file."""
    found: dict[tuple[str, str], Mapping[str, str]] = {}
    for document in map(mapping, documents):
        metadata = mapping(document.get("metadata"))
        if document.get("kind") == "ConfigMap" and document.get("apiVersion") == "v1":
            data = mapping(document.get("data"))
            texts = {key: text for key, text in data.items() if isinstance(text, str)}
            found[str(metadata.get("namespace") or ""), str(metadata.get("name"))] = texts
    return found


def files_of(
    manifest: Mapping[str, Any], config_maps: ConfigMaps, documents: Iterable[Mapping[str, Any]] = ()
) -> dict[str, str]:
    """Return the files that the training containers of a job have from ConfigMaps, by their path.

    `documents` are what else the pods of the job come from: a TrainJob's runtime.

    A file that is too long to be read, or that differs from one container to another, is left out, and so is
    what comes after `_MOST` files.
    """
    namespace = str(mapping(manifest.get("metadata")).get("namespace") or "")
    known = {name: data for (place, name), data in config_maps.items() if place in {"", namespace or place}}
    found: dict[str, str] = {}
    differing: set[str] = set()
    for mounts, volumes in _mounts(manifest, documents) if known else ():
        named = {str(mapping(volume).get("name")): mapping(volume) for volume in volumes}
        for mount in map(mapping, mounts):
            for path, text in _mounted(mount, named.get(str(mount.get("name")), {}), known):
                differing |= {path} if found.setdefault(path, text) != text else set()
    right = {path: text for path, text in found.items() if path not in differing and len(text) <= MAX_TEXT}
    return dict(islice(right.items(), _MOST))


def _mounts(
    manifest: Mapping[str, Any], documents: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Yield the mounts of each training container, with the volumes of its pod."""
    spec = mapping(manifest.get("spec"))
    replicas = mapping(spec.get("pytorchReplicaSpecs"))
    for replica in replicas.values():
        pod = mapping(mapping(mapping(replica).get("template")).get("spec"))
        for container in map(mapping, sequence(pod.get("containers"))):
            if container.get("name") == CONTAINER:
                yield sequence(container.get("volumeMounts")), sequence(pod.get("volumes"))
    if not replicas:
        # Trainer merges the patches of a TrainJob into the pods of its runtime.
        pods = [pod for each in (*documents, spec.get("runtimePatches")) for pod in _pods_within(each)]
        containers = [mapping(each) for pod in pods for each in sequence(pod.get("containers"))]
        training = [each for each in containers if each.get("name") == NODE]
        mounts = [mount for each in training for mount in sequence(each.get("volumeMounts"))]
        yield mounts, [volume for pod in pods for volume in sequence(pod.get("volumes"))]


def _pods_within(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the specs of pods at any depth of a runtime, or of patches."""
    held = mapping(value)
    if "containers" in held or "volumes" in held:
        yield held
    for each in (*held.values(), *sequence(value)):
        yield from _pods_within(each)


def _mounted(
    mount: Mapping[str, Any], volume: Mapping[str, Any], known: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """Yield the files of a volume with their paths in a container."""
    projected = map(mapping, sequence(mapping(volume.get("projected")).get("sources")))
    root, inner = str(mount.get("mountPath")).rstrip("/"), str(mount.get("subPath") or "").strip("/")
    for source in (volume, *projected):
        given = mapping(source.get("configMap"))
        data = known.get(str(given.get("name")), {})
        items = [mapping(item) for item in sequence(given.get("items"))]
        names = {str(item.get("path")): str(item.get("key")) for item in items} or {key: key for key in data}
        for name, key in names.items():
            if key not in data or mount.get("subPathExpr"):
                continue
            if inner in {"", name}:
                yield root if inner else f"{root}/{name}", data[key]
            elif name.startswith(f"{inner}/"):
                yield root + name.removeprefix(inner), data[key]


def named_files(container: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, str]:
    """Return the files that the command line of a container names, and those that these name."""
    line = "\n".join([*words_of(container), str(container.get("workingDir") or "")])
    named: dict[str, str] = {}
    while True:
        further = {path: files[path] for path in files.keys() - named.keys() if _names(line, path)}
        if not further:
            return named
        named |= dict(sorted(further.items()))
        line += "\n" + "\n".join(further.values())


def _names(line: str, path: str) -> bool:
    """Return whether a text names a file, by its path, or by its name beside the path of its folder."""
    folder, name = path.rpartition("/")[0], re.escape(base(path))
    if re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w/-])", line) is not None:
        return True
    in_folder = re.search(rf"(?<![\w./-]){re.escape(folder)}/?(?![\w/-])", line) is not None
    return (
        bool(folder) and in_folder and re.search(rf"(?<![\w/.-])(?:\./)?{name}(?![\w/-])", line) is not None
    )


def with_files(manifest: Mapping[str, Any], files: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a job whose containers write the files that they name, and then run their commands.

    That is how scripts of other jobs bring their files along, so whatever reads those reads these.
    """
    spec = mapping(manifest.get("spec"))
    replicas = mapping(spec.get("pytorchReplicaSpecs"))
    whole: dict[str, Any] = {}
    for role, replica in replicas.items():
        template = mapping(mapping(replica).get("template"))
        pod = mapping(template.get("spec"))
        made = [
            _writing(each, named_files(each, files)) if mapping(each).get("name") == CONTAINER else each
            for each in sequence(pod.get("containers"))
        ]
        whole[role] = {**replica, "template": {**template, "spec": {**pod, "containers": made}}}
    if replicas:
        return {**manifest, "spec": {**spec, "pytorchReplicaSpecs": whole}}
    trainer = mapping(spec.get("trainer"))
    return {**manifest, "spec": {**spec, "trainer": _writing(trainer, named_files(trainer, files))}}


def _writing(container: Mapping[str, Any], files: Mapping[str, str]) -> Mapping[str, Any]:
    if not files or not container.get("command") or any(_END in text for text in files.values()):
        return container
    # Kubernetes expands nothing in a ConfigMap.
    texts = {path: text.replace("$", "$$").rstrip("\n") for path, text in files.items()}
    written = "".join(f"cat > {path} <<'{_END}'\n{text}\n{_END}\n" for path, text in texts.items())
    return {**container, "command": ["bash", "-c", f'{written}"$$@"', "bash"], "args": words_of(container)}
