"""Read the file of a job: one PyTorchJob or TrainJob, with other objects such as a training runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.job.config_maps import ConfigMaps, config_maps_among
from autotuner.job.job import Job
from autotuner.job.kinds import KINDS, Runtimes, is_job, runtimes_among
from autotuner.spec.untrusted_yaml import load_documents

_MAX_FILE: Final = 4 << 20
_HELM: Final = re.compile(
    r"^[^#\n]*\{\{-?\s{0,8}(?:\(?\s?\.(?:Values|Release|Chart)\b|include\s+\")", re.MULTILINE
)
"""What only a template of Helm contains, also where it is YAML."""

Runtime = Annotated[
    Path | None,
    typer.Option(
        "--runtime",
        help="A TrainJob's training runtime, as YAML. (default: that in FILE, or torch-distributed)",
    ),
]


def load_job(file: Path, runtime: Path | None = None) -> Job:
    """Read the one registered job of a YAML file, which may hold other objects too.

    `runtime` is the file of the TrainJob's training runtime, if that is not in the same file.

    Raises:
        InvalidJob: If there is no such job, or more than one.
    """
    return Job.from_manifest(*load_document(file, runtime))


def load_document(file: Path, runtime: Path | None) -> tuple[object, Runtimes, ConfigMaps]:
    """Return the document of the one registered job of a YAML file, with the ConfigMaps of the file.

    And a function that finds runtimes.

    Raises:
        InvalidJob: If there is no such job, or more than one.
    """
    documents = _load_documents(file)
    runtimes = runtimes_among([*documents, *(_load_documents(runtime) if runtime is not None else ())])
    jobs = [document for document in documents if is_job(document)]
    # Beside a registered job, other ones may be in the file.
    jobs = [job for job in jobs if _is_registered(job)] or jobs
    if len(jobs) > 1:
        rule = f"must hold one job, but holds {len(jobs)} jobs: write each to its own file"
        raise _mistaken(file, rule)
    if not jobs and len(documents) != 1:
        raise _mistaken(file, f"must hold a {' or a '.join(kind.name for kind in KINDS)}")
    return (jobs or documents)[0], runtimes, config_maps_among(documents)


def _load_documents(file: Path) -> Sequence[object]:
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise _mistaken(file, f"must have at most {_MAX_FILE >> 20} MiB")
        if _HELM.search(text) is not None:
            rule = "must be what this template renders: its {{ ... }} are not filled in"
            raise InvalidJob([Mistake("FILE", str(file), rule, "helm template CHART > job.yaml")])
        return list(_objects(load_documents(text)))
    except OSError as error:
        raise _mistaken(file, f"must be a file that can be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _mistaken(file, f"must be text in UTF-8 ({error.reason} at byte {error.start})") from error
    except ValueError as error:
        rule = str(error)[:400]
        if "{{" in text or "{%" in text:
            rule += "; if this is a template, write what it renders to a file"
        raise _mistaken(file, rule) from error


def _is_registered(job: object) -> bool:
    match job:
        case {"metadata": {"annotations": {keys.TARGET: _}}}:
            return True
        case _:
            return False


def _mistaken(file: Path, rule: str) -> InvalidJob:
    return InvalidJob([Mistake("FILE", str(file), rule, "autotuner tune deploy/examples/digits/job.yaml")])


def _objects(documents: Sequence[object]) -> Iterator[object]:
    """Yield the objects of documents, and those in a List, as `kubectl get -o yaml` or a client writes it."""
    for document in documents:
        match document:
            case {"kind": str(kind), "items": list(items)} if kind.endswith("List"):
                yield from items
            case _:
                yield document
