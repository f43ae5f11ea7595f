"""PyTorchJobs: what a registered job says, and the trial that is made from it.

`Job.from_manifest` reads the job as its owner wrote it, once, and checks all that we rely on.
`trial_manifest` is the whole difference between the job and a trial. Raw dictionaries stay in here.

The shape of a PyTorchJob: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidJob, InvalidRecord, Mistake
from autotuner.spec import Shape, TuningSpec, environment_value
from autotuner.trial import ParameterValue, Purpose, Suggestion

API_VERSION: Final = "kubeflow.org/v1"
KIND: Final = "PyTorchJob"
CONTAINER: Final = "pytorch"
"""The container of each replica that the training operator treats as the training process."""

_REPLICAS: Final = ("Master", "Worker")
_GPU_SUFFIX: Final = "/gpu"
"""nvidia.com/gpu, amd.com/gpu: extended resources that count as GPUs."""
_KUEUE: Final = "kueue.x-k8s.io/"
_QUEUE_LABEL: Final = _KUEUE + "queue-name"
_DROPPED_ANNOTATIONS: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_KEPT_KUEUE_LABELS: Final = frozenset({_QUEUE_LABEL, _KUEUE + "priority-class"})


@dataclass(frozen=True, slots=True)
class Job:
    """A registered PyTorchJob: a template that is never changed but for our own annotations."""

    name: str
    namespace: str
    uid: str
    annotations: Mapping[str, str]
    manifest: Mapping[str, Any]

    @classmethod
    def from_manifest(cls, manifest: object) -> Job:
        """Read a PyTorchJob, from a file or from the API server.

        Raises:
            InvalidJob: If it is no PyTorchJob, or one without a container `pytorch` in each replica.
        """
        if not isinstance(manifest, dict):
            raise InvalidJob([Mistake("file", _brief(manifest), "it must hold one object", f"kind: {KIND}")])
        mistakes: list[Mistake] = []
        for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
            if manifest.get(key) != wanted:
                rule = f"only a {KIND} of {API_VERSION} can be tuned; write"
                mistakes.append(Mistake(key, _brief(manifest.get(key)), rule, f"{key}: {wanted}"))
        if mistakes:
            raise InvalidJob(mistakes)
        metadata = _mapping(manifest, "metadata")
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            mistakes.append(Mistake("metadata.name", _brief(name), "the job must have a name", "resnet50"))
        annotations = _annotations(metadata, mistakes)
        _check_replicas(manifest, mistakes)
        if mistakes:
            raise InvalidJob(mistakes)
        return cls(
            name=str(name),
            namespace=str(metadata.get("namespace") or "default"),
            uid=str(metadata.get("uid") or ""),
            annotations=annotations,
            manifest=manifest,
        )

    @property
    def is_registered(self) -> bool:
        """Whether the job asks to be tuned."""
        return keys.TARGET in self.annotations

    @property
    def is_deleted(self) -> bool:
        """Whether the job is on its way out."""
        return "deletionTimestamp" in _mapping(self.manifest, "metadata")

    @property
    def baseline(self) -> Mapping[str, ParameterValue]:
        """The known-good values that the job's own environment carries, by hyperparameter name."""
        values: dict[str, ParameterValue] = {}
        for _, template in _replicas(self.manifest):
            for entry in _container(template).get("env") or ():
                name, value = entry.get("name", ""), entry.get("value")
                if str(name).startswith(keys.ENV_PREFIX) and isinstance(value, str | int | float):
                    values.setdefault(str(name).removeprefix(keys.ENV_PREFIX).lower(), value)
        return values

    @property
    def shape(self) -> Shape:
        """The processes that the job runs."""
        counts = {kind: _count(replica) for kind, replica in _replicas(self.manifest)}
        return Shape(
            masters=counts.get("Master", 0),
            workers=counts.get("Worker", 0),
            processes_per_replica=_processes_per_replica(self.manifest),
        )

    @property
    def fingerprint(self) -> str:
        """A hash of all that the user can change: annotations and template, whether suspended or not."""
        spec = copy.deepcopy(_mapping(self.manifest, "spec"))
        _mapping(spec, "runPolicy").pop("suspend", None)
        asked = {key: value for key, value in self.annotations.items() if key.startswith(keys.PREFIX)}
        text = json.dumps([asked, spec], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_spec(self, spec: Mapping[str, Any]) -> Job:
        """Return the job with another `spec`."""
        return replace(self, manifest={**self.manifest, "spec": dict(spec)})

    def spec(self) -> TuningSpec:
        """Return what the job's annotations ask for; InvalidJob carries every mistake."""
        return TuningSpec.from_annotations(self.annotations, baseline=self.baseline, shape=self.shape)


def trial_manifest(job: Job, suggestion: Suggestion) -> dict[str, Any]:
    """Return the PyTorchJob that runs a suggestion.

    What the cluster wrote into the job goes, as do our registration annotations (or the tuner would tune
    its trials) and what Kueue injected. A job with a queue label stays suspended, for Kueue to admit it;
    any other is unsuspended. The ownerReference makes the garbage collector remove trials with their job;
    it is no controller reference, for Kueue does not queue the children of a queued job.
    """
    trial = copy.deepcopy(dict(job.manifest))
    trial.pop("status", None)
    metadata = _mapping(trial, "metadata")
    labels = {
        key: value
        for key, value in (metadata.get("labels") or {}).items()
        if not key.startswith(_KUEUE) or key in _KEPT_KUEUE_LABELS
    }
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
        "annotations": {**annotations, keys.SUGGESTION: encode_suggestion(suggestion)},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.name,
                "uid": job.uid,
                "controller": False,
                "blockOwnerDeletion": False,
            }
        ],
    }
    _set_run_policy(trial["spec"], queued=_QUEUE_LABEL in labels)
    for kind, replica in _replicas(trial):
        # OnFailure, the default, would restart a diverged run for ever.
        replica["restartPolicy"] = "Never"
        _set_replica(kind, replica, suggestion, trial_environment(suggestion))
    return trial


