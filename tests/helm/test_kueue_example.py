"""The example with Kueue: the job is in no queue, and each of its trials waits in the one that it names."""

import copy

import yaml

from autotuner.job.job import Job
from autotuner.job.trial_manifest import trial_manifest
from autotuner.spec.tuning_spec import annotation_fields
from autotuner.trial import Purpose, Suggestion
from tests.helm.chart import ROOT

EXAMPLE = ROOT / "deploy" / "examples" / "kueue"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
QUEUES = {
    document["kind"]: document for document in yaml.safe_load_all((EXAMPLE / "queues.yaml").read_text())
}


def the_job(**annotations: str) -> Job:
    manifest = copy.deepcopy(yaml.safe_load((EXAMPLE / "job.yaml").read_text()))
    manifest["metadata"]["uid"] = "1-2-3"
    manifest["metadata"]["annotations"] |= {f"autotuner.dev/{key}": text for key, text in annotations.items()}
    return Job.from_manifest(manifest)


def a_trial(job: Job):
    suggestion = Suggestion(
        number=3, batch_size=64, parameters={"learning_rate": 0.1}, seed=1, purpose=Purpose.SEARCH
    )
    return trial_manifest(job, suggestion)


def test_job_is_valid_and_suspended_and_in_no_queue():
    job = the_job()
    assert job.spec().queue == "trials"
    assert job.manifest["spec"]["runPolicy"]["suspend"] is True
    assert QUEUE_LABEL not in job.manifest["metadata"].get("labels", {})


def test_trial_waits_suspended_in_the_queue_that_the_example_makes():
    trial = a_trial(the_job())
    assert trial["metadata"]["labels"][QUEUE_LABEL] == QUEUES["LocalQueue"]["metadata"]["name"]
    assert trial["metadata"]["namespace"] == QUEUES["LocalQueue"]["metadata"]["namespace"]
    assert trial["spec"]["runPolicy"]["suspend"] is True
    assert not any(key.startswith("autotuner.dev/") for key in trial["metadata"]["annotations"])


def test_quota_covers_what_a_trial_asks_for():
    (group,) = QUEUES["ClusterQueue"]["spec"]["resourceGroups"]
    asked = {
        name
        for replica in a_trial(the_job())["spec"]["pytorchReplicaSpecs"].values()
        for container in replica["template"]["spec"]["containers"]
        for amounts in container["resources"].values()
        for name in amounts
    }
    assert asked <= set(group["coveredResources"])
    (flavor,) = group["flavors"]
    assert flavor["name"] == QUEUES["ResourceFlavor"]["metadata"]["name"]
    assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]
    assert QUEUES["LocalQueue"]["spec"]["clusterQueue"] == QUEUES["ClusterQueue"]["metadata"]["name"]


def test_job_without_a_queue_runs_its_trials_at_once():
    manifest = copy.deepcopy(dict(the_job().manifest))
    del manifest["metadata"]["annotations"]["autotuner.dev/queue"]
    trial = a_trial(Job.from_manifest(manifest))
    assert QUEUE_LABEL not in trial["metadata"]["labels"]
    assert trial["spec"]["runPolicy"]["suspend"] is False


def test_annotations_of_the_example_are_known():
    known = {key for key, _ in annotation_fields()}
    assert set(the_job().manifest["metadata"]["annotations"]) <= known
