"""Trials wait in a queue of the real Kueue, whatever their kind, at no cost; registered jobs are in none."""

from datetime import UTC, datetime, timedelta

import pytest

from autotuner import keys
from autotuner.trial import Outcome, Purpose
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


def test_the_answer_of_a_pytorchjob_enters_the_queue_of_its_trials(
    admin, namespace, nodes, new_controller, new_queue
):
    nodes.add_image("example/training", image_of(learner(largest=4096, seconds=0.1)))
    queue = new_queue(gpus=1)
    asked = {keys.QUEUE: queue.name, keys.PREFIX + "apply": "true"}
    job = TunedJob("older", gpus=1, batch_size="256..512", annotations=asked)
    job = job.create(admin, namespace, labels={QUEUE_LABEL: "none"})

    with running(new_controller()):
        eventually(job.is_in("Done", "Failed", "Invalid"), 180)
        assert job.phase == "Done", job.status
        eventually(lambda: "Admitted" in queue.workloads().get("older", {}), 60)
    manifest = job.read().manifest
    assert manifest["metadata"]["labels"][QUEUE_LABEL] == queue.name
    assert manifest["spec"]["runPolicy"]["suspend"] is False


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
        eventually(lambda: "reads" in job.status)
        urgent = {QUEUE_LABEL: queue.name, PRIORITY_LABEL: f"{namespace}-high"}
        other = TrainJob("urgent", ("run",), image="example/other", gpus=1, suspend=True, labels=urgent)
        other.create(admin, namespace).wait_until(admin, namespace, "Complete")
        eventually(job.is_in("Done", "Failed", "Invalid"), 180)

    assert job.phase == "Done", job.status
    # The checks of the batch are stopped as dominated.
    searched = [t for t in job.ledger() if t.suggestion.purpose is not Purpose.CHECK]
    assert {t.outcome for t in searched} <= {Outcome.REACHED, Outcome.PROMISING, Outcome.LOST}
    # It cost GPU-hours all the same.
    assert job.ledger()[0].earlier_seconds > 0
    for each in job.ledger():
        assert [m.step for m in each.measurements] == sorted({m.step for m in each.measurements})


def test_a_job_that_kueue_has_admitted_itself_is_tuned(admin, namespace, nodes, new_controller, new_queue):
    """Kueue wrote its Workload into the pods of the job, and would give up a trial that has it, too."""
    nodes.add_image("example/training", image_of(learner(largest=4096, seconds=0.1)))
    queue = new_queue("default", gpus=1)
    like = TunedJob(gpus=1, batch_size="256..256", annotations={keys.QUEUE: queue.name})
    job = like.create(admin, namespace)
    eventually(lambda: "Finished" in queue.workloads().get("digits", {}))
    assert "kueue.x-k8s.io/workload" in str(job.read().manifest["spec"])

    with running(new_controller()):
        eventually(job.is_in("Done", "Failed", "Invalid"))

    assert job.phase == "Done", job.status


def only_the_baseline_ends(invocation):
    if invocation.environment["AUTOTUNER_TRIAL"] == "0":
        yield from learner(largest=4096)(invocation)
    else:
        yield 0.1, "accuracy=0.5 epoch=1"
        yield 3600, "never"


@pytest.mark.parametrize("kind", [TunedJob, TunedTrainJob], ids=["PyTorchJob", "TrainJob"])
def test_auto_takes_what_the_queue_gives_and_keeps_one_trial_waiting_at_most(
    admin, namespace, nodes, new_controller, new_queue, kind
):
    nodes.add_image("example/training", image_of(only_the_baseline_ends))
    queue = new_queue(gpus=2)
    asked = {keys.QUEUE: queue.name, keys.PREFIX + "parallel-trials": "auto"}
    job = kind(gpus=1, annotations=asked, batch_size="256..4096").create(admin, namespace)
    most_waiting = 0

    def stand():
        """Return how many trials are admitted, and how many wait."""
        nonlocal most_waiting
        waits = [is_suspended(each) for each in job.trial_jobs()]
        most_waiting = max(most_waiting, sum(waits))
        return len(waits) - sum(waits), sum(waits)

    with running(new_controller()):
        eventually(lambda: job.ledger() and stand() == (2, 1))
        queue.resize(gpus=4)
        eventually(lambda: stand() == (4, 1))
        # Several polls later it is the same.
        began = datetime.now(UTC)
        eventually(lambda: stand() and datetime.now(UTC) - began > timedelta(seconds=3))
        assert stand() == (4, 1)

    assert most_waiting == 1
    assert not {t.outcome for t in job.ledger()} & {Outcome.FAILED, Outcome.LOST}


def is_suspended(trial):
    spec = trial["spec"]
    return bool(spec.get("runPolicy", spec).get("suspend"))
