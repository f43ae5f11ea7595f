"""The manifests that are made of a TrainJob are what a cluster accepts, queues and runs."""

import pytest
from kubernetes import client

from autotuner.job.job import Job
from autotuner.job.training_runtime import BUILT_IN, TrainingRuntime
from autotuner.job.trainjob_validation import runtime_reference
from autotuner.job.trial_manifest import answered_job, trial_manifest
from tests.builders import annotations, suggestion
from tests.controlplane.images import Image
from tests.controlplane.train_jobs import API, PLURAL, Runtime, TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer")

BASELINE = {"AUTOTUNER_BATCH_SIZE": "32", "AUTOTUNER_LEARNING_RATE": "0.1", "EMPTY": ""}


def register(admin, namespace, **changed):
    """Create a registered TrainJob, and read it with its runtime as the cluster shows both."""
    job = TrainJob("toy", ("train", "$(AUTOTUNER_BATCH_SIZE)"), environment=BASELINE, suspend=True, **changed)
    shown = job.create(admin, namespace).read(admin, namespace)
    reference = runtime_reference(shown)
    api = client.CustomObjectsApi(admin)
    if reference.kind == "TrainingRuntime":
        runtime = api.get_namespaced_custom_object(*API, namespace, "trainingruntimes", reference.name)
    else:
        runtime = api.get_cluster_custom_object(*API, "clustertrainingruntimes", reference.name)
    return Job.from_manifest(shown, lambda _: TrainingRuntime.from_manifest(runtime))


def create(admin, namespace, manifest):
    client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    return TrainJob(manifest["metadata"]["name"], nodes=manifest["spec"]["trainer"]["numNodes"])


def test_a_trial_runs_with_its_suggestion_on_its_nodes(admin, namespace, nodes):
    seen = []

    def train(invocation):
        seen.append((invocation.arguments, invocation.environment))
        yield 0.1, "accuracy=0.9"

    nodes.add_image("example/training", Image(script=train))
    registered = register(admin, namespace, annotations=annotations())

    trial = create(admin, namespace, trial_manifest(registered, suggestion(3, batch_size=64, workers=2)))
    trial.wait_until(admin, namespace, "Complete")

    assert [arguments for arguments, _ in seen] == [("train", "64")] * 2
    assert {environment["AUTOTUNER_SEED"] for _, environment in seen} == {"3"}
    assert {environment["PET_NNODES"] for _, environment in seen} == {"2"}


def test_the_released_runtime_is_the_one_that_is_built_in(admin, namespace):
    registered = register(admin, namespace, annotations=annotations())
    built_in = BUILT_IN[registered.kind.runtime.reference]
    fields = ("replicated_job", "nodes", "is_torch", "retries_failures")
    assert [getattr(registered.kind.runtime, f) for f in fields] == [getattr(built_in, f) for f in fields]


def test_a_runtime_of_the_namespace_is_read_as_well(admin, namespace):
    runtime = Runtime().create(admin, namespace)
    registered = register(admin, namespace, annotations=annotations(), runtime=runtime)
    assert not registered.kind.runtime.retries_failures
    assert trial_manifest(registered, suggestion())["spec"]["runtimeRef"]["kind"] == "TrainingRuntime"


def test_a_queued_trial_is_admitted_and_runs(admin, namespace, nodes, new_queue):
    def train(_invocation):
        yield 0.1, "accuracy=0.9"

    nodes.add_image("example/training", Image(script=train))
    queue = new_queue(gpus=2)
    registered = register(admin, namespace, annotations=annotations(queue=queue.name), gpus=1)

    trial = create(admin, namespace, trial_manifest(registered, suggestion(workers=2)))
    trial.wait_until(admin, namespace, "Complete")

    assert "Admitted" in queue.workloads()[trial.name]
    assert "toy" not in queue.workloads()


def test_the_answer_becomes_a_job_beside_the_registered_one(admin, namespace, nodes):
    def train(_invocation):
        yield 0.1, "accuracy=0.9"

    nodes.add_image("example/training", Image(script=train))
    registered = register(admin, namespace, annotations=annotations())

    answer = create(admin, namespace, answered_job(registered, suggestion(batch_size=128, workers=1)))
    answer.wait_until(admin, namespace, "Complete")

    assert answer.name == "toy-tuned"
    eventually(lambda: "Suspended" in TrainJob("toy").conditions(admin, namespace))
