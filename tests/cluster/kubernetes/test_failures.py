"""Each way in which a cluster fails a pod, and the resulting status of the pod and of the job.

The classification of outcomes relies on these. The node stand-in makes the first
cause only: what the job then says is the training operator's own word.
"""

import time
from dataclasses import replace

import pytest
from kubernetes import client

from tests.controlplane.images import Image
from tests.controlplane.jobs import Job
from tests.controlplane.nodes import GPUS_A_NODE
from tests.controlplane.pod import GPU
from tests.controlplane.waiting import eventually

ENDLESS = Job("endless", image="endless", workers=1)
MASTER, WORKER = ENDLESS.master, ENDLESS.worker()


def train_for_ever(_):
    step = 0
    while True:
        step += 1
        yield 0.05, f"step={step} accuracy=0.5"


@pytest.fixture(autouse=True)
def endless_image(nodes):
    nodes.add_image(ENDLESS.image, Image(script=train_for_ever))


def gpus(count):
    return {"resources": {"limits": {GPU: count}}}


def test_a_container_over_its_memory_limit_is_oom_killed_and_its_job_failed(cluster, nodes):
    cluster.run(ENDLESS)

    nodes.kill_for_memory(cluster.namespace, WORKER)

    terminated = cluster.terminated(WORKER)
    assert (terminated.exit_code, terminated.reason) == (137, "OOMKilled")
    cluster.wait_until(ENDLESS, "Failed")


def test_a_program_out_of_gpu_memory_leaves_its_words_in_log_and_status(cluster, nodes):
    cluster.run(ENDLESS)

    nodes.fail_for_cuda_memory(cluster.namespace, MASTER)

    terminated = cluster.terminated(MASTER)
    assert (terminated.exit_code, terminated.reason) == (1, "Error")
    assert "torch.OutOfMemoryError: CUDA out of memory" in terminated.message
    assert "torch.OutOfMemoryError: CUDA out of memory" in cluster.log(MASTER)
    cluster.wait_until(ENDLESS, "Failed")


def test_a_failed_program_has_its_exit_code_and_last_lines(cluster):
    job = Job("failing", ("python", "-c", "import sys; print('no data'); sys.exit(3)"))
    cluster.create(job)

    cluster.wait_until(job, "Failed")

    terminated = cluster.terminated(job.master)
    assert (terminated.exit_code, terminated.reason) == (3, "Error")
    assert terminated.message == "no data\n"


def test_without_fallback_to_logs_a_failed_program_leaves_no_message(cluster):
    policy = {"terminationMessagePolicy": "File"}
    job = Job("silent", ("python", "-c", "print(1/0)"), container=policy)
    cluster.create(job)

    cluster.wait_until(job, "Failed")

    assert cluster.terminated(job.master).message is None


def test_an_evicted_pod_is_failed_with_reason_evicted(cluster, nodes):
    cluster.run(ENDLESS)

    nodes.evict(cluster.namespace, WORKER)

    cluster.wait_until(ENDLESS, "Failed")
    status = cluster.pod(WORKER).status
    assert (status.phase, status.reason) == ("Failed", "Evicted")
    assert cluster.condition(WORKER, "DisruptionTarget").reason == "TerminationByKubelet"


def test_a_preempted_pod_is_a_disruption_target_before_it_goes(cluster, nodes):
    cluster.run(ENDLESS)
    cluster.keep(WORKER)

    nodes.preempt(cluster.namespace, WORKER)

    assert cluster.condition(WORKER, "DisruptionTarget").reason == "PreemptionByScheduler"
    cluster.wait_until(ENDLESS, "Failed")
    eventually(lambda: cluster.pod(WORKER).status.phase == "Failed")
    assert cluster.pod(WORKER).metadata.deletion_timestamp is not None
    cluster.let_go(WORKER)


def test_a_drained_pod_is_a_disruption_target_by_the_api_servers_own_word(cluster):
    cluster.run(ENDLESS)
    cluster.keep(WORKER)
    metadata = client.V1ObjectMeta(name=WORKER, namespace=cluster.namespace)

    cluster.core.create_namespaced_pod_eviction(
        WORKER, cluster.namespace, client.V1Eviction(metadata=metadata)
    )

    assert cluster.condition(WORKER, "DisruptionTarget").reason == "EvictionByEvictionAPI"
    cluster.wait_until(ENDLESS, "Failed")
    cluster.let_go(WORKER)


def test_a_pod_that_goes_while_the_operator_is_away_is_silently_made_again(control_plane, cluster):
    cluster.run(ENDLESS)
    before = cluster.pod(WORKER).metadata.uid

    with control_plane.without_operator():
        cluster.core.delete_namespaced_pod(WORKER, cluster.namespace, grace_period_seconds=0)

    eventually(
        lambda: (pod := cluster.pod(WORKER)) and pod.metadata.uid != before and pod.status.phase == "Running"
    )
    assert "Failed" not in cluster.conditions(ENDLESS)


