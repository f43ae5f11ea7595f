"""Registered jobs, the scripts that stand for their training, and questions about how their tuning stands."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from autotuner import keys
from autotuner.job.job import Job
from autotuner.job.training_runtime import CLUSTER_KIND, RuntimeReference, TrainingRuntime
from autotuner.study.ledger import decode_ledger
from autotuner.trial import Trial
from tests.controlplane import train_jobs
from tests.controlplane.images import Image, Invocation, Script
from tests.controlplane.pod import GPU
from tests.controlplane.train_jobs import Runtime

API = ("kubeflow.org", "v1")
PLURAL = "pytorchjobs"


def learner(
    largest: int, *, epochs: int = 4, seconds: float = 0.05, starts: list[str] | None = None
) -> Script:
    """Return a script that reaches 0.9 at batch sizes up to `largest`, and stays far below beyond it.

    Job and trial number of each run that starts are appended to `starts`, as in `digits-7`.
    """

    def play(invocation: Invocation) -> Iterator[tuple[float, str]]:
        if starts is not None:
            starts.append("{JOB}-{AUTOTUNER_TRIAL}".format(**invocation.environment))
        size = int(invocation.environment["AUTOTUNER_BATCH_SIZE"])
        top = 0.95 if size <= largest else 0.5
        for epoch in range(1, epochs + 1):
            shown = top * (1 - 0.3**epoch) + noise(invocation.environment, epoch)
            yield seconds, f"accuracy={shown:.4f} epoch={epoch}"

    return play


def noise(environment: Mapping[str, str], epoch: int) -> float:
    """Return a little that differs between settings and seeds: curves that are all the same are not wired."""
    names = ("AUTOTUNER_BATCH_SIZE", "AUTOTUNER_LEARNING_RATE", "AUTOTUNER_SEED")
    said = "/".join((str(epoch), *(environment.get(name, "") for name in names)))
    return zlib.crc32(said.encode()) % 1000 / 500_000


@dataclass(frozen=True)
class TunedJob:
    """A registered PyTorchJob; vary it by `dataclasses.replace`."""

    name: str = "digits"
    image: str = "example/training"
    annotations: Mapping[str, str] = field(default_factory=dict)
    workers: int = 0
    batch_size: str = "256..1024"
    gpus: int = 0

    def manifest(self) -> dict[str, Any]:
        container = {
            "name": "pytorch",
            "image": self.image,
            "command": ["train"],
            "env": [
                {"name": "AUTOTUNER_BATCH_SIZE", "value": "256"},
                {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
                {"name": "JOB", "value": self.name},
            ],
        }
        if self.gpus:
            container["resources"] = {"limits": {GPU: self.gpus}, "requests": {GPU: self.gpus}}
        replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
        specs: dict[str, Any] = {"Master": replica}
        if self.workers:
            specs["Worker"] = {**replica, "replicas": self.workers}
        return {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "metadata": {
                "name": self.name,
                "annotations": {
                    keys.TARGET: "accuracy >= 0.9",
                    keys.PREFIX + "batch-size": self.batch_size,
                    keys.PREFIX + "run-length": "4",
                    keys.PREFIX + "confirmations": "1",
                    keys.PREFIX + "max-trials": "12",
                    keys.PREFIX + "sampler": "random",
                    **self.annotations,
                },
            },
            "spec": {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": specs},
        }

    def create(
        self, admin: client.ApiClient, namespace: str, labels: Mapping[str, str] | None = None
    ) -> Cluster:
        manifest = self.manifest()
        manifest["metadata"]["labels"] = dict(labels or {})
        client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
        return Cluster(admin, namespace, self.name)


@dataclass(frozen=True)
class TunedTrainJob:
    """A registered TrainJob that is tuned as a `TunedJob`; `runtime` is `torch-distributed` where None."""

    name: str = "digits"
    image: str = "example/training"
    annotations: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    batch_size: str = "256..1024"
    runtime: Runtime | None = None
    gpus: int = 0

    def manifest(self) -> dict[str, Any]:
        like = TunedJob(self.name, self.image, self.annotations, batch_size=self.batch_size).manifest()
        (container,) = like["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        trainer = {key: value for key, value in container.items() if key != "name"}
        if self.gpus:
            trainer["resourcesPerNode"] = {"limits": {GPU: self.gpus}, "requests": {GPU: self.gpus}}
        return {
            "apiVersion": "/".join(train_jobs.API),
            "kind": "TrainJob",
            "metadata": like["metadata"],
            "spec": {
                "runtimeRef": self.runtime.reference if self.runtime else {"name": "torch-distributed"},
                "suspend": True,
                "trainer": {**trainer, "numNodes": self.nodes},
            },
        }

    def create(
        self, admin: client.ApiClient, namespace: str, labels: Mapping[str, str] | None = None
    ) -> Cluster:
        manifest = self.manifest()
        manifest["metadata"]["labels"] = dict(labels or {})
        client.CustomObjectsApi(admin).create_namespaced_custom_object(
            *train_jobs.API, namespace, train_jobs.PLURAL, manifest
        )
        return Cluster(admin, namespace, self.name, train_jobs.API, train_jobs.PLURAL)


@dataclass(frozen=True)
class Cluster:
    """What the cluster shows of one registered job."""

    admin: client.ApiClient
    namespace: str
    name: str
    api: tuple[str, str] = API
    plural: str = PLURAL

    def read(self) -> Job:
        return Job.from_manifest(
            client.CustomObjectsApi(self.admin).get_namespaced_custom_object(
                *self.api, self.namespace, self.plural, self.name
            ),
            self._runtime,
        )

    def _runtime(self, reference: RuntimeReference) -> TrainingRuntime:
        api, plural = client.CustomObjectsApi(self.admin), f"{reference.kind.lower()}s"
        if reference.kind == CLUSTER_KIND:
            found = api.get_cluster_custom_object(*self.api, plural, reference.name)
        else:
            found = api.get_namespaced_custom_object(*self.api, self.namespace, plural, reference.name)
        return TrainingRuntime.from_manifest(found)

    def annotate(self, **annotations: str | None) -> None:
        """Change our annotations, by their names without the prefix; None removes one."""
        changes = {keys.PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}
        self.patch({"metadata": {"annotations": changes}})

    def patch(self, patch: Mapping[str, Any]) -> None:
        client.CustomObjectsApi(self.admin).patch_namespaced_custom_object(
            *self.api, self.namespace, self.plural, self.name, patch
        )

    def delete(self) -> None:
        client.CustomObjectsApi(self.admin).delete_namespaced_custom_object(
            *self.api, self.namespace, self.plural, self.name
        )

    @property
    def status(self) -> dict[str, str]:
        """The status annotations, by their names without the prefix."""
        return {
            key.removeprefix(keys.STATUS_PREFIX): value
            for key, value in self.read().annotations.items()
            if key.startswith(keys.STATUS_PREFIX)
        }

    @property
    def phase(self) -> str | None:
        return self.status.get("phase")

    @property
    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.status.get("answer", "{}"))
        return answer

    def is_in(self, *phases: str) -> Callable[[], bool]:
        return lambda: self.phase in phases

    def trial_jobs(self) -> list[dict[str, Any]]:
        found = client.CustomObjectsApi(self.admin).list_namespaced_custom_object(
            *self.api, self.namespace, self.plural, label_selector=f"{keys.TRIAL_JOB_UID}={self.read().uid}"
        )
        items: list[dict[str, Any]] = found["items"]
        return items

    def ledger(self) -> list[Trial]:
        try:
            found = client.CoreV1Api(self.admin).read_namespaced_config_map(
                keys.ledger_name(self.name), self.namespace
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
            return []
        trials, problems = decode_ledger(found.data or {})
        assert not problems
        return trials

    def events(self) -> list[str]:
        found = client.CoreV1Api(self.admin).list_namespaced_event(self.namespace)
        return [event.reason for event in found.items if event.involved_object.name == self.name]


def image_of(script: Script, speed: float = 1.0) -> Image:
    return Image(script=script, speed=speed)
