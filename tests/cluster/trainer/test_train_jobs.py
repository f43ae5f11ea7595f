"""TrainJobs run through Trainer, JobSet, the Job controller and the node stand-in."""

from dataclasses import replace
from pathlib import Path

import pytest
from kubernetes import client

from tests.controlplane.images import Image
from tests.controlplane.train_jobs import Runtime, TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer")

DDP = Path(__file__).parents[1] / "kubernetes" / "programs" / "ddp.py"
TRAINING = TrainJob(
    "ddp",
    ("torchrun", str(DDP)),
    nodes=2,
    environment={"STEPS": "20"},
    trainer={"numProcPerNode": 1},
)


def endless(_invocation):
    yield 0.1, "step=1 accuracy=0.5"
    yield 3600, "never"


def log(admin, namespace, pod):
    return client.CoreV1Api(admin).read_namespaced_pod_log(pod, namespace)


def test_two_nodes_train_to_completion_and_deleting_the_job_removes_its_pods(admin, namespace):
    TRAINING.create(admin, namespace)

    TRAINING.wait_until(admin, namespace, "Complete")

    master, other = TRAINING.pods(admin, namespace)
    first, *_, last = log(admin, namespace, master.metadata.name).splitlines()
    assert first.startswith("step=1 world=2 loss=")
    assert last.startswith("step=20 world=2 loss=")
    assert log(admin, namespace, other.metadata.name) == ""
    assert other.metadata.name.startswith("ddp-node-0-1-")
    (status,) = TRAINING.read(admin, namespace)["status"]["jobsStatus"]
    assert (status["name"], status["succeeded"], status["failed"]) == ("node", 1, 0)

    TRAINING.delete(admin, namespace)
    eventually(lambda: not client.CoreV1Api(admin).list_namespaced_pod(namespace).items)


def test_two_jobs_train_at_once_without_meeting_on_a_port(admin, namespace):
    jobs = [replace(TRAINING, name=f"ddp-{number}") for number in range(2)]
    for job in jobs:
        job.create(admin, namespace)

    for job in jobs:
        job.wait_until(admin, namespace, "Complete")

    for job in jobs:
        assert "step=20 world=2" in log(admin, namespace, job.pods(admin, namespace)[0].metadata.name)


def test_a_node_gets_its_place_in_the_order_of_the_trainer(admin, namespace, nodes):
    seen = {}

    def look(invocation):
        seen[invocation.environment["PET_NODE_RANK"]] = dict(invocation.environment), invocation.arguments
        yield 0.1, "looked"

    nodes.add_image("example/training", Image(script=look))
    environment = {"BATCH": "64", "ARGUMENT": "--batch=$(BATCH)"}
    job = TrainJob("env", ("train", "$(ARGUMENT)"), nodes=2, environment=environment, gpus=3)
    job.create(admin, namespace)
    job.wait_until(admin, namespace, "Complete")

    (first, arguments), (second, _) = seen["0"], seen["1"]
    assert arguments == ("train", "--batch=64")
    assert first["PET_MASTER_ADDR"] == "127.0.0.1"
    assert first["PET_MASTER_PORT"] == second["PET_MASTER_PORT"] != "29500"
    # With GPUs and no number of processes, Trainer leaves their number to torchrun.
    assert (first["PET_NNODES"], first["PET_NPROC_PER_NODE"]) == ("2", "auto")
    assert (first["JOB_COMPLETION_INDEX"], second["JOB_COMPLETION_INDEX"]) == ("0", "1")
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & first.keys()


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        ({"requests": {"cpu": "3"}}, "3"),
        ({"requests": {"cpu": "1500m"}}, "2"),
        ({"limits": {"cpu": "2"}}, "2"),
        ({}, "1"),
    ],
)
def test_without_gpus_a_node_runs_as_many_processes_as_it_asks_for_processors(
    admin, namespace, nodes, resources, processes
):
    seen = []

    def look(invocation):
        seen.append(invocation.environment["PET_NPROC_PER_NODE"])
        yield 0.1, "looked"

    nodes.add_image("example/training", Image(script=look))
    job = TrainJob("cpu", ("train",), trainer={"resourcesPerNode": resources}).create(admin, namespace)
    job.wait_until(admin, namespace, "Complete")

    assert seen == [processes]


def test_a_node_that_fails_fails_the_job_where_the_runtime_allows_no_retries(admin, namespace, nodes):
    nodes.add_image("example/training", Image(script=endless))
    runtime = Runtime().create(admin, namespace)
    job = TrainJob("fails", ("train",), nodes=2, runtime=runtime).create(admin, namespace)
    first, second = job.running(admin, namespace)

    nodes.crash(namespace, second, 3, "RuntimeError: no data\n")
    job.wait_until(admin, namespace, "Failed")

    assert job.conditions(admin, namespace) == {"Failed": "FailedJobs"}
    pod = client.CoreV1Api(admin).read_namespaced_pod(second, namespace)
    assert pod.status.container_statuses[0].state.terminated.exit_code == 3
    assert log(admin, namespace, second).endswith("RuntimeError: no data\n")
    # The Job ends the other node with it.
    eventually(lambda: first not in {p.metadata.name for p in job.pods(admin, namespace)})


