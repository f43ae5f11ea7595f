"""What a container's program is started with: its environment and arguments.

Environment variables come from values, fields of the pod, ConfigMaps and Secrets, and refer to each
other by ``$(NAME)``, as in https://kubernetes.io/docs/tasks/inject-data-application. Where a
cluster's DNS would lead from one pod of a job to another, the names are replaced by loopback.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.controlplane.pod import Container, Pod

    ReadObject = Callable[[str, str, str], Mapping[str, Any] | None]
    """Reads an object by kind, namespace and name; None where it does not exist."""

LOOPBACK = "127.0.0.1"
_PORT_VARIABLES = ("MASTER_PORT", "PET_MASTER_PORT")
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SERVICE_URL = re.compile(r"^(https?://)[a-z0-9-]+\.[a-z0-9-]+\.svc(?:\.cluster\.local)?(?=[:/]|$)")
_LABEL_OR_ANNOTATION = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class ConfigurationError(Exception):
    """A container cannot be created from its specification: CreateContainerConfigError."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each ``$(NAME)`` by its value, and each ``$$`` by ``$``.

    A reference to an unknown name stays as it is, and so does any other ``$``: Kubernetes'
    third_party/forked/golang/expansion.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(value, text)


def environment(container: Container, pod: Pod, read: ReadObject, job_port: int | None) -> dict[str, str]:
    """Return a container's environment variables, in order, later ones replacing earlier ones.

    ``job_port`` is the port, free on this machine, that stands for the one on which the job's
    master listens; None where the pod belongs to no job.

    Raises:
        ConfigurationError: a ConfigMap, Secret or key that is not optional does not exist.
    """
    variables: dict[str, str] = {}
    for source in container.environment_sources:
        variables |= _from_source(source, pod, read)
    for entry in container.environment:
        name = entry["name"]
        if "valueFrom" in entry:
            value = _from_reference(entry["valueFrom"], container, pod, read)
        else:
            text = _on_loopback(entry.get("value") or "", pod, job_port)
            value = expand(text, variables)
        if name in _PORT_VARIABLES and job_port is not None:
            value = str(job_port)
        if value is not None:
            variables[name] = value
    return variables


def command_line(
    words: Sequence[str], variables: Mapping[str, str], pod: Pod, job_port: int | None
) -> tuple[str, ...]:
    """Lead the names of the job's pods to loopback, and expand the words of a command."""
    return tuple(expand(_on_loopback(word, pod, job_port), variables) for word in words)


def _on_loopback(text: str, pod: Pod, job_port: int | None) -> str:
    """Replace ``<service>[:port]``, alone or after an ``=``, where it is one of the pod's job.

    So is the host of a URL that leads to a Service: what serves in this cluster serves on loopback.
    Call it before references are expanded: a pod that gets its own name as a value means the name.
    """
    text = _SERVICE_URL.sub(rf"\g<1>{LOOPBACK}", text)
    if pod.job_name is None or job_port is None:
        return text
    name = re.escape(pod.job_name)
    # Of a PyTorchJob `<job>-master-0`; of a JobSet `<set>-<job>-<index of the job>-<index of the pod>.<set>`.
    host = rf"{name}-(?:(?:master|worker)-\d+|[a-z0-9-]+-\d+-\d+\.{name})"
    domain = rf"(?:\.{re.escape(pod.namespace)}(?:\.svc(?:\.cluster\.local)?)?)?"
    return re.sub(
        rf"(^|=){host}{domain}(:\d+)?$",
        lambda match: f"{match[1]}{LOOPBACK}" + (f":{job_port}" if match[2] else ""),
        text,
    )


def _from_source(source: Mapping[str, Any], pod: Pod, read: ReadObject) -> dict[str, str]:
    prefix = source.get("prefix", "")
    for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
        if reference := source.get(key):
            data = _data(kind, reference, pod, read)
            return {f"{prefix}{name}": value for name, value in (data or {}).items()}
    return {}


def _from_reference(
    source: Mapping[str, Any], container: Container, pod: Pod, read: ReadObject
) -> str | None:
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], pod)
    if source.get("resourceFieldRef", {}).get("resource") == "limits.cpu":
        return str(container.processors)
    for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference := source.get(key):
            data = _data(kind, reference, pod, read) or {}
            if reference["key"] not in data and not reference.get("optional"):
                raise ConfigurationError(
                    f"couldn't find key {reference['key']} in {kind} {pod.namespace}/{reference['name']}"
                )
            return data.get(reference["key"])
    raise ConfigurationError(f"this kubelet stand-in does not read {', '.join(source)}")


def _data(kind: str, reference: Mapping[str, Any], pod: Pod, read: ReadObject) -> dict[str, str] | None:
    found = read(kind, pod.namespace, reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigurationError(f'{kind.lower()} "{reference["name"]}" not found')
    data = found.get("data") or {}
    if kind == "Secret":
        return {name: base64.b64decode(value).decode() for name, value in data.items()}
    return dict(data)


def field(path: str, pod: Pod) -> str:
    """Return a field of the pod, by the paths that the downward API offers to variables."""
    if match := _LABEL_OR_ANNOTATION.fullmatch(path):
        values = pod.labels if match[1] == "labels" else pod.annotations
        return values.get(match[2], "")
    fields = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": pod.node or "",
        "spec.serviceAccountName": pod.service_account,
        "status.hostIP": LOOPBACK,
        "status.hostIPs": LOOPBACK,
        "status.podIP": LOOPBACK,
        "status.podIPs": LOOPBACK,
    }
    return fields[path]
