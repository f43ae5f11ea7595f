"""The rendered rights are enough for a whole tuning, and each of them is needed."""

import copy
from datetime import UTC, datetime

import pytest
from kubernetes import client
from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord

from autotuner.backends.kubernetes import Api, KubernetesBackend
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.backends.kubernetes.events import emit
from autotuner.controller.informers import Informers
from autotuner.controller.leader_election import Lock
from autotuner.errors import BackendError
from autotuner.job.job import Job
from autotuner.reconcile import is_settled, reconcile
from autotuner.status import Event
from tests.cluster.controllers import Controller, running
from tests.cluster.tuned_jobs import TunedJob, image_of, learner
from tests.controlplane.waiting import eventually
from tests.helm.chart import FULLNAME, daemon_file, render
from tests.helm.test_rights import JOBS_AND_PODS, LEASES


def without(documents, resource, verb):
    """Return the objects with one verb on one resource taken out of their roles."""
    changed = copy.deepcopy(list(documents))
    for document in changed:
        for rule in document.get("rules", ()):
            if resource in rule["resources"] and verb in rule["verbs"]:
                rule["verbs"].remove(verb)
        # A rule without verbs is none, and the API server refuses it.
        if "rules" in document:
            document["rules"] = [rule for rule in document["rules"] if rule["verbs"]]
    return changed


@pytest.mark.parametrize("is_namespaced", [False, True])
def test_rendered_rights_and_settings_are_enough_for_a_whole_tuning(
    admin, control_plane, namespace, nodes, user_with, tmp_path, is_namespaced
):
    nodes.add_image("example/training", image_of(learner(largest=512)))
    documents = render(at=namespace, **({"namespaces": [namespace]} if is_namespaced else {}))
    token = user_with(documents).api_key["authorization"]
    settings = tmp_path / "config.yaml"
    settings.write_text(daemon_file(documents))
    kubeconfig = control_plane.write_kubeconfig(tmp_path / "kubeconfig", token, namespace)
    controller = Controller(kubeconfig, tmp_path / "controller.log", config_file=settings)
    job = TunedJob(annotations={"autotuner.dev/sampler": "frontier"}).create(admin, namespace)

    with running(controller):
        eventually(job.is_in("Done", "Failed", "Invalid"), 120)
        eventually(lambda: "StudyDone" in job.events())
        requests = {name for name in controller.metrics() if name.startswith("autotuner_api_requests_total")}
        assert controller.terminate()[0] == 0

    assert job.phase == "Done", job.status
    # Which of the batch sizes that the learner manages depends on when its log was read.
    assert job.answer["confirmed"] == 1
    assert 256 < job.answer["batch_size"] <= 512
    assert not [name for name in requests if 'code="403"' in name]
    lease = client.CoordinationV1Api(admin).read_namespaced_lease(FULLNAME, namespace)
    assert not lease.spec.holder_identity


@pytest.fixture
def tune(namespace, nodes, admin):
    """Return a function that tunes a job with some rights, and returns the verb that it was first refused."""
    nodes.add_image("example/training", image_of(learner(largest=512)))
    name = "digits"
    TunedJob(name).create(admin, namespace)

    def run(configuration):
        refused = []
        api = Api(configuration, lambda verb, code: refused.append(verb) if code == "403" else None)
        backend = KubernetesBackend(api)
        watches = Informers(api, [namespace], lambda *_: None, lambda *_: None)

        def one_pass():
            """Make a pass, as the controller's loop does; say whether there is nothing more to learn."""
            try:
                job = Job.from_manifest(api.get(jobs_path(namespace, name)))
                if not is_settled(job):
                    reconcile(backend, job, datetime.now(UTC))
                    return bool(refused)
                # Saying a thing again counts up its Event, which a crash between two effects makes us do.
                for _ in range(2):
                    emit(api, job, Event("Normal", "Again", "again"), datetime.now(UTC))
            except BackendError:
                return bool(refused)
            return True

        watches.start()
        try:
            eventually(lambda: refused or watches.have_synced)
            eventually(lambda: refused or one_pass(), 120)
        finally:
            watches.stop()
        return refused[0] if refused else None

    return run


def test_tuning_with_all_rights_is_refused_nothing(namespace, user_with, tune):
    assert tune(user_with(render(at=namespace, namespaces=[namespace]))) is None


@pytest.mark.parametrize(("resource", "verb"), JOBS_AND_PODS)
def test_tuning_is_refused_what_is_taken_away(namespace, user_with, tune, resource, verb):
    configuration = user_with(without(render(at=namespace, namespaces=[namespace]), resource, verb))
    # The controller counts reading a log apart from reading an object.
    assert tune(configuration) == ("log" if resource == "pods/log" else verb)


def first_refused(configuration, namespace):
    """Take the lease and renew it; return the first of the steps that did not succeed."""
    lock = Lock(Api(configuration), FULLNAME, namespace, "me")
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(sep=" ")
    record = LeaderElectionRecord("me", "30", now, now)
    _, answer = lock.get(FULLNAME, namespace)
    if answer.status != 404:
        return "get"
    if not lock.create(FULLNAME, namespace, record):
        return "create"
    lock.get(FULLNAME, namespace)
    return None if lock.update(FULLNAME, namespace, record) else "update"


@pytest.mark.parametrize(("resource", "verb"), [(None, None), *LEASES])
def test_lease_needs_each_of_its_rights(namespace, user_with, resource, verb):
    documents = render(at=namespace, namespaces=[namespace])
    configuration = user_with(without(documents, resource, verb) if verb else documents)
    assert first_refused(configuration, namespace) == verb
