"""Warnings about a valid job. None of them keeps the job from being tuned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.expansion import words_of
from autotuner.job.lookup import pod_count

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

_COMMENT: Final = re.compile(r"^[ \t]*#[^\n]*", re.MULTILINE)
_VALUE: Final = r"(?:=|\s{1,8})[\"']?(?P<value>[^\s\"';|&]{1,200})"
_ENDPOINT: Final = re.compile(
    r"(?<![\w-])--rdzv[_-]endpoint(?:=|\s{1,8})[\"']?\$[({]?(?:PET_)?(?:MASTER_ADDR|RDZV_ENDPOINT)\b"
)
"""A rendezvous at the trial's own address: its id need not differ from those of other trials."""
_RANK: Final = re.compile(rf"(?<![\w-])(?P<name>--(?:node|machine)[_-]rank){_VALUE}")
_ADDRESS: Final = re.compile(
    rf"(?<![\w-])(?P<name>--(?:master[_-]addr|main[_-]process[_-]ip|rdzv[_-]endpoint)){_VALUE}"
)
_LOCAL: Final = re.compile(r"(?:localhost|127\.0\.0\.1)(?::\d+)?")
_GIVES_RANKS: Final = re.compile(r"(?<![\w-])--rdzv[_-]backend(?:=|\s{1,8})[\"']?(?!static\b)\w")
"""A rendezvous that numbers the pods itself, whatever rank they are given."""
_ALONE: Final = re.compile(
    r"(?<![\w-])--(?:standalone(?![\w-])|(?:nnodes|num[_-]machines)(?:=|\s{1,8})[\"']?1(?![\w:]))"
)
"""A launcher that joins no other pods."""
_TORCHRUN: Final = re.compile(r"(?<![\w-])(?:torchrun|torch\.distributed\.(?:run|launch))(?![\w.-])")
_RANKS: Final = frozenset({"PET_NODE_RANK", "PET_RDZV_BACKEND", "PET_STANDALONE"})
_SET_RANK: Final = re.compile("|".join(f"{name}=" for name in sorted(_RANKS)))
OWN_RANK: Final = "$(PET_NODE_RANK)"


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
    replicas = spec["pytorchReplicaSpecs"]
    for kind, replica in replicas.items():
        for container in replica["template"]["spec"]["containers"]:
            if container.get("name") == _CONTAINER:
                where = f"spec.pytorchReplicaSpecs.{kind} container {_CONTAINER}"
                yield from rendezvous(where, container)
                has_first = kind == "Worker" and "Master" in replicas
                pods = pod_count(replica)
                yield from never_joined(
                    where, container, pods, has_first=has_first, is_elastic=isinstance(elastic, dict)
                )
                is_several = pods > 1 or keys.key_of("workers") in annotations
                if is_several and "Master" not in replicas and not isinstance(elastic, dict):
                    yield from _without_rank(where, container)


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
    line = _line(container)
    for option in _RENDEZVOUS.finditer(line):
        place = f"{where} --{option['name']}"
        if "restarts" in option["name"]:
            if option["value"].isdecimal() and int(option["value"]) > 0:
                rule = (
                    "makes torchrun restart a failed run inside its trial: leave it out, because the tuner"
                    " decides about retries"
                )
                yield Mistake(place, option["value"], rule, f"--{option['name']}=0")
        elif "$" not in option["value"] and _ENDPOINT.search(line) is None:
            rule = (
                "is the same in every trial, and overrides the one that each trial sets: two that"
                " share a rendezvous train together"
            )
            yield Mistake(place, option["value"], rule, f"--{option['name']}=$(PET_RDZV_ID)")


def never_joined(
    where: str, container: Mapping[str, Any], pods: int, *, has_first: bool = False, is_elastic: bool = False
) -> Iterator[Mistake]:
    """Yield warnings if pods have the same rank, or each looks for the first one at its own address.

    Args:
        where: The container's place, for people.
        container: A container of a valid job.
        pods: How many pods have it.
        has_first: Whether another pod has rank 0.
        is_elastic: Whether the operator sets a rendezvous that gives the pods their ranks.
    """
    line = _line(container)
    if not (pods > 1 or has_first) or _ALONE.search(line) is not None:
        return
    # A script may choose between several values, by the pod that it runs in.
    ranks = {(option["name"], option["value"]) for option in _RANK.finditer(line)}
    if len(ranks) == 1 and not is_elastic and _GIVES_RANKS.search(line) is None:
        (name, value), *_ = ranks
        if value.isdecimal() and (pods > 1 or int(value) == 0):
            whose = f"all {pods} pods have this container" if pods > 1 else "the Master has rank 0"
            rule = f"must differ in each pod, and {whose}: the process group waits for its other ranks"
            yield Mistake(f"{where} {name}", value, rule, f"{name}={OWN_RANK}")
    addresses = {(option["name"], option["value"]) for option in _ADDRESS.finditer(line)}
    if len(addresses) == 1:
        (name, value), *_ = addresses
        if _LOCAL.fullmatch(value) is not None:
            rule = "is each pod's own address, so that the pods never meet: take that which the operator sets"
            own = "$(PET_MASTER_ADDR):$(PET_MASTER_PORT)" if "endpoint" in name else "$(PET_MASTER_ADDR)"
            own = "$(PET_RDZV_ENDPOINT)" if is_elastic and "endpoint" in name else own
            yield Mistake(f"{where} {name}", value, rule, f"{name}={own}")


def _without_rank(where: str, container: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield a warning if torchrun takes its rank from the operator, which sets none without a Master."""
    line = _line(container)
    launcher = _TORCHRUN.search(line)
    names = {str(entry.get("name")) for entry in container.get("env") or () if isinstance(entry, dict)}
    has_own = bool(names & _RANKS) or bool(container.get("envFrom"))
    others = (_RANK, _GIVES_RANKS, _ALONE, _SET_RANK)
    if launcher is None or has_own or any(pattern.search(line) for pattern in others):
        return
    rule = (
        "gets no rank and no address, so that several pods never meet: the operator sets both only with a"
        " Master or an elasticPolicy"
    )
    yield Mistake(f"{where} command", launcher[0], rule, "elasticPolicy: {rdzvBackend: c10d}")


def _line(container: Mapping[str, Any]) -> str:
    """Return the command line of a container, without the lines of its scripts that are comments."""
    return _COMMENT.sub("", " ".join(words_of(container))[:_MAX_COMMAND])
