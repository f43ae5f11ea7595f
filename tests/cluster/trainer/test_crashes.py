"""The controller may be killed at any moment while it tunes TrainJobs: nothing is lost or run twice."""

import random

import pytest

from autotuner import keys
from autotuner.job.kinds import TRAINJOB
from tests.cluster.crashes import assert_whole, end_both, kill_at_random
from tests.cluster.tuned_jobs import TunedTrainJob, image_of, learner

pytestmark = pytest.mark.usefixtures("trainer")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("nodes_of_a_trial", [1, 2])
def test_random_kills_over_many_train_jobs_change_nothing(
    admin, namespace, nodes, new_controller, nodes_of_a_trial
):
    starts = []
    play = learner(largest=512, seconds=0.2, starts=starts)

    def train(invocation):
        """Train on every node, and count node 0's start as that of the trial."""
        if invocation.environment["PET_NODE_RANK"] == "0":
            return play(invocation)
        return learner(largest=512, seconds=0.2)(invocation)

    nodes.add_image("example/training", image_of(train))
    asked = {"autotuner.dev/parallel-trials": "2"}
    jobs = [
        TunedTrainJob(f"job-{number}", annotations=asked, nodes=nodes_of_a_trial).create(admin, namespace)
        for number in range(3)
    ]

    kills = kill_at_random(new_controller(), jobs, random.Random(nodes_of_a_trial))

    assert kills >= 5
    for job in jobs:
        assert job.answer["batch_size"] == 512, job.status
        assert_whole(job, starts)


@pytest.mark.timeout(600)
def test_a_crash_after_every_single_effect_changes_nothing(admin, namespace, nodes, control_plane):
    starts = []
    nodes.add_image("example/training", image_of(learner(largest=512, starts=starts)))
    many = {keys.PREFIX + "max-trials": "40"}  # so that neither ends for want of trials
    jobs = [TunedTrainJob(name, annotations=many).create(admin, namespace) for name in ("smooth", "crashed")]

    end_both(control_plane, TRAINJOB, *jobs, starts)
