"""Training processes push their metrics to Trainer's status server (KEP-2779)."""

import sys
from pathlib import Path

import pytest
from kubernetes import client

from autotuner import keys
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import Cluster, TunedTrainJob
from tests.controlplane.train_jobs import API, PLURAL, TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer")

PUSH = str(Path(__file__).parent / "programs" / "push.py")
HUGGING_FACE = str(Path(__file__).parent / "programs" / "huggingface.py")


def output(admin, namespace, job):
    (pod,) = job.pods(admin, namespace)
    return client.CoreV1Api(admin).read_namespaced_pod_log(pod.metadata.name, namespace)


def test_a_pushed_metric_stands_in_the_jobs_status(admin, namespace):
    job = TrainJob("pushes", (sys.executable, PUSH)).create(admin, namespace)
    job.wait_until(admin, namespace, "Complete")

    assert output(admin, namespace, job) == "status=200\n"
    pushed = job.read(admin, namespace)["status"]["trainerStatus"]
    assert pushed["metrics"] == [{"name": "accuracy", "value": "0.75"}, {"name": "step", "value": "3"}]
    assert pushed["progressPercentage"] == 50


def test_the_token_of_one_job_does_not_write_the_status_of_another(admin, namespace):
    victim = TrainJob("victim", ("sleep", "3600"), suspend=True).create(admin, namespace)
    job = TrainJob("pushes", (sys.executable, PUSH, "victim"), environment={"OWN_NAME": "pushes"}).create(
        admin, namespace
    )
    job.wait_until(admin, namespace, "Complete")

    assert output(admin, namespace, job) == "status=403\n"
    assert "trainerStatus" not in victim.read(admin, namespace).get("status", {})


def test_hugging_faces_trainer_pushes_what_it_evaluates_and_its_log_says_nothing_of_it(admin, namespace):
    pytest.importorskip("transformers")
    job = TrainJob("face", (sys.executable, HUGGING_FACE)).create(admin, namespace)
    job.wait_until(admin, namespace, "Complete")

    assert "eval_accuracy" not in output(admin, namespace, job)
    status = job.read(admin, namespace)["status"]["trainerStatus"]
    pushed = {metric["name"]: float(metric["value"]) for metric in status["metrics"]}
    assert status["progressPercentage"] == 100
    assert 0.5 < pushed["eval_accuracy"] <= 1
    # The last push, at the end of the training, has the epoch of the values, and no step.
    assert pushed["epoch"] == 2
    assert "current_step" not in pushed


@pytest.mark.timeout(600)
def test_hugging_faces_trainer_that_prints_nothing_is_tuned_by_what_it_pushes(
    admin, namespace, new_controller
):
    pytest.importorskip("transformers")
    asked = {keys.TARGET: "eval_loss <= 0.55", keys.PREFIX + "run-length": "2"}
    manifest = TunedTrainJob(batch_size="8..16", annotations=asked).manifest()
    known_good = {"AUTOTUNER_BATCH_SIZE": "8", "AUTOTUNER_LEARNING_RATE": "0.1"}
    manifest["spec"]["trainer"] |= {
        "command": [sys.executable, HUGGING_FACE],
        "env": [{"name": name, "value": value} for name, value in known_good.items()],
    }
    client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    job = Cluster(admin, namespace, "digits", API, PLURAL)

    with running(new_controller()) as controller:
        eventually(job.is_in("Done", "Failed", "Invalid"), 480)
        requests = controller.metrics()

    assert job.phase == "Done", job.status
    assert job.answer["batch_size"] == 16, job.status
    assert job.answer["confirmed"] == 1
    assert job.status["reads"].startswith("eval_loss=")
    assert "from: status.trainerStatus {" in job.status["reads"]
    assert not any('code="403"' in name for name in requests)
