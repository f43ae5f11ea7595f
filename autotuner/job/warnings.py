"""Warnings about a valid job. None of them keeps the job from being tuned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake

_POD_GROUPS: Final = (
    "scheduling.x-k8s.io/pod-group",
    "pod-group.scheduling.sigs.k8s.io",
    "scheduling.k8s.io/group-name",
)
"""Labels and annotations of a pod that name an existing pod group."""

_CONTAINER: Final = "pytorch"
_MAX_COMMAND: Final = 65_536
"""Maximum characters of a container's command line that are searched."""
_RENDEZVOUS: Final = re.compile(
    r"(?<![\w-])--(?P<name>rdzv[_-]id|max[_-]restarts)(?:=|\s{1,8})[\"']?(?P<value>[^\s\"';|&]{1,200})"
)


def warnings(manifest: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the warnings of a job that has no mistakes."""
    metadata, spec = manifest["metadata"], manifest["spec"]
    annotations = metadata.get("annotations") or {}
    if keys.TARGET in annotations:
        yield from would_run(
            metadata, (spec.get("runPolicy") or {}).get("suspend"), annotations, "spec.runPolicy.suspend"
        )
        yield from has_run(manifest.get("status"))
    elastic = spec.get("elasticPolicy")
    if isinstance(elastic, dict):
        if elastic.get("nProcPerNode") is not None:
            rule = "is deprecated by the operator: use spec.nprocPerNode"
            value = str(elastic["nProcPerNode"])
            yield Mistake("spec.elasticPolicy.nProcPerNode", value, rule, f'spec.nprocPerNode: "{value}"')
        if elastic.get("metrics"):
            rule = "is ignored in trials: each runs with a fixed number of workers, without an autoscaler"
            yield Mistake("spec.elasticPolicy.metrics", "given", rule, "autotuner.dev/workers: 1..8")
    yield from _pod_groups(spec)
    for kind, replica in spec["pytorchReplicaSpecs"].items():
        for container in replica["template"]["spec"]["containers"]:
            if container.get("name") == _CONTAINER:
                where = f"spec.pytorchReplicaSpecs.{kind} container {_CONTAINER}"
                yield from rendezvous(where, container)


def would_run(
    metadata: Mapping[str, Any], suspend: object, annotations: Mapping[str, str], where: str
) -> Iterator[Mistake]:
    """Yield the reasons why the registered job itself would run; `suspend` is its field at `where`."""
    queue = (metadata.get("labels") or {}).get(keys.QUEUE_LABEL)
    if suspend is not True and queue is None:
        rule = "must be true; otherwise the operator runs the registered job in addition to its trials"
        shown = "" if suspend is None else str(suspend).lower()
        yield Mistake(where, shown, rule, "suspend: true")
    if queue is not None:
        rule = (
            "lets Kueue run the registered job: remove the label, and name the queue of the trials in"
            f" {keys.QUEUE}; Kueue sets it by itself where the namespace has a LocalQueue named default"
        )
        yield Mistake(f"label {keys.QUEUE_LABEL}", str(queue), rule, f"{keys.QUEUE}: {queue}")
    elif annotations.get(keys.QUEUE) == "default":
        rule = (
            "is the LocalQueue that Kueue assigns to every job of the namespace, and Kueue would then run the"
            " registered job too: give the queue another name"
        )
        yield Mistake(keys.QUEUE, "default", rule, "team-a")


def has_run(status: object) -> Iterator[Mistake]:
    """Yield a warning about a job that has already finished."""
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for condition in conditions if isinstance(conditions, list) else ():
        if not isinstance(condition, dict) or condition.get("status") != "True":
            continue
        if condition.get("type") in ("Succeeded", "Complete", "Failed"):
            rule = (
                "the job has already finished: it can be tuned, but cannot run again with the answer;"
                " to run the answer, delete the job and create it again with suspend: true"
            )
            yield Mistake("status", str(condition["type"]), rule, "suspend: true")
            return


def _pod_groups(spec: Mapping[str, Any]) -> Iterator[Mistake]:
    for kind, replica in spec["pytorchReplicaSpecs"].items():
        given = replica["template"].get("metadata")
        given = given if isinstance(given, dict) else {}
        for place in ("labels", "annotations"):
            held = given.get(place)
            for key in _POD_GROUPS:
                if isinstance(held, dict) and key in held:
                    where = f"spec.pytorchReplicaSpecs.{kind}.template.metadata.{place}.{key}"
                    rule = (
                        "puts the pods of all trials into one pod group with a fixed number of members:"
                        " remove it, and the operator creates a group for each trial"
                    )
                    yield Mistake(where, str(held[key]), rule, "runPolicy: {schedulingPolicy: {}}")


def rendezvous(where: str, container: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the options of torchrun that override the PET_* variables of each trial."""
    line = " ".join([*(container.get("command") or ()), *(container.get("args") or ())])
    for option in _RENDEZVOUS.finditer(line[:_MAX_COMMAND]):
        place = f"{where} --{option['name']}"
        if "restarts" in option["name"]:
            if option["value"].isdecimal() and int(option["value"]) > 0:
                rule = (
                    "makes torchrun restart a failed run inside its trial: leave it out, because the tuner"
                    " decides about retries"
                )
                yield Mistake(place, option["value"], rule, f"--{option['name']}=0")
        elif "$" not in option["value"]:
            rule = (
                "is the same in every trial, and overrides the one that each trial sets: two that"
                " share a rendezvous train together"
            )
            yield Mistake(place, option["value"], rule, f"--{option['name']}=$(PET_RDZV_ID)")
