"""Create the trial of a suggestion and the job of an answer, from jobs of all kinds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Final

from autotuner import keys
from autotuner.job.job import Job
from autotuner.spec import environment_value
from autotuner.study.suggestions import encode_suggestion
from autotuner.trial import Suggestion

_OF_APPLIERS: Final = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "applyset.kubernetes.io/",
    "argocd.argoproj.io/",
    "config.k8s.io/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kubectl.kubernetes.io/last-applied-configuration",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "objectset.rio.cattle.io/",
)
"""How labels and annotations start that mark what a tool has applied.

Such a tool (Argo CD, Flux, Helm, Fleet, `kubectl apply --prune`) deletes what has its mark and is not in its
files.
"""
_KEPT_KUEUE_LABELS: Final = frozenset({keys.QUEUE_LABEL, keys.KUEUE_PREFIX + "priority-class"})
_TUNED: Final = "-tuned"


def trial_manifest(job: Job, suggestion: Suggestion, output: str | None = None) -> dict[str, Any]:
    """Return the object that runs a suggestion, of the kind of the job.

    `output` is the folder of the trial's output; if None, it is below the folder in the job's environment.

    The fields that the cluster and Kueue wrote into the job are removed, and so are the tuner's annotations:
    otherwise the tuner would tune its trials. The marks of the tool that applied the job are removed, too. A
    trial with a queue label, the job's or that of the annotation `queue`, stays suspended until Kueue admits
    it; any other is unsuspended.
    """
    name, labels = job.trial_name(suggestion.number), _labels(job)
    folder = _output(job, name) if output is None else output
    return {
        "apiVersion": job.kind.api_version,
        "kind": job.kind.name,
        "metadata": {
            "name": name,
            "namespace": job.namespace,
            "labels": {
                **labels,
                keys.TRIAL_JOB_UID: job.uid,
                keys.TRIAL_NUMBER: str(suggestion.number),
            },
            "annotations": {
                **_annotations(job),
                keys.SUGGESTION: encode_suggestion(suggestion),
                keys.TRIAL_TEMPLATE: job.template,
            },
            "ownerReferences": [job.owner_reference],
        },
        "spec": job.kind.trial_spec(
            job.manifest,
            suggestion,
            trial_environment(suggestion, folder),
            trial=name,
            queued=keys.QUEUE_LABEL in labels,
        ),
    }


def trial_environment(suggestion: Suggestion, output: str = "") -> dict[str, str]:
    """Return the environment variables that carry a suggestion into its trial.

    `output` is a folder for this trial only; empty if the job has no output folder.
    """
    environment = {
        keys.environment_name(name): environment_value(value) for name, value in suggestion.parameters.items()
    }
    environment[keys.ENV_BATCH_SIZE] = str(suggestion.batch_size)
    environment[keys.ENV_SEED] = str(suggestion.seed)
    environment[keys.ENV_TRIAL] = str(suggestion.number)
    if output:
        environment[keys.ENV_OUTPUT_DIR] = output
    if suggestion.micro_batch_size is not None:
        environment[keys.ENV_MICRO_BATCH_SIZE] = str(suggestion.micro_batch_size)
    if suggestion.accumulation_steps is not None:
        environment[keys.ENV_ACCUMULATION_STEPS] = str(suggestion.accumulation_steps)
    return environment


def answered_spec(job: Job, suggestion: Suggestion, *, queued: bool = False) -> dict[str, Any]:
    """Return the job's `spec` with the answer applied: environment, workers, suspended if queued.

    `suggestion` is the confirmed one; its seed is left out.
    """
    variables = trial_environment(suggestion)
    for name in (keys.ENV_SEED, keys.ENV_TRIAL):
        del variables[name]
    return job.kind.answered_spec(job.manifest, suggestion, variables, queued=queued)


def answered_job(job: Job, suggestion: Suggestion, name: str | None = None) -> dict[str, Any]:
    """Return a new job that trains with the answer; the registered one stays as it is.

    Its default name is `<job>-tuned`, cut to the length of a trial's name. With a queue label, the job's or
    that of the annotation `queue`, it is suspended until Kueue admits it. It has no owner, because the answer
    outlives the registered job. Its annotations name the registered job and the suggestion.
    """
    labels = _labels(job)
    return {
        "apiVersion": job.kind.api_version,
        "kind": job.kind.name,
        "metadata": {
            "name": name or tuned_name(job),
            "namespace": job.namespace,
            "labels": labels,
            "annotations": {
                **_annotations(job),
                keys.ANSWER_OF: job.uid,
                keys.SUGGESTION: encode_suggestion(replace(suggestion, number=0, seed=0, rerun_of=None)),
            },
        },
        "spec": answered_spec(job, suggestion, queued=keys.QUEUE_LABEL in labels),
    }


def answer_digest(job: Job, suggestion: Suggestion, name: str | None = None) -> str:
    """Return a hash of what runs with an answer, and where; `name` as in `answered_job`.

    The UID is part of it: a copy of the job with its status is another job, which has no answer yet.
    """
    where = job.name if job.kind.takes_answer else name or tuned_name(job)
    made = job.with_spec(answered_spec(job, suggestion)).template
    return hashlib.sha256(f"{job.uid} {where} {made}".encode()).hexdigest()[:16]


def is_queued(job: Job) -> bool:
    """Return whether trials and answers of the job wait in a queue, its own or that of the annotation."""
    return keys.QUEUE_LABEL in _labels(job)


def answer_patch(job: Job, suggestion: Suggestion) -> dict[str, Any]:
    """Return the answer as a patch for the registered job's file, as kustomize applies one.

    kustomize applies a JSON merge patch to a custom resource. It replaces lists as a whole, so the patch has
    all variables, not only those that change.
    """
    return {
        "apiVersion": job.kind.api_version,
        "kind": job.kind.name,
        "metadata": {"name": job.name, "namespace": job.namespace},
        "spec": job.kind.answer_patch(job.manifest, answered_spec(job, suggestion)),
    }


def tuned_name(job: Job) -> str:
    """Return the default name of the job that runs an answer."""
    return job.name[: job.kind.max_name(job.manifest) - len(_TUNED)].rstrip("-") + _TUNED


def _output(job: Job, trial: str) -> str:
    """Return the folder of a trial's output, below the folder in the job's environment; empty without one."""
    return f"{job.output_directory.rstrip('/')}/{trial}" if job.output_directory else ""


def _labels(job: Job) -> dict[str, str]:
    labels = {
        key: value
        for key, value in (job.manifest["metadata"].get("labels") or {}).items()
        if not key.startswith((keys.KUEUE_PREFIX, *_OF_APPLIERS)) or key in _KEPT_KUEUE_LABELS
    }
    if queue := job.annotations.get(keys.QUEUE):
        labels[keys.QUEUE_LABEL] = queue
    return labels


def _annotations(job: Job) -> dict[str, str]:
    dropped = (keys.PREFIX, keys.STATUS_PREFIX, keys.KUEUE_PREFIX, *_OF_APPLIERS)
    return {key: value for key, value in job.annotations.items() if not key.startswith(dropped)}
