"""The controller may die between any two effects: same answer, no trial lost, run twice or left behind."""

import random

import pytest

from autotuner import keys
from autotuner.job.pytorchjob import PYTORCHJOB
from tests.cluster.crashes import assert_whole, end_both, kill_at_random
from tests.cluster.tuned_jobs import TunedJob, image_of, learner


@pytest.mark.timeout(600)
def test_a_crash_after_every_single_effect_changes_nothing(admin, namespace, nodes, control_plane):
    starts = []
    nodes.add_image("example/training", image_of(learner(largest=512, starts=starts)))
    many = {keys.PREFIX + "max-trials": "40"}  # so that neither ends for want of trials
    jobs = [TunedJob(name, annotations=many).create(admin, namespace) for name in ("smooth", "crashed")]

    end_both(control_plane, PYTORCHJOB, *jobs, starts)


@pytest.mark.timeout(600)
def test_random_kills_over_many_jobs_change_nothing(admin, namespace, nodes, new_controller):
    starts = []
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.2, starts=starts)))
    asked = {"autotuner.dev/parallel-trials": "2"}
    jobs = [TunedJob(f"job-{n}", annotations=asked).create(admin, namespace) for n in range(8)]

    kills = kill_at_random(new_controller(), jobs, random.Random(7))

    assert kills >= 5
    for job in jobs:
        assert job.answer["batch_size"] == 512, job.status
        assert_whole(job, starts)