def trial_environment(suggestion: Suggestion) -> dict[str, str]:
    """Return the environment variables that carry a suggestion into its trial."""
    environment = {
        keys.environment_name(name): environment_value(value) for name, value in suggestion.parameters.items()
    }
    environment[keys.ENV_BATCH_SIZE] = str(suggestion.batch_size)
    environment[keys.ENV_SEED] = str(suggestion.seed)
    environment[keys.ENV_TRIAL] = str(suggestion.number)
    if suggestion.micro_batch_size is not None:
        environment[keys.ENV_MICRO_BATCH_SIZE] = str(suggestion.micro_batch_size)
    if suggestion.accumulation_steps is not None:
        environment[keys.ENV_ACCUMULATION_STEPS] = str(suggestion.accumulation_steps)
    return environment


def answered_spec(job: Job, suggestion: Suggestion) -> dict[str, Any]:
    """Return the job's `spec` as the answer would have it: environment, workers, and not suspended.

    This is what `apply: "true"` writes. `suggestion` is the confirmed one; its seed stays with its trial.
    """
    spec = copy.deepcopy(_mapping(job.manifest, "spec"))
    variables = trial_environment(suggestion)
    for name in (keys.ENV_SEED, keys.ENV_TRIAL):
        del variables[name]
    for kind, replica in _replicas({"spec": spec}):
        _set_replica(kind, replica, suggestion, variables)
    spec["runPolicy"] = {**_mapping(spec, "runPolicy"), "suspend": False}
    return spec


def devices(manifest: Mapping[str, Any]) -> int:
    """Return how many GPUs a PyTorchJob asks for, or how many processes it runs where it asks for none."""
    gpus = sum(_count(replica) * _gpus(replica) for _, replica in _replicas(manifest))
    if gpus:
        return gpus
    return max(1, sum(_count(r) for _, r in _replicas(manifest)) * _processes_per_replica(manifest))


