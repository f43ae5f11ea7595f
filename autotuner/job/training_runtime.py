"""Training runtimes: the templates of the pods of TrainJobs.

A TrainJob names a ClusterTrainingRuntime or a TrainingRuntime of its namespace
(https://www.kubeflow.org/docs/components/trainer/operator-guides/runtime/). The training container, the
default number of nodes and the failure policy are in the runtime, so a TrainJob can be validated only
together with it. On a laptop the runtime `torch-distributed` is built in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from autotuner.errors import InvalidJob, Mistake
from autotuner.job.lookup import section
from autotuner.job.validation import check_container
from autotuner.spec.untrusted_yaml import plain

API_GROUP: Final = "trainer.kubeflow.org"
API_VERSION: Final = API_GROUP + "/v1alpha1"
CLUSTER_KIND: Final = "ClusterTrainingRuntime"
KINDS: Final = (CLUSTER_KIND, "TrainingRuntime")
CONTAINER: Final = "node"
"""The training container: the TrainJob overrides its image, command and environment."""
_ANCESTOR: Final = API_GROUP + "/trainjob-ancestor-step"
_POLICIES: Final = frozenset({"torch", "mpi", "jax", "xgboost", "flux"})
_JOB_BACKOFF_LIMIT: Final = 6
"""Default number of times that a Job recreates failed pods."""


@dataclass(frozen=True, slots=True)
class RuntimeReference:
    """A reference of a TrainJob to its runtime."""

    name: str
    kind: str = CLUSTER_KIND

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class TrainingRuntime:
    """A validated runtime, reduced to what a trial depends on.

    `container` is the training container of the runtime, and `replicated_job` the name of the JobSet's job
    that has it; `replicated_jobs` are the names of all jobs, initializers included. `nodes` is the default
    number of nodes of a TrainJob. `is_torch` says whether Trainer sets torchrun's variables, and `asked` what
    the policy says of the processes, which Trainer reads no more since 2.2. `retries_failures` says whether
    Kubernetes restarts a failed node before the TrainJob fails: then one TrainJob may make several attempts.
    `manifest` is the object as it was read, in plain values.
    """

    reference: RuntimeReference
    replicated_job: str
    replicated_jobs: tuple[str, ...]
    container: Mapping[str, Any]
    nodes: int
    is_torch: bool
    asked: str
    retries_failures: bool
    fingerprint: str
    manifest: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def has_policy(self) -> bool:
        """Whether it has a policy. Without one Trainer leaves out the resources of a TrainJob."""
        return section(self.manifest, "spec").get("mlPolicy") is not None

    @classmethod
    def from_manifest(cls, manifest: object) -> TrainingRuntime:
        """Read a runtime, from a file or from the API server.

        Raises:
            InvalidJob: If its TrainJobs cannot be tuned.
        """
        if not isinstance(manifest, dict):
            raise InvalidJob([Mistake("runtime", "", "must be one object", f"kind: {CLUSTER_KIND}")])
        try:
            checked: dict[str, Any] = plain(manifest)
        except ValueError as error:
            raise InvalidJob([Mistake("runtime", "", f"{error}", f"kind: {CLUSTER_KIND}")]) from None
        kind, name = checked.get("kind"), section(checked, "metadata").get("name")
        if checked.get("apiVersion") != API_VERSION or kind not in KINDS or not isinstance(name, str):
            rule = f"must be a {' or a '.join(KINDS)} of {API_VERSION} with a name"
            raise InvalidJob([Mistake("runtime", str(kind), rule, f"kind: {CLUSTER_KIND}")])
        reference = RuntimeReference(name, kind)
        spec = section(checked, "spec")
        policy = section(spec, "mlPolicy")
        others = sorted((_POLICIES & policy.keys()) - {"torch"})
        if others:
            rule = "must be torch or left out: with other policies the manifest does not state the processes"
            raise InvalidJob([Mistake(f"{reference} mlPolicy", others[0], rule, "torch: {}")])
        jobset = section(section(spec, "template"), "spec")
        found = _training_job(reference, jobset)
        # Without any policy Trainer keeps the Job's own number of pods.
        is_own = spec.get("mlPolicy") is None
        nodes = _job(found).get("parallelism", 1) if is_own else policy.get("numNodes", 1)
        if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
            raise InvalidJob(
                [Mistake(f"{reference} mlPolicy.numNodes", str(nodes), "must be a number from 1", "1")]
            )
        pod = section(section(_job(found), "template"), "spec")
        container = _training_container(reference, pod)
        mistakes = list(check_container(f"{reference} container {CONTAINER}", container))
        if mistakes:
            raise InvalidJob(mistakes)
        return cls(
            reference=reference,
            replicated_job=str(found["name"]),
            replicated_jobs=tuple(
                str(each.get("name")) for each in jobset["replicatedJobs"] if isinstance(each, dict)
            ),
            container=container,
            nodes=nodes,
            is_torch="torch" in policy,
            asked=str(section(policy, "torch").get("numProcPerNode") or "auto"),
            retries_failures=_retries(jobset, found, pod),
            fingerprint=hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16],
            manifest=checked,
        )


def _training_job(reference: RuntimeReference, jobset: Mapping[str, Any]) -> dict[str, Any]:
    jobs = jobset.get("replicatedJobs")
    for job in jobs if isinstance(jobs, list) else ():
        if not isinstance(job, dict) or not isinstance(job.get("name"), str):
            continue
        labels = section(section(section(job, "template"), "metadata"), "labels")
        if labels.get(_ANCESTOR) == "trainer":
            return job
    rule = f"must have one with the label {_ANCESTOR}: trainer, where the training runs"
    raise InvalidJob([Mistake(f"{reference} replicatedJobs", "", rule, f"{_ANCESTOR}: trainer")])


def _training_container(reference: RuntimeReference, pod: Mapping[str, Any]) -> dict[str, Any]:
    containers = pod.get("containers")
    for container in containers if isinstance(containers, list) else ():
        if isinstance(container, dict) and container.get("name") == CONTAINER:
            return container
    rule = f"must have a container named {CONTAINER}, where the training runs"
    raise InvalidJob([Mistake(f"{reference} containers", "", rule, f"- name: {CONTAINER}")])


def _retries(jobset: Mapping[str, Any], job: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    # JobSet's default policy is OnFailure: a failed container is restarted in its pod.
    restarts = pod.get("restartPolicy", "OnFailure") != "Never"
    makes_again = _job(job).get("backoffLimit", _JOB_BACKOFF_LIMIT) != 0
    return restarts or makes_again or bool(section(jobset, "failurePolicy").get("maxRestarts"))


def _job(replicated: Mapping[str, Any]) -> dict[str, Any]:
    return section(section(replicated, "template"), "spec")


BUILT_IN: Final = {
    runtime.reference: runtime
    for runtime in [
        # As released with Trainer 2.3, but without its image: there are no images on a laptop.
        TrainingRuntime.from_manifest(
            {
                "apiVersion": API_VERSION,
                "kind": CLUSTER_KIND,
                "metadata": {"name": "torch-distributed"},
                "spec": {
                    "mlPolicy": {"numNodes": 1, "torch": {}},
                    "template": {
                        "spec": {
                            "replicatedJobs": [
                                {
                                    "name": "node",
                                    "template": {
                                        "metadata": {"labels": {_ANCESTOR: "trainer"}},
                                        "spec": {"template": {"spec": {"containers": [{"name": CONTAINER}]}}},
                                    },
                                }
                            ]
                        }
                    },
                },
            }
        )
    ]
}
"""Runtimes that need no file."""
