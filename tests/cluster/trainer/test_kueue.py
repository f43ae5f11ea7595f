"""Jobs of both kinds wait in a queue of Kueue, are admitted as its quota allows, and are preempted."""

import pytest
from kubernetes import client

from tests.controlplane.images import Image
from tests.controlplane.jobs import Job
from tests.controlplane.kueue import PRIORITY_LABEL, QUEUE_LABEL, create_priority
from tests.controlplane.pod import GPU
from tests.controlplane.train_jobs import TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer", "kueue")

ONE_GPU = {"resources": {"limits": {GPU: 1}, "requests": {GPU: 1}}}


def endless(_invocation):
    yield 3600, "never"


def create_train_job(admin, namespace, name, **labels):
    """Create a TrainJob of two nodes, each with a GPU."""
    job = TrainJob(name, ("train",), nodes=2, gpus=1, suspend=True, labels=labels)
    return job.create(admin, namespace)


def create_pytorch_job(admin, namespace, name, **labels):
    """Create a PyTorchJob of a master and a worker, each with a GPU."""
    job = Job(name, ("train",), workers=1, container=ONE_GPU)
    manifest = job.manifest()
    manifest["metadata"]["labels"] = labels
    manifest["spec"]["runPolicy"]["suspend"] = True
    client.CustomObjectsApi(admin).create_namespaced_custom_object(
        "kubeflow.org", "v1", namespace, "pytorchjobs", manifest
    )
    return job


def test_jobs_of_both_kinds_go_through_one_queue_one_after_the_other(admin, namespace, nodes, new_queue):
    running, at_once = [], []

    def train(invocation):
        # Other nodes may still be ending when the next job is admitted.
        if invocation.environment["PET_NODE_RANK"] == "0":
            running.append("a job")
            at_once.append(len(running))
        yield 0.5, "accuracy=0.9"
        if invocation.environment["PET_NODE_RANK"] == "0":
            running.pop()

    nodes.add_image("example/training", Image(script=train))
    queue = new_queue(gpus=2)
    label = {QUEUE_LABEL: queue.name}
    older = [create_pytorch_job(admin, namespace, f"pytorch-{number}", **label) for number in range(2)]
    newer = [create_train_job(admin, namespace, f"train-{number}", **label) for number in range(2)]

    for job in older:
        eventually(lambda job=job: "Succeeded" in job.conditions(admin, namespace))
    for job in newer:
        job.wait_until(admin, namespace, "Complete")

    assert at_once == [1, 1, 1, 1]
    eventually(lambda: all("Finished" in conditions for conditions in queue.workloads().values()))
    assert queue.workloads().keys() == {"pytorch-0", "pytorch-1", "train-0", "train-1"}


def test_a_job_that_waits_is_suspended_and_its_workload_has_no_quota(admin, namespace, nodes, new_queue):
    nodes.add_image("example/training", Image(script=endless))
    queue = new_queue(gpus=2)
    first = create_train_job(admin, namespace, "first", **{QUEUE_LABEL: queue.name})
    first.running(admin, namespace)
    second = create_train_job(admin, namespace, "second", **{QUEUE_LABEL: queue.name})
    eventually(lambda: "second" in queue.workloads())

    assert "Admitted" in queue.workloads()["first"]
    assert "QuotaReserved" not in queue.workloads()["second"]
    assert second.read(admin, namespace)["spec"]["suspend"] is True

    first.delete(admin, namespace)
    second.running(admin, namespace)


