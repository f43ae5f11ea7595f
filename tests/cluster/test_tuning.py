"""The controller drives registered jobs to their answers, as its own process and with its role's rights."""

from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import TunedJob, image_of, learner
from tests.controlplane.waiting import eventually


def test_a_registered_job_is_driven_to_its_answer(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512)))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        eventually(job.is_in("Done", "Failed", "Invalid"), 120)
        eventually(lambda: "TuningDone" in job.events())

    assert job.phase == "Done", job.status
    assert job.answer["batch_size"] == 512
    assert job.answer["confirmed"] == 1
    assert not job.trial_jobs()
    numbers = [trial.number for trial in job.ledger()]
    assert numbers == list(range(len(numbers)))
