"""The API server, with all webhooks, takes the files of the example with Kueue as they are."""

from pathlib import Path

import pytest
import yaml
from kubernetes import client, dynamic

from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from tests.builders import suggestion

pytestmark = pytest.mark.usefixtures("trainer", "kueue")

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
NAMESPACE = "team-a"


@pytest.fixture(scope="module")
def team(admin):
    """The namespace of the example."""
    core = client.CoreV1Api(admin)
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    yield NAMESPACE
    core.delete_namespace(NAMESPACE)


def documents(file):
    return list(yaml.safe_load_all((EXAMPLES / file).read_text()))


def dry_run(admin, document, namespace=NAMESPACE):
    """Return what the API server would store."""
    api = dynamic.DynamicClient(admin).resources.get(
        api_version=document["apiVersion"], kind=document["kind"]
    )
    where = {"namespace": namespace} if api.namespaced else {}
    return api.create(body=document, dry_run="All", **where).to_dict()


def test_the_queues_are_taken(admin, team):
    for document in documents("kueue/queues.yaml"):
        stored = dry_run(admin, document)
        assert stored["metadata"]["name"] == document["metadata"]["name"]


@pytest.mark.parametrize("file", ["kueue/job.yaml", "kueue/trainjob.yaml"])
def test_the_jobs_are_taken_and_stay_suspended_and_so_are_their_trials(admin, team, file):
    (document,) = documents(file)
    stored = dry_run(admin, document)
    assert stored["spec"].get("runPolicy", stored["spec"])["suspend"] is True
    assert "kueue.x-k8s.io/queue-name" not in stored["metadata"].get("labels", {})

    document["metadata"]["uid"] = "1-2-3"
    trial = dry_run(admin, trial_manifest(Job.from_manifest(document), suggestion(0, batch_size=64)))
    assert trial["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "trials"
    assert trial["spec"].get("runPolicy", trial["spec"])["suspend"] is True


@pytest.mark.parametrize("file", ["digits/job.yaml", "digits/trainjob.yaml"])
def test_the_examples_without_a_queue_are_taken_as_well(admin, namespace, file):
    (document,) = documents(file)
    assert dry_run(admin, document, namespace)["metadata"]["name"] == document["metadata"]["name"]
