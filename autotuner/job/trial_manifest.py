"""The trial that runs a suggestion: the whole difference between the registered job and a trial."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from autotuner import keys
from autotuner.job import policies
from autotuner.job.job import Job
from autotuner.job.pytorchjob import container, mapping, replicas
from autotuner.spec import environment_value
from autotuner.study.suggestions import encode_suggestion
from autotuner.trial import Suggestion

_KUEUE: Final = "kueue.x-k8s.io/"
_QUEUE_LABEL: Final = _KUEUE + "queue-name"
_DROPPED_ANNOTATIONS: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_KEPT_KUEUE_LABELS: Final = frozenset({_QUEUE_LABEL, _KUEUE + "priority-class"})


def trial_manifest(job: Job, suggestion: Suggestion, output: str | None = None) -> dict[str, Any]:
    """Return the PyTorchJob that runs a suggestion.

    `output` is the folder of the trial's output; None: below the one that the job's environment names.

    What the cluster wrote into the job goes, as do our registration annotations (or the tuner would tune
    its trials) and what Kueue injected. A trial with a queue label, the job's or that of the annotation
    `queue`, stays suspended, for Kueue to admit it; any other is unsuspended.
    """
    trial = copy.deepcopy(dict(job.manifest))
    trial.pop("status", None)
    metadata = mapping(trial, "metadata")
    labels = {
        key: value
        for key, value in (metadata.get("labels") or {}).items()
        if not key.startswith(_KUEUE) or key in _KEPT_KUEUE_LABELS
    }
    if queue := job.annotations.get(keys.QUEUE):
        labels[_QUEUE_LABEL] = queue
    annotations = {
        key: value
        for key, value in job.annotations.items()
        if not key.startswith((keys.PREFIX, keys.STATUS_PREFIX, _KUEUE)) and key not in _DROPPED_ANNOTATIONS
    }
    trial["metadata"] = {
        "name": keys.trial_name(job.name, job.uid, suggestion.number),
        "namespace": job.namespace,
        "labels": {
            **labels,
            keys.TRIAL_JOB_UID: job.uid,
            keys.TRIAL_NUMBER: str(suggestion.number),
        },
        "annotations": {
            **annotations,
            keys.SUGGESTION: encode_suggestion(suggestion),
            keys.TRIAL_TEMPLATE: job.template,
        },
        "ownerReferences": [job.owner_reference],
    }
    _set_run_policy(trial["spec"], queued=_QUEUE_LABEL in labels)
    folder = _output(job, trial["metadata"]["name"]) if output is None else output
    variables = trial_environment(suggestion, folder)
    for kind, replica in replicas(trial):
        # OnFailure, the default, would restart a diverged run for ever.
        replica["restartPolicy"] = "Never"
        # A failed container's last lines then stand in its pod's status, which outlives the log.
        container(replica)["terminationMessagePolicy"] = "FallbackToLogsOnError"
        _set_replica(kind, replica, suggestion, variables)
    policies.fix_replicas(trial["spec"])
    policies.isolate(trial["spec"], job=job.name, trial=trial["metadata"]["name"])
    return trial


def _output(job: Job, trial: str) -> str:
    """Return the folder of a trial's output, below the one that the job's environment names; or nothing."""
    return f"{job.output_directory.rstrip('/')}/{trial}" if job.output_directory else ""


def trial_environment(suggestion: Suggestion, output: str = "") -> dict[str, str]:
    """Return the environment variables that carry a suggestion into its trial.

    `output` is a folder of this trial alone; empty where the job has no place for output.
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


def answered_spec(job: Job, suggestion: Suggestion) -> dict[str, Any]:
    """Return the job's `spec` as the answer would have it: environment, workers, and not suspended.

    This is what `apply: "true"` writes. `suggestion` is the confirmed one; its seed stays with its trial.
    """
    spec = copy.deepcopy(mapping(job.manifest, "spec"))
    variables = trial_environment(suggestion)
    for name in (keys.ENV_SEED, keys.ENV_TRIAL):
        del variables[name]
    for kind, replica in replicas({"spec": spec}):
        _set_replica(kind, replica, suggestion, variables)
    policies.fix_replicas(spec)
    spec["runPolicy"] = {**mapping(spec, "runPolicy"), "suspend": False}
    return spec


def _set_run_policy(spec: dict[str, Any], *, queued: bool) -> None:
    policy = dict(spec.get("runPolicy") or {})
    # Both make the operator delete pods, and their logs with them, before we read the end. The deadline is
    # ours, from the moment all pods run; a trial's retries are the search's.
    for key in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        policy.pop(key, None)
    policy["suspend"] = queued
    # None, the default, leaves workers running, and holding their GPUs, when the Master ends. Where any
    # worker may have rank 0, all pods are kept until its log is read: the trial is deleted right after.
    is_elastic = isinstance(spec.get("elasticPolicy"), dict)
    has_fixed_ranks = "Master" in mapping(spec, "pytorchReplicaSpecs") and not is_elastic
    policy["cleanPodPolicy"] = "Running" if has_fixed_ranks else "None"
    spec["runPolicy"] = policy


def _set_replica(
    kind: str, replica: dict[str, Any], suggestion: Suggestion, variables: Mapping[str, str]
) -> None:
    if kind == "Worker" and suggestion.workers is not None:
        replica["replicas"] = suggestion.workers
    _set_environment(container(replica), variables)


def _set_environment(container: dict[str, Any], variables: Mapping[str, str]) -> None:
    kept = [entry for entry in container.get("env") or () if entry.get("name") not in variables]
    # Ours come first: Kubernetes expands $(NAME) only from variables that stand above.
    container["env"] = [{"name": name, "value": value} for name, value in sorted(variables.items())] + kept
