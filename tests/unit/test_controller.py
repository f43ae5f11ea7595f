"""What the controller makes of changes: which are news, and which are only its own echo."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest

from autotuner import keys
from autotuner.backends.kubernetes import KubernetesBackend
from autotuner.backends.kubernetes.backend import status_changes
from autotuner.backends.kubernetes.readers import find_study
from autotuner.controller.controller import Controller
from autotuner.controller.metrics import Metrics
from autotuner.job.job import Job
from autotuner.job.kinds import TRAINJOB
from autotuner.job.pytorchjob import PYTORCHJOB
from autotuner.job.trial_manifest import answer_digest
from autotuner.status import Status
from autotuner.study.ledger import decode_ledger
from autotuner.trial import Outcome, Purpose, Suggestion
from tests.contract.suite import REPORTS, finished, manifest
from tests.unit.fake_api_server import FakeServer
from tests.unit.job.test_trainjob import BASELINE, runtime_manifest
from tests.unit.job.test_trainjob import manifest as trainjob_manifest


@pytest.fixture
def world():
    """Return a function from a job, as the API server has it, to a controller and the server's requests."""
    servers = []

    def make(job, refused=None, status=403):
        def answer(method, path, _query):
            if refused is not None and refused in path:
                return status, {}, b'{"message": "may not read it"}'
            if method == "GET" and path.endswith("/digits"):
                return 200, {}, json.dumps(job).encode()
            return 200, {}, b'{"items": []}'

        servers.append(FakeServer(answer))
        api, metrics = servers[-1].api(), Metrics()
        backend = KubernetesBackend(api, keeps_views=True)
        controller = Controller(
            api, backend, metrics, max_parallel_trials=None, poll_seconds=15, resync_seconds=300
        )
        return controller, servers[-1].requests

    yield make
    for server in servers:
        server.close()


def job(generation=1, **annotations):
    return {
        "metadata": {
            "name": "digits",
            "namespace": "ns",
            "uid": "u",
            "generation": generation,
            "annotations": {keys.TARGET: "accuracy >= 0.9", **annotations},
        }
    }


def trial(*conditions):
    return {
        "metadata": {
            "name": "digits-0",
            "namespace": "ns",
            "uid": "t",
            "ownerReferences": [{"kind": "PyTorchJob", "name": "digits", "uid": "u"}],
        },
        "status": {
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T12:00:00Z"}
                for kind in conditions
            ]
        },
    }


def test_a_job_that_is_not_registered_is_not_queued(world):
    controller, _ = world({})
    controller.on_job(
        PYTORCHJOB, "ADDED", {"metadata": {"name": "other", "namespace": "ns", "annotations": {}}}
    )
    controller.on_job(PYTORCHJOB, "ADDED", {"metadata": {"name": "bare", "namespace": "ns"}})
    assert len(controller.queue) == 0


def test_our_own_status_is_no_news_and_a_users_edit_is(world):
    controller, _ = world({})
    controller.on_job(PYTORCHJOB, "ADDED", job())
    assert controller.queue.take() == "pytorchjobs/ns/digits"
    controller.queue.done("pytorchjobs/ns/digits")
    controller.on_job(PYTORCHJOB, "MODIFIED", job(**{keys.PHASE: "Searching"}))
    assert len(controller.queue) == 0
    controller.on_job(PYTORCHJOB, "MODIFIED", job(**{keys.PREFIX + "paused": "true"}))
    assert len(controller.queue) == 1


def test_a_status_that_somebody_has_removed_is_news(world):
    controller, _ = world({})
    for annotations, is_news in (
        ({keys.PHASE: "Done"}, True),
        ({}, True),
        ({}, False),
        ({keys.PHASE: "Done"}, False),
        ({keys.PHASE: "Done"}, False),
    ):
        controller.on_job(PYTORCHJOB, "MODIFIED", job(**annotations))
        assert bool(len(controller.queue)) is is_news
        if is_news:
            controller.queue.done(controller.queue.take())


@pytest.mark.parametrize(
    ("before", "after", "is_news"),
    [
        ((), ("Created",), False),
        (("Created",), ("Created", "Running"), False),
        (("Created", "Running"), ("Created", "Suspended"), True),
        (("Created", "Running"), ("Created", "Running"), False),
        (("Created", "Running"), ("Created", "Succeeded"), True),
        (("Created",), ("Created", "Failed"), True),
    ],
)
def test_a_trials_end_is_news_at_once_and_its_begin_can_wait_for_the_next_poll(world, before, after, is_news):
    controller, _ = world({})
    controller.on_trial(PYTORCHJOB, "ADDED", trial(*before))
    if len(controller.queue):
        controller.queue.done(controller.queue.take())
    controller.on_trial(PYTORCHJOB, "MODIFIED", trial(*after))
    assert bool(len(controller.queue)) is is_news


