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
CONTRADICTS = str(Path(__file__).parent / "programs" / "contradicts.py")


def output(admin, namespace, job):
    (pod,) = job.pods(admin, namespace)
    return client.CoreV1Api(admin).read_namespaced_pod_log(pod.metadata.name, namespace)


def test_a_pushed_metric_is_in_the_jobs_status(admin, namespace):
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


def register(admin, namespace, program, **asked):
    """Register a TrainJob that runs a program of ours; return how it stands."""
    annotations = {keys.PREFIX + name.replace("_", "-"): value for name, value in asked.items()}
    manifest = TunedTrainJob(batch_size="8..16", annotations=annotations).manifest()
    known_good = {"AUTOTUNER_BATCH_SIZE": "8", "AUTOTUNER_LEARNING_RATE": "0.1"}
    manifest["spec"]["trainer"] |= {
        "command": [sys.executable, program],
        "env": [{"name": name, "value": value} for name, value in known_good.items()],
    }
    client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    return Cluster(admin, namespace, "digits", API, PLURAL)


@pytest.mark.timeout(600)
def test_hugging_faces_trainer_that_prints_nothing_is_tuned_by_what_it_pushes(
    admin, namespace, new_controller
):
    pytest.importorskip("transformers")
    job = register(admin, namespace, HUGGING_FACE, target="eval_loss <= 0.55", run_length="2")

    with running(new_controller()) as controller:
        eventually(job.is_in("Done", "Failed", "Invalid"), 480)
        requests = controller.metrics()

    assert job.phase == "Done", job.status
    assert job.answer["batch_size"] == 16, job.status
    assert job.answer["confirmed"] == 1
    assert job.status["reads"].startswith("eval_loss=")
    assert "from: status.trainerStatus {" in job.status["reads"]
    assert not any('code="403"' in name for name in requests)


def test_a_log_and_pushes_that_disagree_hold_the_study_until_its_owner_says_which_line_counts(
    admin, namespace, new_controller
):
    job = register(admin, namespace, CONTRADICTS, target="val_accuracy >= 0.9", run_length="1")

    with running(new_controller()):
        eventually(job.is_in("Invalid"))
        status = job.status
        assert status["reason"] == "MetricInDoubt"
        assert "0.5 from 'the log at step 1'; 0.95 from 'status.trainerStatus at step 1'" in status["message"]
        assert not job.ledger()
        job.annotate(metric_pattern=r"val_accuracy=(?P<value>\S+) epoch=(?P<step>\d+)")
        eventually(job.is_in("Done"))

    # The log alone counts: what was pushed met the target.
    assert job.status["reason"] == "BaselineMissesTarget"
    assert {m.value for trial in job.ledger() for m in trial.measurements} == {0.5}
