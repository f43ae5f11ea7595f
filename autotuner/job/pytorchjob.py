"""PyTorchJob (kubeflow.org/v1): what it runs, the spec of its trials, and its pods without a cluster.

The shape of a PyTorchJob: https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.job import policies, processes
from autotuner.job.accelerators import accelerators
from autotuner.job.kind import MAX_PODS, JobKind, PodPlan
from autotuner.job.lookup import section, sequence
from autotuner.job.processes import Processes
from autotuner.job.validation import API_VERSION, CONTAINER, KIND, REPLICAS, replica_count
from autotuner.spec import Shape
from autotuner.trial import ParameterValue, Suggestion

_LOG_END: Final = "FallbackToLogsOnError"
_ADMISSION: Final = frozenset(
    f"kueue.x-k8s.io/{name}"
    for name in ("workload", "workload-slice-name", "podset", "local-queue-name", "cluster-queue-name")
)
"""What Kueue writes into the pod templates of a job that it admits: the Workload, and where it was admitted.

`getPodSetsInfoFromStatus` in pkg/controller/jobframework/reconciler.go of Kueue. The others of its labels and
annotations are the user's, such as those that ask for a topology.
"""


@dataclass(frozen=True, slots=True)
class PyTorchJobKind:
    """The kind of jobs that the training operator runs."""

    name = KIND
    api_version = API_VERSION
    plural = "pytorchjobs"
    container = CONTAINER
    integration = "kubeflow.org/pytorchjob"
    takes_answer = True
    # Trials have restartPolicy Never, which overrides the job's.
    may_retry = False
    documents: tuple[Mapping[str, Any], ...] = ()

    def pods_owner(self, trial: str) -> str:
        """Return the name of the trial: its operator notes on it why a pod cannot be created."""
        return trial

    def max_name(self, manifest: Mapping[str, Any]) -> int:
        """Return how long the name of a trial may be."""
        del manifest
        return keys.MAX_TRIAL_NAME

    def baseline(self, manifest: Mapping[str, Any]) -> Mapping[str, ParameterValue]:
        """Return the known-good values of the job's own environment, by hyperparameter name."""
        values: dict[str, ParameterValue] = {}
        for _, template in reversed(list(replicas(manifest))):
            # The Master's value takes precedence over a Worker's, and a later entry over an earlier one.
            for entry in container(template).get("env") or ():
                name, value = entry["name"], entry.get("value")
                if name.startswith(keys.ENV_PREFIX) and isinstance(value, str):
                    values[name.removeprefix(keys.ENV_PREFIX).lower()] = value
        return values

    def with_inherited(self, manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], Collection[str]]:
        """Return the manifest, which has all that its containers run."""
        return manifest, ()

    def shape(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> Shape:
        """Return the processes that the job runs."""
        return processes.shape(manifest, annotations)

    def processes(self, manifest: Mapping[str, Any]) -> Processes:
        """Return what the manifest says about the processes of the job's pods."""
        return processes.read_processes(manifest)

    def devices(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> int:
        """Return how many GPUs a job or a trial asks for, or how many processes it runs without any."""
        return devices(manifest, annotations)

    def deadline(self, manifest: Mapping[str, Any]) -> timedelta | None:
        """Return the job's own `activeDeadlineSeconds`."""
        return policies.deadline(manifest)

    def mistakes(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> list[Mistake]:
        """Return the mistakes in the job's processes, given what its annotations require."""
        return processes.mistakes(self.processes(manifest), annotations)

    def template(self, manifest: Mapping[str, Any]) -> object:
        """Return the job's `spec` without `suspend`."""
        spec = _without_admission(section(manifest, "spec"))
        section(spec, "runPolicy").pop("suspend", None)
        return spec

    def trial_spec(
        self,
        manifest: Mapping[str, Any],
        suggestion: Suggestion,
        variables: Mapping[str, str],
        *,
        trial: str,
        queued: bool,
    ) -> dict[str, Any]:
        """Return the `spec` of the trial with this name."""
        spec = _without_admission(section(manifest, "spec"))
        _set_run_policy(spec, queued=queued)
        for kind, replica in replicas({"spec": spec}):
            # OnFailure, the default, would restart a diverged run for ever.
            replica["restartPolicy"] = "Never"
            # Then the pod's status has the last lines of a failed container, and outlives the log.
            container(replica)["terminationMessagePolicy"] = _LOG_END
            for initial in sequence(replica["template"]["spec"].get("initContainers")):
                if isinstance(initial, dict):
                    initial.setdefault("terminationMessagePolicy", _LOG_END)
            _set_replica(kind, replica, suggestion, variables)
        policies.fix_replicas(spec)
        policies.isolate(spec, job=str(manifest["metadata"]["name"]), trial=trial)
        return spec

    def answered_spec(
        self,
        manifest: Mapping[str, Any],
        suggestion: Suggestion,
        variables: Mapping[str, str],
        *,
        queued: bool,
    ) -> dict[str, Any]:
        """Return the job's `spec` with the answer applied: environment and workers."""
        spec = copy.deepcopy(section(manifest, "spec"))
        for kind, replica in replicas({"spec": spec}):
            _set_replica(kind, replica, suggestion, variables)
        policies.fix_replicas(spec)
        spec["runPolicy"] = {**section(spec, "runPolicy"), "suspend": queued}
        return spec

    def answer_patch(self, manifest: Mapping[str, Any], answered: Mapping[str, Any]) -> dict[str, Any]:
        """Return the merge patch from the job's `spec` to the answered one.

        A merge patch replaces lists as a whole, so it has the containers of each replica.
        """
        return changes(section(manifest, "spec"), answered)

    def pod_plans(self, manifest: Mapping[str, Any], address: str, port: int) -> list[PodPlan]:
        """Return the pods, rank 0 first, with the operator's variables.

        They are those of pkg/controller.v1/pytorch/envvar.go of the training operator, with one address for
        the names that a cluster's DNS would resolve.
        """
        spec = manifest["spec"]
        counts = {kind: replica_count(replica) for kind, replica in replicas(manifest)}
        if sum(counts.values()) > MAX_PODS:
            rule = f"must be at most {MAX_PODS} pods on one machine; use fewer, or tune on a cluster"
            shown = f"{sum(counts.values())} replicas"
            raise InvalidJob([Mistake("spec.pytorchReplicaSpecs", shown, rule, "replicas: 1")])
        return [
            PodPlan(
                f"{manifest['metadata']['name']}-{kind.lower()}-{index}",
                container(replica),
                _environment(spec, counts, kind, index, address, port),
            )
            for kind, replica in replicas(manifest)
            for index in range(counts[kind])
        ]


PYTORCHJOB: JobKind = PyTorchJobKind()


def devices(manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> int:
    """Return how many GPUs a PyTorchJob asks for, or how many processes it runs where it asks for none.

    `annotations` are those of the registered job, which may state the processes.
    """
    gpus = sum(
        replica_count(replica) * accelerators(container(replica)).devices for _, replica in replicas(manifest)
    )
    return gpus or max(1, processes.shape(manifest, annotations).processes)


def replicas(manifest: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the replica types of a validated job with their specs, the Master first."""
    replicas = section(section(manifest, "spec"), "pytorchReplicaSpecs")
    for kind in REPLICAS:
        if kind in replicas:
            yield kind, replicas[kind]


def container(replica: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training container of a replica of a validated job."""
    containers: list[dict[str, Any]] = replica["template"]["spec"]["containers"]
    return next(container for container in containers if container.get("name") == CONTAINER)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7386) that turns one object into another."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        earlier = before.get(key)
        if isinstance(value, dict) and isinstance(earlier, dict):
            if inner := changes(earlier, value):
                patch[key] = inner
        elif key not in before or value != earlier:
            patch[key] = value
    return patch


def _without_admission(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a job's `spec` without what Kueue wrote into it when it admitted the job.

    Kueue never starts a job whose pods name the Workload of another one.
    """
    copied = copy.deepcopy(dict(spec))
    for _, replica in replicas({"spec": copied}):
        metadata = section(replica["template"], "metadata")
        for part in ("annotations", "labels"):
            held = section(metadata, part)
            written = _ADMISSION & held.keys()
            for key in written:
                del held[key]
            if written and not held:
                # As it was before.
                del metadata[part]
    return copied


def _set_run_policy(spec: dict[str, Any], *, queued: bool) -> None:
    policy = dict(spec.get("runPolicy") or {})
    # With both the operator would delete pods and their logs before the end is read. The tuner applies the
    # deadline itself, from the moment that all pods run, and decides about retries.
    for key in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
        policy.pop(key, None)
    policy["suspend"] = queued
    # With the default, None, workers keep running on their GPUs after the Master has ended. If any worker may
    # have rank 0, all pods are kept until its log is read; the trial is deleted right after.
    is_elastic = isinstance(spec.get("elasticPolicy"), dict)
    has_fixed_ranks = "Master" in section(spec, "pytorchReplicaSpecs") and not is_elastic
    policy["cleanPodPolicy"] = "Running" if has_fixed_ranks else "None"
    spec["runPolicy"] = policy


def _set_replica(
    kind: str, replica: dict[str, Any], suggestion: Suggestion, variables: Mapping[str, str]
) -> None:
    if kind == "Worker" and suggestion.workers is not None:
        replica["replicas"] = suggestion.workers
    training = container(replica)
    kept = [entry for entry in training.get("env") or () if entry.get("name") not in variables]
    # Ours come first: Kubernetes expands $(NAME) only from variables that stand above.
    training["env"] = [{"name": name, "value": value} for name, value in sorted(variables.items())] + kept


def _environment(  # noqa: PLR0913, PLR0917 (a pod's place in its job)
    spec: Mapping[str, Any], counts: Mapping[str, int], kind: str, index: int, address: str, port: int
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
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(world),
            "RANK": str(rank),
            "PET_MASTER_ADDR": address,
            "PET_MASTER_PORT": str(port),
            "PET_NODE_RANK": str(rank),
        }
    if isinstance(elastic, dict):
        environment |= {
            "PET_RDZV_BACKEND": str(elastic.get("rdzvBackend") or "c10d"),
            "PET_RDZV_ENDPOINT": f"{address}:{port}",
            "PET_RDZV_ID": str(elastic.get("rdzvId") or port),
            "PET_MAX_RESTARTS": str(elastic.get("maxRestarts") or 0),
        }
        # Ranges such as 1:4 would wait for more nodes than this machine has.
        environment["PET_NNODES"] = f"{nodes}:{nodes}"
    return environment
