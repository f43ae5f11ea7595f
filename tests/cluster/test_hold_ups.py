"""A hold-up of a trial is reported with the cluster's own message, and the trial starts once it is over."""

import json

import pytest
from kubernetes import client

from autotuner import keys
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, Cluster, TunedJob, image_of, learner
from tests.controlplane.waiting import eventually

PATIENCE = {"start_patience_seconds": 1, "resync_seconds": 2}
CLUSTER_LINE = 'autotuner_trials_held_up{{reason="{}"}}'


@pytest.fixture
def tuned(nodes):
    nodes.add_image("example/training", image_of(learner(largest=4096)))
    return TunedJob(batch_size="256..256")


def create(admin, namespace, tuned, **pod):
    """Create a job whose pods have these fields as well."""
    manifest = json.loads(json.dumps(tuned.manifest()))
    for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
        replica["template"]["spec"] |= pod
    client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    return Cluster(admin, namespace, tuned.name)


def set_quota(admin, namespace, pods):
    """Set a quota on pods, and its status, which no controller of a quota computes here."""
    core = client.CoreV1Api(admin)
    spec = {"spec": {"hard": {"pods": pods}}}
    if core.list_namespaced_resource_quota(namespace).items:
        core.patch_namespaced_resource_quota("team", namespace, spec)
    else:
        core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "team"}, **spec})
    status = {"status": {"hard": {"pods": pods}, "used": {"pods": "0"}}}
    core.patch_namespaced_resource_quota_status("team", namespace, status)


def message(job):
    return job.status.get("message", "")


def told(controller, job, reason):
    """Wait until status, Events and metrics tell a hold-up; return the status message."""
    eventually(lambda: f"trial 0 is held up ({reason})" in message(job))
    eventually(lambda: "TrialHeldUp" in job.events())
    eventually(lambda: controller.metrics().get(CLUSTER_LINE.format(reason)) == 1)
    return message(job)


def test_a_quota_that_forbids_pods_is_reported_until_it_is_lifted(admin, namespace, tuned, new_controller):
    set_quota(admin, namespace, "0")
    job = create(admin, namespace, tuned)
    with running(new_controller(**PATIENCE)) as controller:
        said = told(controller, job, "NoPod")
        assert "0 of 1 pods have been created" in said
        eventually(lambda: "exceeded quota: team" in message(job))
        # One hold-up is one Event, however often it is seen.
        assert job.events().count("TrialHeldUp") == 1
        set_quota(admin, namespace, "9")
        eventually(job.is_in("Done"))
        eventually(lambda: controller.metrics()[CLUSTER_LINE.format("NoPod")] == 0)
    assert "held up" not in message(job)


def test_an_init_container_that_does_not_end_is_a_hold_up_and_no_run(
    admin, namespace, nodes, tuned, new_controller
):
    def fetch(_):
        yield 36_000, "never"

    nodes.add_image("example/fetch", image_of(fetch))
    init = [{"name": "fetch", "image": "example/fetch", "command": ["fetch"]}]
    timeout = {keys.PREFIX + "trial-timeout": "1s"}
    job = create(admin, namespace, TunedJob(batch_size="256..256", annotations=timeout), initContainers=init)
    with running(new_controller(**PATIENCE)) as controller:
        said = told(controller, job, "Initializing")
    assert "its init container fetch still runs" in said
    assert not job.ledger()


def test_a_pod_that_no_node_takes_is_reported(admin, namespace, tuned, new_controller):
    job = create(admin, namespace, tuned, nodeSelector={"gpu": "h100"})
    with running(new_controller(**PATIENCE)) as controller:
        said = told(controller, job, "Unschedulable")
    assert "nodes are available" in said


def test_a_queue_that_does_not_admit_is_reported(admin, namespace, tuned, new_controller):
    queued = {keys.QUEUE: "team-a"}
    job = create(admin, namespace, TunedJob(batch_size="256..256", annotations=queued))
    with running(new_controller(**PATIENCE)) as controller:
        said = told(controller, job, "Queued")
        # Kueue's Workloads may not be read: that is asked once, and no pass fails of it.
        assert controller.metrics()["autotuner_reconcile_errors_total"] == 0
    assert "it waits in queue team-a" in said