def test_a_trial_that_somebody_else_deleted_is_news(world):
    controller, _ = world({})
    controller.on_trial(PYTORCHJOB, "ADDED", trial())
    assert len(controller.queue) == 0
    controller.on_trial(PYTORCHJOB, "DELETED", trial())
    assert controller.queue.take() == "pytorchjobs/ns/digits"


def test_a_job_that_cannot_be_read_is_told_so(world):
    malformed = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", **job(), "spec": {}}
    controller, requests = world(malformed)
    controller.on_job(PYTORCHJOB, "ADDED", malformed)
    controller.work_once()
    patches = [json.loads(body) for method, *_, body in requests if method == "PATCH"]
    assert patches[0]["metadata"]["annotations"][keys.PHASE] == "Invalid"
    assert "pytorchReplicaSpecs" in patches[0]["metadata"]["annotations"][keys.MESSAGE]


def test_a_job_that_the_watch_has_is_asked_for_again_where_it_was_not_found(world):
    controller, _ = world({}, refused="/digits", status=404)
    controller.on_job(PYTORCHJOB, "ADDED", job())
    controller.work_once()
    assert controller.queue._agenda.next_due() is not None
    controller.on_job(PYTORCHJOB, "DELETED", job())
    controller.work_once()
    assert controller.queue._agenda.next_due() is None


def test_a_job_that_was_deleted_with_its_namespace_and_role_is_forgotten(world):
    controller, _ = world({}, refused="/digits", status=403)
    controller.on_job(PYTORCHJOB, "ADDED", job())
    controller.work_once()
    # The watch has it, so only the permission is missing.
    assert controller.queue._agenda.failures("pytorchjobs/ns/digits") == 1
    controller.on_job(PYTORCHJOB, "DELETED", job())
    controller.work_once()
    assert controller.queue._agenda.failures("pytorchjobs/ns/digits") == 0
    assert controller.queue._agenda.next_due() is None


def test_an_answer_that_somebody_has_spoiled_is_replaced():
    assert status_changes({keys.ANSWER: "[" * 100_000}, {keys.ANSWER: "{}"}) == {keys.ANSWER: "{}"}


class Cluster:
    """Two registered jobs, `first` and `second`; the trials of those in `broken` cannot be listed."""

    def __init__(self):
        self.jobs = {}
        for name in ("first", "second"):
            self.jobs[name] = deepcopy(manifest(REPORTS))
            self.jobs[name]["metadata"] |= {"name": name, "namespace": "ns", "uid": f"uid-{name}"}
        self.broken = set()
        self.trials = []
        self.recorded = []
        self.server = FakeServer(self.answer)
        api = self.server.api()
        self.controller = Controller(
            api,
            KubernetesBackend(api, keeps_views=True, on_record=self.recorded.append),
            Metrics(),
            max_parallel_trials=1,
            poll_seconds=15,
            resync_seconds=300,
        )

    def answer(self, method, path, query):
        name = path.rpartition("/")[2]
        if method == "GET" and name in self.jobs:
            return 200, {}, json.dumps(self.jobs[name]).encode()
        if method == "GET" and "configmaps" in path:
            return 404, {}, b'{"message": "none"}'
        if query.get("labelSelector") == keys.TRIAL_JOB_UID and path.endswith("/pytorchjobs"):
            return 200, {}, json.dumps({"items": self.trials}).encode()
        if any(f"uid-{broken}" in query.get("labelSelector", "") for broken in self.broken):
            return 500, {}, b'{"message": "broken"}'
        if method == "POST":
            return 201, {}, self.server.requests[-1][4]
        return 200, {}, b'{"items": []}'

    def started(self):
        sent = [json.loads(body) for method, path, *_, body in self.server.requests if method == "POST"]
        return [each["metadata"]["name"].partition("-")[0] for each in sent if each["kind"] == "PyTorchJob"]


@pytest.fixture
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.server.close()


def test_a_job_that_fails_at_the_head_of_the_line_does_not_hold_up_the_others(cluster):
    controller = cluster.controller
    controller.on_trial(PYTORCHJOB, "ADDED", trial())
    for name in ("first", "second"):
        controller.on_job(PYTORCHJOB, "ADDED", cluster.jobs[name])
        controller.work_once()
    assert cluster.started() == []

    cluster.broken = {"first"}
    cluster.jobs["first"]["metadata"]["generation"] = 2
    controller.on_job(PYTORCHJOB, "MODIFIED", cluster.jobs["first"])
    controller.on_trial(PYTORCHJOB, "DELETED", trial())
    while len(controller.queue):
        controller.work_once()
    assert cluster.started() == ["second"]


def test_a_trial_without_its_job_holds_no_slot(cluster):
    controller, orphan = cluster.controller, trial()
    controller.on_trial(PYTORCHJOB, "ADDED", orphan)
    controller.on_job(PYTORCHJOB, "ADDED", cluster.jobs["first"])
    controller.work_once()
    assert cluster.started() == []
    orphan["metadata"]["ownerReferences"] = []
    controller.on_trial(PYTORCHJOB, "MODIFIED", orphan)
    controller.work_once()
    assert cluster.started() == ["first"]


