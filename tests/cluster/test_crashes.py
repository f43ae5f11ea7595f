"""The controller may die between any two effects: same answer, no trial lost, run twice or left behind."""

import random
from datetime import UTC, datetime

import pytest

from autotuner import keys
from autotuner.backends.kubernetes import Api, KubernetesBackend
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.decide.decision import Reason
from autotuner.errors import BackendError
from autotuner.job.job import Job
from autotuner.reconcile import is_settled, reconcile
from tests.cluster.kills import assert_whole, kill_at_random
from tests.cluster.tuned_jobs import TunedJob, image_of, learner
from tests.controlplane.waiting import eventually


class Crash(Exception):
    """The process died."""


class CrashingApi(Api):
    """An API server whose caller dies right after each change that it makes."""

    changes = 0

    def create(self, path, body):
        return self._die(super().create(path, body))

    def patch(self, path, body):
        return self._die(super().patch(path, body))

    def delete(self, path, body):
        return self._die(super().delete(path, body))

    def _die(self, _answer):
        type(self).changes += 1
        raise Crash


def one_life(control_plane, namespace, name, api_type):
    """Make passes until the process dies; return whether the job is settled."""
    api = api_type(control_plane.configuration())
    backend = KubernetesBackend(api)
    try:
        job = Job.from_manifest(api.get(jobs_path(namespace, name)))
        if is_settled(job):
            return True
        reconcile(backend, job, datetime.now(UTC))
    except (Crash, BackendError):
        pass
    return False


def test_a_crash_after_every_single_effect_changes_nothing(admin, namespace, nodes, control_plane):
    starts = []
    nodes.add_image("example/training", image_of(learner(largest=512, starts=starts)))
    many = {keys.PREFIX + "max-trials": "40"}  # so that neither ends for want of trials
    smooth, crashed = (
        TunedJob(name, annotations=many).create(admin, namespace) for name in ("smooth", "crashed")
    )

    eventually(lambda: one_life(control_plane, namespace, "smooth", Api), 120)
    eventually(lambda: one_life(control_plane, namespace, "crashed", CrashingApi), 120)

    assert CrashingApi.changes > 3 * len(crashed.ledger())
    assert crashed.phase == smooth.phase == "Done"
    # How much of a curve a pass finds depends on real time, and with it the number of trials and which of the
    # two bounds ends the search. In simulated time all of it is the same (tests/simulation).
    for field in ("batch_size", "confirmed"):
        assert crashed.answer[field] == smooth.answer[field]
    assert {smooth.answer["reason"], crashed.answer["reason"]} <= {
        Reason.LARGER_UNLIKELY,
        Reason.GAIN_TOO_SMALL,
    }
    assert_whole(smooth, starts)
    assert_whole(crashed, starts)


@pytest.mark.timeout(600)
def test_random_kills_over_many_jobs_change_nothing(admin, namespace, nodes, new_controller):
    starts = []
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.2, starts=starts)))
    asked = {"autotuner.dev/parallel-trials": "2"}
    jobs = [TunedJob(f"job-{n}", annotations=asked).create(admin, namespace) for n in range(4)]

    kills = kill_at_random(new_controller(), jobs, random.Random(7))

    assert kills >= 5
    for job in jobs:
        assert job.answer["batch_size"] == 512, job.status
        assert_whole(job, starts)
