"""How hold-ups are told: once as an Event, as long as they last in status and metrics."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from autotuner import keys
from autotuner.controller.metrics import Metrics
from autotuner.errors import Mistake
from autotuner.reconcile import reconcile
from autotuner.status import MAX_HELD_UP, Status, held_up_events, warning_events
from autotuner.study.hold_up import HoldUp, HoldUpReason, unexpected
from tests.builders import trial
from tests.unit.running_trial import JOB, START, Cluster

IMAGE = HoldUp(3, HoldUpReason.IMAGE, "pod p cannot start: ImagePullBackOff: x")


def test_a_hold_up_is_an_event_until_the_status_tells_it():
    (event,) = held_up_events({}, [IMAGE])
    assert (event.type, event.reason) == ("Warning", "TrialHeldUp")
    assert event.message == "trial 3 is held up (Image): pod p cannot start: ImagePullBackOff: x"
    told = {keys.MESSAGE: f"trial 3 is held up (Image): otherwise worded; {'x' * 3000}"}
    assert held_up_events(told, [IMAGE]) == []
    assert len(held_up_events(told, [HoldUp(3, HoldUpReason.QUEUED, "m")])) == 1


def test_of_many_hold_ups_a_few_are_reported():
    many = [HoldUp(n, HoldUpReason.QUEUED, "m") for n in range(100)]
    assert len(held_up_events({}, many)) == MAX_HELD_UP


def test_metrics_count_what_is_held_up_now():
    metrics = Metrics()

    def count(reason):
        name = f'autotuner_trials_held_up{{reason="{reason}"}} '
        return next(
            float(x.removeprefix(name)) for x in metrics.exposition().decode().splitlines() if name in x
        )

    metrics.note_held_up("ns/a", ["Image", "Image", "Queued"])
    metrics.note_held_up("ns/b", ["Image"])
    assert (count("Image"), count("Queued"), count("NoPod")) == (3, 1, 0)
    metrics.note_held_up("ns/a", ["Queued"])
    metrics.note_held_up("ns/b", ())
    assert (count("Image"), count("Queued")) == (0, 1)


class Stuck(Cluster):
    """A trial whose only pod has no node."""

    def trial(self):
        made = super().trial()
        return {
            **made,
            "metadata": {**made["metadata"], "creationTimestamp": START.isoformat()},
            "status": {},
        }

    def pod(self):
        pod = super().pod()
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes",
        }
        pod["metadata"]["creationTimestamp"] = START.isoformat()
        return {**pod, "status": {"phase": "Pending", "conditions": [scheduled]}}


@pytest.fixture
def cluster():
    cluster = Stuck()
    yield cluster
    cluster.server.close()


def test_a_reconcile_tells_a_hold_up_once_patience_has_run_out(cluster):
    def written(kind):
        return [r for r in cluster.server.requests if r[0] in {"POST", "PATCH"} and kind in r[1]]

    reconcile(cluster.backend, JOB, cluster.now)
    assert not written("events") or "held up" not in written("events")[-1][4].decode()
    cluster.now += timedelta(minutes=10)
    seen = reconcile(cluster.backend, JOB, cluster.now)
    assert [(held.trial, held.reason) for held in seen.held_up] == [(0, HoldUpReason.UNSCHEDULABLE)]
    status = json.loads(written("pytorchjobs")[-1][4])["metadata"]["annotations"]
    said = "trial 0 is held up (Unschedulable): pod p cannot start: Unschedulable: 0/2 nodes"
    assert status[keys.MESSAGE].startswith(said)
    assert said in written("events")[-1][4].decode()


def test_a_job_that_would_run_by_itself_is_reported_last_and_as_one_event(cluster):
    would_run = replace(
        JOB, warnings=(Mistake("spec.runPolicy.suspend", "", "must be true", "suspend: true"),)
    )
    reconcile(cluster.backend, would_run, cluster.now)
    patches = [json.loads(r[4]) for r in cluster.server.requests if r[0] == "PATCH" and "pytorchjobs" in r[1]]
    message = patches[-1]["metadata"]["annotations"][keys.MESSAGE]
    assert message.count(str(would_run.warnings[0])) == 1
    assert message.index(str(would_run.warnings[0])) > message.index("runs the job unchanged")
    (event,) = [
        sent for r in cluster.server.requests if "JobWarning" in (sent := r[4].decode()) and r[0] == "POST"
    ]
    assert "must be true" in event


def test_a_warning_that_the_status_tells_already_or_has_no_room_for_is_no_event():
    status = Status({keys.MESSAGE: "searches; first; second"})
    events = warning_events({keys.MESSAGE: "waits; first"}, status, ["first", "second", "third"])
    assert [(event.reason, event.message) for event in events] == [("JobWarning", "second")]


def test_a_study_that_takes_what_the_queue_gives_expects_a_trial_to_wait_while_others_run():
    image, queued, room = (
        HoldUp(4, reason, "m")
        for reason in (HoldUpReason.IMAGE, HoldUpReason.QUEUED, HoldUpReason.UNSCHEDULABLE)
    )
    runs, waits = trial(1, (), None), trial(4, (), None, started_at=None)
    assert unexpected([image, queued, room], [runs, waits]) == (image,)
    assert unexpected([queued], [waits]) == (queued,)
    assert unexpected([queued], [trial(1), waits]) == (queued,)
