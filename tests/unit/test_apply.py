"""The job that an answer makes on a cluster: made once, and never over another's."""

import json

import pytest

from autotuner import keys
from autotuner.backends.kubernetes import KubernetesBackend
from autotuner.errors import BackendError, Conflict
from autotuner.job.trial_manifest import answered_job
from tests.builders import suggestion
from tests.unit.fake_api_server import FakeServer
from tests.unit.job.test_trainjob import job

JOB = job(metadata={"namespace": "ns", "uid": "u-1"})
ANSWER = answered_job(JOB, suggestion(9, batch_size=128))


@pytest.fixture
def apply():
    """Return a function that applies an answer where an object of its name is there, or none."""
    servers = []

    def run(there):
        def answer(method, _path, _query):
            if method == "POST" and there is None:
                return 201, {}, json.dumps(ANSWER).encode()
            if method == "POST":
                return 409, {}, b'{"message": "already exists"}'
            return (200, {}, json.dumps(there).encode()) if there else (404, {}, b'{"message": "none"}')

        servers.append(FakeServer(answer))
        KubernetesBackend(servers[-1].api()).apply(JOB, ANSWER)
        return servers[-1].requests

    yield run
    for server in servers:
        server.close()


def there(**annotations):
    metadata = {**ANSWER["metadata"], "annotations": {**ANSWER["metadata"]["annotations"], **annotations}}
    return {**ANSWER, "metadata": metadata}


def test_an_answer_becomes_a_job_of_its_kind(apply):
    ((method, path, *_, body),) = apply(None)
    assert (method, path) == ("POST", "/apis/trainer.kubeflow.org/v1alpha1/namespaces/ns/trainjobs")
    assert json.loads(body)["metadata"]["name"] == "toy-tuned"


def test_an_answer_that_was_made_already_is_left_as_it_is(apply):
    again = answered_job(JOB, suggestion(12, batch_size=128, seed=5))
    assert apply(again)


def test_a_job_of_another_owner_or_of_an_earlier_answer_is_a_conflict(apply):
    with pytest.raises(
        Conflict, match="does not run the answer of toy: remove it, or set another name in autotuner"
    ):
        apply(there(**{keys.ANSWER_OF: "another"}))
    with pytest.raises(Conflict, match="runs an earlier answer of toy"):
        apply(answered_job(JOB, suggestion(3, batch_size=64)))


def test_a_job_that_is_gone_between_two_requests_is_tried_again(apply):
    with pytest.raises(BackendError, match="409 already exists"):
        apply({})
