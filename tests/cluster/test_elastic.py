"""Elastic jobs, in which ranks go by arrival: any worker may be the one that prints."""

import json

import pytest
from kubernetes import client

from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, Cluster, TunedJob, image_of, learner
from tests.controlplane.waiting import eventually

LEARNER = learner(largest=4096, seconds=0.3)


def second_is_first(invocation):
    """Train on every worker, and print on worker 1 alone, which the rendezvous made rank 0."""
    for seconds, line in LEARNER(invocation):
        yield seconds, line if invocation.environment["POD"].endswith("worker-1") else "training"


def first_leaves(invocation):
    """Train and print on worker 1 alone: the job has succeeded as soon as worker 0 has ended."""
    if invocation.environment["POD"].endswith("worker-1"):
        yield from LEARNER(invocation)
    else:
        yield 0.1, "done"


@pytest.mark.parametrize("script", [second_is_first, first_leaves])
def test_the_metric_is_read_from_the_worker_that_became_rank_zero(
    admin, namespace, nodes, new_controller, script
):
    nodes.add_image("example/training", image_of(script))
    tuned = TunedJob(workers=2, batch_size="256..256")
    manifest = json.loads(json.dumps(tuned.manifest()))
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    del replicas["Master"]
    container = replicas["Worker"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    manifest["spec"]["elasticPolicy"] = {"rdzvBackend": "c10d", "minReplicas": 1, "maxReplicas": 2}
    client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    job = Cluster(admin, namespace, tuned.name)

    with running(new_controller()):
        eventually(job.is_in("Done"))

    trials = job.ledger()
    assert {trial.outcome for trial in trials} == {Outcome.REACHED}
    assert all(len(trial.measurements) == 4 for trial in trials if trial.is_complete)
    assert job.answer["batch_size"] == 256
