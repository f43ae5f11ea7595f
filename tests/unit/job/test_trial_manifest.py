"""A job as it comes in, and the trial that is made from it."""

from __future__ import annotations

import copy
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.errors import InvalidJob, InvalidRecord
from autotuner.job.job import Job
from autotuner.job.pytorchjob import devices
from autotuner.job.trial_manifest import answered_job, answered_spec, trial_environment, trial_manifest
from autotuner.spec import Shape
from autotuner.study.suggestions import decode_suggestion, encode_suggestion
from autotuner.trial import Purpose, Suggestion
from tests.builders import annotations, container, job, manifest, replica, suggestion
from tests.hostile import JSON, with_value


def environment(made: dict[str, object], kind: str = "Master") -> dict[str, object]:
    (only,) = made["spec"]["pytorchReplicaSpecs"][kind]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value") for entry in only["env"]}


# --- reading ------------------------------------------------------------------------------------------------


def test_a_job_is_read_whole():
    read = job(
        name="toy",
        metadata={"namespace": "team", "uid": "u-1"},
        worker=replica(replicas=3),
        nprocPerNode="4",
    )
    assert (read.name, read.namespace, read.uid) == ("toy", "team", "u-1")
    assert read.is_registered
    assert not read.is_deleted
    assert read.shape == Shape(masters=1, workers=3, processes_per_replica=4)
    assert read.baseline == {"batch_size": "32", "learning_rate": "0.1"}
    assert read.spec().baseline_parameters == {"learning_rate": 0.1}


def test_more_workers_than_none_need_a_worker_replica_to_make_them_from():
    asked = annotations(workers="1..4")
    with pytest.raises(InvalidJob, match="no Worker replica"):
        job(asked=asked).spec()
    assert job(asked=asked, worker=replica(replicas=1)).spec().workers is not None


def test_a_job_keeps_nothing_of_what_it_was_read_from():
    source = manifest()
    read = Job.from_manifest(source)
    source["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = 7
    assert read.shape.masters == 1


WITHOUT_CONTAINER = {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (None, "file"),
        ([], "file"),
        ("text", "file"),
        ({}, "apiVersion"),
        ({"apiVersion": "v1", "kind": "Pod"}, "apiVersion"),
        (manifest() | {"apiVersion": "kubeflow.org/v2"}, "apiVersion"),
        (manifest() | {"kind": "TFJob"}, "kind"),
        (manifest() | {"metadata": None}, "metadata"),
        (manifest() | {"metadata": []}, "metadata"),
        (manifest(metadata={"name": None}), "metadata.name"),
        (manifest(name=""), "metadata.name"),
        (manifest(name="../../etc"), "metadata.name"),
        (manifest(name="Upper"), "metadata.name"),
        (manifest(name="1st"), "metadata.name"),
        (manifest(name="ends-"), "metadata.name"),
        (manifest(name="a" * 64), "metadata.name"),
        (manifest(name="toy\n"), "metadata.name"),
        (manifest(metadata={"annotations": ["x"]}), "metadata.annotations"),
        (manifest(metadata={"labels": "x"}), "metadata.labels"),
        (manifest(asked={"autotuner.dev/max-trials": 5}), "autotuner.dev/max-trials"),
        (manifest(metadata={"labels": {"team": 3}}), "team"),
        (manifest() | {"spec": None}, "spec.pytorchReplicaSpecs"),
        (manifest() | {"spec": {"pytorchReplicaSpecs": {}}}, "spec.pytorchReplicaSpecs"),
        (manifest() | {"spec": {"pytorchReplicaSpecs": {"Chief": replica()}}}, "spec.pytorchReplicaSpecs"),
        (
            manifest() | {"spec": {"pytorchReplicaSpecs": {"Worker": replica(replicas=0)}}},
            "pytorchReplicaSpecs.Worker.replicas",
        ),
        (manifest(runPolicy="suspend"), "spec.runPolicy"),
        (manifest(master={"replicas": 2}), "spec.pytorchReplicaSpecs.Master.replicas"),
        (manifest(worker={**replica(), "replicas": "2"}), "spec.pytorchReplicaSpecs.Worker.replicas"),
        (manifest(worker={**replica(), "replicas": True}), "spec.pytorchReplicaSpecs.Worker.replicas"),
        (manifest(worker={**replica(), "replicas": -1}), "spec.pytorchReplicaSpecs.Worker.replicas"),
        (manifest(worker=WITHOUT_CONTAINER), "spec.pytorchReplicaSpecs.Worker.template.spec.containers"),
        (manifest(worker={"template": None}), "spec.pytorchReplicaSpecs.Worker.template.spec.containers"),
        (manifest(master=replica(container(command="python train.py"))), None),
        (manifest(master=replica(container() | {"command": "python"})), "container pytorch.command"),
        (manifest(master=replica(container() | {"args": ["--n", 3]})), "container pytorch.args"),
        (manifest(master=replica(container() | {"workingDir": 3})), "container pytorch.workingDir"),
        (manifest(master=replica(container() | {"env": {"A": "1"}})), "container pytorch.env"),
        (manifest(master=replica(container() | {"env": ["A=1"]})), "container pytorch.env"),
        (manifest(master=replica(container() | {"env": [{"name": "A=B"}]})), "container pytorch.env"),
        (manifest(master=replica(container() | {"env": [{"name": ""}]})), "container pytorch.env"),
        (manifest(master=replica(container() | {"env": [{"name": "A", "valueFrom": "x"}]})), "pytorch.env"),
        (manifest(master=replica(container() | {"env": [{"name": "A", "value": 1}]})), "pytorch.env A"),
        (manifest(master=replica(container(args=["\0"]))), "file"),
    ],
)
def test_what_is_no_tunable_job_is_refused_with_its_place(wrong, where):
    if where is None:
        Job.from_manifest(wrong)
        return
    with pytest.raises(InvalidJob) as caught:
        Job.from_manifest(wrong)
    assert any(mistake.key.endswith(where) for mistake in caught.value.mistakes), caught.value
    assert all(mistake.rule and mistake.example for mistake in caught.value.mistakes)


