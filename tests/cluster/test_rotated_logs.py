"""A node keeps only the newest part of a log, and a controller that starts later finds only that."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client

from autotuner.backends.kubernetes import Api, KubernetesBackend
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.job.job import Job
from autotuner.reconcile import reconcile
from autotuner.trial import Outcome
from tests.cluster.tuned_jobs import TunedJob, image_of
from tests.controlplane.waiting import eventually

BEFORE = ["accuracy=0.5 epoch=1", "accuracy=0.95 epoch=2", "accuracy=0.6 epoch=3"]
AFTER = ["accuracy=0.7 epoch=4", "accuracy=0.8 epoch=5"]
KEPT = 40
"""Lines that the node keeps: some seconds."""


class Controller:
    """A controller that reconciles one job when the test asks for it, with its own clock."""

    def __init__(self, control_plane, namespace):
        self.api = Api(control_plane.configuration())
        self.namespace = namespace
        self.ahead = timedelta()
        self.backend = KubernetesBackend(self.api, self.now)

    def now(self):
        return datetime.now(UTC) + self.ahead

    def reconcile(self):
        job = Job.from_manifest(self.api.get(jobs_path(self.namespace, "digits")))
        return reconcile(self.backend, job, self.now()).trials

    def wait_for(self, condition):
        """Reconcile until a condition holds of the trials, which are returned."""

        def met():
            trials = self.reconcile()
            return condition(trials) and trials

        return eventually(met)


@pytest.fixture
def halfway():
    """Whether the run may go on with its second half."""
    return threading.Event()


def test_what_was_measured_before_a_rotation_counts_after_a_restart(
    admin, namespace, nodes, control_plane, halfway
):
    def play(_invocation):
        for line in BEFORE:
            yield 0.05, line
        while not halfway.is_set():
            yield 0.05, "loading the next shard"
        for line in AFTER:
            yield 0.05, line

    nodes.add_image("example/training", image_of(play))
    job = TunedJob().create(admin, namespace)
    job.annotate(run_length=None)  # so that the baseline runs to its end
    first = Controller(control_plane, namespace)
    first.wait_for(lambda trials: len(trials[0].measurements) == 3)
    core = client.CoreV1Api(admin)
    (pod,) = (found.metadata.name for found in core.list_namespaced_pod(namespace).items)
    eventually(lambda: core.read_namespaced_pod_log(pod, namespace).count("\n") > 2 * KEPT)
    # A checkpoint is written a minute after a trial was first seen.
    first.ahead = timedelta(minutes=2)
    first.reconcile()
    nodes.rotate_log(namespace, pod, KEPT)
    assert "accuracy" not in core.read_namespaced_pod_log(pod, namespace)

    second = Controller(control_plane, namespace)
    halfway.set()
    second.wait_for(lambda trials: not trials[0].is_running)

    (baseline, *_) = job.ledger()
    assert [m.value for m in baseline.measurements] == [0.5, 0.95, 0.6, 0.7, 0.8]
    assert baseline.outcome is Outcome.REACHED
