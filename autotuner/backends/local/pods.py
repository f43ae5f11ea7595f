"""Convert the pods of a job to local processes. Pure.

A process gets what the operator and the kubelet give a container: `$(NAME)` in `command` and `args` is
expanded from the container's environment as Kubernetes does it
(https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/), and
the operator's variables, which the plan of a pod holds, are appended. Whatever only a cluster has is a
mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from autotuner.errors import InvalidJob, Mistake
from autotuner.job.kind import PodPlan

LOOPBACK: Final = "127.0.0.1"
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


def pods(
    plans: Sequence[PodPlan], metadata: Mapping[str, Any], surroundings: Surroundings
) -> list[PodProcess]:
    """Return the processes that replace a job's pods, in the same order.

    Args:
        plans: The pods.
        metadata: The job's metadata, for variables that name its namespace.
        surroundings: What replaces the image.

    Raises:
        InvalidJob: If a container needs something that only a cluster has.
    """
    mistakes: list[Mistake] = []
    made: list[PodProcess] = []
    for plan in plans:
        own = _own_environment(plan.container, {**metadata, "name": plan.name}, surroundings, mistakes)
        own |= plan.environment
        command = _command(plan.container, own, surroundings, mistakes)
        folder = _folder(plan.container, surroundings, mistakes)
        written = {key: value for key, value in own.items() if surroundings.shell.get(key) != value}
        made.append(PodProcess(plan.name, command, written, folder))
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
            # In order: a variable may refer to those before it.
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
        elif not _is_optional(source):
            rule = "must be exported in your shell: its value comes from the cluster (valueFrom)"
            mistakes.append(Mistake(f"env {name}", "", rule, f"export {name}=..."))
    return values


def _is_optional(source: Mapping[str, Any]) -> bool:
    """Return whether a container also starts without the Secret or ConfigMap, and the variable."""
    return any(isinstance(part, dict) and part.get("optional") is True for part in source.values())


def _command(
    container: Mapping[str, Any],
    variables: Mapping[str, str],
    surroundings: Surroundings,
    mistakes: list[Mistake],
) -> tuple[str, ...]:
    words: Sequence[str] = container.get("command") or surroundings.entrypoint
    if not words:
        rule = "must be given, or passed with --entrypoint: there is no image that has an entrypoint"
        mistakes.append(Mistake(f"container {container['name']}.command", "", rule, '["python", "train.py"]'))
        return ()
    program, *rest = (expand(word, variables) for word in (*words, *(container.get("args") or ())))
    return (surroundings.python if program == "python" else program, *rest)


def _folder(container: Mapping[str, Any], surroundings: Surroundings, mistakes: list[Mistake]) -> Path:
    rule, example = "must be a folder of this machine: create it, or choose another", "--working-dir ."
    if (chosen := surroundings.working_directory) is not None:
        if not chosen.is_dir():
            mistakes.append(Mistake("--working-dir", str(chosen), rule, example))
        return chosen
    given = container.get("workingDir")
    folder = surroundings.folder / given if given else surroundings.folder
    if not folder.is_dir():
        where = f"container {container['name']}.workingDir"
        mistakes.append(Mistake(where, str(given), f"{rule} with --working-dir", example))
    return folder
