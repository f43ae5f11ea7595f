"""Which pod's log carries the metric, and what stays of it when the pod is gone."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner.backends.kubernetes.assess import PodStatus
from autotuner.backends.kubernetes.followers import MOST_PODS
from autotuner.backends.kubernetes.logs import Checkpoint
from autotuner.backends.kubernetes.trials import TrialReader
from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from autotuner.trial import Measurement, Outcome, Suggestion
from tests.builders import manifest, replica
from tests.unit.fake_api_server import FakeServer

ENDED = datetime(2026, 1, 1, 12, tzinfo=UTC)
STARTED = ENDED - timedelta(minutes=5)


def line(value):
    return f'{{"autotuner": 1, "step": 1, "accuracy": {value}}}'


METRIC = line(0.95)


def made(workers=2, master=True, **spec):
    job = manifest(worker=replica(replicas=workers), **spec)
    if not master:
        del job["spec"]["pytorchReplicaSpecs"]["Master"]
    return replace(Job.from_manifest(job), uid="u")


def pod(name, *, is_first=False):
    is_named = is_first or name == "t-master-0"
    return PodStatus(name, f"uid-{name}", name.split("-")[1], is_rank_zero=is_named, started_at=STARTED)


class Logs:
    """A trial's logs by pod, and a reader of them."""

    def __init__(self, job):
        self.job = job
        self.texts = {}
        self.status = {}
        self.server = FakeServer(self._answer)
        self.restart()

    def restart(self):
        self._reader = TrialReader(
            self.server.api(), lambda: ENDED, start_patience=timedelta(minutes=10), max_log_bytes=65536
        )

    def _answer(self, _method, path, _query):
        name = path.split("/")[-2]
        lines = "".join(f"2026-01-01T11:59:0{i}Z {line}\n" for i, line in enumerate(self.texts.get(name, ())))
        status = self.status.get(name, 200)
        return status, {}, lines.encode() if status == 200 else json.dumps({"message": "no"}).encode()

    def read(self, names, *conditions, checkpoint=None):
        trial = trial_manifest(self.job, Suggestion(0, 256, {"learning_rate": 0.1}, 1))
        trial["metadata"]["uid"] = "t"
        trial["status"] = {
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": ENDED.isoformat()}
                for kind in conditions
            ]
        }
        pods = [name if isinstance(name, PodStatus) else pod(name) for name in names]
        return self._reader.read(self.job, self.job.spec(), trial, pods, checkpoint)[0]

    def asked(self):
        return [request[1].split("/")[-2] for request in self.server.requests]


@pytest.fixture
def logs():
    made_logs = []

    def make(job):
        made_logs.append(Logs(job))
        return made_logs[-1]

    yield make
    for each in made_logs:
        each.server.close()


WORKERS = [pod("t-worker-0", is_first=True), pod("t-worker-1"), pod("t-worker-2")]


@pytest.mark.parametrize(
    ("job", "pods"),
    [
        (made(3, master=False), WORKERS),
        (made(3, master=False, elasticPolicy={"rdzvBackend": "c10d"}), WORKERS),
        (made(1, elasticPolicy={}), [pod("t-master-0"), pod("t-worker-1")]),
    ],
    ids=["workers only", "elastic", "elastic with a master"],
)
def test_a_running_trial_is_read_from_the_pod_that_prints_where_ranks_go_by_arrival(logs, job, pods):
    world = logs(job)
    world.texts["t-worker-1"] = [METRIC]
    assert world.read(pods).measurements == (Measurement(1, 0.95),)
    before = len(world.server.requests)
    world.read(pods)
    assert world.asked()[before:] == ["t-worker-1"]


def test_beside_a_master_the_other_logs_are_read_only_once_the_trial_has_ended(logs):
    world = logs(made(2))
    pods = ["t-master-0", "t-worker-0", "t-worker-1"]
    world.texts["t-worker-1"] = [METRIC]
    assert world.read(pods).measurements == ()
    assert world.asked() == ["t-master-0"]
    ended = world.read(pods, "Succeeded")
    assert ended.outcome is Outcome.REACHED
    assert ended.measurements == (Measurement(1, 0.95),)


