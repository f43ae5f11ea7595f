"""TrainJob (trainer.kubeflow.org/v1alpha1): what it runs, its trials, and its pods without a cluster.

A TrainJob is read together with the training runtime that it refers to. How Trainer makes pods from the two:
pkg/runtime/framework/plugins/torch/torch.go. The spec is immutable except for `suspend` and `runtimePatches`,
so an answer becomes a new TrainJob, or a patch for the file of the job.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from autotuner import keys
from autotuner.errors import InvalidJob, Mistake
from autotuner.job import policies, processes
from autotuner.job.accelerators import accelerators, is_share
from autotuner.job.kind import MAX_PODS, PodPlan
from autotuner.job.pod_processes import Pod, read_pod
from autotuner.job.processes import Processes, stated
from autotuner.job.quantity import whole
from autotuner.job.training_runtime import API_VERSION, CONTAINER, TrainingRuntime
from autotuner.job.trainjob_validation import KIND
from autotuner.spec import Shape
from autotuner.trial import ParameterValue, Suggestion

_KUEUE: Final = "kueue.x-k8s.io/"
_PER_NODE: Final = "spec.trainer.numProcPerNode"
_MAX_POD_NAME: Final = 63
_SHORTEST_NAME: Final = 20
"""What a trial's name has of its own, behind that of its job, is hardly longer."""
_INHERITED: Final = ("command", "args", "envFrom")
_TORCHTUNE: Final = ["tune", "run"]
"""The command to which Trainer itself adds the options."""