@pytest.mark.parametrize(("owners", "started"), [(1, []), (0, ["first"])])
def test_at_the_start_only_trials_with_a_job_hold_a_slot(cluster, owners, started):
    found = trial()
    found["metadata"]["ownerReferences"] = found["metadata"]["ownerReferences"][:owners]
    cluster.trials = [found]
    cluster.controller.begin(("ns",))
    cluster.controller.on_job(PYTORCHJOB, "ADDED", cluster.jobs["first"])
    cluster.controller.work_once()
    assert cluster.started() == started


def test_an_earlier_study_is_read_again_only_with_its_job(cluster):
    controller, first, ended = cluster.controller, cluster.jobs["first"], trial()
    first["metadata"]["annotations"][keys.PREFIX + "start-from"] = "second"
    ended["metadata"]["ownerReferences"][0] |= {"name": "first", "uid": "uid-first"}

    def reads():
        controller.work_once()
        return sum(
            method == "GET" and path.endswith("pytorchjobs/second")
            for method, path, *_ in cluster.server.requests
        )

    controller.on_job(PYTORCHJOB, "ADDED", first)
    assert reads() == 1
    controller.on_trial(PYTORCHJOB, "DELETED", ended)
    assert reads() == 1
    first["metadata"]["generation"] = 2
    controller.on_job(PYTORCHJOB, "MODIFIED", first)
    assert reads() == 2


def test_a_search_starts_without_a_study_whose_ledger_belongs_to_something_else(cluster):
    first = cluster.jobs["first"]
    first["metadata"]["annotations"][keys.PREFIX + "start-from"] = "second"
    cluster.jobs["second-tuning"] = {"metadata": {"name": "second-tuning", "uid": "c"}, "data": {}}
    cluster.controller.on_job(PYTORCHJOB, "ADDED", first)
    cluster.controller.work_once()
    (status,) = [json.loads(body) for method, *_, body in cluster.server.requests if method == "PATCH"]
    said = status["metadata"]["annotations"][keys.MESSAGE]
    assert said.startswith("the search starts without second: ConfigMap ns/second-tuning exists")


def test_of_two_jobs_of_a_name_only_the_registered_one_has_to_be_readable(cluster):
    unreadable = {"metadata": {"name": "first", "namespace": "ns", "uid": "other"}, "spec": {}}
    del cluster.jobs["second"]["metadata"]["annotations"][keys.TARGET]
    was = cluster.answer

    def answer(method, path, query):
        if path.endswith("/trainjobs/first"):
            return 200, {}, json.dumps({"kind": "TrainJob", **unreadable}).encode()
        return (404, {}, b"{}") if "/trainjobs/" in path else was(method, path, query)

    server = FakeServer(answer)
    assert find_study(server.api(), "ns", "first").job.uid == "uid-first"
    assert find_study(server.api(), "ns", "second").job.uid == "uid-second"
    server.close()


class Failing(Cluster):
    """One registered job, whose status is written down; `error` is what the list of its trials answers."""

    def __init__(self):
        super().__init__()
        self.error = (500, "broken")
        self.unread = False
        self.events = []
        self.controller.on_job(PYTORCHJOB, "ADDED", self.jobs["first"])

    def answer(self, method, path, query):
        sent, name = json.loads(self.server.requests[-1][4] or "{}"), path.rpartition("/")[2]
        if method == "GET" and path.endswith("/first") and self.unread:
            return 503, {}, b'{"message": "later"}'
        if method == "POST" and path.endswith("/events"):
            self.events.append(sent["message"])
        if method == "PATCH" and name in {"first", "second"}:
            self.jobs[name]["metadata"]["annotations"] |= sent["metadata"]["annotations"]
        if "labelSelector" in query:
            code, said = self.error
            return code, {}, json.dumps({"message": said}).encode()
        return super().answer(method, path, query)

    def fail(self, times):
        for _ in range(times):
            self.controller.queue.add(self.key)
            self.controller.work_once()

    key = "pytorchjobs/ns/first"

    @property
    def message(self):
        return self.jobs["first"]["metadata"]["annotations"].get(keys.MESSAGE, "")


@pytest.fixture
def failing():
    failing = Failing()
    yield failing
    failing.server.close()


def test_the_status_shows_the_error_of_now_and_no_earlier_one(failing):
    failing.error = (403, "exceeded quota")
    failing.fail(3)
    assert failing.message.endswith("exceeded quota")
    failing.error = (403, "denied by policy")
    failing.fail(1)
    assert failing.message.endswith("denied by policy")
    failing.fail(3)
    assert [said.rpartition("403 ")[2] for said in failing.events] == ["exceeded quota", "denied by policy"]