def test_the_pod_that_the_operator_names_counts_where_several_print(logs):
    world = logs(made(2, master=False))
    world.texts = {"t-worker-0": [line(0.5)], "t-worker-1": [METRIC]}
    ended = world.read(WORKERS, "Succeeded")
    assert ended.measurements == (Measurement(1, 0.5),)
    assert set(world.asked()) == {"t-worker-0"}


def test_where_no_log_has_the_metric_the_first_pods_log_explains_it(logs):
    world = logs(made(2, master=False))
    world.texts = {"t-worker-0": ["loss 3"], "t-worker-1": ["quiet"]}
    ended = world.read(WORKERS, "Succeeded")
    assert ended.outcome is Outcome.FAILED
    assert "no line of its log carries accuracy" in ended.message


def test_of_a_wide_trial_a_bounded_number_of_logs_is_read(logs):
    world = logs(made(100, master=False))
    world.read([pod(f"t-worker-{n}", is_first=n == 0) for n in range(100)], "Succeeded")
    assert len(set(world.asked())) == MOST_PODS


def test_another_pods_log_that_does_not_answer_leaves_an_ended_trial_unrecorded(logs):
    world = logs(made(2, master=False))
    world.status["t-worker-1"] = 500
    assert world.read(WORKERS, "Succeeded").is_running
    world.status, world.texts["t-worker-1"] = {}, [METRIC]
    assert world.read(WORKERS, "Succeeded").outcome is Outcome.REACHED


@pytest.mark.parametrize(("value", "outcome"), [("0.95", Outcome.REACHED), ("0.5", Outcome.LOST)])
def test_what_was_measured_is_kept_when_the_pod_is_gone(logs, value, outcome):
    world = logs(made(1))
    world.texts["t-master-0"] = [line(value)]
    world.read(["t-master-0"])
    ended = world.read([], "Succeeded")
    assert ended.outcome is outcome
    assert ended.measurements == (Measurement(1, float(value)),)
    assert not ended.is_complete


def test_what_a_checkpoint_kept_counts_when_the_pod_is_gone_after_a_restart(logs):
    world = logs(made(1))
    reading = ("gone", str(world.job.spec().target), "auto", None)
    stamp = "2026-01-01T11:59:00Z"
    ended = world.read(
        [], "Failed", checkpoint=Checkpoint(reading, stamp, stamp, {}, (Measurement(1, 0.95),))
    )
    assert ended.outcome is Outcome.REACHED


def test_a_whole_run_without_the_metric_takes_nothing_from_an_earlier_run(logs):
    world = logs(made(1))
    world.texts["t-master-0"] = [METRIC]
    world.read(["t-master-0"])
    again = replace(pod("t-master-0"), uid="second")
    world.texts["t-master-0"] = ["nothing"]
    assert world.read([again], "Succeeded").outcome is Outcome.FAILED


@pytest.mark.parametrize(("value", "outcome"), [("0.95", Outcome.REACHED), ("0.5", Outcome.LOST)])
def test_a_pod_that_is_gone_is_not_asked_and_what_was_read_of_it_counts(logs, value, outcome):
    world = logs(made(workers=1))
    world.texts = {"t-master-0": [line(value)]}
    assert world.read(["t-master-0"]).measurements == (Measurement(1, float(value)),)
    asked = len(world.asked())
    world.status = {"t-master-0": 404}
    gone = replace(pod("t-master-0"), is_gone=True)
    assert world.read([gone], "Succeeded").outcome is outcome
    assert len(world.asked()) == asked


def test_a_pod_that_was_gone_before_its_log_was_read_is_no_proof_of_a_missing_metric(logs):
    gone = replace(pod("t-master-0"), is_gone=True)
    assert logs(made(workers=1)).read([gone], "Succeeded").outcome is Outcome.LOST


def test_of_a_container_that_was_started_again_the_log_before_that_is_read(logs):
    world = logs(made(workers=1))
    world.texts = {"t-master-0": [METRIC]}
    world.read([pod("t-master-0")])
    world.read([replace(pod("t-master-0"), restarts=1)])
    assert ["previous" in query for _, _, query, *_ in world.server.requests] == [False, True]