def test_all_mistakes_of_a_file_are_told_at_once():
    wrong = manifest(name="Bad", master=replica(container() | {"args": [1]}), worker=WITHOUT_CONTAINER)
    with pytest.raises(InvalidJob) as caught:
        Job.from_manifest(wrong)
    assert len(caught.value.mistakes) == 3


PLACES = st.sampled_from(
    [
        ("metadata",),
        ("metadata", "name"),
        ("metadata", "annotations"),
        ("metadata", "annotations", "autotuner.dev/target"),
        ("metadata", "labels"),
        ("metadata", "namespace"),
        ("metadata", "uid"),
        ("spec",),
        ("spec", "runPolicy"),
        ("spec", "nprocPerNode"),
        ("spec", "elasticPolicy"),
        ("spec", "pytorchReplicaSpecs"),
        ("spec", "pytorchReplicaSpecs", "Master"),
        ("spec", "pytorchReplicaSpecs", "Worker"),
        ("spec", "pytorchReplicaSpecs", "Master", "replicas"),
        ("spec", "pytorchReplicaSpecs", "Master", "template"),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec"),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers"),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0, "env"),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0, "env", 0),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0, "env", 0, "valueFrom"),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0, "resources"),
        ("spec", "pytorchReplicaSpecs", "Master", "template", "spec", "containers", 0, "command"),
    ]
)


@given(PLACES, JSON)
def test_whatever_stands_somewhere_in_a_job_it_is_refused_or_makes_a_trial(place, value):
    wrong = with_value(manifest(), place, value)
    try:
        read = Job.from_manifest(wrong)
        read.spec()
    except InvalidJob:
        return
    made = trial_manifest(read, suggestion())
    assert json.loads(json.dumps(made)) == made
    assert devices(made, {}) >= 1
    assert read.fingerprint


