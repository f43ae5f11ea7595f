"""Convert the pods of a PyTorchJob to local processes. Pure.

A process gets what the training operator and the kubelet give a container: `$(NAME)` in `command` and `args`
is expanded from the container's environment as Kubernetes does it
(https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/), and
the operator's environment is appended (pkg/controller.v1/pytorch/envvar.go of the training operator), with
loopback addresses for the names that a cluster's DNS would resolve. Whatever only a cluster has is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from autotuner.errors import InvalidJob, Mistake
from autotuner.job.validation import CONTAINER, REPLICAS, replica_count

LOOPBACK: Final = "127.0.0.1"
MAX_PROCESSES: Final = 256
"""Maximum number of pods of one job on one machine; hundreds of processes would overload a laptop."""
_REFERENCE: Final = re.compile(r"\$\$|\$\(([^)]*)\)")
"""A reference ends at the first `)`, whatever it contains: `$($(A))` is one, to an unknown name."""
_FIELDS: Final = {"metadata.name": "name", "metadata.namespace": "namespace"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What replaces a container image on a local machine.

    `folder` is the base of relative paths: the folder of the job's file. `entrypoint` replaces the image's
    own, for a container without `command`. `shell` is the environment of the user's shell, which the
    processes inherit, because no image sets PATH and HOME. `python` is what the command `python` runs.
    """

    folder: Path
    shell: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    working_directory: Path | None = None
    python: str = "python"


@dataclass(frozen=True, slots=True)
class PodProcess:
    """One process to run: it replaces one pod of a trial.

    `environment` holds the pod's own variables, which are added to the shell's. Variables whose values come
    from the shell instead of a Secret are not included, so they are never written to the disk.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path


def pods(manifest: Mapping[str, Any], surroundings: Surroundings, port: int) -> list[PodProcess]:
    """Return the processes of a PyTorchJob, rank 0 first.

    Args:
        manifest: A PyTorchJob that `Job.from_manifest` accepts.
        surroundings: What replaces the image.
        port: A free port for the rendezvous (MASTER_PORT) of this trial.

    Raises:
        InvalidJob: If a container needs something that only a cluster has.
    """
    spec = manifest["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    counts = {kind: replica_count(replicas[kind]) for kind in REPLICAS if kind in replicas}
    mistakes: list[Mistake] = []
    if sum(counts.values()) > MAX_PROCESSES:
        rule = f"must be at most {MAX_PROCESSES} pods on one machine; use fewer, or tune on a cluster"
        raise InvalidJob(
            [Mistake("spec.pytorchReplicaSpecs", f"{sum(counts.values())} replicas", rule, "replicas: 1")]
        )
    made: list[PodProcess] = []
    for kind, count in counts.items():
        containers = replicas[kind]["template"]["spec"]["containers"]
        container = next(c for c in containers if c.get("name") == CONTAINER)
        for index in range(count):
            name = f"{manifest['metadata']['name']}-{kind.lower()}-{index}"
            own = _own_environment(container, manifest["metadata"] | {"name": name}, surroundings, mistakes)
            own |= _operator_environment(spec, counts, kind, index, port)
            command = _command(container, own, surroundings, mistakes)
            folder = _folder(container, surroundings, mistakes)
            written = {key: value for key, value in own.items() if surroundings.shell.get(key) != value}
            made.append(PodProcess(name, command, written, folder))
    if mistakes:
        raise InvalidJob(list(dict.fromkeys(mistakes)))
    return made


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with `$(NAME)` replaced; `$$(NAME)` and unknown names stay as Kubernetes has them."""

    def replacement(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)


def _own_environment(
    container: Mapping[str, Any],
    metadata: Mapping[str, Any],
    surroundings: Surroundings,
    mistakes: list[Mistake],
) -> dict[str, str]:
    values: dict[str, str] = {}
    for entry in container.get("env") or ():
        name = entry["name"]
        source = entry.get("valueFrom")
        if not source:
            # In order: a variable sees those above it.
            values[name] = expand(entry.get("value") or "", values)
            continue
        reference = source.get("fieldRef")
        field = str(reference.get("fieldPath")) if isinstance(reference, dict) else ""
        if field in _FIELDS:
            values[name] = str(metadata.get(_FIELDS[field]) or "default")
        elif field in {"status.podIP", "status.hostIP"}:
            values[name] = LOOPBACK
        elif name in surroundings.shell:
            values[name] = surroundings.shell[name]
        else:
            rule = "must be exported in your shell: its value comes from the cluster (valueFrom)"
            mistakes.append(Mistake(f"env {name}", "", rule, f"export {name}=..."))
    return values


def _operator_environment(
    spec: Mapping[str, Any], counts: Mapping[str, int], kind: str, index: int, port: int
) -> dict[str, str]:
    nodes = sum(counts.values())
    elastic = spec.get("elasticPolicy")
    # The operator's webhook refuses a job that has both.
    own = elastic.get("nProcPerNode") if isinstance(elastic, dict) else None
    per_node = str(spec.get("nprocPerNode") or own or "auto")
    environment = {
        "PYTHONUNBUFFERED": "1",
        "PET_NPROC_PER_NODE": per_node,
        "PET_NNODES": str(nodes),
    }
    rank = index + counts.get("Master", 0) if kind == "Worker" else index
    if "Master" in counts:
        world = nodes * (int(per_node) if per_node.isdecimal() else 1)
        environment |= {
            "MASTER_ADDR": LOOPBACK,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(world),
            "RANK": str(rank),
            "PET_MASTER_ADDR": LOOPBACK,
            "PET_MASTER_PORT": str(port),
            "PET_NODE_RANK": str(rank),
        }
    if isinstance(elastic, dict):
        environment |= {
            "PET_RDZV_BACKEND": str(elastic.get("rdzvBackend") or "c10d"),
            "PET_RDZV_ENDPOINT": f"{LOOPBACK}:{port}",
            "PET_RDZV_ID": str(elastic.get("rdzvId") or port),
            "PET_MAX_RESTARTS": str(elastic.get("maxRestarts") or 0),
        }
        # Ranges such as 1:4 would wait for more nodes than this machine has.
        environment["PET_NNODES"] = f"{nodes}:{nodes}"
    return environment


def _command(
    container: Mapping[str, Any],
    variables: Mapping[str, str],
    surroundings: Surroundings,
    mistakes: list[Mistake],
) -> tuple[str, ...]:
    words: Sequence[str] = container.get("command") or surroundings.entrypoint
    if not words:
        rule = "must be given, or passed with --entrypoint: there is no image that has an entrypoint"
        mistakes.append(Mistake(f"container {CONTAINER}.command", "", rule, '["python", "train.py"]'))
        return ()
    program, *rest = (expand(word, variables) for word in (*words, *(container.get("args") or ())))
    return (surroundings.python if program == "python" else program, *rest)


def _folder(container: Mapping[str, Any], surroundings: Surroundings, mistakes: list[Mistake]) -> Path:
    if surroundings.working_directory is not None:
        return surroundings.working_directory
    given = container.get("workingDir")
    folder = surroundings.folder / given if given else surroundings.folder
    if not folder.is_dir():
        rule = "must be a folder of this machine: create it, or choose another with --working-dir"
        mistakes.append(Mistake(f"container {CONTAINER}.workingDir", str(given), rule, "--working-dir ."))
    return folder
