"""A trial ends with its training container, whatever the other containers of its pods do."""

import json
from dataclasses import replace

import pytest
from kubernetes import client

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, Cluster, TunedJob, image_of, learner
from tests.controlplane.waiting import eventually


def proxy(_):
    """Run as a mesh's proxy does: until it is asked to end."""
    yield 36_000, "never"


def failing(_):
    yield 0.5, "accuracy=0.5 epoch=1"
    yield 0.1, "ValueError: no such column"
    return 3


def create(admin, namespace, job):
    # A copy: the replicas share their containers.
    manifest = json.loads(json.dumps(job.manifest()))
    for replica in manifest["spec"]["pytorchReplicaSpecs"].values():
        containers = replica["template"]["spec"]["containers"]
        containers.insert(0, {"name": "istio-proxy", "image": "example/proxy", "command": ["proxy"]})
    client.CustomObjectsApi(admin).create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    return Cluster(admin, namespace, job.name)


@pytest.fixture
def job(nodes):
    nodes.add_image("example/proxy", image_of(proxy))
    nodes.add_image("example/training", image_of(learner(largest=1)))
    # Longer than the run, or the trial is stopped at its last step.
    return TunedJob(workers=1, batch_size="256..256", annotations={keys.PREFIX + "run-length": "9"})


def trial_zero(job):
    return eventually(lambda: next((t for t in job.ledger() if t.number == 0), None))


def test_a_sidecar_that_never_ends_does_not_hold_up_its_trial(admin, namespace, job, new_controller):
    made = create(admin, namespace, job)
    with running(new_controller(resync_seconds=3600)):
        trial = trial_zero(made)
        eventually(lambda: "0" not in {t["metadata"]["name"][-1] for t in made.trial_jobs()})

    assert trial.outcome is Outcome.MISSED
    assert trial.is_complete
    assert len(trial.measurements) == 4


def test_a_failed_trial_beside_a_sidecar_tells_its_exit_code(admin, namespace, nodes, job, new_controller):
    nodes.add_image("example/training", image_of(failing))
    made = create(admin, namespace, replace(job, workers=0))
    with running(new_controller(resync_seconds=3600)):
        trial = trial_zero(made)

    assert trial.outcome is Outcome.FAILED
    assert trial.message.startswith("exit code 3:")
    assert "ValueError: no such column" in trial.message