def test_the_message_of_a_job_that_cannot_be_read_stays(failing):
    failing.fail(3)
    said = failing.message
    failing.unread = True
    failing.fail(2)
    assert failing.message == said


def test_an_unexpected_error_is_in_the_status_too(failing, monkeypatch):
    def fail(*_):
        raise LookupError("nothing there")

    monkeypatch.setattr(failing.controller._backend, "observe", fail)
    failing.fail(2)
    assert not failing.message
    failing.fail(1)
    assert "LookupError: nothing there (a fault of the autotuner: please report it" in failing.message


def test_a_training_runtime_that_cannot_be_read_is_told(world):
    made = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", **job()}
    made["spec"] = {"runtimeRef": {"name": "torch-distributed"}, "suspend": True, "trainer": {"image": "x"}}
    controller, requests = world(made, refused="clustertrainingruntimes")
    controller.on_job(TRAINJOB, "ADDED", made)
    for _ in range(3):
        controller.queue.add("trainjobs/ns/digits")
        controller.work_once()
    (patch,) = [json.loads(body) for method, *_, body in requests if method == "PATCH"]
    assert "403 may not read it" in patch["metadata"]["annotations"][keys.MESSAGE]


@pytest.mark.parametrize("status", [403, 404])
def test_a_job_whose_training_runtime_cannot_be_read_is_withdrawn_all_the_same(world, status):
    made = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        **job(**{keys.PHASE: "Invalid"}),
    }
    made["spec"] = {"runtimeRef": {"name": "torch-distributed"}, "suspend": True, "trainer": {"image": "x"}}
    del made["metadata"]["annotations"][keys.TARGET]
    controller, requests = world(made, refused="clustertrainingruntimes", status=status)
    controller.on_job(TRAINJOB, "ADDED", made)
    controller.work_once()
    (patch,) = [json.loads(body) for method, *_, body in requests if method == "PATCH"]
    assert patch["metadata"]["annotations"] == {keys.PHASE: None}


def test_a_job_whose_training_runtime_is_wrong_is_tuned_once_that_is_right():
    train_job = trainjob_manifest(name="digits", metadata={"namespace": "ns", "uid": "u"})
    train_job["spec"]["trainer"]["env"] = []
    container = {}

    def answer(method, path, _query):
        if "clustertrainingruntimes" in path:
            return 200, {}, json.dumps(runtime_manifest(container=container)).encode()
        if path.endswith("/digits") and method == "PATCH":
            sent = json.loads(server.requests[-1][4])["metadata"]["annotations"]
            train_job["metadata"]["annotations"] |= {k: v for k, v in sent.items() if v is not None}
        if path.endswith("/digits"):
            return 200, {}, json.dumps(train_job).encode()
        if "configmaps" in path and method == "GET":
            return 404, {}, b'{"message": "not found"}'
        return (201, {}, server.requests[-1][4]) if method == "POST" else (200, {}, b'{"items": []}')

    server = FakeServer(answer)
    backend = KubernetesBackend(server.api(), keeps_views=True)
    controller = Controller(
        server.api(), backend, Metrics(), max_parallel_trials=None, poll_seconds=15, resync_seconds=0.01
    )
    controller.on_job(TRAINJOB, "ADDED", train_job)
    controller.work_once()
    assert train_job["metadata"]["annotations"][keys.PHASE] == "Invalid"
    container["env"] = BASELINE
    controller.work_once()
    server.close()
    assert train_job["metadata"]["annotations"][keys.PHASE] == "Searching"


def test_a_changed_label_of_a_job_is_news(world):
    controller, _ = world({})
    controller.on_job(PYTORCHJOB, "ADDED", job())
    controller.queue.done(controller.queue.take())
    changed = job()
    changed["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team-a"}
    controller.on_job(PYTORCHJOB, "MODIFIED", changed)
    assert len(controller.queue) == 1


class Trials(Failing):
    """One registered job and its trials, as the API server keeps them."""

    def __init__(self):
        self.kept = {}
        self.refuses_ledger = self.refuses_status = False
        super().__init__()

    def answer(self, method, path, query):
        name = path.rpartition("/")[2]
        if self.refuses_status and method == "PATCH" and name == "first":
            return 503, {}, b'{"message": "etcd is down"}'
        if self.refuses_ledger and "configmaps" in path and method != "GET":
            return 503, {}, b'{"message": "etcd is down"}'
        if method == "POST" and path.endswith("/pytorchjobs"):
            made = json.loads(self.server.requests[-1][4])
            if made["metadata"]["name"] in self.kept:
                return 409, {}, b'{"message": "exists"}'
            made["metadata"]["uid"] = f"t-{len(self.server.requests)}"
            self.kept[made["metadata"]["name"]] = made
            return 201, {}, json.dumps(made).encode()
        if name in self.kept:
            found = self.kept.pop(name) if method == "DELETE" else self.kept[name]
            return 200, {}, json.dumps(found).encode()
        if "configmaps" in path and method == "POST":
            made = json.loads(self.server.requests[-1][4])
            self.jobs[made["metadata"]["name"]] = made
            return 201, {}, json.dumps(made).encode()
        if "configmaps" in path and method == "PATCH":
            self.jobs[name]["data"] |= json.loads(self.server.requests[-1][4])["data"]
            return 200, {}, json.dumps(self.jobs[name]).encode()
        if "labelSelector" in query:
            items = list(self.kept.values()) if path.endswith("/pytorchjobs") else []
            return 200, {}, json.dumps({"items": items}).encode()
        return super().answer(method, path, query)

    def delete_by_hand(self):
        name, deleted = self.kept.popitem()
        self.controller.on_trial(PYTORCHJOB, "DELETED", deleted)
        return name

    @property
    def status(self):
        annotations = self.jobs["first"]["metadata"]["annotations"]
        return {key: annotations.get(key) for key in (keys.PHASE, keys.REASON)}

    def ledger(self):
        return decode_ledger(self.jobs.get("first-tuning", {"data": {}})["data"])[0]


