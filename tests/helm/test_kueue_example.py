"""The example with Kueue: the job is in no queue, and each of its trials waits in the one that it names."""

import copy

import pytest
import yaml
from typer.testing import CliRunner

from autotuner.cli import app
from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from autotuner.spec.tuning_spec import AUTO, annotation_fields
from autotuner.trial import Purpose, Suggestion
from tests.helm.chart import ROOT

EXAMPLE = ROOT / "deploy" / "examples" / "kueue"
DIGITS = ROOT / "deploy" / "examples" / "digits"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUES = {
    document["kind"]: document for document in yaml.safe_load_all((EXAMPLE / "queues.yaml").read_text())
}
FILES = ("job.yaml", "trainjob.yaml")

pytestmark = pytest.mark.parametrize("file", FILES)


def the_job(file: str) -> Job:
    manifest = copy.deepcopy(yaml.safe_load((EXAMPLE / file).read_text()))
    manifest["metadata"]["uid"] = "1-2-3"
    return Job.from_manifest(manifest)


def a_trial(job: Job):
    suggestion = Suggestion(
        number=3, batch_size=64, parameters={"learning_rate": 0.1}, seed=1, purpose=Purpose.SEARCH
    )
    return trial_manifest(job, suggestion)


def is_suspended(manifest) -> bool:
    spec = manifest["spec"]
    return spec.get("runPolicy", spec)["suspend"]


def amounts_of(manifest):
    """Yield the requests and limits of each container of a trial."""
    spec = manifest["spec"]
    if "trainer" in spec:
        yield spec["trainer"]["resourcesPerNode"]
        return
    for replica in spec["pytorchReplicaSpecs"].values():
        for container in replica["template"]["spec"]["containers"]:
            yield container["resources"]


def test_file_is_valid_without_a_warning(file):
    ran = CliRunner().invoke(app, ["validate", str(EXAMPLE / file)])
    assert ran.exit_code == 0, ran.output
    assert "is valid" in ran.output
    assert "warning" not in ran.output


def test_job_is_suspended_and_in_no_queue(file):
    job = the_job(file)
    assert job.spec().queue == "trials"
    assert job.spec().parallel_trials == AUTO
    assert is_suspended(job.manifest)
    assert QUEUE_LABEL not in job.manifest["metadata"].get("labels", {})


def test_trial_waits_suspended_in_the_queue_that_the_example_makes(file):
    trial = a_trial(the_job(file))
    assert trial["metadata"]["labels"][QUEUE_LABEL] == QUEUES["LocalQueue"]["metadata"]["name"]
    assert trial["metadata"]["namespace"] == QUEUES["LocalQueue"]["metadata"]["namespace"]
    assert is_suspended(trial)
    assert not any(key.startswith("autotuner.dev/") for key in trial["metadata"]["annotations"])


def test_quota_covers_what_a_trial_asks_for(file):
    (group,) = QUEUES["ClusterQueue"]["spec"]["resourceGroups"]
    asked = {
        name
        for resources in amounts_of(a_trial(the_job(file)))
        for amounts in resources.values()
        for name in amounts
    }
    assert {"cpu", "memory", "nvidia.com/gpu"} == asked
    assert asked <= set(group["coveredResources"])
    (flavor,) = group["flavors"]
    assert flavor["name"] == QUEUES["ResourceFlavor"]["metadata"]["name"]
    assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]
    assert QUEUES["LocalQueue"]["spec"]["clusterQueue"] == QUEUES["ClusterQueue"]["metadata"]["name"]


def test_job_without_a_queue_runs_its_trials_at_once(file):
    manifest = copy.deepcopy(dict(the_job(file).manifest))
    del manifest["metadata"]["annotations"]["autotuner.dev/queue"]
    trial = a_trial(Job.from_manifest(manifest))
    assert QUEUE_LABEL not in trial["metadata"]["labels"]
    assert not is_suspended(trial)


def test_annotations_of_the_example_are_known(file):
    known = {key for key, _ in annotation_fields()}
    assert set(the_job(file).manifest["metadata"]["annotations"]) <= known


def test_job_trains_as_the_digits_example_of_its_kind(file):
    queued, plain = the_job(file), Job.from_manifest(yaml.safe_load((DIGITS / file).read_text()))
    assert queued.kind.name == plain.kind.name
    assert queued.baseline == plain.baseline
    assert queued.spec().search_space == plain.spec().search_space
    assert queued.shape == plain.shape
