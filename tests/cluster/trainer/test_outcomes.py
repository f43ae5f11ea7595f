"""Whose fault: each way in which a TrainJob's trial can end badly becomes the right outcome.

Each with the released runtime, under which Kubernetes starts a failed node again, and with one that does not.
"""

import pytest
from kubernetes import client

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import TunedTrainJob, image_of
from tests.controlplane.train_jobs import Runtime, TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer")


def endless(_invocation):
    """Report a little, then hang: what happens next is for the test to say."""
    yield 0.2, "accuracy=0.5 epoch=1"
    yield 0.2, "accuracy=0.6 epoch=2"
    yield 3600, "never"


class Initialized(Runtime):
    """A runtime that prepares the data before its nodes train."""

    def manifest(self):
        made = super().manifest()
        jobs = made["spec"]["template"]["spec"]["replicatedJobs"]
        name = "dataset-initializer"
        container = {"name": name, "image": "example/initializer", "command": ["fetch"]}
        pod = {"restartPolicy": "Never", "containers": [container]}
        label = {"trainer.kubeflow.org/trainjob-ancestor-step": name}
        template = {"metadata": {"labels": label}, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
        jobs[0]["dependsOn"] = [{"name": name, "status": "Complete"}]
        jobs.insert(0, {"name": name, "template": template})
        return made


@pytest.fixture(
    params=["the released runtime", "a runtime without retries", "a runtime that makes pods again"]
)
def tuned(request, admin, namespace, nodes):
    """Return a registered job of two nodes."""
    nodes.add_image("example/training", image_of(endless))
    limits = {"the released runtime": None, "a runtime without retries": 0}
    limit = limits.get(request.param, 3)
    runtime = None if limit is None else Runtime(backoff_limit=limit).create(admin, namespace)
    return TunedTrainJob(nodes=2, runtime=runtime).create(admin, namespace)


def pods_of(job, number):
    """Return the names of a trial's pods, node 0 first, once all run."""
    name = keys.trial_name(job.name, job.read().uid, number)
    return TrainJob(name, nodes=2).running(job.admin, job.namespace)


def trial_zero(job):
    """Return how trial 0 ended, once it is recorded."""
    return eventually(lambda: next((t for t in job.ledger() if t.number == 0), None))


def lose_its_node(nodes, namespace, pod, admin):
    nodes.lose(client.CoreV1Api(admin).read_namespaced_pod(pod, namespace).spec.node_name)


def delete(_nodes, namespace, pod, admin):
    client.CoreV1Api(admin).delete_namespaced_pod(pod, namespace, grace_period_seconds=1)


LOST = {
    "preempted": lambda nodes, namespace, pod, _admin: nodes.preempt(namespace, pod),
    "evicted": lambda nodes, namespace, pod, _admin: nodes.evict(namespace, pod),
    "node lost": lose_its_node,
    "deleted": delete,
}


@pytest.mark.parametrize("inflict", LOST.values(), ids=LOST.keys())
@pytest.mark.parametrize("index", [0, 1], ids=["node 0", "node 1"])
def test_what_the_cluster_did_is_run_again_with_the_same_parameters(
    tuned, admin, namespace, nodes, new_controller, inflict, index
):
    with running(new_controller()):
        inflict(nodes, namespace, pods_of(tuned, 0)[index], admin)
        lost = trial_zero(tuned)
        pods_of(tuned, 1)

    assert lost.outcome is Outcome.LOST, lost
    assert lost.message
    again = next(t for t in tuned.trial_jobs() if t["metadata"]["labels"][keys.TRIAL_NUMBER] == "1")
    assert '"rerun_of":0' in again["metadata"]["annotations"][keys.SUGGESTION]


@pytest.mark.parametrize("index", [0, 1], ids=["node 0", "node 1"])
def test_out_of_device_memory_is_not_a_missed_target(tuned, namespace, nodes, new_controller, index):
    with running(new_controller()):
        nodes.fail_for_cuda_memory(namespace, pods_of(tuned, 0)[index])
        ended = trial_zero(tuned)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert "CUDA out of memory" in ended.message


@pytest.mark.parametrize("index", [0, 1], ids=["node 0", "node 1"])
def test_a_kill_for_host_memory_is_out_of_memory(tuned, namespace, nodes, new_controller, index):
    with running(new_controller()):
        nodes.kill_for_memory(namespace, pods_of(tuned, 0)[index])
        ended = trial_zero(tuned)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert "OOMKilled" in ended.message


@pytest.mark.parametrize("index", [0, 1], ids=["node 0", "node 1"])
def test_one_attempt_is_one_trial_and_its_last_lines_are_reported(
    tuned, namespace, nodes, new_controller, index
):
    with running(new_controller()):
        nodes.crash(namespace, pods_of(tuned, 0)[index], 3, "FileNotFoundError: /data/train.csv\n")
        ended = trial_zero(tuned)

    assert ended.outcome is Outcome.FAILED
    assert "exit code 3" in ended.message
    assert "FileNotFoundError: /data/train.csv" in ended.message


def test_a_trial_that_job_set_starts_again_is_lost(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(endless))
    runtime = Runtime(max_restarts=2).create(admin, namespace)
    tuned = TunedTrainJob(nodes=2, runtime=runtime).create(admin, namespace)
    with running(new_controller()):
        nodes.crash(namespace, pods_of(tuned, 0)[1], 1, "")
        assert trial_zero(tuned).outcome in {Outcome.LOST, Outcome.FAILED}


def test_a_runtime_whose_initializer_fails_is_at_fault_itself(admin, namespace, nodes, new_controller):
    def absent(_invocation):
        yield 0.1, "RepositoryNotFoundError: no data set of this name"
        return 1

    nodes.add_image("example/initializer", image_of(absent))
    Initialized().create(admin, namespace)
    tuned = TunedTrainJob(runtime=Initialized()).create(admin, namespace)
    with running(new_controller()):
        ended = trial_zero(tuned)

    assert ended.outcome is Outcome.FAILED
    assert "RepositoryNotFoundError" in ended.message