@pytest.fixture
def trials():
    trials = Trials()
    trials.controller.work_once()
    yield trials
    trials.server.close()


def test_trials_that_are_deleted_again_and_again_end_the_study(trials):
    deleted = []
    for _ in range(6):
        if trials.kept:
            deleted.append(trials.delete_by_hand())
            trials.controller.work_once()
    assert [name.rpartition("-")[2] for name in deleted] == ["0", "1", "2", "3"]
    assert [trial.outcome for trial in trials.ledger()] == [Outcome.LOST] * 4
    assert trials.status == {keys.PHASE: "Failed", keys.REASON: "ClusterLosesTrials"}
    assert "somebody else has deleted its PyTorchJob" in trials.message


def test_a_trial_that_is_deleted_while_its_job_is_changed_is_recorded(trials):
    trials.jobs["first"]["metadata"]["annotations"][keys.PREFIX + "max-trials"] = "50"
    trials.controller.on_job(PYTORCHJOB, "MODIFIED", trials.jobs["first"])
    trials.delete_by_hand()
    trials.controller.work_once()
    assert [trial.outcome for trial in trials.ledger()] == [Outcome.LOST]


def test_a_trial_is_removed_as_it_is_now_from_a_job_that_is_no_longer_registered(trials):
    (made,) = trials.kept.values()
    made["metadata"]["uid"] = "another"  # it was removed and started again by another leader
    job = trials.jobs["first"]
    del job["metadata"]["annotations"][keys.TARGET]
    trials.controller.on_job(PYTORCHJOB, "MODIFIED", job)
    trials.controller.work_once()
    (sent,) = [json.loads(body) for method, *_, body in trials.server.requests if method == "DELETE"]
    assert sent["preconditions"] == {"uid": "another"}


def test_a_started_trial_keeps_its_slot_where_the_status_cannot_be_written():
    trials = Trials()
    trials.refuses_status = True
    trials.controller.work_once()
    (name,) = trials.kept
    assert f"pytorchjobs/ns/{name}" in trials.controller._slots._taken
    trials.server.close()


def test_a_deleted_trial_is_recorded_once_the_ledger_can_be_written(trials):
    name, _ = trials.kept.copy().popitem()
    trials.refuses_ledger = True
    trials.delete_by_hand()
    trials.controller.work_once()
    assert not trials.ledger()
    trials.refuses_ledger = False
    trials.controller.queue.add("pytorchjobs/ns/first")
    trials.controller.work_once()
    assert [trial.outcome for trial in trials.ledger()] == [Outcome.LOST]
    assert name not in trials.kept


def test_a_recorded_trial_is_counted_once_though_the_status_cannot_be_written(trials):
    trials.refuses_status = True
    trials.delete_by_hand()
    trials.controller.work_once()
    trials.refuses_status = False
    trials.controller.queue.add("pytorchjobs/ns/first")
    trials.controller.work_once()
    assert trials.status[keys.PHASE] == "Searching"
    assert [trial.outcome for trial in trials.recorded] == [Outcome.LOST]


def test_a_trial_that_an_earlier_leader_has_recorded_is_not_lost(trials):
    name, number = next(iter(trials.kept)), 0
    recorded = finished(
        number, suggestion=Suggestion(number, 256, {"learning_rate": 0.1}, 0, Purpose.BASELINE)
    )
    other = KubernetesBackend(trials.server.api())
    other.record(Job.from_manifest(trials.jobs["first"]), recorded)
    assert trials.delete_by_hand() == name
    trials.controller.work_once()
    assert trials.ledger()[0].outcome is Outcome.REACHED


