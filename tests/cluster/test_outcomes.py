"""Whose fault: each way in which a trial can end badly becomes the right outcome, and the right reaction."""

import pytest
from kubernetes import client

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import TunedJob, image_of, learner
from tests.controlplane.nodes import NODE_NAMES
from tests.controlplane.waiting import eventually

ENDLESS = learner(largest=4096, epochs=2, seconds=0.2)
"""Stays below the target: a run that has met it is stopped, whatever else happens to it."""


def endless(invocation):
    """Report a little, then hang: what happens next is for the test to say."""
    yield from ENDLESS(invocation)
    yield 3600, "never"


def pod_of(job, number, replica="master-0"):
    return f"{keys.trial_name(job.name, job.read().uid, number)}-{replica}"


def wait_until_running(job, number, replica="master-0"):
    core = client.CoreV1Api(job.admin)
    name = pod_of(job, number, replica)

    def phase():
        try:
            return core.read_namespaced_pod(name, job.namespace).status.phase == "Running"
        except client.ApiException as error:
            if error.status != 404:
                raise
            return False

    eventually(phase)
    return name


def trial_zero(job):
    """Return how trial 0 ended, once it is recorded."""
    return eventually(lambda: next((t for t in job.ledger() if t.number == 0), None), 120)


def lose_its_node(nodes, namespace, pod, admin):
    nodes.lose(client.CoreV1Api(admin).read_namespaced_pod(pod, namespace).spec.node_name)


LOST = {
    "preempted": lambda nodes, namespace, pod, _admin: nodes.preempt(namespace, pod),
    "evicted": lambda nodes, namespace, pod, _admin: nodes.evict(namespace, pod),
    "node lost": lose_its_node,
    "deleted": lambda _nodes, namespace, pod, admin: client.CoreV1Api(admin).delete_namespaced_pod(
        pod, namespace, grace_period_seconds=1
    ),
    "deleted at once": lambda _nodes, namespace, pod, admin: client.CoreV1Api(admin).delete_namespaced_pod(
        pod, namespace, grace_period_seconds=0
    ),
}


@pytest.mark.parametrize("inflict", LOST.values(), ids=LOST.keys())
def test_what_the_cluster_did_is_run_again_with_the_same_parameters(
    admin, namespace, nodes, new_controller, inflict
):
    nodes.add_image("example/training", image_of(endless))
    job = TunedJob(workers=1).create(admin, namespace)

    with running(new_controller()):
        pod = wait_until_running(job, 0)
        # The controller has seen a pod whose log it has read. If one is gone before that, the operator's
        # next one is simply the trial's.
        eventually(lambda: "reads" in job.status)
        inflict(nodes, namespace, pod, admin)
        lost = trial_zero(job)
        wait_until_running(job, 1)

    assert lost.outcome is Outcome.LOST, lost
    assert lost.message
    again = next(t for t in job.trial_jobs() if t["metadata"]["labels"][keys.TRIAL_NUMBER] == "1")
    assert '"rerun_of":0' in again["metadata"]["annotations"][keys.SUGGESTION]


def test_a_worker_that_is_preempted_loses_the_trial_whatever_the_master_says(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(endless))
    job = TunedJob(workers=1).create(admin, namespace)

    with running(new_controller()):
        master = wait_until_running(job, 0)
        worker = wait_until_running(job, 0, "worker-0")
        nodes.preempt(namespace, worker)
        nodes.crash(namespace, master, 1, "torch.distributed.DistBackendError: NCCL error")
        assert trial_zero(job).outcome is Outcome.LOST


def test_a_trial_is_lost_four_times_at_most(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(endless))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        for number in range(4):
            nodes.preempt(namespace, wait_until_running(job, number))
        eventually(job.is_in("Failed"))

    assert [trial.outcome for trial in job.ledger()] == [Outcome.LOST] * 4
    assert "lost one trial 4 times" in job.status["message"]


@pytest.mark.parametrize("replica", ["master-0", "worker-0"])
def test_out_of_device_memory_is_not_a_missed_target(admin, namespace, nodes, new_controller, replica):
    nodes.add_image("example/training", image_of(endless))
    job = TunedJob(workers=1).create(admin, namespace)

    with running(new_controller()):
        nodes.fail_for_cuda_memory(namespace, wait_until_running(job, 0, replica))
        ended = trial_zero(job)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert "CUDA out of memory" in ended.message


