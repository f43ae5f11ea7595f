"""The trial that runs a suggestion of a TrainJob, and the job that the answer makes.

The spec of a TrainJob is immutable but for `suspend` and `runtimePatches`, so an answer cannot be written
into the registered job: it becomes a new TrainJob, or a patch for the file that the job comes from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.job.training_runtime import API_VERSION
from autotuner.job.trainjob import TrainJob
from autotuner.job.trainjob_validation import KIND
from autotuner.job.trial_manifest import trial_environment
from autotuner.study.suggestions import encode_suggestion
from autotuner.trial import Suggestion

_KUEUE: Final = "kueue.x-k8s.io/"
_QUEUE_LABEL: Final = _KUEUE + "queue-name"
_KEPT_KUEUE_LABELS: Final = frozenset({_QUEUE_LABEL, _KUEUE + "priority-class"})
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_TUNED: Final = "-tuned"


def trial_manifest(job: TrainJob, suggestion: Suggestion) -> dict[str, Any]:
    """Return the TrainJob that runs a suggestion.

    What the cluster wrote into the job is dropped, as are our registration annotations (or the tuner would
    tune its trials) and what Kueue injected. A trial with a queue label, the job's or that of the annotation
    `queue`, stays suspended, for Kueue to admit it; any other is not suspended.
    """
    labels = _labels(job)
    spec = _spec(job, suggestion, trial_environment(suggestion), queued=_QUEUE_LABEL in labels)
    # Its end would delete the pods, and their logs with them. The deadline of a trial is ours.
    spec.pop("activeDeadlineSeconds", None)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": keys.trial_name(job.name, job.uid, suggestion.number),
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
        "spec": spec,
    }


def answered_job(job: TrainJob, suggestion: Suggestion, name: str | None = None) -> dict[str, Any]:
    """Return a new TrainJob that trains with the answer; the registered one stays as it is.

    `suggestion` is the confirmed one; its seed stays with its trial. Without a `name` it is `<job>-tuned`,
    cut to the length of a trial's name. It has no owner: the answer outlives the registered job.
    """
    labels = _labels(job)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name or job.name[: keys.MAX_TRIAL_NAME - len(_TUNED)].rstrip("-") + _TUNED,
            "namespace": job.namespace,
            "labels": labels,
            "annotations": _annotations(job),
        },
        "spec": _spec(job, suggestion, _answer_environment(suggestion), queued=_QUEUE_LABEL in labels),
    }


def answer_patch(job: TrainJob, suggestion: Suggestion) -> dict[str, Any]:
    """Return the answer as a patch for the registered job's file, as kustomize applies one.

    To a custom resource kustomize applies a JSON merge patch, which replaces lists as a whole: the patch has
    all variables of the trainer, not only those that change.
    """
    spec = _spec(job, suggestion, _answer_environment(suggestion), queued=False)
    trainer = {key: spec["trainer"][key] for key in ("env", "numNodes") if key in spec["trainer"]}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": job.name, "namespace": job.namespace},
        "spec": {"suspend": False, "trainer": trainer},
    }


def _spec(
    job: TrainJob, suggestion: Suggestion, environment: Mapping[str, str], *, queued: bool
) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(job.manifest["spec"])
    trainer = spec["trainer"]
    kept = [entry for entry in trainer.get("env") or () if entry["name"] not in environment]
    # Ours come first: Kubernetes expands $(NAME) only from variables that are above.
    trainer["env"] = [{"name": name, "value": value} for name, value in sorted(environment.items())] + kept
    if suggestion.workers is not None:
        trainer["numNodes"] = suggestion.workers
    # Kueue reads the object and writes it back, without what is empty, when it admits it. The API server
    # takes the difference for a change of an immutable field, so the job would never start.
    spec["trainer"] = _without_empty(trainer)
    spec["suspend"] = queued
    patches = [
        {key: value for key, value in patch.items() if key != "time"}
        for patch in spec.pop("runtimePatches", None) or ()
        if not patch["manager"].startswith(_KUEUE)
    ]
    return {**spec, "runtimePatches": patches} if patches else spec


def _answer_environment(suggestion: Suggestion) -> dict[str, str]:
    own = {keys.ENV_SEED, keys.ENV_TRIAL}
    return {name: value for name, value in trial_environment(suggestion).items() if name not in own}


def _labels(job: TrainJob) -> dict[str, str]:
    labels = {
        key: value
        for key, value in (job.manifest["metadata"].get("labels") or {}).items()
        if not key.startswith(_KUEUE) or key in _KEPT_KUEUE_LABELS
    }
    if queue := job.annotations.get(keys.QUEUE):
        labels[_QUEUE_LABEL] = queue
    return labels


def _annotations(job: TrainJob) -> dict[str, str]:
    dropped = (keys.PREFIX, keys.STATUS_PREFIX, _KUEUE)
    return {
        key: value
        for key, value in job.annotations.items()
        if not key.startswith(dropped) and key != _LAST_APPLIED
    }


def _without_empty(value: Any) -> Any:  # noqa: ANN401 (what JSON holds has no better name)
    """Return a value of JSON without members that are null or empty, as Go writes it."""
    if isinstance(value, list):
        return [_without_empty(held) for held in value]
    if not isinstance(value, dict):
        return value
    members = {key: _without_empty(held) for key, held in value.items()}
    return {key: held for key, held in members.items() if held not in (None, "", [], {})}