def test_a_trial_whose_annotation_was_removed_is_told_with_the_remedy(trials):
    (made,) = trials.kept.values()
    del made["metadata"]["annotations"][keys.SUGGESTION]
    trials.jobs["first"]["metadata"]["generation"] = 2
    trials.controller.on_job(PYTORCHJOB, "MODIFIED", trials.jobs["first"])
    trials.fail(3)
    assert "suggestion was removed or changed: delete it, and exempt trials" in trials.message
    assert list(trials.kept.values()) == [made]


@pytest.mark.parametrize("phase", ["Done", "Failed"])
def test_a_trial_that_starts_after_the_end_of_its_study_is_removed(trials, phase):
    (late,) = trials.kept.values()
    annotations = trials.jobs["first"]["metadata"]["annotations"]
    annotations[keys.PHASE] = phase
    late["status"] = trial("Succeeded")["status"]
    trials.controller._known.clear()
    trials.controller.on_trial(PYTORCHJOB, "MODIFIED", late)
    trials.controller.work_once()
    assert not trials.kept


class Refusing(Trials):
    """A cluster that takes no trial at first."""

    refusal = 403

    def answer(self, method, path, query):
        if method == "POST" and path.endswith("/pytorchjobs") and self.refusal:
            return self.refusal, {}, b'{"message": "exceeded quota: few"}'
        if method == "GET" and "/first-" in path and path.rpartition("/")[2] not in self.kept:
            return 404, {}, b'{"message": "not found"}'
        return super().answer(method, path, query)


@pytest.fixture
def refusing():
    refusing = Refusing()
    yield refusing
    refusing.server.close()


@pytest.mark.parametrize("refusal", [400, 403, 406, 413, 422])
def test_a_start_that_the_cluster_refuses_is_told_and_holds_nothing_up(refusing, refusal):
    refusing.refusal = refusal
    refusing.fail(3)
    assert refusing.message.startswith("trial 0 cannot start, will retry: create ")
    assert "exceeded quota: few; runs the job unchanged" in refusing.message
    assert refusing.status[keys.PHASE] == "Searching"
    assert len([said for said in refusing.events if "exceeded quota" in said]) == 2  # and the new phase
    # It holds no slot while it cannot start: the only one is free for the other job.
    refusing.refusal = None
    refusing.controller.on_job(PYTORCHJOB, "ADDED", refusing.jobs["second"])
    refusing.controller.work_once()
    assert [name.partition("-")[0] for name in refusing.kept] == ["second"]


def test_a_conflict_with_something_else_than_the_trials_name_is_told_in_its_own_words(refusing):
    # So answers a ResourceQuota that changes at this moment, or a webhook.
    refusing.refusal = 409
    refusing.fail(3)
    assert "reconcile failed, will retry: create " in refusing.message
    assert "409 exceeded quota: few" in refusing.message


class Policed(Trials):
    """A cluster that refuses each status, as Trainer's webhook does without the runtime of the job."""

    def answer(self, method, path, query):
        if method == "PATCH" and path.endswith("/first"):
            return 422, {}, b'{"message": "no such annotations"}'
        return super().answer(method, path, query)


def test_a_status_that_the_cluster_refuses_is_told_by_an_event():
    policed = Policed()
    policed.controller.work_once()
    policed.server.close()
    (told,) = policed.events
    assert told.startswith("the status cannot be written, will retry: patch ")
    assert "422 no such annotations; it would be: runs the job unchanged" in told


class Elsewhere(Trials):
    """A cluster whose Kueue assigns trials to MultiKueue, as their queue says."""

    def answer(self, method, path, query):
        status, headers, body = super().answer(method, path, query)
        if method == "POST" and path.endswith("/pytorchjobs"):
            (made,) = self.kept.values()
            made["spec"]["runPolicy"]["managedBy"] = "kueue.x-k8s.io/multikueue"
            body = json.dumps(made).encode()
        return status, headers, body


def test_a_trial_that_would_run_in_another_cluster_is_removed_and_told():
    elsewhere = Elsewhere()
    elsewhere.fail(2)
    elsewhere.server.close()
    assert not elsewhere.kept
    assert elsewhere.message.startswith("trial 0 cannot start, will retry: MultiKueue would run first-")
    assert f"name a queue of this cluster in {keys.QUEUE}; runs the job unchanged" in elsewhere.message


class Mutating(Trials):
    """A cluster that removes a part of the metadata of each trial, as an admission webhook can."""

    removed = "labels"

    def answer(self, method, path, query):
        if method == "POST" and path.endswith("/pytorchjobs"):
            status, headers, body = super().answer(method, path, query)
            made = json.loads(body)
            del made["metadata"][self.removed]
            self.kept[made["metadata"]["name"]] = made
            return status, headers, json.dumps(made).encode()
        return super().answer(method, path, query)


@pytest.mark.parametrize(("finalizer", "left"), [("example.com/hold", 0), ("orphan", 1)])
def test_the_trials_of_a_job_that_is_being_deleted_are_removed_unless_they_are_orphaned(
    trials, finalizer, left
):
    deleted = {"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": [finalizer]}
    trials.jobs["first"]["metadata"] |= deleted
    trials.controller.on_job(PYTORCHJOB, "MODIFIED", trials.jobs["first"])
    trials.controller.work_once()
    assert len(trials.kept) == left
    assert trials.ledger() == []