def test_replicas_that_share_a_template_by_alias_are_changed_apart():
    text = yaml.safe_dump(manifest())
    document = yaml.safe_load(text)
    replicas = document["spec"]["pytorchReplicaSpecs"]
    replicas["Worker"] = replicas["Master"]
    made = trial_manifest(Job.from_manifest(document), suggestion(workers=3))
    assert made["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] == 1
    assert made["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 3


def test_the_masters_baseline_counts_over_a_workers_and_the_last_of_two():
    env = [
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "1"},
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "64"},
        {"name": "AUTOTUNER_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    worker = [{"name": "AUTOTUNER_BATCH_SIZE", "value": "2"}, {"name": "AUTOTUNER_LR", "value": "3"}]
    read = job(master=replica(container(env=env)), worker=replica(container(env=worker)))
    assert read.baseline == {"batch_size": "64", "lr": "3"}


@pytest.mark.parametrize(
    ("field", "resources", "count"),
    [
        ({}, {}, 4),
        ({"nprocPerNode": "2"}, {}, 8),
        ({"nprocPerNode": 2}, {}, 8),
        ({"nprocPerNode": "auto"}, {}, 4),
        ({"nprocPerNode": "²"}, {}, 4),
        ({"nprocPerNode": "auto"}, {"limits": {"nvidia.com/gpu": 8}}, 32),
        ({}, {"limits": {"nvidia.com/gpu": "8"}, "requests": {"nvidia.com/gpu": "8"}}, 32),
        ({}, {"requests": {"amd.com/gpu": 1, "cpu": "500m"}}, 4),
        ({}, {"limits": {"nvidia.com/gpu": "many"}}, 4),
    ],
)
def test_devices_are_gpus_or_else_processes(field, resources, count):
    asked = container(resources=resources)
    made = manifest(master=replica(asked), worker=replica(asked, replicas=3), **field)
    assert devices(made, {}) == count


def test_processes_that_the_job_states_are_its_trials_devices():
    script = container(command=("bash", "train.sh"))
    made = manifest(master=replica(script), worker=replica(script, replicas=3))
    assert devices(made, annotations(processes_per_replica="2")) == 8


# --- the fingerprint ----------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_what_the_user_can_change():
    plain = job().fingerprint
    assert job(metadata={"resourceVersion": "9", "labels": {"a": "b"}}).fingerprint == plain
    assert job(metadata={"uid": "u"}).fingerprint != plain  # a copy of the job is another job
    assert job(asked={**annotations(), keys.PHASE: "Done", "other/x": "y"}).fingerprint == plain
    assert job(runPolicy={"suspend": False}).fingerprint == plain
    assert job(asked=annotations(max_trials="5")).fingerprint != plain
    assert job(master=replica(container(args=["--x"]))).fingerprint != plain
    assert job(runPolicy={"suspend": True, "backoffLimit": 3}).fingerprint != plain


# --- writing ------------------------------------------------------------------------------------------------

CLUSTER_METADATA = {
    "namespace": "team",
    "uid": "u-1",
    "resourceVersion": "12",
    "generation": 3,
    "managedFields": [{}],
    "finalizers": ["x"],
    "ownerReferences": [{"name": "other"}],
    "creationTimestamp": "2030-01-01T00:00:00Z",
    "labels": {
        "team": "vision",
        "kueue.x-k8s.io/queue-name": "gpu",
        "kueue.x-k8s.io/prebuilt-workload-name": "w",
    },
    "annotations": {
        **annotations(),
        keys.PHASE: "Searching",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "sidecar.istio.io/inject": "false",
    },
}


def cluster_job() -> Job:
    return job(
        metadata=CLUSTER_METADATA,
        worker=replica(replicas=2),
        runPolicy={
            "suspend": True,
            "activeDeadlineSeconds": 60,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 5,
            "schedulingPolicy": {"minAvailable": 3},
        },
    )


def test_a_trial_carries_nothing_that_belongs_to_the_job_alone():
    made = trial_manifest(cluster_job(), suggestion(7))
    metadata = made["metadata"]
    assert set(metadata) == {"name", "namespace", "labels", "annotations", "ownerReferences"}
    assert metadata["name"] == keys.trial_name("toy", "u-1", 7)
    assert metadata["labels"] == {
        "team": "vision",
        "kueue.x-k8s.io/queue-name": "gpu",
        keys.TRIAL_JOB_UID: "u-1",
        keys.TRIAL_NUMBER: "7",
    }
    assert set(metadata["annotations"]) == {"sidecar.istio.io/inject", keys.SUGGESTION, keys.TRIAL_TEMPLATE}
    assert not Job.from_manifest(made).is_registered
    (owner,) = metadata["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u-1", False, False)


def test_what_we_create_has_no_mark_of_the_tool_that_applied_the_job():
    """The tool would delete it, because it is not in its files."""
    marks = {
        "applyset.kubernetes.io/part-of": "applyset-x-v1",
        "argocd.argoproj.io/instance": "training",
        "app.kubernetes.io/instance": "training",
        "app.kubernetes.io/managed-by": "Helm",
        "kustomize.toolkit.fluxcd.io/name": "training",
        "objectset.rio.cattle.io/hash": "1a2b",
    }
    notes = {
        "argocd.argoproj.io/hook": "Sync",
        "meta.helm.sh/release-name": "training",
        "helm.sh/hook": "test",
    }
    kept = {"app.kubernetes.io/name": "resnet", "team": "vision"}
    applied = job(
        metadata={
            **CLUSTER_METADATA,
            "labels": {**kept, **marks},
            "annotations": {**CLUSTER_METADATA["annotations"], **notes},
        }
    )
    for made in (trial_manifest(applied, suggestion(7)), answered_job(applied, suggestion(7))):
        metadata = made["metadata"]
        assert {key for key in metadata["labels"] if not key.startswith(keys.TRIAL_PREFIX)} == set(kept)
        assert "sidecar.istio.io/inject" in metadata["annotations"]
        assert not notes.keys() & metadata["annotations"].keys()


def test_what_kueue_wrote_into_a_job_that_it_admitted_is_in_no_trial():
    """Kueue never starts a job whose pods name the Workload of another one."""
    asked = {"kueue.x-k8s.io/podset-required-topology": "rack"}
    written = {"kueue.x-k8s.io/workload": "pytorchjob-toy-64534"}
    queues = {f"kueue.x-k8s.io/{name}": "a" for name in ("podset", "local-queue-name", "cluster-queue-name")}

    def registered(**metadata):
        return job(master={**replica(), "template": {**replica()["template"], "metadata": metadata}})

    before = registered(annotations=asked)
    after = registered(annotations={**asked, **written}, labels=queues)
    assert after.template == before.template
    template = trial_manifest(after, suggestion())["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    assert template["metadata"] == {"annotations": asked}
    assert registered(annotations=written, labels=queues).template == registered().template


ELASTIC = {"elasticPolicy": {"rdzvBackend": "c10d"}}


def test_a_trial_leaves_its_end_and_its_logs_to_us():
    made = trial_manifest(cluster_job(), suggestion())
    assert made["spec"]["runPolicy"] == {
        # A queued job stays suspended, for Kueue to admit.
        "suspend": True,
        "cleanPodPolicy": "Running",
        "schedulingPolicy": {"minAvailable": 3},
    }
    assert {r["restartPolicy"] for r in made["spec"]["pytorchReplicaSpecs"].values()} == {"Never"}


@pytest.mark.parametrize(("has_master", "fields"), [(False, {}), (False, ELASTIC), (True, ELASTIC)])
def test_a_trial_in_which_any_worker_may_have_rank_zero_keeps_its_pods(has_master, fields):
    made = manifest(worker=replica(), **fields)
    if not has_master:
        del made["spec"]["pytorchReplicaSpecs"]["Master"]
    trial = trial_manifest(Job.from_manifest(made), suggestion())
    assert trial["spec"]["runPolicy"]["cleanPodPolicy"] == "None"


def test_a_trial_without_a_queue_runs_at_once():
    assert trial_manifest(job(), suggestion())["spec"]["runPolicy"]["suspend"] is False


def test_the_job_itself_is_never_changed():
    read = cluster_job()
    before = copy.deepcopy(read.manifest)
    trial_manifest(read, suggestion(workers=5))
    answered_spec(read, suggestion(workers=5))
    assert read.manifest == before


def test_a_trials_environment_comes_first_and_once_in_every_replica():
    env = [
        {"name": "BEFORE", "value": "lr is $(AUTOTUNER_LEARNING_RATE)"},
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "32"},
        {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
        {"name": "AUTOTUNER_UNTUNED", "value": "kept"},
    ]
    read = job(master=replica(container(env=env)), worker=replica(container(env=env)))
    tried = suggestion(
        3, batch_size=64, parameters={"learning_rate": 0.2}, seed=9, micro_batch_size=8, accumulation_steps=4
    )
    made = trial_manifest(read, tried)
    expected = {
        "AUTOTUNER_BATCH_SIZE": "64",
        "AUTOTUNER_LEARNING_RATE": "0.2",
        "AUTOTUNER_SEED": "9",
        "AUTOTUNER_TRIAL": "3",
        "AUTOTUNER_MICRO_BATCH_SIZE": "8",
        "AUTOTUNER_ACCUMULATION_STEPS": "4",
    }
    assert trial_environment(tried) == expected
    for kind in ("Master", "Worker"):
        names = [
            e["name"]
            for e in made["spec"]["pytorchReplicaSpecs"][kind]["template"]["spec"]["containers"][0]["env"]
        ]
        assert len(names) == len(set(names))
        assert names.index("AUTOTUNER_LEARNING_RATE") < names.index("BEFORE")
        assert environment(made, kind) == {
            **expected,
            "BEFORE": "lr is $(AUTOTUNER_LEARNING_RATE)",
            "AUTOTUNER_UNTUNED": "kept",
        }


def test_an_applied_answer_is_the_job_with_its_settings_and_no_seed():
    spec = answered_spec(
        cluster_job(), suggestion(batch_size=128, parameters={"learning_rate": 0.4}, workers=4)
    )
    assert spec["runPolicy"]["suspend"] is False
    assert spec["runPolicy"]["backoffLimit"] == 0
    assert spec["pytorchReplicaSpecs"]["Worker"]["replicas"] == 4
    assert environment({"spec": spec}, "Worker") == {
        "AUTOTUNER_BATCH_SIZE": "128",
        "AUTOTUNER_LEARNING_RATE": "0.4",
    }


# --- suggestions --------------------------------------------------------------------------------------------

SUGGESTIONS = st.builds(
    Suggestion,
    number=st.integers(0, 10**6),
    batch_size=st.integers(1, 2**31),
    parameters=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
        st.floats(allow_nan=False, allow_infinity=False)
        | st.integers()
        | st.text(max_size=9)
        | st.booleans(),
        max_size=4,
    ),
    seed=st.integers(0, 2**32),
    purpose=st.sampled_from(Purpose),
    workers=st.none() | st.integers(0, 99),
    micro_batch_size=st.none() | st.integers(1, 99),
    accumulation_steps=st.none() | st.integers(1, 99),
    rerun_of=st.none() | st.integers(0, 99),
)


@given(SUGGESTIONS)
def test_a_suggestion_round_trips(tried):
    assert decode_suggestion(encode_suggestion(tried)) == tried


GOOD = {"number": 0, "batch_size": 1, "parameters": {}, "seed": 0, "purpose": "search"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "{",
        "[" * 100_000,
        *(json.dumps({k: v for k, v in GOOD.items() if k != missing}) for missing in GOOD),
        *(
            json.dumps({**GOOD, **wrong})
            for wrong in (
                {"number": -1},
                {"number": "1"},
                {"number": True},
                {"batch_size": 0},
                {"batch_size": 1.5},
                {"parameters": []},
                {"parameters": {"lr": None}},
                {"parameters": {"lr": [1]}},
                {"parameters": {"lr": float("nan")}},
                {"purpose": "fun"},
                {"workers": -1},
                {"micro_batch_size": 0},
                {"accumulation_steps": 0},
                {"seed": None},
            )
        ),
    ],
    ids=lambda text: text[:60],
)
def test_a_suggestion_that_we_did_not_write_is_refused(text):
    with pytest.raises(InvalidRecord):
        decode_suggestion(text)


@given(
    st.text() | JSON.map(json.dumps) | st.dictionaries(st.sampled_from(sorted(GOOD)), JSON).map(json.dumps)
)
def test_whatever_the_text_a_suggestion_is_read_or_refused(text):
    try:
        decode_suggestion(text)
    except InvalidRecord:
        return
