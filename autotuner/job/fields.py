"""Check the fields of a PyTorchJob by name and type, as the API server does.

They are those of the operator's CustomResourceDefinition (v1.9, manifests/base/crds), whose pod template is
Kubernetes' own. The API server drops any other field, and kubectl refuses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_JOB: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SPEC: Final = {
    "elasticPolicy": dict,
    "nprocPerNode": str,
    "pytorchReplicaSpecs": dict,
    "runPolicy": dict,
}
_RUN_POLICY: Final = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "cleanPodPolicy": str,
    "managedBy": str,
    "schedulingPolicy": dict,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
_SCHEDULING_POLICY: Final = {
    "minAvailable": int,
    "minResources": dict,
    "priorityClass": str,
    "queue": str,
    "scheduleTimeoutSeconds": int,
}
_ELASTIC_POLICY: Final = {
    "maxReplicas": int,
    "maxRestarts": int,
    "metrics": list,
    "minReplicas": int,
    "nProcPerNode": int,
    "rdzvBackend": str,
    "rdzvConf": list,
    "rdzvHost": str,
    "rdzvId": str,
    "rdzvPort": int,
    "standalone": bool,
}
# The rule for a number of replicas depends on the kind: `validation` checks it.
_REPLICA: Final = {"replicas": object, "restartPolicy": str, "template": dict}
_TEMPLATE: Final = {"metadata": dict, "spec": dict}
_POD_NAMES: Final = (
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy"
    " enableServiceLinks ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname"
    " imagePullSecrets initContainers nodeName nodeSelector os overhead preemptionPolicy priority"
    " priorityClassName readinessGates resourceClaims resources restartPolicy runtimeClassName schedulerName"
    " schedulingGates securityContext serviceAccount serviceAccountName setHostnameAsFQDN"
    " shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations topologySpreadConstraints"
    " volumes"
)
_CONTAINER_NAMES: Final = (
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe"
    " resizePolicy resources restartPolicy securityContext startupProbe stdin stdinOnce"
    " terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
)
_POD: Final = dict.fromkeys(_POD_NAMES.split(), object)
_CONTAINER: Final = dict.fromkeys(_CONTAINER_NAMES.split(), object)
_HOMES: Final[tuple[tuple[str, Mapping[str, object]], ...]] = (
    ("spec.runPolicy", _RUN_POLICY),
    ("spec.elasticPolicy", _ELASTIC_POLICY),
    ("spec", _SPEC),
    ("template.spec.containers[0]", _CONTAINER),
    ("template.spec", _POD),
)
_TYPE_NAMES: Final[dict[type, str]] = {
    dict: "a mapping",
    list: "a list",
    str: "a string, in quotes",
    int: "a whole number without quotes",
    bool: "true or false without quotes",
}
_EXAMPLES: Final = {dict: "{...}", list: "[...]", str: '"auto"', int: "1", bool: "true"}
_MAX_SHOWN: Final = 20
"""Maximum number of unknown fields to report; a hostile manifest may have thousands."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A field that does not exist.

    Args:
        where: Its path.
        value: Its value.
        nearest: The valid field at the same place with the most similar name, or empty.
        elsewhere: The path at which a field of this name is valid, or empty.
    """

    where: str
    value: object
    nearest: str
    elsewhere: str


@dataclass(frozen=True, slots=True)
class WrongType:
    """A field whose type the API server refuses."""

    where: str
    value: object
    rule: str
    example: str


def check_fields(manifest: Mapping[str, Any]) -> tuple[list[Unknown], list[WrongType]]:
    """Return the unknown fields of a PyTorchJob, and those of a wrong type."""
    unknown: list[Unknown] = []
    wrong: list[WrongType] = []
    for where, given, known in _places(manifest):
        prefix = f"{where}." if where else ""
        for name, value in given.items():
            if name not in known:
                near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.75)
                # A field that differs only in case would fall below the cutoff.
                same = [other for other in known if other.lower() == name.lower()]
                if len(unknown) < _MAX_SHOWN:
                    homes = (f"{place}.{name}" for place, held in _HOMES if name in held)
                    elsewhere = "" if same else next(homes, "")
                    nearest = "" if elsewhere else (same or near or [""])[0]
                    unknown.append(Unknown(prefix + name, value, nearest, elsewhere))
            elif value is not None and not _is_of(value, known[name]):
                kind = known[name]
                example = f'"{value}"' if kind is str and isinstance(value, int | float) else _EXAMPLES[kind]
                wrong.append(WrongType(prefix + name, value, f"must be {_TYPE_NAMES[kind]}", example))
    return unknown, wrong


def _places(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], Mapping[str, type]]]:
    yield "", dict(manifest), dict.fromkeys(_JOB, object)
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        return
    yield "spec", spec, _SPEC
    policy = spec.get("runPolicy")
    yield from _mappings("spec.runPolicy", policy, _RUN_POLICY)
    if isinstance(policy, dict):
        yield from _mappings(
            "spec.runPolicy.schedulingPolicy", policy.get("schedulingPolicy"), _SCHEDULING_POLICY
        )
    yield from _mappings("spec.elasticPolicy", spec.get("elasticPolicy"), _ELASTIC_POLICY)
    replicas = spec.get("pytorchReplicaSpecs")
    for kind, replica in replicas.items() if isinstance(replicas, dict) else ():
        where = f"spec.pytorchReplicaSpecs.{kind}"
        yield from _mappings(where, replica, _REPLICA)
        template = replica.get("template") if isinstance(replica, dict) else None
        yield from _mappings(f"{where}.template", template, _TEMPLATE)
        pod = template.get("spec") if isinstance(template, dict) else None
        yield from _mappings(f"{where}.template.spec", pod, _POD)
        for key in ("initContainers", "containers"):
            containers = pod.get(key) if isinstance(pod, dict) else None
            for index, container in enumerate(containers if isinstance(containers, list) else ()):
                yield from _mappings(f"{where}.template.spec.{key}[{index}]", container, _CONTAINER)


def _mappings(
    where: str, given: object, known: Mapping[str, type]
) -> Iterator[tuple[str, dict[str, Any], Mapping[str, type]]]:
    if isinstance(given, dict):
        yield where, given, known


def _is_of(value: object, kind: type) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
