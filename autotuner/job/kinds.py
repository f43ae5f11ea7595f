"""The kinds of jobs that can be tuned, and how a document is assigned to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from autotuner.errors import InvalidJob, Mistake
from autotuner.job import trainjob_validation, validation
from autotuner.job.kind import JobKind
from autotuner.job.pytorchjob import PYTORCHJOB
from autotuner.job.training_runtime import BUILT_IN, RuntimeReference, TrainingRuntime
from autotuner.job.training_runtime import KINDS as RUNTIME_KINDS
from autotuner.job.trainjob import TrainJobKind, check_override
from autotuner.job.validation import Validated

Runtimes = Callable[[RuntimeReference], TrainingRuntime | None]
"""Returns the training runtime with a name, or None; may raise InvalidJob."""

TRAINJOB: Final[JobKind] = TrainJobKind(BUILT_IN[RuntimeReference("torch-distributed")])
"""The kind TrainJob without a runtime: enough for names and paths."""
KINDS: Final = (PYTORCHJOB, TRAINJOB)


def with_plural(plural: str) -> JobKind:
    """Return the kind of this resource.

    Raises:
        LookupError: If no kind has it.
    """
    return {kind.plural: kind for kind in KINDS}[plural]


def is_job(document: object) -> bool:
    """Return whether a document is of a kind that can be tuned, even if it has mistakes."""
    return isinstance(document, dict) and named(document.get("kind")) is not None


def is_runtime(document: object) -> bool:
    """Return whether a document is a training runtime."""
    return isinstance(document, dict) and document.get("kind") in RUNTIME_KINDS


def runtimes_among(documents: Iterable[object]) -> Runtimes:
    """Return a function that finds a runtime among the documents of a file, then among the built-in ones.

    It raises InvalidJob for a runtime that is in neither, which a cluster may have.
    """
    given = {
        RuntimeReference(str(metadata.get("name")), str(document["kind"])): document
        for document in documents
        if isinstance(document, dict)
        and is_runtime(document)
        and isinstance(metadata := document.get("metadata"), dict)
    }

    def find(reference: RuntimeReference) -> TrainingRuntime | None:
        if reference in given:
            return TrainingRuntime.from_manifest(given[reference])
        if reference not in BUILT_IN:
            rule = (
                f"the {reference.kind} of that name must be in the file of the job, or in that of --runtime"
            )
            read = f"kubectl get {reference.kind.lower()} {reference.name} -o yaml > runtime.yaml"
            raise InvalidJob([Mistake("spec.runtimeRef.name", reference.name, rule, read)])
        return BUILT_IN[reference]

    return find


def named(kind: object) -> JobKind | None:
    """Return the kind of this Kubernetes name, or None."""
    return next((known for known in KINDS if known.name == kind), None)


def validate(
    document: object, runtimes: Runtimes = BUILT_IN.get, *, needs_images: bool = True
) -> tuple[JobKind, Validated]:
    """Return the kind of a document, and its mistakes and warnings; never raises.

    A document of an unknown kind is validated as a PyTorchJob.
    """
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind != trainjob_validation.KIND:
        return PYTORCHJOB, validation.validate(document, needs_images=needs_images)
    found = trainjob_validation.validate(document)
    if found.mistakes:
        return TRAINJOB, found
    reference = trainjob_validation.runtime_reference(found.manifest)
    mistakes: list[Mistake] = []
    try:
        runtime = runtimes(reference)
    except InvalidJob as error:
        runtime, mistakes = None, [*error.mistakes]
    if runtime is None:
        rule = f"there must be a {reference.kind} of that name"
        missing = Mistake("spec.runtimeRef.name", reference.name, rule, "torch-distributed")
        return TRAINJOB, Validated(found.manifest, tuple(mistakes) or (missing,), found.warnings)
    mistakes += check_override(found.manifest["spec"]["trainer"], runtime)
    return TrainJobKind(runtime), Validated(found.manifest, tuple(mistakes), found.warnings)


def read(document: object, runtimes: Runtimes = BUILT_IN.get) -> tuple[JobKind, Validated]:
    """Return the kind of a document, and a validated copy with its warnings, with or without images.

    Raises:
        InvalidJob: With every mistake.
    """
    kind, found = validate(document, runtimes, needs_images=False)
    if found.mistakes:
        raise InvalidJob(found.mistakes)
    return kind, found
