"""One trial as the cluster shows it, where its log does not answer."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner import keys
from autotuner.backends.kubernetes import RequestFailed
from autotuner.backends.kubernetes.assess import PodStatus
from autotuner.backends.kubernetes.trials import UNREADABLE_AFTER, TrialReader
from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from autotuner.trial import Measurement, Outcome, Suggestion
from tests.contract.suite import REPORTS, manifest
from tests.unit.fake_api_server import FakeServer

ENDED = datetime(2026, 1, 1, 12, tzinfo=UTC)
JOB = Job.from_manifest(manifest(REPORTS))
LOG = b'2026-01-01T11:59:00Z {"autotuner": 1, "step": 1, "accuracy": 0.95}\n'
POD = PodStatus("p", "u", "master", is_rank_zero=True, started_at=ENDED - timedelta(minutes=5))


class World:
    """A trial, a log that answers or does not, and a clock."""

    def __init__(self):
        self.log = (200, {}, LOG)
        self.logs_before = []
        self.now = ENDED
        self.server = FakeServer(lambda *_: self.logs_before.pop(0) if self.logs_before else self.log)
        self._reader = TrialReader(
            self.server.api(), lambda: self.now, start_patience=timedelta(minutes=10), max_log_bytes=65536
        )

    def read(self, pods=(POD,), *conditions):
        trial = trial_manifest(JOB, Suggestion(0, 256, {"learning_rate": 0.1}, 1))
        trial["status"] = {
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": ENDED.isoformat()}
                for kind in conditions
            ]
        }
        return self._reader.read(JOB, JOB.spec(), trial, pods)[0]


@pytest.fixture
def world():
    world = World()
    yield world
    world.server.close()


def test_a_running_trial_keeps_its_measurements_while_its_node_does_not_answer(world):
    assert world.read().measurements == (Measurement(1, 0.95),)
    world.log = (500, {}, b"{}")
    assert world.read().measurements == (Measurement(1, 0.95),)
    assert world.read().is_running


def test_a_log_that_cannot_be_read_for_long_is_reported_until_it_can(world):
    world.log = (500, {}, b'{"message": "dial tcp 10.0.0.7:10250: i/o timeout"}')
    world.read()
    world.now += timedelta(minutes=9)
    world.log = (500, {}, b'{"message": "read tcp 10.0.0.1:40001->10.0.0.7:10250: i/o timeout"}')
    assert world.read().is_running
    assert not world._reader.unreadable(JOB)
    world.now += timedelta(minutes=9)
    world.read()
    (said,) = world._reader.unreadable(JOB)
    assert said.startswith("the log of trial 0 cannot be read since 2026-01-01 12:00 UTC: log ")
    assert said.endswith("500 dial tcp 10.0.0.7:10250: i/o timeout")
    world.log = (200, {}, LOG)
    world.read()
    assert not world._reader.unreadable(JOB)


def test_a_trial_that_its_queue_has_evicted_and_admitted_again_has_the_cost_of_both_runs(world):
    made = trial_manifest(JOB, Suggestion(0, 256, {"learning_rate": 0.1}, 1))

    def read(suspend, began=None):
        made["spec"]["runPolicy"]["suspend"] = suspend
        condition = {"type": "Suspended", "status": str(suspend), "lastTransitionTime": world.now.isoformat()}
        made["status"] = {"conditions": [condition]}
        pods = [] if began is None else [replace(POD, uid=str(began), started_at=began)]
        return world._reader.read(JOB, JOB.spec(), made, pods)[0]

    began = read(suspend=False, began=world.now).started_at
    world.now += timedelta(hours=3)
    assert read(suspend=True).gpu_hours(world.now) == 3
    world.now += timedelta(hours=5)
    again = read(suspend=False, began=world.now)
    assert again.started_at - began == timedelta(hours=8)
    assert again.gpu_hours(world.now + timedelta(hours=1)) == 4


def test_a_running_trial_whose_log_may_not_be_read_is_reported(world):
    world.log = (403, {}, b'{"message": "cannot get resource \\"pods/log\\""}')
    with pytest.raises(RequestFailed, match="pods/log"):
        world.read()


def test_an_ended_trial_is_not_recorded_before_its_log_was_read(world):
    world.log = (500, {}, b'{"message": "i/o timeout"}')
    unread = world.read((POD,), "Succeeded")
    # Its process has ended, so it uses no GPU and cannot time out.
    assert (unread.outcome, unread.ended_at) == (None, ENDED)
    (said,) = world._reader.unreadable(JOB)
    assert said.startswith("trial 0 has ended, and its log cannot be read: it is tried for 10 minutes")
    assert said.endswith("500 i/o timeout")
    world.now += timedelta(minutes=5)
    world.log = (500, {}, b'{"message": "another error"}')
    world.read((POD,), "Succeeded")
    assert world._reader.unreadable(JOB) == [said]
    world.log = (200, {}, LOG)
    assert world.read((POD,), "Succeeded").outcome is Outcome.REACHED
    assert not world._reader.unreadable(JOB)


def test_a_trial_that_ends_while_its_log_cannot_be_read_is_reported_at_once(world):
    world.log = (500, {}, b"{}")
    world.read()
    assert not world._reader.unreadable(JOB)
    world.read((POD,), "Succeeded")
    assert len(world._reader.unreadable(JOB)) == 1


@pytest.mark.parametrize("cut", [0, 30, len(LOG) // 2, len(LOG) - 3, len(LOG), len(LOG) + 68])
def test_an_answer_that_broke_off_is_not_the_end_of_a_log(world, cut):
    # The API server ends the answer as if it was whole if the node's connection breaks.
    whole = LOG.replace(b"0.95", b"0.55") + LOG.replace(b'"step": 1', b'"step": 2').replace(
        b"0.95", b"0.9125"
    )
    world.log, world.logs_before = (200, {}, whole), [(200, {}, whole[:cut])]
    assert world.read((POD,), "Succeeded").is_running
    ended = world.read((POD,), "Succeeded")
    assert ended.outcome is Outcome.REACHED
    assert ended.measurements == (Measurement(1, 0.55), Measurement(2, 0.9125))


def test_a_trial_whose_node_cannot_find_its_log_at_its_end_is_no_miss(world):
    # While its container runtime restarts, a kubelet answers so, with status 200.
    world.log = (200, {}, b"unable to retrieve container logs for containerd://b91ca08d41b0")
    assert world.read((POD,), "Succeeded").is_running
    world.log = (200, {}, LOG)
    assert world.read((POD,), "Succeeded").outcome is Outcome.REACHED


def test_an_ended_trial_whose_log_stays_unreadable_is_lost(world):
    world.log = (500, {}, b"{}")
    world.now = ENDED + UNREADABLE_AFTER
    lost = world.read((POD,), "Succeeded")
    assert lost.outcome is Outcome.LOST
    assert "its log cannot be read" in lost.message


def test_a_lost_trial_that_was_seen_to_reach_the_target_has_reached_it(world):
    world.read()
    world.log = (500, {}, b"{}")
    evicted = PodStatus(
        "p", "u", "master", is_rank_zero=True, started_at=POD.started_at, disruption="Evicted"
    )
    assert world.read((evicted,), "Failed").outcome is Outcome.REACHED


def test_a_trial_whose_pods_were_gone_before_they_were_read_is_lost(world):
    assert world.read((), "Succeeded").outcome is Outcome.LOST


def test_a_trial_whose_init_container_failed_is_classified_by_the_log_of_that_container(world):
    init = PodStatus("p", "u", "master", is_rank_zero=True, exit_code=1, init_container="fetch")
    world.log = (200, {}, b"reading data\nMemoryError\n")
    failed = world.read((init,), "Failed")
    assert failed.outcome is Outcome.FAILED
    assert failed.message == "init container fetch of pod p: exit code 1: reading data\nMemoryError"
    ((_, path, query, *_),) = world.server.requests
    assert path.endswith("/pods/p/log")
    assert query["container"] == "fetch"


def test_a_trial_that_waits_is_run_again_once_its_job_was_changed(world):
    trial = trial_manifest(JOB, Suggestion(0, 256, {}, 1))
    trial["metadata"]["annotations"][keys.TRIAL_TEMPLATE] = "another"
    waiting, _ = world._reader.read(JOB, JOB.spec(), trial, ())
    running, _ = world._reader.read(JOB, JOB.spec(), trial, (POD,))
    assert waiting.outcome is Outcome.LOST
    assert running.is_running


def running(uid, since):
    manifest = trial_manifest(JOB, Suggestion(0, 256, {"learning_rate": 0.1}, 1))
    manifest["metadata"]["uid"] = "t"
    condition = {"type": "Running", "status": "True", "lastTransitionTime": since.isoformat()}
    manifest["status"] = {"conditions": [condition]}
    return manifest, replace(POD, uid=uid, created_at=since + timedelta(seconds=5))


def test_a_pod_that_is_replaced_within_seconds_is_noticed_by_its_uid(world):
    world.log = (200, {}, b"")

    def look(uid, since=ENDED):
        manifest, pod = running(uid, since)
        return world._reader.read(JOB, JOB.spec(), manifest, (pod,))[0]

    assert look("first").is_running
    assert look("second").outcome is Outcome.LOST
    resumed = ENDED + timedelta(hours=1)
    assert look("third", resumed).is_running
    assert look("fourth", resumed).outcome is Outcome.LOST


def test_a_replaced_pod_is_noticed_within_a_minute_though_the_job_shows_no_change(cluster):
    # The operator counts the new pod as active before it has written that the old one was not.
    assert cluster.run([1]).is_running
    cluster.pod_uid = "replacement"
    assert cluster.run([2, 3, 4], seconds=20).outcome is Outcome.LOST


def test_pods_that_run_are_read_once_a_minute(cluster):
    cluster.run(range(10, 25), seconds=20)
    assert sum(path.endswith("/pods") for _, path, *_ in cluster.server.requests) == 5


def test_a_pod_that_the_cluster_refuses_to_a_train_job_is_reported_by_the_events_of_its_job(world):
    """Trainer and JobSet say nothing of it on their own objects, and the role may not read the Job."""
    known = {"BATCH_SIZE": "256", "LEARNING_RATE": "0.1"}
    environment = [{"name": f"AUTOTUNER_{name}", "value": value} for name, value in known.items()]
    container = {"command": ["train"], "env": environment, "image": "x"}
    made = manifest(REPORTS)
    made |= {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
    made["spec"] = {"runtimeRef": {"name": "torch-distributed"}, "suspend": True, "trainer": container}
    job = Job.from_manifest(made)
    trial = trial_manifest(job, Suggestion(0, 256, {}, 1))
    trial["metadata"] |= {"uid": "t", "creationTimestamp": (ENDED - timedelta(hours=1)).isoformat()}
    refused = [{"reason": "FailedCreate", "message": "exceeded quota: team"}]
    world.logs_before = [(200, {}, b'{"items": []}'), (200, {}, json.dumps({"items": refused}).encode())]
    _, held = world._reader.read(job, job.spec(), trial, ())
    assert held.message == "0 of 1 pods have been created; FailedCreate: exceeded quota: team"
    asked = [query["fieldSelector"] for _, _, query, *_ in world.server.requests]
    name = trial["metadata"]["name"]
    assert asked == [f"involvedObject.{which},type=Warning" for which in ("uid=t", f"name={name}-node-0")]


def test_a_trial_that_no_operator_takes_note_of_is_reported(world):
    trial = trial_manifest(JOB, Suggestion(0, 256, {}, 1))
    trial["metadata"] |= {"uid": "t", "creationTimestamp": (ENDED - timedelta(hours=1)).isoformat()}
    world.log = (200, {}, b'{"items": []}')
    _, held = world._reader.read(JOB, JOB.spec(), trial, ())
    assert held.message.startswith("0 of 1 pods have been created; its operator has written no status")
    trial["status"] = {"conditions": [{"type": "Created", "status": "True"}]}
    _, held = world._reader.read(JOB, JOB.spec(), trial, ())
    assert held.message == "0 of 1 pods have been created"
