"""The controller tunes TrainJobs, and jobs of both kinds, with the rights of the chart's role."""

import pytest
from kubernetes import client

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import TunedJob, TunedTrainJob, image_of, learner
from tests.controlplane.train_jobs import TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer")


def environment(manifest):
    return {entry["name"]: entry.get("value") for entry in manifest["spec"]["trainer"]["env"]}


def test_the_answer_of_a_trainjob_runs_as_a_new_one_and_the_registered_one_stays(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.2)))
    job = TunedTrainJob(nodes=2, annotations={keys.PREFIX + "apply": "true"}).create(admin, namespace)
    before = job.read().manifest["spec"]

    with running(new_controller()):
        eventually(job.is_in("Done", "Failed", "Invalid"), 180)
        assert job.phase == "Done", job.status
        answer = TrainJob("digits-tuned", nodes=2)
        answer.wait_until(admin, namespace, "Complete")
        eventually(lambda: not job.trial_jobs())

    assert job.answer["confirmed"] == 1
    assert environment(answer.read(admin, namespace))["AUTOTUNER_BATCH_SIZE"] == str(job.answer["batch_size"])
    assert "digits-tuned" in job.status["message"]
    assert job.read().manifest["spec"] == before
    assert "StudyDone" in job.events()
    assert not {trial.outcome for trial in job.ledger()} & {Outcome.FAILED, Outcome.LOST}


def test_jobs_of_both_kinds_are_tuned_beside_each_other(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=4096, seconds=0.2)))
    older = TunedJob("older", batch_size="256..512").create(admin, namespace)
    newer = TunedTrainJob("newer", batch_size="256..512").create(admin, namespace)

    with running(new_controller(max_parallel_trials=1)):
        for job in (older, newer):
            eventually(job.is_in("Done", "Failed", "Invalid"), 180)

    assert (older.phase, newer.phase) == ("Done", "Done")
    assert (older.answer["batch_size"], newer.answer["batch_size"]) == (512, 512)


def test_a_trainjob_that_is_deleted_takes_its_trials_with_it(admin, namespace, nodes, new_controller):
    def endless(_invocation):
        yield 0.1, "accuracy=0.5 epoch=1"
        yield 3600, "never"

    nodes.add_image("example/training", image_of(endless))
    job = TunedTrainJob().create(admin, namespace)

    with running(new_controller()):
        eventually(job.trial_jobs)
        job.delete()
        eventually(lambda: not client.CoreV1Api(admin).list_namespaced_pod(namespace).items)


def test_a_trainjob_that_is_no_longer_registered_has_its_trials_removed(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=4096, epochs=100, seconds=0.5)))
    job = TunedTrainJob().create(admin, namespace)

    with running(new_controller()):
        eventually(job.trial_jobs)
        job.annotate(target=None)
        eventually(lambda: not job.trial_jobs())
        eventually(lambda: not job.status)