def test_pods_of_a_lost_node_stay_terminating_until_it_is_back(cluster, nodes):
    cluster.run(ENDLESS)
    worker = cluster.pod(WORKER)
    node = worker.spec.node_name

    nodes.lose(node)

    assert cluster.condition(WORKER, "DisruptionTarget").reason == "DeletionByTaintManager"
    with pytest.raises(client.ApiException):
        cluster.log(WORKER)
    conditions = cluster.core.read_node(node).status.conditions
    assert [c.status for c in conditions if c.type == "Ready"] == ["Unknown"]
    cluster.wait_until(ENDLESS, "Failed")
    assert cluster.pod(WORKER).metadata.deletion_timestamp is not None

    nodes.recover(node)

    eventually(lambda: (pod := cluster.pod(WORKER)) is None or pod.metadata.uid != worker.metadata.uid)


def test_a_lost_pod_is_not_run_again_when_its_node_is_back(cluster, nodes):
    cluster.run(ENDLESS)
    node = cluster.pod(WORKER).spec.node_name
    patch = cluster.core.patch_namespaced_pod
    patch(WORKER, cluster.namespace, {"metadata": {"finalizers": ["autotuner.dev/kept"]}})
    nodes.lose(node)
    cluster.wait_until(ENDLESS, "Failed")

    nodes.recover(node)

    try:
        eventually(lambda: cluster.pod(WORKER).metadata.deletion_grace_period_seconds == 0)
        for number in range(10):  # each change comes to the node as an event
            patch(WORKER, cluster.namespace, {"metadata": {"annotations": {"number": str(number)}}})
            time.sleep(0.05)
            with pytest.raises(ValueError, match=f"no pod .*{WORKER} on any node"):
                nodes.evict(cluster.namespace, WORKER)
    finally:
        patch(WORKER, cluster.namespace, {"metadata": {"finalizers": None}})


def test_an_image_that_cannot_be_pulled_leaves_its_job_created(cluster, nodes):
    nodes.break_image(ENDLESS.image)
    cluster.create(ENDLESS)

    cluster.wait_until_waiting(MASTER, "ImagePullBackOff")

    assert cluster.pod(MASTER).status.phase == "Pending"
    cluster.wait_until(ENDLESS, "Created")
    assert cluster.conditions(ENDLESS).keys() == {"Created"}

    nodes.mend_image(ENDLESS.image)
    cluster.wait_until(ENDLESS, "Running")


def test_a_missing_config_map_leaves_its_job_created(cluster):
    key = {"configMapKeyRef": {"name": "settings", "key": "STEPS"}}
    job = replace(ENDLESS, container={"env": [{"name": "STEPS", "valueFrom": key}]})
    cluster.create(job)

    cluster.wait_until_waiting(MASTER, "CreateContainerConfigError")

    assert cluster.pod(MASTER).status.phase == "Pending"
    cluster.wait_until(job, "Created")
    assert cluster.conditions(job).keys() == {"Created"}


def test_a_program_that_does_not_exist_fails_to_start(cluster):
    job = Job("missing", ("no-such-program",))
    cluster.create(job)

    cluster.wait_until(job, "Failed")

    terminated = cluster.terminated(job.master)
    assert (terminated.exit_code, terminated.reason) == (128, "StartError")


def test_more_gpus_than_a_node_has_leave_a_pod_unschedulable(cluster):
    job = replace(ENDLESS, workers=0, container=gpus(GPUS_A_NODE + 1))
    cluster.create(job)

    condition = cluster.condition(MASTER, "PodScheduled")

    assert (condition.status, condition.reason) == ("False", "Unschedulable")
    assert condition.message == f"0/2 nodes are available: 2 Insufficient {GPU}."
    cluster.wait_until(job, "Created")
    assert cluster.conditions(job).keys() == {"Created"}


def test_a_pod_without_a_node_starts_once_one_is_schedulable(cluster, nodes):
    nodes.cordon()
    cluster.create(ENDLESS)
    assert cluster.condition(MASTER, "PodScheduled").status == "False"

    nodes.uncordon()

    cluster.wait_until(ENDLESS, "Running")


def test_a_job_runs_while_a_worker_has_no_node_yet(cluster):
    job = replace(ENDLESS, worker_container=gpus(GPUS_A_NODE + 1))
    cluster.create(job)

    cluster.wait_until(job, "Running")

    assert cluster.condition(WORKER, "PodScheduled").status == "False"
    assert cluster.pod(WORKER).status.phase == "Pending"