@pytest.mark.parametrize("removed", ["labels", "annotations", "ownerReferences"])
def test_a_trial_that_would_not_be_found_again_is_removed_and_told(removed):
    mutating = Mutating()
    mutating.removed = removed
    mutating.fail(2)
    mutating.server.close()
    assert not mutating.kept
    assert mutating.message.startswith("trial 0 cannot start, will retry: the cluster changes the labels,")
    assert "exempt trials from what changes them" in mutating.message
    assert mutating.ledger() == []


def test_a_status_that_was_copied_with_the_job_does_not_settle_the_copy(trials):
    annotations = trials.jobs["first"]["metadata"]["annotations"]
    done = {
        keys.PHASE: "Done",
        keys.ANSWER: "{}",
        keys.OBSERVED: Job.from_manifest(trials.jobs["first"]).fingerprint,
    }
    copied = deepcopy(trials.jobs["first"])
    copied["metadata"] |= {"uid": "uid-copy", "annotations": {**annotations, **done}}
    trials.jobs["first"] = copied
    trials.controller.on_job(PYTORCHJOB, "MODIFIED", copied)
    trials.controller.work_once()
    assert trials.status[keys.PHASE] == "Searching"
    assert trials.jobs["first"]["metadata"]["annotations"][keys.ANSWER] is None


def test_a_registered_job_that_was_made_from_a_trial_is_told_so_and_tuned_without_its_labels(trials):
    job, labels = trials.jobs["second"], {keys.TRIAL_JOB_UID: "uid-first", keys.TRIAL_NUMBER: "3"}
    job["metadata"]["labels"] = labels
    trials.controller.on_trial(PYTORCHJOB, "ADDED", job)
    trials.controller.work_once()
    said = trials.jobs["second"]["metadata"]["annotations"]
    assert said[keys.PHASE] == "Invalid"
    assert f"label {keys.TRIAL_JOB_UID} is 'uid-first': marks a trial" in said[keys.MESSAGE]
    assert f"kubectl label pytorchjob second {keys.TRIAL_JOB_UID}-" in said[keys.MESSAGE]

    labels.clear()
    trials.controller.on_trial(PYTORCHJOB, "DELETED", job)  # as the watch shows it
    trials.controller.on_job(PYTORCHJOB, "ADDED", job)
    trials.controller.work_once()
    assert trials.jobs["second"]["metadata"]["annotations"][keys.PHASE] != "Invalid"


def test_a_status_is_written_as_a_whole(trials):
    # Another controller, which has lost its lease since, has written another one meanwhile.
    annotations = trials.jobs["first"]["metadata"]["annotations"]
    running = {key: value for key, value in annotations.items() if key.startswith(keys.STATUS_PREFIX)}
    annotations |= {keys.PHASE: "Confirming", keys.REASON: "Confirming", keys.MESSAGE: "confirms"}
    trials.controller._backend.publish(
        trials.controller._known[trials.key].job, Status({**running, keys.TRIALS: "{}"}), ()
    )
    assert trials.status == {keys.PHASE: "Searching", keys.REASON: running[keys.REASON]}
    assert trials.message == running[keys.MESSAGE]


class Confirmed(Trials):
    """A study whose answer is confirmed, and whose job must not be changed."""

    is_refusing = True

    def answer(self, method, path, query):
        sent = json.loads(self.server.requests[-1][4] or "{}")
        if method == "PATCH" and "spec" in sent:
            if self.is_refusing:
                return 422, {}, b'{"message": "only team leads may run jobs"}'
            self.jobs["first"]["spec"] = sent["spec"]
        return super().answer(method, path, query)


@pytest.fixture
def confirmed():
    confirmed = Confirmed()
    asked = {"apply": "true", "batch-size": "256..256", "confirmations": "1"}
    annotations = confirmed.jobs["first"]["metadata"]["annotations"]
    annotations |= {keys.PREFIX + name: value for name, value in asked.items()}
    for number, purpose in enumerate((Purpose.BASELINE, Purpose.CONFIRM)):
        ran = Suggestion(number, 256, {"learning_rate": 0.1}, number, purpose)
        recorded = finished(suggestion=ran, is_complete=True)
        KubernetesBackend(confirmed.server.api()).record(Job.from_manifest(confirmed.jobs["first"]), recorded)
    yield confirmed
    confirmed.server.close()


