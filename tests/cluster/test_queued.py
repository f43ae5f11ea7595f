"""Trials that wait in a queue: whoever admits them, as Kueue does, decides when they run, at no cost.

Kueue admits a PyTorchJob by unsuspending it, and evicts it by suspending it again (kueue.sigs.k8s.io,
"Run PyTorchJobs"). The tests do just that.
"""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, TunedJob, image_of, learner
from tests.controlplane.waiting import eventually

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
TIMEOUT = timedelta(seconds=4)


@pytest.fixture
def queued(admin, namespace, nodes):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.5)))
    annotations = {keys.QUEUE: "team-a", keys.PREFIX + "trial-timeout": f"{TIMEOUT.seconds}s"}
    return TunedJob(annotations=annotations).create(admin, namespace)


def suspend(job, trial, suspended):
    """Do as Kueue does; a trial that the controller has removed meanwhile is passed over."""
    policy = {"spec": {"runPolicy": {"suspend": suspended}}}
    with contextlib.suppress(client.ApiException):
        client.CustomObjectsApi(job.admin).patch_namespaced_custom_object(
            *API, job.namespace, PLURAL, trial["metadata"]["name"], policy
        )


def is_suspended(trial):
    return trial["spec"]["runPolicy"].get("suspend", False)


def has_condition(job, kind):
    (trial,) = job.trial_jobs()
    conditions = trial.get("status", {}).get("conditions") or []
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def done_while_admitting(job):
    """Return a question that admits whatever waits, and answers whether the tuning is done."""

    def ask():
        for trial in job.trial_jobs():
            if is_suspended(trial):
                suspend(job, trial, suspended=False)
        return job.phase == "Done"

    return ask


def test_waiting_in_a_queue_costs_no_deadline(queued, new_controller):
    with running(new_controller()):
        (trial,) = eventually(queued.trial_jobs)
        assert trial["metadata"]["labels"][QUEUE_LABEL] == "team-a"
        assert is_suspended(trial)
        created = datetime.fromisoformat(trial["metadata"]["creationTimestamp"])
        # Longer than a trial may run.
        eventually(lambda: datetime.now(UTC) - created > 2 * TIMEOUT)
        assert [is_suspended(each) for each in queued.trial_jobs()] == [True]
        assert not queued.ledger()
        eventually(done_while_admitting(queued), 120)

    assert Outcome.REACHED in {trial.outcome for trial in queued.ledger()}
    assert queued.answer["batch_size"] == 512
    # The job itself is in no queue: Kueue would start it.
    assert QUEUE_LABEL not in queued.read().manifest["metadata"].get("labels", {})
    assert queued.read().manifest["spec"]["runPolicy"]["suspend"]


def test_a_trial_that_its_queue_evicts_starts_over_when_admitted_again(queued, new_controller):
    with running(new_controller()):
        (trial,) = eventually(queued.trial_jobs)
        suspend(queued, trial, suspended=False)
        eventually(lambda: has_condition(queued, "Running"))
        suspend(queued, trial, suspended=True)
        eventually(lambda: has_condition(queued, "Suspended"))
        again = queued.trial_jobs()
        assert [each["metadata"]["uid"] for each in again] == [trial["metadata"]["uid"]]
        eventually(done_while_admitting(queued), 120)

    first = queued.ledger()[0]
    assert first.outcome is Outcome.REACHED
    # What it reported before it was evicted is not counted twice.
    assert [m.step for m in first.measurements] == sorted({m.step for m in first.measurements})
    assert queued.answer["batch_size"] == 512
