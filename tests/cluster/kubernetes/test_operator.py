"""What the training operator makes of a job's policies, where the tuner's trials rely on it."""

import pytest
from kubernetes import client

from tests.controlplane.images import Image
from tests.controlplane.jobs import API, PLURAL, Job
from tests.controlplane.waiting import eventually

ENDLESS = "endless"


@pytest.fixture(autouse=True)
def endless_image(nodes):
    def train_for_ever(_):
        while True:
            yield 0.5, "accuracy=0.5"

    nodes.add_image(ENDLESS, Image(script=train_for_ever))


def suspend(cluster, job, is_suspended):
    client.CustomObjectsApi(cluster.admin).patch_namespaced_custom_object(
        *API, cluster.namespace, PLURAL, job.name, {"spec": {"runPolicy": {"suspend": is_suspended}}}
    )


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        (Job("1-starts-with-a-digit", image=ENDLESS), "DNS-1035"),
        (Job("no-image", image=""), "image"),
        (Job("misnamed", image=ENDLESS, container={"name": "trainer"}), "pytorch"),
    ],
)
def test_the_webhook_refuses_what_could_not_run(cluster, job, complaint):
    with pytest.raises(client.ApiException, match=complaint) as refusal:
        cluster.create(job)
    assert refusal.value.status in (403, 422)


@pytest.mark.parametrize(("policy", "worker_stays"), [("None", True), ("Running", False)])
def test_the_masters_success_ends_the_job_and_the_policy_says_what_of_its_workers(
    cluster, nodes, policy, worker_stays
):
    job = Job("ends", image=ENDLESS, workers=1, clean_pod_policy=policy)
    cluster.run(job)

    nodes.crash(cluster.namespace, job.master, 0, "done\n")

    cluster.wait_until(job, "Succeeded")
    if worker_stays:
        assert cluster.pod(job.worker()).status.phase == "Running"
    else:
        eventually(lambda: cluster.pod(job.worker()) is None)
        assert cluster.log(job.master).endswith("done\n")


def test_an_exit_code_of_128_or_more_is_retried_and_a_lower_one_final(cluster, nodes):
    job = Job("coded", image=ENDLESS, restart_policy="ExitCode")
    cluster.run(job)
    first = cluster.pod(job.master).metadata.uid

    nodes.crash(cluster.namespace, job.master, 137, "")
    eventually(
        lambda: (
            (pod := cluster.pod(job.master)) and pod.metadata.uid != first and pod.status.phase == "Running"
        )
    )
    assert "Failed" not in cluster.conditions(job)

    nodes.crash(cluster.namespace, job.master, 1, "")
    cluster.wait_until(job, "Failed")


def test_suspending_a_job_removes_its_pods_and_resuming_it_starts_afresh(cluster):
    job = Job("paused", image=ENDLESS)
    cluster.run(job)
    first = cluster.pod(job.master).metadata.uid

    suspend(cluster, job, is_suspended=True)
    eventually(lambda: cluster.pod(job.master) is None)
    assert "Suspended" in cluster.conditions(job)

    suspend(cluster, job, is_suspended=False)
    eventually(lambda: (pod := cluster.pod(job.master)) and pod.status.phase == "Running")
    assert cluster.pod(job.master).metadata.uid != first
    cluster.wait_until(job, "Running")