def test_a_job_of_higher_priority_evicts_one_of_lower_which_runs_again_later(
    admin, namespace, nodes, new_queue
):
    nodes.add_image("example/training", Image(script=endless))
    create_priority(admin, f"{namespace}-low", 1)
    create_priority(admin, f"{namespace}-high", 2)
    queue = new_queue(gpus=2)
    low = create_train_job(
        admin, namespace, "low", **{QUEUE_LABEL: queue.name, PRIORITY_LABEL: f"{namespace}-low"}
    )
    before = low.running(admin, namespace)
    high = create_train_job(
        admin, namespace, "high", **{QUEUE_LABEL: queue.name, PRIORITY_LABEL: f"{namespace}-high"}
    )

    high.running(admin, namespace)

    eventually(lambda: queue.workloads()["low"].get("Evicted") == "Preempted")
    eventually(lambda: low.read(admin, namespace)["spec"]["suspend"] is True)
    eventually(lambda: not low.pods(admin, namespace))
    high.delete(admin, namespace)
    assert not set(before) & set(low.running(admin, namespace))


def test_a_queue_named_default_takes_every_job_of_its_namespace(admin, namespace, nodes, new_queue):
    """A registered job, suspended and without a queue, would be admitted and run."""
    nodes.add_image("example/training", Image(script=endless))
    new_queue("default", gpus=4)

    older = create_pytorch_job(admin, namespace, "older")
    newer = create_train_job(admin, namespace, "newer")

    shown = client.CustomObjectsApi(admin).get_namespaced_custom_object(
        "kubeflow.org", "v1", namespace, "pytorchjobs", "older"
    )
    assert shown["metadata"]["labels"][QUEUE_LABEL] == "default"
    assert newer.read(admin, namespace)["metadata"]["labels"][QUEUE_LABEL] == "default"
    eventually(lambda: "Running" in older.conditions(admin, namespace))
    newer.running(admin, namespace)


def test_without_a_queue_named_default_a_suspended_job_is_left_alone(admin, namespace, nodes, new_queue):
    nodes.add_image("example/training", Image(script=endless))
    queue = new_queue(gpus=2)
    registered = create_train_job(admin, namespace, "registered")
    trial = create_train_job(admin, namespace, "trial", **{QUEUE_LABEL: queue.name})

    trial.running(admin, namespace)

    assert queue.workloads().keys() == {"trial"}
    assert registered.read(admin, namespace)["spec"]["suspend"] is True
    assert QUEUE_LABEL not in registered.read(admin, namespace)["metadata"].get("labels", {})


def test_a_label_with_a_queue_that_does_not_exist_keeps_a_registered_job_out_of_the_default_one(
    admin, namespace, nodes, new_queue
):
    nodes.add_image("example/training", Image(script=endless))
    queue = new_queue("default", gpus=2)
    registered = create_train_job(admin, namespace, "registered", **{QUEUE_LABEL: "none"})
    eventually(lambda: "QuotaReserved" in queue.workloads("False").get("registered", {}))

    trial = create_train_job(admin, namespace, "trial", **{QUEUE_LABEL: "default"})
    trial.running(admin, namespace)

    assert queue.workloads("False")["registered"]["QuotaReserved"] == "Inadmissible"
    assert registered.read(admin, namespace)["spec"]["suspend"] is True


def test_a_child_of_a_queued_job_is_queued_for_itself_only_if_it_is_no_controllers(
    admin, namespace, nodes, new_queue
):
    nodes.add_image("example/training", Image(script=endless))
    queue = new_queue(gpus=4)
    parent = create_train_job(admin, namespace, "parent", **{QUEUE_LABEL: queue.name})
    eventually(lambda: "parent" in queue.workloads())
    uid = parent.read(admin, namespace)["metadata"]["uid"]
    reference = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "name": "parent",
        "uid": uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }
    manifest = TrainJob(
        "child", ("train",), gpus=1, suspend=True, labels={QUEUE_LABEL: queue.name}
    ).manifest()
    manifest["metadata"]["ownerReferences"] = [reference]
    client.CustomObjectsApi(admin).create_namespaced_custom_object(
        "trainer.kubeflow.org", "v1alpha1", namespace, "trainjobs", manifest
    )

    eventually(lambda: "Admitted" in queue.workloads().get("child", {}))