def encode_suggestion(suggestion: Suggestion) -> str:
    """Return a suggestion as the JSON of a trial's annotation; `decode_suggestion` reads it."""
    fields = {key: value for key, value in asdict(suggestion).items() if value is not None}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def decode_suggestion(text: str) -> Suggestion:
    """Read a suggestion from JSON.

    Raises:
        InvalidRecord: If it is not what `encode_suggestion` writes.
    """
    try:
        fields = json.loads(text)
        suggestion = Suggestion(
            number=_integer(fields["number"]),
            batch_size=_integer(fields["batch_size"]),
            parameters=_parameters(fields["parameters"]),
            seed=_integer(fields["seed"]),
            purpose=Purpose(fields["purpose"]),
            **{
                name: _integer(fields[name])
                for name in ("workers", "micro_batch_size", "accumulation_steps", "rerun_of")
                if name in fields
            },
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidRecord(f"{text[:200]!r} is no suggestion: {error!r}") from error
    return suggestion


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _parameters(value: object) -> dict[str, ParameterValue]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a mapping")
    for name, given in value.items():
        if not isinstance(name, str) or not isinstance(given, bool | int | float | str):
            raise TypeError(f"{name!r}: {given!r} is no hyperparameter")
    return value


def _set_run_policy(spec: dict[str, Any], *, queued: bool) -> None:
    policy = dict(spec.get("runPolicy") or {})
    # Both make the operator delete pods, and their logs with them, before we read the end. The deadline is
    # ours, from the moment all pods run; a trial's retries are the search's.
    for key in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        policy.pop(key, None)
    policy["suspend"] = queued
    # The default, None, leaves workers running, and holding their GPUs, when the master ends.
    policy["cleanPodPolicy"] = "Running"
    spec["runPolicy"] = policy


def _set_replica(
    kind: str, replica: dict[str, Any], suggestion: Suggestion, variables: Mapping[str, str]
) -> None:
    if kind == "Worker" and suggestion.workers is not None:
        replica["replicas"] = suggestion.workers
    _set_environment(_container(replica), variables)


def _set_environment(container: dict[str, Any], variables: Mapping[str, str]) -> None:
    kept = [entry for entry in container.get("env") or () if entry.get("name") not in variables]
    # Ours come first: Kubernetes expands $(NAME) only from variables that stand above.
    container["env"] = [{"name": name, "value": value} for name, value in sorted(variables.items())] + kept


def _annotations(metadata: Mapping[str, Any], mistakes: list[Mistake]) -> dict[str, str]:
    annotations = metadata.get("annotations") or {}
    if not isinstance(annotations, dict):
        rule = "annotations must be a mapping of strings"
        mistakes.append(Mistake("metadata.annotations", _brief(annotations), rule, f"{keys.TARGET}: ..."))
        return {}
    for key, value in annotations.items():
        if not isinstance(key, str) or not isinstance(value, str):
            rule = "Kubernetes takes only strings as annotations; put it in quotes"
            mistakes.append(Mistake(str(key), _brief(value), rule, f'"{value}"'))
    return {str(key): str(value) for key, value in annotations.items()}


def _check_replicas(manifest: Mapping[str, Any], mistakes: list[Mistake]) -> None:
    """Check what the training operator's webhook checks, for a file that no API server has seen."""
    spec = manifest.get("spec")
    replicas = spec.get("pytorchReplicaSpecs") if isinstance(spec, dict) else None
    where = "spec.pytorchReplicaSpecs"
    if not isinstance(replicas, dict) or not replicas:
        rule = "the job must have replicas"
        mistakes.append(Mistake(where, _brief(replicas), rule, "Master: {replicas: 1, template: ...}"))
        return
    for kind, replica in replicas.items():
        if kind not in _REPLICAS:
            rule = f"the training operator knows only {' and '.join(_REPLICAS)}; write one of them"
            mistakes.append(Mistake(where, str(kind), rule, "Worker"))
            continue
        _check_replica(f"{where}.{kind}", kind, replica, mistakes)


def _check_replica(where: str, kind: str, replica: object, mistakes: list[Mistake]) -> None:
    if not isinstance(replica, dict):
        mistakes.append(
            Mistake(where, _brief(replica), "it must be a mapping", "{replicas: 1, template: ...}")
        )
        return
    count = replica.get("replicas", 1)
    if not isinstance(count, int) or count < 0 or (kind == "Master" and count != 1):
        rule = "a Master has 1 replica" if kind == "Master" else "it must be a whole number"
        mistakes.append(Mistake(f"{where}.replicas", _brief(count), rule, "1"))
    try:
        containers = replica["template"]["spec"]["containers"]
        names = [container.get("name") for container in containers]
        container = containers[names.index(CONTAINER)]
        _check_container(f"{where} container {CONTAINER}", container, mistakes)
    except (KeyError, TypeError, AttributeError, ValueError):
        rule = f"each replica must have a container named {CONTAINER}, where the training runs"
        mistakes.append(Mistake(f"{where}.template.spec.containers", "", rule, f"- name: {CONTAINER}"))


def _check_container(where: str, container: Mapping[str, Any], mistakes: list[Mistake]) -> None:
    for key in ("command", "args"):
        value = container.get(key) or []
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            rule = "it must be a list of strings; put numbers in quotes"
            mistakes.append(Mistake(f"{where}.{key}", _brief(value), rule, '["python", "train.py"]'))
    env = container.get("env") or []
    if not isinstance(env, list) or not all(
        isinstance(e, dict) and isinstance(e.get("name"), str) for e in env
    ):
        rule = "it must be a list of names and values"
        mistakes.append(Mistake(f"{where}.env", _brief(env), rule, '- {name: LR, value: "0.1"}'))
        return
    for entry in env:
        if not isinstance(entry.get("value", ""), str):
            rule = "Kubernetes takes only strings as values; put it in quotes"
            value = entry.get("value")
            mistakes.append(Mistake(f"{where}.env {entry['name']}", _brief(value), rule, f'"{value}"'))


def _mapping(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def _replicas(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    replicas = _mapping(_mapping(manifest, "spec"), "pytorchReplicaSpecs")
    for kind in _REPLICAS:
        if kind in replicas:
            yield kind, replicas[kind]


def _container(replica: Mapping[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = replica["template"]["spec"]["containers"]
    return next(container for container in containers if container.get("name") == CONTAINER)


def _count(replica: Mapping[str, Any]) -> int:
    return int(replica.get("replicas", 1))


def _gpus(replica: Mapping[str, Any]) -> int:
    resources = _mapping(_container(replica), "resources")
    amounts = {**_mapping(resources, "requests"), **_mapping(resources, "limits")}
    gpus = (amount for name, amount in amounts.items() if str(name).endswith(_GPU_SUFFIX))
    return sum(int(str(amount)) for amount in gpus if str(amount).isdigit())


def _processes_per_replica(manifest: Mapping[str, Any]) -> int:
    """Return `nprocPerNode`; without one, a process a GPU under torchrun cannot be told from one a pod."""
    value = str(_mapping(manifest, "spec").get("nprocPerNode", ""))
    if value.isdigit():
        return max(1, int(value))
    if value in {"auto", "gpu"}:
        return max([1, *(_gpus(replica) for _, replica in _replicas(manifest))])
    return 1


def _brief(value: object) -> str:
    return "" if value is None else str(value)
