"""Training processes push their metrics to Trainer's status server (KEP-2779)."""

import sys
from pathlib import Path

import pytest
from kubernetes import client

from tests.controlplane.train_jobs import TrainJob

pytestmark = pytest.mark.usefixtures("trainer")

PUSH = str(Path(__file__).parent / "programs" / "push.py")


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
