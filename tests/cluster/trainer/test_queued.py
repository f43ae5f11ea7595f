"""Trials wait in a queue of the real Kueue, whatever their kind, at no cost; registered jobs are in none."""

import pytest

from autotuner import keys
from autotuner.trial import Outcome
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import TunedJob, TunedTrainJob, image_of, learner
from tests.controlplane.kueue import PRIORITY_LABEL, QUEUE_LABEL, create_priority
from tests.controlplane.train_jobs import TrainJob
from tests.controlplane.waiting import eventually

pytestmark = pytest.mark.usefixtures("trainer", "kueue")


def test_studies_of_both_kinds_share_a_queue_of_few_gpus_to_their_ends(
    admin, namespace, nodes, new_controller, new_queue
):
    nodes.add_image("example/training", image_of(learner(largest=4096, seconds=0.1)))
    queue = new_queue(gpus=1)
    asked = {keys.QUEUE: queue.name}
    newer = TunedTrainJob("newer", gpus=1, batch_size="256..512", annotations=asked).create(admin, namespace)
    older = TunedJob("older", batch_size="256..512", annotations=asked).create(admin, namespace)

    with running(new_controller()):
        for job in (newer, older):
            eventually(job.is_in("Done", "Failed", "Invalid"), 180)

    assert (newer.phase, older.phase) == ("Done", "Done"), (newer.status, older.status)
    # The registered jobs are not Kueue's.
    assert not {"newer", "older"} & queue.workloads().keys()


def test_a_trial_that_is_preempted_runs_again_and_costs_the_study_nothing(
    admin, namespace, nodes, new_controller, new_queue
):
    create_priority(admin, f"{namespace}-low", 1)
    create_priority(admin, f"{namespace}-high", 2)
    nodes.add_image("example/training", image_of(learner(largest=4096, seconds=1)))
    nodes.add_image("example/other", image_of(lambda _: iter([(1, "done")])))
    queue = new_queue(gpus=1)
    like = TunedTrainJob(gpus=1, batch_size="256..512", annotations={keys.QUEUE: queue.name})
    job = like.create(admin, namespace, labels={PRIORITY_LABEL: f"{namespace}-low", QUEUE_LABEL: "none"})

    with running(new_controller()):
        trial = TrainJob(keys.trial_name("digits", job.read().uid, 0))
        trial.running(admin, namespace)
        urgent = {QUEUE_LABEL: queue.name, PRIORITY_LABEL: f"{namespace}-high"}
        other = TrainJob("urgent", ("run",), image="example/other", gpus=1, suspend=True, labels=urgent)
        other.create(admin, namespace).wait_until(admin, namespace, "Complete")
        eventually(job.is_in("Done", "Failed", "Invalid"), 180)

    assert job.phase == "Done", job.status
    assert {t.outcome for t in job.ledger()} <= {Outcome.REACHED, Outcome.LOST}
    for each in job.ledger():
        assert [m.step for m in each.measurements] == sorted({m.step for m in each.measurements})