@dataclass(frozen=True, slots=True)
class TrainJobKind:
    """The kind of jobs that Trainer runs, with the runtime that a job refers to."""

    runtime: TrainingRuntime

    name = KIND
    api_version = API_VERSION
    plural = "trainjobs"
    container = CONTAINER
    integration = "trainer.kubeflow.org/trainjob"
    # The fields that an answer changes are immutable.
    takes_answer = False

    @property
    def may_retry(self) -> bool:
        """Whether Kubernetes restarts a failed node before the TrainJob fails."""
        return self.runtime.retries_failures

    @property
    def documents(self) -> tuple[Mapping[str, Any], ...]:
        """The runtime."""
        return (self.runtime.manifest,)

    def pods_owner(self, trial: str) -> str:
        """Return the name of the Job that JobSet makes of the nodes."""
        return f"{trial}-{self.runtime.replicated_job}-0"

    def max_name(self, manifest: Mapping[str, Any]) -> int:
        """Return how long the name of a trial may be: JobSet refuses one whose pods have longer names.

        A pod is <trial>-<replicated job>-<replica>-<index>-<random>; a runtime may have initializers, too.
        """
        last = nodes(manifest, self.runtime) - 1
        longest = max(
            len(f"-{name}-0-{last if name == self.runtime.replicated_job else 0}-12345")
            for name in self.runtime.replicated_jobs
        )
        return max(_SHORTEST_NAME, min(keys.MAX_TRIAL_NAME, _MAX_POD_NAME - longest))

    def baseline(self, manifest: Mapping[str, Any]) -> Mapping[str, ParameterValue]:
        """Return the known-good values of `spec.trainer.env`, by hyperparameter name.

        Values of the runtime's container count too, because Trainer merges both.
        """
        values: dict[str, ParameterValue] = {}
        for entry in variables(manifest, self.runtime):
            name, value = entry["name"], entry.get("value")
            if name.startswith(keys.ENV_PREFIX) and isinstance(value, str):
                values[name.removeprefix(keys.ENV_PREFIX).lower()] = value
        return values

    def with_inherited(self, manifest: Mapping[str, Any]) -> tuple[Mapping[str, Any], Collection[str]]:
        """Return the manifest with what the runtime's container has and the job does not replace.

        And the names of the fields that are the runtime's.
        """
        trainer = manifest["spec"]["trainer"]
        inherited = {
            key: held
            for key in _INHERITED
            if (held := self.runtime.container.get(key)) is not None and trainer.get(key) is None
        }
        whole = {**trainer, **inherited, "env": variables(manifest, self.runtime)}
        return {**manifest, "spec": {**manifest["spec"], "trainer": whole}}, tuple(inherited)

    def shape(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> Shape:
        """Return the processes that the job runs. All nodes are alike, so they count as workers."""
        return Shape(
            masters=0,
            workers=nodes(manifest, self.runtime),
            processes_per_replica=stated(annotations) or self.processes(manifest).replica,
            can_grow=True,
        )

    def processes(self, manifest: Mapping[str, Any]) -> Processes:
        """Return what the manifest says about the processes of the job's nodes."""
        return read_processes(manifest, self.runtime)

    def devices(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> int:
        """Return how many GPUs a job or a trial asks for, or how many processes it runs without any."""
        return devices(manifest, self.runtime, annotations)

    def deadline(self, manifest: Mapping[str, Any]) -> timedelta | None:
        """Return the job's own `activeDeadlineSeconds`."""
        return policies.deadline({"spec": {"runPolicy": manifest["spec"]}})

    def mistakes(self, manifest: Mapping[str, Any], annotations: Mapping[str, str]) -> list[Mistake]:
        """Return the mistakes in the job's processes, given what its annotations require."""
        return processes.mistakes(self.processes(manifest), annotations, _PER_NODE)

    def template(self, manifest: Mapping[str, Any]) -> object:
        """Return the job's `spec` without `suspend` and what Kueue wrote into it, and its runtime."""
        spec = _without_admission(manifest["spec"])
        return [{key: value for key, value in spec.items() if key != "suspend"}, self.runtime.fingerprint]

    def trial_spec(
        self,
        manifest: Mapping[str, Any],
        suggestion: Suggestion,
        variables: Mapping[str, str],
        *,
        trial: str,
        queued: bool,
    ) -> dict[str, Any]:
        """Return the `spec` of a trial."""
        del trial  # Trainer names the rendezvous after the job.
        spec = self.answered_spec(manifest, suggestion, variables, queued=queued)
        # Its end would delete the pods, and their logs with them. The deadline of a trial is ours.
        spec.pop("activeDeadlineSeconds", None)
        return spec

    def answered_spec(
        self,
        manifest: Mapping[str, Any],
        suggestion: Suggestion,
        variables: Mapping[str, str],
        *,
        queued: bool,
    ) -> dict[str, Any]:
        """Return the job's `spec` as the answer would have it: environment and nodes."""
        spec = _without_admission(copy.deepcopy(manifest["spec"]))
        trainer = spec["trainer"]
        kept = [entry for entry in trainer.get("env") or () if entry["name"] not in variables]
        # Ours come first: Kubernetes expands $(NAME) only from variables that are above.
        trainer["env"] = [{"name": name, "value": value} for name, value in sorted(variables.items())] + kept
        # Written even if it is the runtime's default, so that a trial shows its number of pods.
        trainer["numNodes"] = suggestion.workers or nodes(manifest, self.runtime)
        # Kueue reads the object and writes it back, without what is empty, when it admits it. The API server
        # takes the difference for a change of an immutable field, so the job would never start.
        spec["trainer"] = _without_empty(trainer)
        spec["suspend"] = queued
        return spec

    def answer_patch(self, manifest: Mapping[str, Any], answered: Mapping[str, Any]) -> dict[str, Any]:
        """Return the trainer's environment and nodes, as the answer would have them, not suspended."""
        del manifest
        trainer = {key: answered["trainer"][key] for key in ("env", "numNodes")}
        return {"suspend": False, "trainer": trainer}

    def pod_plans(self, manifest: Mapping[str, Any], address: str, port: int) -> list[PodPlan]:
        """Return the pods, node 0 first, with torchrun's variables."""
        return pod_plans(manifest, self.runtime, address, port)


def _without_admission(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's `spec` without the patches of Kueue, which name its Workload, and without times."""
    patches = [
        {key: value for key, value in patch.items() if key != "time"}
        for patch in spec.get("runtimePatches") or ()
        if not patch["manager"].startswith(_KUEUE)
    ]
    others = {key: value for key, value in spec.items() if key != "runtimePatches"}
    return {**others, "runtimePatches": patches} if patches else others


def check_override(trainer: Mapping[str, Any], runtime: TrainingRuntime) -> list[Mistake]:
    """Return the mistakes of a trainer that empties what its runtime has."""
    return [
        Mistake(
            f"spec.trainer.{key}",
            "[]",
            f"must have words, as Kueue drops an empty list and those of {runtime.reference} would be used",
            '["--epochs=5"]',
        )
        for key in ("command", "args")
        if trainer.get(key) == [] and runtime.container.get(key)
    ]


def nodes(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    """Return how many nodes, that is pods, a validated TrainJob runs on."""
    return int(manifest["spec"]["trainer"].get("numNodes") or runtime.nodes)


def read_processes(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> Processes:
    """Return the processes of a validated TrainJob: of each node, as that of a Worker."""
    container = training_container(manifest, runtime)
    stated_number = manifest["spec"]["trainer"].get("numProcPerNode")
    per_node: str | None = None
    if runtime.is_torch:
        # With GPUs Trainer sets `auto`.
        is_auto = stated_number is None and _gpus(manifest, runtime)
        per_node = "auto" if is_auto else str(processes_per_node(manifest, runtime))
    has_recipe = container.get("command") == _TORCHTUNE
    if has_recipe:
        container = {**container, "command": None}
    pod = Pod(
        kind="node",
        where="spec.trainer",
        container=container,
        pods=nodes(manifest, runtime),
        per_node=per_node,
        field=_PER_NODE,
        is_stated=stated_number is not None,
        is_for_torchrun=runtime.is_torch,
        has_recipe=has_recipe,
        is_trial=processes.is_trial(manifest),
    )
    found = processes.combined([read_pod(pod)])
    asked = {"auto", "gpu"} if per_node == "auto" else {"auto", "cpu", per_node, str(found.worker)}
    is_torchrun = runtime.is_torch and (found.is_certain or not container.get("command"))
    if stated_number is not None or not is_torchrun or runtime.asked in asked:
        return found
    where = f"{runtime.reference} mlPolicy.torch.numProcPerNode"
    problem = f"{where} is {runtime.asked}, and Trainer reads no number there since 2.2"
    return replace(found, problem="; ".join(filter(None, (problem, found.problem))))


def processes_per_node(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    """Return how many processes Trainer asks torchrun for on each node of a validated TrainJob.

    As many as the job says; else as many as a node has GPUs, or processors where it has no GPUs.
    """
    trainer = manifest["spec"]["trainer"]
    if trainer.get("numProcPerNode") is not None:
        return int(trainer["numProcPerNode"])
    if not runtime.is_torch:
        return 1
    return _gpus(manifest, runtime) or max(1, _processors(_resources(manifest, runtime)))


def devices(manifest: Mapping[str, Any], runtime: TrainingRuntime, annotations: Mapping[str, str]) -> int:
    """Return how many GPUs a TrainJob asks for, or how many processes it runs where it asks for none.

    `annotations` are those of the registered job, which may state the processes.
    """
    each = accelerators(training_container(manifest, runtime)).devices
    each = each or stated(annotations) or read_processes(manifest, runtime).replica
    return nodes(manifest, runtime) * each


def training_container(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> dict[str, Any]:
    """Return the training container of each node: the runtime's, with what the job replaces in it."""
    trainer = manifest["spec"]["trainer"]
    overridden = {key: trainer[key] for key in ("image", "command", "args") if trainer.get(key) is not None}
    if trainer.get("resourcesPerNode") is not None and runtime.has_policy:
        own = runtime.container.get("resources")
        overridden["resources"] = _merged(own if isinstance(own, dict) else {}, trainer["resourcesPerNode"])
    return {**runtime.container, **overridden, "name": CONTAINER, "env": variables(manifest, runtime)}


def _merged(resources: Mapping[str, Any], overriding: Mapping[str, Any]) -> dict[str, Any]:
    """Return a runtime's resources with those of a job, which replace each of the same name.

    As MergeResourceRequirements of Trainer 2.3 (pkg/util/trainingruntime); what a job leaves out stays.
    """
    merged = {**resources, **overriding}
    for part in ("requests", "limits"):
        amounts = [held for each in (resources, overriding) if isinstance(held := each.get(part), dict)]
        merged[part] = {name: amount for held in amounts for name, amount in held.items()}
    return merged


def variables(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> list[dict[str, Any]]:
    """Return the environment of the training container, in the order of Trainer.

    The runtime's variables come first. A variable of the job replaces one of the same name in place; the
    others follow.
    """
    merged: dict[str, dict[str, Any]] = {}
    for container in (runtime.container, manifest["spec"]["trainer"]):
        merged |= {entry["name"]: entry for entry in container.get("env") or ()}
    return list(merged.values())


def _resources(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> Mapping[str, Any]:
    """Return the resources from which Trainer tells the processes: the job's alone, if it has any."""
    resources = manifest["spec"]["trainer"].get("resourcesPerNode")
    if resources is None:
        resources = runtime.container.get("resources")
    return resources if isinstance(resources, dict) else {}


def _gpus(manifest: Mapping[str, Any], runtime: TrainingRuntime) -> int:
    resources = _resources(manifest, runtime)
    # Trainer counts every resource with this word in its name, such as gpu.intel.com/i915.
    found = _asked(resources, lambda name: "gpu" in name.lower() and not is_share(name))
    # Megabytes or percent only: a part of one GPU.
    return found or min(_asked(resources, lambda name: "gpu" in name.lower()), 1)


def _processors(resources: Mapping[str, Any]) -> int:
    return _asked(resources, "cpu".__eq__)


def _asked(resources: Mapping[str, Any], is_meant: Callable[[str], bool]) -> int:
    return _largest(resources, "requests", is_meant) or _largest(resources, "limits", is_meant)


def _largest(resources: Mapping[str, Any], part: str, is_meant: Callable[[str], bool]) -> int:
    amounts = resources.get(part)
    found = [0]
    for name, amount in amounts.items() if isinstance(amounts, dict) else ():
        if is_meant(name):
            with contextlib.suppress(ValueError):  # of a runtime, which is checked only by the API server
                found.append(whole(amount))
    return max(found)


def pod_plans(
    manifest: Mapping[str, Any], runtime: TrainingRuntime, address: str, port: int
) -> list[PodPlan]:
    """Return the pods of a validated TrainJob, node 0 first.

    Args:
        manifest: A TrainJob that `TrainJob.from_manifest` accepts, or a trial of one.
        runtime: The runtime that it refers to.
        address: The address of node 0, for PET_MASTER_ADDR.
        port: A free port of that address, a different one for each trial, for PET_MASTER_PORT.

    Raises:
        InvalidJob: If there are too many for one machine.
    """
    count = nodes(manifest, runtime)
    if count > MAX_PODS:
        rule = f"must be at most {MAX_PODS} on one machine; write fewer, or tune on a cluster"
        raise InvalidJob([Mistake("spec.trainer.numNodes", str(count), rule, "1")])
    container = training_container(manifest, runtime)
    shared = {
        "PET_NNODES": str(count),
        # On a cluster it may be `auto`, the number of GPUs, which may differ on this machine.
        "PET_NPROC_PER_NODE": str(processes_per_node(manifest, runtime)),
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": str(port),
    }
    return [
        PodPlan(
            name=f"{manifest['metadata']['name']}-{runtime.replicated_job}-0-{index}",
            container=container,
            environment={
                "JOB_COMPLETION_INDEX": str(index),
                **({**shared, "PET_NODE_RANK": str(index)} if runtime.is_torch else {}),
            },
        )
        for index in range(count)
    ]


def _without_empty(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Return a JSON value without null and empty members, as Go writes it."""
    if isinstance(value, list):
        return [_without_empty(held) for held in value]
    if not isinstance(value, dict):
        return value
    members = {key: _without_empty(held) for key, held in value.items()}
    return {key: held for key, held in members.items() if held not in (None, "", [], {})}
