"""PyTorchJobs: what a registered job says, and the trial that is made from it.

`Job.from_manifest` reads the job as its owner wrote it, once, and checks all that we rely on.
`trial_manifest` is the whole difference between the job and a trial. Raw dictionaries stay in here.

The shape of a PyTorchJob: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidJob, InvalidRecord, Mistake, Unrealisable
from autotuner.job import policies, processes
from autotuner.job.accelerators import accelerators
from autotuner.realise import bounds_of
from autotuner.spec import Shape, TuningSpec, environment_value
from autotuner.trial import ParameterValue, Purpose, Suggestion
from autotuner.wellformed import API_VERSION, CONTAINER, KIND, REPLICAS, replica_count, wellformed

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
        checked = wellformed(manifest)
        metadata = _mapping(checked, "metadata")
        return cls(
            name=str(metadata["name"]),
            namespace=str(metadata.get("namespace") or "default"),
            uid=str(metadata.get("uid") or ""),
            annotations=_mapping(metadata, "annotations"),
            manifest=checked,
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
    def owner_reference(self) -> dict[str, Any]:
        """What makes the garbage collector remove an object with the job.

        It is no controller reference: Kueue does not queue the children of a queued job.
        """
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }

    @property
    def baseline(self) -> Mapping[str, ParameterValue]:
        """The known-good values that the job's own environment carries, by hyperparameter name."""
        values: dict[str, ParameterValue] = {}
        for _, template in reversed(list(_replicas(self.manifest))):
            # The Master's word counts over a Worker's, and of a name that stands there twice the last.
            for entry in _container(template).get("env") or ():
                name, value = entry["name"], entry.get("value")
                if name.startswith(keys.ENV_PREFIX) and isinstance(value, str):
                    values[name.removeprefix(keys.ENV_PREFIX).lower()] = value
        return values

    @property
    def shape(self) -> Shape:
        """The processes that the job runs."""
        return processes.shape(self.manifest, self.annotations)

    @property
    def fingerprint(self) -> str:
        """A hash of all that the user can change: annotations and template, whether suspended or not."""
        asked = {key: value for key, value in self.annotations.items() if key.startswith(keys.PREFIX)}
        return _digest([asked, self._spec_but_suspend()])

    @property
    def template(self) -> str:
        """A hash of what trials are made from: the job's `spec`, whether suspended or not."""
        return _digest(self._spec_but_suspend())

    def _spec_but_suspend(self) -> dict[str, Any]:
        spec = copy.deepcopy(_mapping(self.manifest, "spec"))
        _mapping(spec, "runPolicy").pop("suspend", None)
        return spec

    def with_spec(self, spec: Mapping[str, Any]) -> Job:
        """Return the job with another `spec`."""
        return replace(self, manifest={**self.manifest, "spec": dict(spec)})

    def spec(self) -> TuningSpec:
        """Return what the job's annotations ask for; InvalidJob carries every mistake."""
        wrong = processes.mistakes(self.manifest, self.annotations)
        try:
            spec = TuningSpec.from_annotations(self.annotations, baseline=self.baseline, shape=self.shape)
        except InvalidJob as error:
            raise InvalidJob([*error.mistakes, *wrong]) from None
        if wrong:
            raise InvalidJob(wrong)
        try:
            bounds_of(spec)
        except Unrealisable as error:
            asked = str(spec.batch_size)
            raise InvalidJob([Mistake(keys.PREFIX + "batch-size", asked, str(error), "256..32768")]) from None
        own = policies.deadline(self.manifest)
        if spec.trial_timeout is None and own is not None:
            return spec.model_copy(update={"trial_timeout": own})
        return spec


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def trial_manifest(job: Job, suggestion: Suggestion) -> dict[str, Any]:
    """Return the PyTorchJob that runs a suggestion.

    What the cluster wrote into the job goes, as do our registration annotations (or the tuner would tune
    its trials) and what Kueue injected. A trial with a queue label, the job's or that of the annotation
    `queue`, stays suspended, for Kueue to admit it; any other is unsuspended.
    """
    trial = copy.deepcopy(dict(job.manifest))
    trial.pop("status", None)
    metadata = _mapping(trial, "metadata")
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
    for kind, replica in _replicas(trial):
        # OnFailure, the default, would restart a diverged run for ever.
        replica["restartPolicy"] = "Never"
        # A failed container's last lines then stand in its pod's status, which outlives the log.
        _container(replica)["terminationMessagePolicy"] = "FallbackToLogsOnError"
        _set_replica(kind, replica, suggestion, trial_environment(suggestion))
    policies.fix_replicas(trial["spec"])
    policies.isolate(trial["spec"], job=job.name, trial=trial["metadata"]["name"])
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
    policies.fix_replicas(spec)
    spec["runPolicy"] = {**_mapping(spec, "runPolicy"), "suspend": False}
    return spec


def devices(manifest: Mapping[str, Any]) -> int:
    """Return how many GPUs a PyTorchJob asks for, or how many processes it runs where it asks for none."""
    gpus = sum(
        replica_count(replica) * accelerators(_container(replica)).devices
        for _, replica in _replicas(manifest)
    )
    return gpus or max(1, processes.shape(manifest, {}).processes)


_OPTIONAL: Final = {"workers": 0, "micro_batch_size": 1, "accumulation_steps": 1, "rerun_of": 0}
"""Fields of a suggestion that may be absent, with the least value of each."""


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
            number=_integer(fields["number"], 0),
            batch_size=_integer(fields["batch_size"], 1),
            parameters=_parameters(fields["parameters"]),
            seed=_integer(fields["seed"], 0),
            purpose=Purpose(fields["purpose"]),
            **{name: _integer(fields[name], least) for name, least in _OPTIONAL.items() if name in fields},
        )
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InvalidRecord(f"{text[:200]!r} is no suggestion: {error!r}") from error
    return suggestion


def _integer(value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TypeError(f"{str(value)[:40]!r} is not a whole number of at least {least}")
    return value


def _parameters(value: object) -> dict[str, ParameterValue]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a mapping")
    for name, given in value.items():
        if not isinstance(name, str) or not isinstance(given, bool | int | float | str):
            raise TypeError(f"{name!r}: {given!r} is no hyperparameter")
        if isinstance(given, float) and not math.isfinite(given):
            raise ValueError(f"{name!r}: {given} is no hyperparameter")
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


def _mapping(manifest: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def _replicas(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    replicas = _mapping(_mapping(manifest, "spec"), "pytorchReplicaSpecs")
    for kind in REPLICAS:
        if kind in replicas:
            yield kind, replicas[kind]


def _container(replica: Mapping[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = replica["template"]["spec"]["containers"]
    return next(container for container in containers if container.get("name") == CONTAINER)