def test_an_answer_that_must_not_be_applied_is_shown_and_applied_once_it_may(confirmed):
    for _ in range(4):
        confirmed.fail(1)
        shown = confirmed.jobs["first"]["metadata"]["annotations"]
        assert json.loads(shown[keys.ANSWER])["confirmed"] == 1
        assert shown[keys.PHASE] == "Done"
        assert "the answer cannot be applied, will retry" in confirmed.message
        assert "only team leads may run jobs; batch size 256" in confirmed.message
    sent = [
        (path, json.loads(body)) for method, path, *_, body in confirmed.server.requests if method == "PATCH"
    ]
    assert sum(path.endswith("/first") and "spec" not in body for path, body in sent) == 1
    confirmed.is_refusing = False
    confirmed.fail(1)
    assert confirmed.jobs["first"]["spec"]["runPolicy"]["suspend"] is False
    assert "cannot be applied" not in confirmed.message


def test_an_answer_that_was_applied_is_not_applied_again(confirmed):
    confirmed.is_refusing = False
    confirmed.fail(1)
    job = confirmed.jobs["first"]
    assert job["spec"]["runPolicy"]["suspend"] is False
    job["spec"]["runPolicy"]["suspend"] = True  # by its owner
    job["metadata"]["annotations"][keys.PREFIX + "max-trials"] = "50"
    confirmed.controller.on_job(PYTORCHJOB, "MODIFIED", job)
    confirmed.controller.work_once()
    assert job["metadata"]["annotations"][keys.PHASE] == "Done"
    assert confirmed.jobs["first"]["spec"]["runPolicy"]["suspend"] is True


def test_a_job_that_runs_with_its_answer_is_not_warned_of(confirmed):
    confirmed.is_refusing = False
    confirmed.fail(1)
    job = confirmed.jobs["first"]
    assert job["spec"]["runPolicy"]["suspend"] is False
    job["metadata"]["annotations"][keys.PREFIX + "max-trials"] = "50"
    confirmed.controller.on_job(PYTORCHJOB, "MODIFIED", job)
    confirmed.controller.work_once()
    assert job["metadata"]["annotations"][keys.PHASE] == "Done"
    assert "suspend" not in confirmed.message


def test_an_answer_enters_the_queue_of_its_trials(confirmed):
    confirmed.is_refusing = False
    job = confirmed.jobs["first"]
    job["metadata"]["annotations"][keys.QUEUE] = "team-a"
    job["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "none"}
    confirmed.fail(1)
    (sent,) = [
        json.loads(body)
        for method, path, *_, body in confirmed.server.requests
        if method == "PATCH" and path.endswith("/first")
    ]
    assert sent["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert sent["spec"]["runPolicy"]["suspend"] is True
    assert keys.APPLIED in sent["metadata"]["annotations"]


def test_a_copy_of_a_job_with_its_status_gets_its_own_answer(confirmed):
    confirmed.is_refusing = False
    confirmed.fail(1)
    first = Job.from_manifest(confirmed.jobs["first"])
    answer = Suggestion(1, 256, {"learning_rate": 0.1}, 1, Purpose.CONFIRM)
    assert first.annotations[keys.APPLIED] == answer_digest(first, answer)
    assert first.annotations[keys.APPLIED] != answer_digest(replace(first, uid="another"), answer)
    other = replace(answer, parameters={"learning_rate": 0.2})
    assert answer_digest(first, other) != answer_digest(first, answer)


@pytest.mark.parametrize("size", [1_000, 150_000])
def test_a_patch_for_which_the_annotations_have_no_room_is_left_out_and_told(confirmed, size):
    job = confirmed.jobs["first"]
    annotations = job["metadata"]["annotations"]
    annotations[keys.PREFIX + "apply"] = "patch"
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    container["args"] = [*container.get("args", ()), "#" + "x" * size]  # a script
    for variable in container["env"]:
        variable["value"] += "0" * (variable["name"] == "AUTOTUNER_LEARNING_RATE")  # the answer writes 0.1
    annotations["kubectl.kubernetes.io/last-applied-configuration"] = json.dumps(job["spec"])
    confirmed.fail(1)
    assert annotations[keys.PHASE] == "Done"
    assert (keys.PATCH in annotations) is (size < 100_000)
    assert ("have no room: take the values from the answer; " in confirmed.message) is (size > 100_000)
    assert sum(len(key) + len(text) for key, text in annotations.items()) <= 256 * 1024


def test_a_push_that_the_watch_shows_is_kept_for_the_next_look_and_forgotten_with_its_trial(world):
    controller, requests = world({})
    pushing = trial()
    pushing["metadata"]["ownerReferences"][0]["kind"] = "TrainJob"
    pushing["status"]["trainerStatus"] = {"metrics": [{"name": "accuracy", "value": "0.5"}]}
    controller.on_trial(TRAINJOB, "MODIFIED", pushing)
    (noted,) = controller._backend._reader.pushes._trials.values()
    assert [dict(push.values) for push in noted.unread] == [{"accuracy": "0.5"}]
    assert not requests
    controller._backend._removed.add("t")  # by this controller, which has recorded it
    controller.on_trial(TRAINJOB, "DELETED", pushing)
    assert not controller._backend._reader.pushes._trials