def test_the_released_runtime_starts_a_failed_container_again_in_its_pod(admin, namespace, nodes):
    nodes.add_image("example/training", Image(script=endless))
    job = TrainJob("again", ("train",)).create(admin, namespace)
    (pod,) = job.running(admin, namespace)

    nodes.crash(namespace, pod, 1, "RuntimeError: no data\n")

    def restarted():
        found = client.CoreV1Api(admin).read_namespaced_pod(pod, namespace)
        return found.status.container_statuses[0].restart_count == 1 and found.status.phase == "Running"

    eventually(restarted)
    assert not job.conditions(admin, namespace).keys() & {"Failed", "Complete"}
    previous = client.CoreV1Api(admin).read_namespaced_pod_log(pod, namespace, previous=True)
    assert previous.endswith("RuntimeError: no data\n")


def test_a_job_set_that_starts_again_has_pods_of_another_attempt(admin, namespace, nodes):
    nodes.add_image("example/training", Image(script=endless))
    runtime = Runtime(max_restarts=1).create(admin, namespace)
    job = TrainJob("restarts", ("train",), nodes=2, runtime=runtime).create(admin, namespace)
    before = job.running(admin, namespace)
    label = "jobset.sigs.k8s.io/restart-attempt"
    assert {pod.metadata.labels[label] for pod in job.pods(admin, namespace)} == {"0"}

    nodes.crash(namespace, before[0], 1, "")
    eventually(lambda: {pod.metadata.labels[label] for pod in job.pods(admin, namespace)} == {"1"})
    after = job.running(admin, namespace)

    assert not set(before) & set(after)


def test_a_preempted_node_is_made_again_with_the_same_index(admin, namespace, nodes):
    nodes.add_image("example/training", Image(script=endless))
    runtime = Runtime(backoff_limit=1).create(admin, namespace)
    job = TrainJob("preempted", ("train",), nodes=2, runtime=runtime).create(admin, namespace)
    first, second = job.running(admin, namespace)

    nodes.preempt(namespace, second)

    eventually(lambda: second not in {p.metadata.name for p in job.pods(admin, namespace)})
    same, other = job.running(admin, namespace)
    assert same == first
    assert other.startswith("preempted-node-0-1-")


def test_suspending_a_job_removes_its_pods_and_resuming_it_runs_it_afresh(admin, namespace, nodes):
    nodes.add_image("example/training", Image(script=endless))
    job = TrainJob("pause", ("train",), nodes=2, suspend=True).create(admin, namespace)
    eventually(lambda: "Suspended" in job.conditions(admin, namespace))
    assert not job.pods(admin, namespace)

    job.patch(admin, namespace, {"spec": {"suspend": False}})
    before = job.running(admin, namespace)
    job.patch(admin, namespace, {"spec": {"suspend": True}})
    eventually(lambda: not job.pods(admin, namespace))
    eventually(lambda: "Suspended" in job.conditions(admin, namespace))
    job.patch(admin, namespace, {"spec": {"suspend": False}})
    after = job.running(admin, namespace)

    assert not set(before) & set(after)


def test_what_is_asked_of_the_trainer_cannot_be_changed(admin, namespace):
    job = TrainJob("fixed", ("train",), suspend=True).create(admin, namespace)

    with pytest.raises(client.ApiException) as refused:
        job.patch(admin, namespace, {"spec": {"trainer": {"numNodes": 2}}})

    assert refused.value.status == 422
    assert "field is immutable" in str(refused.value.body)


def test_dropping_an_empty_list_counts_as_a_change_of_the_trainer(admin, namespace):
    """Kueue drops it when it admits a job, so it can never start one that has it."""
    job = TrainJob("empty", ("train",), suspend=True, trainer={"env": []}).create(admin, namespace)
    manifest = job.read(admin, namespace)
    del manifest["spec"]["trainer"]["env"]

    with pytest.raises(client.ApiException, match="field is immutable"):
        client.CustomObjectsApi(admin).replace_namespaced_custom_object(
            "trainer.kubeflow.org", "v1alpha1", namespace, "trainjobs", "empty", manifest
        )


def test_a_job_of_an_unknown_runtime_is_refused(admin, namespace):
    with pytest.raises(client.ApiException, match="none-such"):
        TrainJob("lost", ("train",), runtime="none-such").create(admin, namespace)