def test_a_kill_for_host_memory_is_out_of_memory(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(endless))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        nodes.kill_for_memory(namespace, wait_until_running(job, 0))
        ended = trial_zero(job)

    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert "OOMKilled" in ended.message


def test_a_program_that_fails_three_times_in_a_row_ends_the_tuning_with_its_last_lines(
    admin, namespace, nodes, new_controller
):
    def broken(_invocation):
        yield 0.1, "loading"
        yield 0.1, "FileNotFoundError: /data/train.csv"
        return 3

    nodes.add_image("example/training", image_of(broken))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        eventually(job.is_in("Failed"))
        eventually(lambda: "StudyFailed" in job.events())

    assert [trial.outcome for trial in job.ledger()] == [Outcome.FAILED] * 3
    assert "FileNotFoundError: /data/train.csv" in job.status["message"]


def test_a_diverged_run_is_an_observation(admin, namespace, nodes, new_controller):
    def diverging(invocation):
        if invocation.environment["AUTOTUNER_BATCH_SIZE"] == "256":
            yield from learner(largest=256)(invocation)
        else:
            yield 0.1, "accuracy=0.2 epoch=1"
            yield 0.1, "accuracy=nan epoch=2"
            return 1
        return None

    nodes.add_image("example/training", image_of(diverging))
    job = TunedJob(annotations={keys.PREFIX + "max-trials": "8"}).create(admin, namespace)

    with running(new_controller()):
        eventually(job.is_in("Done", "Failed"))

    assert job.phase == "Done", job.status
    assert Outcome.DIVERGED in {trial.outcome for trial in job.ledger()}
    assert job.answer.get("batch_size") == 256, job.status


def test_an_image_that_cannot_be_pulled_is_in_the_status_until_it_can(
    admin, namespace, nodes, new_controller
):
    nodes.break_image("example/training")
    job = TunedJob().create(admin, namespace)

    with running(new_controller(start_patience_seconds=2)):
        eventually(lambda: "ImagePullBackOff" in job.status.get("message", ""))
        assert job.phase == "Searching"
        nodes.add_image("example/training", image_of(learner(largest=4096)))
        nodes.mend_image("example/training")
        eventually(job.is_in("Done"))

    assert {trial.outcome for trial in job.ledger()} == {Outcome.REACHED}
    assert "ImagePullBackOff" not in job.status["message"]


def test_a_job_mended_while_its_trial_cannot_start_is_tried_as_mended(
    admin, namespace, nodes, new_controller
):
    nodes.break_image("example/training")
    nodes.add_image("example/mended", image_of(learner(largest=4096)))
    job = TunedJob().create(admin, namespace)

    with running(new_controller(start_patience_seconds=2)):
        eventually(lambda: "ImagePullBackOff" in job.status.get("message", ""))
        job.patch({"spec": TunedJob(image="example/mended").manifest()["spec"]})
        eventually(job.is_in("Done"))

    assert [t.outcome for t in job.ledger()][:2] == [Outcome.LOST, Outcome.REACHED]


def test_a_trial_that_no_node_takes_costs_no_deadline(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=4096)))
    nodes.cordon()
    job = TunedJob(annotations={keys.PREFIX + "trial-timeout": "3s"}).create(admin, namespace)

    with running(new_controller(start_patience_seconds=4)):
        eventually(lambda: "cannot start" in job.status.get("message", ""))
        assert not job.ledger()
        nodes.uncordon()
        eventually(job.is_in("Done"))

    assert {trial.outcome for trial in job.ledger()} == {Outcome.REACHED}


def test_a_run_that_takes_too_long_is_stopped(admin, namespace, nodes, new_controller):
    def slow(_invocation):
        yield 0.1, '{"autotuner": 1, "step": 1, "accuracy": 0.1}'
        yield 3600, "never"

    nodes.add_image("example/training", image_of(slow))
    job = TunedJob(annotations={keys.PREFIX + "trial-timeout": "2s"}).create(admin, namespace)

    with running(new_controller()):
        assert trial_zero(job).outcome is Outcome.MISSED


def test_the_pods_of_a_lost_node_do_not_hold_up_the_next_trial(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(endless))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        pod = wait_until_running(job, 0)
        node = client.CoreV1Api(admin).read_namespaced_pod(pod, namespace).spec.node_name
        nodes.lose(node)
        other = wait_until_running(job, 1)

    assert client.CoreV1Api(admin).read_namespaced_pod(other, namespace).spec.node_name in NODE_NAMES
