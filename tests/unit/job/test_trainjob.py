"""A TrainJob as it comes in with its runtime, the trial that is made from it, and the job of the answer."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import keys
from autotuner.errors import InvalidJob
from autotuner.job import kinds
from autotuner.job.job import Job
from autotuner.job.kind import MAX_PODS
from autotuner.job.training_runtime import BUILT_IN, RuntimeReference, TrainingRuntime
from autotuner.job.trainjob import devices, pod_plans
from autotuner.job.trainjob_validation import MAX_VARIABLES
from autotuner.job.trial_manifest import (
    answer_patch,
    answered_job,
    trial_environment,
    trial_manifest,
)
from autotuner.job.wiring_notices import wiring_notices
from autotuner.spec import Shape
from tests.builders import annotations, suggestion
from tests.hostile import JSON, with_value

TORCH = BUILT_IN[RuntimeReference("torch-distributed")]
BASELINE = [
    {"name": "AUTOTUNER_BATCH_SIZE", "value": "32"},
    {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
]
EIGHT = {"limits": {"nvidia.com/gpu": 8}}
ANCESTOR = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def manifest(name="toy", asked=None, metadata=None, trainer=None, **spec):
    """Return a TrainJob; `trainer` are fields of `spec.trainer` that differ, None leaves one out."""
    fields = {"command": ["torchrun", "train.py"], "env": BASELINE, **(trainer or {})}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "annotations": asked or annotations(), **(metadata or {})},
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "suspend": True,
            "trainer": {key: value for key, value in fields.items() if value is not None},
            **spec,
        },
    }


def read(document, runtime=TORCH):
    """Return a job where there is one runtime."""
    return Job.from_manifest(document, {runtime.reference: runtime}.get)


def job(runtime=TORCH, **changed):
    return read(manifest(**changed), runtime)


def runtime_manifest(container=None, job=None, pod=None, policy=None, jobset=None, **changed):
    """Return the ClusterTrainingRuntime `torch-distributed`, with fields that differ."""
    containers = [{"name": "node", **(container or {})}]
    spec = {"template": {"spec": {"containers": containers, **(pod or {})}}, **(job or {})}
    replicated = {"name": "node", "template": {"metadata": {"labels": ANCESTOR}, "spec": spec}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "torch-distributed"},
        "spec": {
            "mlPolicy": {"torch": {}} if policy is None else policy,
            "template": {"spec": {"replicatedJobs": [replicated], **(jobset or {})}},
        },
        **changed,
    }


def runtime(**changed):
    return TrainingRuntime.from_manifest(runtime_manifest(**changed))


def environment(made):
    return {entry["name"]: entry.get("value") for entry in made["spec"]["trainer"]["env"]}


# --- reading ------------------------------------------------------------------------------------------------


def test_a_job_is_read_whole():
    found = job(metadata={"namespace": "team", "uid": "u-1"}, trainer={"numNodes": 3, "numProcPerNode": 4})
    assert (found.name, found.namespace, found.uid) == ("toy", "team", "u-1")
    assert found.is_registered
    assert not found.is_deleted
    assert found.shape == Shape(masters=0, workers=3, processes_per_replica=4)
    assert found.shape.processes == 12
    assert found.baseline == {"batch_size": "32", "learning_rate": "0.1"}
    assert found.spec().baseline_parameters == {"learning_rate": 0.1}


def test_a_job_keeps_nothing_of_what_it_was_read_from():
    source = manifest()
    found = read(source)
    source["spec"]["trainer"]["numNodes"] = 7
    assert found.shape.workers == 1


def test_nodes_may_grow_with_the_batch():
    spec = job(asked=annotations(workers="1..4")).spec()
    assert (spec.workers.minimum, spec.workers.maximum) == (1, 4)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (None, "file"),
        ([], "file"),
        ({}, "apiVersion"),
        (manifest() | {"apiVersion": "kubeflow.org/v1"}, "apiVersion"),
        (manifest() | {"kind": "PyTorchJob"}, "apiVersion"),
        (manifest() | {"metadata": None}, "metadata"),
        (manifest(name="Upper"), "metadata.name"),
        (manifest(name="a" * 64), "metadata.name"),
        (manifest(asked={"autotuner.dev/max-trials": 5}), "autotuner.dev/max-trials"),
        (manifest() | {"spec": None}, "spec"),
        (manifest(runtimeRef=None), "spec.runtimeRef"),
        (manifest(runtimeRef={"name": ""}), "spec.runtimeRef"),
        (manifest(runtimeRef={"name": "torch-distributed", "kind": "Runtime"}), "spec.runtimeRef.kind"),
        (manifest(runtimeRef={"name": "torch-distributed", "apiGroup": "x"}), "spec.runtimeRef.apiGroup"),
        (manifest(runtimeRef={"name": "other"}), "spec.runtimeRef.name"),
        (manifest(runtimeRef={"name": "torch-distributed", "kind": "TrainingRuntime"}), "runtimeRef.name"),
        (manifest(suspend="yes"), "spec.suspend"),
        (manifest(managedBy="kueue.x-k8s.io/multikueue"), "spec.managedBy"),
        (manifest(runtimePatches={}), None),
        (manifest(runtimePatches={"manager": "x"}), "spec.runtimePatches"),
        (manifest(runtimePatches=[{"time": "now"}]), "spec.runtimePatches"),
        (manifest() | {"spec": {"runtimeRef": {"name": "torch-distributed"}}}, "spec.trainer"),
        (manifest(trainer={"command": "torchrun"}), "spec.trainer.command"),
        (manifest(trainer={"args": [1]}), "spec.trainer.args"),
        (manifest(trainer={"env": [{"name": "A", "value": 1}]}), "spec.trainer.env A"),
        (manifest(trainer={"env": BASELINE * 2}), "spec.trainer.env AUTOTUNER_BATCH_SIZE"),
        (manifest(trainer={"env": [{"name": "PET_NNODES", "value": "2"}]}), "spec.trainer.env PET_NNODES"),
        (manifest(trainer={"env": [{"name": f"V{i}"} for i in range(MAX_VARIABLES + 1)]}), "trainer.env"),
        (manifest(trainer={"args": ["--rdzv-endpoint=toy-node-0-0.toy:29500"]}), "spec.trainer.args"),
        (manifest(trainer={"env": [{"name": "HEAD", "value": "toy-node-0-0"}]}), "spec.trainer env HEAD"),
        (manifest(trainer={"numNodes": 0}), "spec.trainer.numNodes"),
        (manifest(trainer={"numNodes": "2"}), "spec.trainer.numNodes"),
        (manifest(trainer={"numNodes": True}), "spec.trainer.numNodes"),
        (manifest(trainer={"numProcPerNode": "auto"}), "spec.trainer.numProcPerNode"),
        (manifest(trainer={"numProcPerNode": 10**9}), "spec.trainer.numProcPerNode"),
        (manifest(trainer={"resourcesPerNode": []}), "spec.trainer.resourcesPerNode"),
        (manifest(trainer={"resourcesPerNode": {"limits": [1]}}), "spec.trainer.resourcesPerNode.limits"),
        (manifest(trainer={"resourcesPerNode": {"limits": {"cpu": "many"}}}), "resourcesPerNode.limits cpu"),
        (manifest(trainer={"resourcesPerNode": {"requests": {"cpu": -1}}}), "resourcesPerNode.requests cpu"),
    ],
)
def test_what_is_no_tunable_job_is_refused_with_its_place(wrong, where):
    if where is None:
        read(wrong)
        return
    with pytest.raises(InvalidJob) as caught:
        read(wrong)
    assert any(mistake.key.endswith(where) for mistake in caught.value.mistakes), caught.value
    assert all(mistake.rule and mistake.example for mistake in caught.value.mistakes)


def test_restarts_inside_a_trial_are_warned_of():
    made = manifest(trainer={"args": ["torchrun", "--max-restarts=3", "--rdzv-id=7", "a.py"]})
    (warning,) = kinds.validate(made)[1].warnings
    assert "decides about retries" in warning.rule


def test_nodes_that_have_the_same_rank_are_warned_of():
    line = ["torchrun", "--nnodes=2", "--node_rank=0", "a.py"]
    (warning,) = kinds.validate(manifest(trainer={"args": line, "numNodes": 2}))[1].warnings
    assert "--node_rank is '0': must differ in each pod" in str(warning)
    assert kinds.validate(manifest(trainer={"args": line, "numNodes": 1}))[1].warnings == ()


def test_a_fixed_rank_must_follow_the_workers():
    line = {"command": ["torchrun", "--nnodes=$(PET_NNODES)", "--node_rank=0", "a.py"]}
    with pytest.raises(InvalidJob, match=r"'--node_rank=0': must follow .*--node_rank=\$\(PET_NODE_RANK"):
        job(trainer={**line, "resourcesPerNode": EIGHT}, asked=annotations(workers="1..4")).spec()
    line["command"][2] = "--node_rank=$(PET_NODE_RANK)"
    job(trainer={**line, "resourcesPerNode": EIGHT}, asked=annotations(workers="1..4")).spec()


def test_all_mistakes_of_a_file_are_told_at_once():
    wrong = manifest(name="Bad", trainer={"args": [1], "numNodes": 0}, suspend=3)
    with pytest.raises(InvalidJob) as caught:
        read(wrong)
    assert len(caught.value.mistakes) == 4


def test_a_job_whose_runtime_does_not_exist_is_refused():
    with pytest.raises(InvalidJob, match="there must be a ClusterTrainingRuntime of that name"):
        Job.from_manifest(manifest(), {}.get)


def test_an_empty_list_that_would_hide_the_runtimes_is_refused():
    own = runtime(container={"args": ["--epochs=5"]})
    assert job(trainer={"args": []})
    with pytest.raises(InvalidJob, match=r"spec\.trainer\.args"):
        job(own, trainer={"args": []})


@pytest.mark.parametrize(
    ("trainer", "container", "nodes", "each"),
    [
        ({}, {}, 1, 1),
        ({"numNodes": 4}, {}, 4, 1),
        ({"numNodes": None}, {}, 1, 1),
        ({"numProcPerNode": 2}, {}, 1, 2),
        ({"resourcesPerNode": {"limits": {"nvidia.com/gpu": 8}}}, {}, 1, 8),
        ({"resourcesPerNode": {"limits": {"nvidia.com/gpu": "8"}}, "numProcPerNode": 2}, {}, 1, 2),
        ({"resourcesPerNode": {"requests": {"gpu.intel.com/i915": 2}}}, {}, 1, 2),
        ({"resourcesPerNode": {"limits": {"nvidia.com/gpu": 2, "nvidia.com/gpumem": 3000}}}, {}, 1, 2),
        ({"resourcesPerNode": {"limits": {"aliyun.com/gpu-mem": 8}}}, {}, 1, 1),
        ({"resourcesPerNode": {"requests": {"cpu": "3"}}}, {}, 1, 3),
        ({"resourcesPerNode": {"requests": {"cpu": "1500m"}}}, {}, 1, 2),
        ({"resourcesPerNode": {"requests": {"cpu": 0.5}}}, {}, 1, 1),
        ({"resourcesPerNode": {"limits": {"cpu": "2"}}}, {}, 1, 2),
        ({"resourcesPerNode": {"requests": {"cpu": 1}, "limits": {"cpu": 4}}}, {}, 1, 1),
        ({"resourcesPerNode": {"requests": {"memory": "1Gi"}}}, {}, 1, 1),
        ({}, {"resources": {"limits": {"nvidia.com/gpu": 4}}}, 1, 4),
        ({"resourcesPerNode": {}}, {"resources": {"limits": {"nvidia.com/gpu": 4}}}, 1, 1),
        ({"resourcesPerNode": {"limits": {"amd.com/gpu": 2}}}, {"resources": {"limits": {"cpu": 9}}}, 1, 2),
    ],
)
def test_processes_are_counted_as_trainer_counts_them(trainer, container, nodes, each):
    shape = job(runtime(container=container), trainer=trainer).shape
    assert (shape.workers, shape.processes_per_replica) == (nodes, each)


@pytest.mark.parametrize(
    ("trainer", "each"),
    [
        ({"command": ["python3", "-c", "pass"], "resourcesPerNode": {"requests": {"cpu": "2"}}}, 1),
        ({"command": ["torchrun", "--nproc_per_node=4", "train.py"], "resourcesPerNode": EIGHT}, 4),
        ({"command": ["accelerate", "launch", "--num_processes=2", "a.py"], "resourcesPerNode": EIGHT}, 2),
        ({"command": ["bash", "-c"], "args": ["torchrun --nproc_per_node=2 a.py"]}, 2),
        ({"command": ["bash", "-c", "torchrun a.py"], "resourcesPerNode": EIGHT}, 8),
        ({"command": ["bash", "run.sh"], "numProcPerNode": 4}, 4),
        ({"command": None, "resourcesPerNode": EIGHT}, 8),
        ({"command": None, "args": ["--epochs=5"], "resourcesPerNode": EIGHT}, 8),
        ({"command": ["tune", "run"], "args": ["model=x"], "resourcesPerNode": EIGHT}, 8),
    ],
)
def test_a_command_that_says_how_many_processes_it_starts_counts(trainer, each):
    found = job(asked=annotations(micro_batch_size="1..8"), trainer=trainer)
    assert found.spec()
    assert found.shape.processes_per_replica == each


@pytest.mark.parametrize(("asked", "resources"), [(4, {}), ("cpu", EIGHT), ("gpu", {}), (4, EIGHT)])
def test_a_number_in_the_policy_that_trainer_does_not_read_is_asked_for_in_the_job(asked, resources):
    own = runtime(policy={"torch": {"numProcPerNode": asked}})
    trainer = {"command": ["torchrun", "a.py"], "resourcesPerNode": resources}
    with pytest.raises(InvalidJob, match=rf"numProcPerNode is {asked}, .*set spec.trainer.numProcPerNode"):
        job(own, asked=annotations(micro_batch_size="1..8"), trainer=trainer).spec()
    stated = {**trainer, "numProcPerNode": 2}
    assert job(own, asked=annotations(micro_batch_size="1..8"), trainer=stated).shape.processes == 2
    plain = {**trainer, "command": ["python", "a.py"]}
    assert job(own, asked=annotations(micro_batch_size="1..8"), trainer=plain).spec()


@pytest.mark.parametrize(("asked", "resources"), [("auto", EIGHT), ("gpu", EIGHT), ("cpu", {}), (1, {})])
def test_a_number_in_the_policy_that_is_trainers_own_is_no_doubt(asked, resources):
    own = runtime(policy={"torch": {"numProcPerNode": asked}})
    trainer = {"command": ["torchrun", "a.py"], "resourcesPerNode": resources}
    assert job(own, asked=annotations(micro_batch_size="1..8"), trainer=trainer).spec()


def test_a_recipe_of_torchtune_that_splits_the_model_is_refused_where_processes_count():
    recipe = {"command": ["tune", "run"], "args": ["tensor_parallel_dim=2"], "resourcesPerNode": EIGHT}
    with pytest.raises(InvalidJob, match=r"tensor_parallel_dim=2 .* splits the model"):
        job(asked=annotations(micro_batch_size="1..8"), trainer=recipe).spec()


def test_a_recipe_of_torchtune_has_the_batch_size_of_a_process():
    size = "batch_size=$(AUTOTUNER_BATCH_SIZE)"
    recipe = {
        "command": ["tune", "run"],
        "args": [size, "lr=$(AUTOTUNER_LEARNING_RATE)"],
        "resourcesPerNode": EIGHT,
    }
    made = job(trainer=recipe)
    (only,) = wiring_notices(made, made.spec())
    assert "on 8 processes this trains 256" in str(only)


def test_a_program_that_is_told_its_world_size_is_a_group():
    trainer = {
        "command": ["bash", "-c", "WORLD_SIZE=$PET_NNODES RANK=$PET_NODE_RANK python a.py"],
        "numNodes": 2,
    }
    found = job(asked=annotations(micro_batch_size="1..8"), trainer=trainer)
    assert found.spec()
    assert found.shape.processes == 2


def test_the_runtimes_command_counts_where_the_job_has_none():
    own = runtime(container={"command": ["python", "train.py"], "resources": EIGHT})
    assert job(own, trainer={"command": None}).shape.processes_per_replica == 1
    assert job(own).shape.processes_per_replica == 8


def test_the_runtimes_command_is_searched_where_the_job_has_none():
    fixed = ["sh", "-c", "torchrun a.py --batch-size 64 --lr 0.1"]
    found = job(runtime(container={"command": fixed}), trainer={"command": None})
    said = {(w.where, w.value) for w in wiring_notices(found, found.spec()) if "a fixed value" in w.rule}
    assert said == {("runtime command[2]", "--batch-size 64"), ("runtime command[2]", "--lr 0.1")}
    passing = ["torchrun", "a.py", "--batch-size=$(AUTOTUNER_BATCH_SIZE)", "--lr=$(AUTOTUNER_LEARNING_RATE)"]
    wired = job(runtime(container={"command": passing}), trainer={"command": None})
    assert wiring_notices(wired, wired.spec()) == []
    unset = runtime(container={"command": [*passing, "--wd=$(AUTOTUNER_WEIGHT_DECAY)"]})
    with pytest.raises(InvalidJob, match="no trial has AUTOTUNER_WEIGHT_DECAY"):
        job(unset, trainer={"command": None}).spec()


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"command": ["torchrun", "--nproc_per_node=4", "a.py"], "numProcPerNode": 2}, "numProcPerNode is 2"),
        ({"command": ["python", "a.py"], "numProcPerNode": 2}, "the command starts 1"),
        ({"command": ["bash", "run.sh"], "resourcesPerNode": EIGHT}, "set spec.trainer.numProcPerNode"),
        ({"command": ["accelerate", "launch", "a.py"], "numNodes": 2}, "group of one pod"),
        ({"command": ["deepspeed", "--num_gpus=2", "a.py"], "numNodes": 2}, "group of one pod"),
        ({"command": ["python", "a.py"], "numNodes": 2}, "the 2 pods may each train alone"),
    ],
)
def test_a_command_whose_processes_are_unknown_is_refused_where_they_count(trainer, words):
    found = job(asked=annotations(micro_batch_size="1..8"), trainer=trainer)
    with pytest.raises(InvalidJob, match=words):
        found.spec()
    stated = annotations(micro_batch_size="1..8", processes_per_replica="2")
    assert job(asked=stated, trainer={**trainer, "command": ["bash", "run.sh"]}).spec()
    assert job(trainer=trainer).spec()


def test_without_torch_in_the_policy_torchrun_of_several_nodes_is_no_group():
    found = job(runtime(policy={}), asked=annotations(workers="1..8"), trainer={"numNodes": 2})
    with pytest.raises(InvalidJob, match="--nnodes=1 differs from the job's 2 pods"):
        found.spec()


def test_nodes_are_the_runtimes_where_the_job_does_not_say():
    own = runtime(policy={"numNodes": 3, "torch": {}})
    assert job(own).shape.workers == 3
    assert job(own, trainer={"numNodes": 2}).shape.workers == 2


def test_nodes_are_the_jobs_pods_where_there_is_no_policy():
    own = runtime_manifest(job={"parallelism": 2})
    del own["spec"]["mlPolicy"]
    found = TrainingRuntime.from_manifest(own)
    assert job(found).shape.workers == 2
    assert job(found, trainer={"numNodes": 3}).shape.workers == 3
    assert job(runtime(job={"parallelism": 2}, policy={})).shape.workers == 1


def test_resources_of_the_runtime_stay_where_the_job_does_not_replace_them():
    own = runtime(container={"resources": EIGHT})
    fewer = {"resourcesPerNode": {"limits": {"cpu": "4"}}}
    # Trainer tells torchrun's processes from the job's resources alone.
    assert job(own, trainer=fewer).shape.processes == 4
    assert devices(manifest(trainer=fewer), own, {}) == 8
    command = ["accelerate", "launch", "--multi_gpu", "a.py"]
    assert job(own, trainer={**fewer, "command": command}).shape.processes == 8
    more = {"resourcesPerNode": {"limits": {"cpu": "16"}}}
    with pytest.raises(InvalidJob, match="starts 16 processes on 8 GPUs"):
        job(own, asked=annotations(micro_batch_size="1..8"), trainer=more).spec()
    replaced = {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 2}}}
    assert devices(manifest(trainer=replaced), own, {}) == 2
    without = runtime_manifest(container={"resources": EIGHT})
    del without["spec"]["mlPolicy"]
    assert devices(manifest(trainer=replaced), TrainingRuntime.from_manifest(without), {}) == 8


@pytest.mark.parametrize(
    ("fields", "trainer", "where", "remedy"),
    [
        ({"podTemplateOverrides": []}, {}, "spec.podTemplateOverrides", "spec.runtimePatches"),
        ({"numNodes": 2}, {}, "spec.numNodes", "spec.trainer.numNodes"),
        ({}, {"nprocPerNode": 2}, "spec.trainer.nprocPerNode", "spec.trainer.numProcPerNode"),
        ({}, {"resources": EIGHT}, "spec.trainer.resources", "spec.trainer.resourcesPerNode"),
        ({"whatever": 1}, {}, "spec.whatever", "leave it out"),
    ],
)
def test_a_field_that_trainer_does_not_have_is_warned_of(fields, trainer, where, remedy):
    (warning,) = job(trainer=trainer, **fields).warnings
    assert (warning.key, warning.example) == (where, remedy)


def test_without_torch_in_the_policy_a_node_is_a_process():
    resources = {"limits": {"nvidia.com/gpu": 8}}
    assert job(runtime(policy={}), trainer={"resourcesPerNode": resources}).shape.processes_per_replica == 1


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({"numNodes": 4}, 4),
        ({"numNodes": 4, "numProcPerNode": 2}, 8),
        ({"numNodes": 4, "numProcPerNode": 2, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 8}}}, 32),
        ({"numProcPerNode": 32, "resourcesPerNode": {"limits": {"aws.amazon.com/neuron": 16}}}, 16),
        ({"resourcesPerNode": {"limits": {"nvidia.com/mig-1g.5gb": 2}}}, 2),
    ],
)
def test_devices_are_gpus_or_else_processes(trainer, count):
    assert devices(manifest(trainer=trainer), TORCH, {}) == count


def test_processes_that_the_job_states_are_its_devices():
    made = manifest(trainer={"numNodes": 4, "command": ["bash", "train.sh"]})
    assert devices(made, TORCH, annotations(processes_per_replica="2")) == 8


def test_the_baseline_is_the_jobs_over_the_runtimes():
    own = runtime(
        container={
            "env": [
                {"name": "AUTOTUNER_BATCH_SIZE", "value": "1"},
                {"name": "AUTOTUNER_MOMENTUM", "value": "0.9"},
                {"name": "AUTOTUNER_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]
        }
    )
    assert job(own).baseline == {"batch_size": "32", "learning_rate": "0.1", "momentum": "0.9"}


# --- runtimes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        (None, "runtime"),
        ({}, "runtime"),
        (runtime_manifest(kind="TrainJob"), "runtime"),
        (runtime_manifest(metadata={}), "runtime"),
        (runtime_manifest(policy={"mpi": {}}), "mlPolicy"),
        (runtime_manifest(policy={"torch": {}, "numNodes": "2"}), "mlPolicy.numNodes"),
        (runtime_manifest(spec={}), "replicatedJobs"),
        (runtime_manifest(jobset={"replicatedJobs": "x"}), "replicatedJobs"),
        (runtime_manifest(jobset={"replicatedJobs": [{"name": "node"}]}), "replicatedJobs"),
        (runtime_manifest(pod={"containers": [{"name": "main"}]}), "containers"),
        (runtime_manifest(container={"env": "x"}), "env"),
    ],
)
def test_what_is_no_usable_runtime_is_refused_with_its_place(wrong, where):
    with pytest.raises(InvalidJob) as caught:
        TrainingRuntime.from_manifest(wrong)
    assert any(mistake.key.endswith(where) for mistake in caught.value.mistakes), caught.value


@pytest.mark.parametrize(
    ("changed", "retries"),
    [
        ({}, True),
        ({"job": {"backoffLimit": 0}}, True),
        ({"pod": {"restartPolicy": "Never"}}, True),
        ({"job": {"backoffLimit": 0}, "pod": {"restartPolicy": "Never"}}, False),
        (
            {
                "job": {"backoffLimit": 0},
                "pod": {"restartPolicy": "Never"},
                "jobset": {"failurePolicy": {"maxRestarts": 1}},
            },
            True,
        ),
    ],
)
def test_a_runtime_says_whether_failures_are_retried(changed, retries):
    job = {"template": None, **changed.get("job", {})}
    made = runtime_manifest(pod=changed.get("pod"), jobset=changed.get("jobset"))
    (replicated,) = made["spec"]["template"]["spec"]["replicatedJobs"]
    replicated["template"]["spec"] |= {key: value for key, value in job.items() if key != "template"}
    assert TrainingRuntime.from_manifest(made).retries_failures is retries


# --- the fingerprint ----------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_what_the_user_can_change():
    plain = job().fingerprint
    assert job(metadata={"resourceVersion": "9", "labels": {"a": "b"}}).fingerprint == plain
    assert job(metadata={"uid": "u"}).fingerprint != plain  # a copy of the job is another job
    assert job(asked={**annotations(), keys.PHASE: "Done", "other/x": "y"}).fingerprint == plain
    assert job(suspend=False).fingerprint == plain
    assert job(asked=annotations(max_trials="5")).fingerprint != plain
    assert job(trainer={"args": ["--x"]}).fingerprint != plain


def test_a_changed_runtime_makes_another_template():
    plain = job(runtime())
    assert job(runtime(container={"image": "other"})).template != plain.template
    assert job(runtime(metadata={"name": "torch-distributed", "uid": "u"})).template == plain.template


# --- trials -------------------------------------------------------------------------------------------------

CLUSTER_METADATA = {
    "namespace": "team",
    "uid": "u-1",
    "resourceVersion": "12",
    "managedFields": [{}],
    "finalizers": ["x"],
    "ownerReferences": [{"name": "other"}],
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
OWN_PATCH = {"manager": "example.com/team", "trainingRuntimeSpec": {"template": {"spec": {}}}}


def cluster_job(**changed):
    patches = [{**OWN_PATCH, "time": "2030-01-01T00:00:00Z"}, {"manager": "kueue.x-k8s.io/manager"}]
    return job(
        metadata=CLUSTER_METADATA,
        activeDeadlineSeconds=60,
        managedBy="trainer.kubeflow.org/trainjob-controller",
        runtimePatches=patches,
        **changed,
    )


def test_a_trial_carries_nothing_that_belongs_to_the_job_alone():
    made = trial_manifest(cluster_job(), suggestion(7))
    metadata = made["metadata"]
    assert set(made) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(metadata) == {"name", "namespace", "labels", "annotations", "ownerReferences"}
    assert metadata["name"] == keys.trial_name("toy", "u-1", 7)
    assert metadata["labels"] == {
        "team": "vision",
        "kueue.x-k8s.io/queue-name": "gpu",
        keys.TRIAL_JOB_UID: "u-1",
        keys.TRIAL_NUMBER: "7",
    }
    assert set(metadata["annotations"]) == {"sidecar.istio.io/inject", keys.SUGGESTION, keys.TRIAL_TEMPLATE}
    assert not read(made).is_registered
    (owner,) = metadata["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u-1", False, False)


def test_a_trial_keeps_the_owners_patches_of_the_runtime_and_leaves_its_end_to_us():
    spec = trial_manifest(cluster_job(), suggestion())["spec"]
    assert spec["runtimePatches"] == [OWN_PATCH]
    assert "activeDeadlineSeconds" not in spec
    assert spec["suspend"] is True, "a queued job stays suspended, for Kueue to admit"


def test_an_admission_by_kueue_is_no_change_of_the_job():
    assert (
        cluster_job().template
        == job(
            activeDeadlineSeconds=60,
            managedBy="trainer.kubeflow.org/trainjob-controller",
            runtimePatches=[OWN_PATCH],
        ).template
    )


def test_a_trial_without_a_queue_runs_at_once_and_one_with_our_annotation_is_queued():
    assert trial_manifest(job(), suggestion())["spec"]["suspend"] is False
    queued = trial_manifest(job(asked=annotations(queue="gpus")), suggestion())
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_the_queue_of_our_annotation_counts_over_the_label_that_keeps_the_job_out_of_queues():
    label = {"kueue.x-k8s.io/queue-name": "none"}
    found = job(asked=annotations(queue="gpus"), metadata={"labels": label})
    labels = trial_manifest(found, suggestion())["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"


def test_a_trials_name_leaves_room_for_those_of_its_pods():
    def name_length(runtime=TORCH, **trainer):
        made = trial_manifest(job(runtime, name="a" * 63, trainer=trainer), suggestion(12345))
        return len(made["metadata"]["name"])

    # As JobSet names pods, with its 5 random characters; it refuses more than 63.
    assert name_length() == 63 - len("-node-0-0-12345")
    assert name_length(numNodes=16) == 63 - len("-node-0-15-12345")
    replicated = runtime_manifest()["spec"]["template"]["spec"]["replicatedJobs"]
    initialized = runtime(
        jobset={"replicatedJobs": [{**replicated[0], "name": "node"}, {"name": "model-initializer"}]}
    )
    assert name_length(initialized) == 63 - len("-model-initializer-0-0-12345")


def test_the_name_of_a_trial_that_could_run_stays_as_it_was():
    """Running trials are known by their names."""
    names = {job(name="a" * 37).trial_name(number) for number in (1, 123)}
    assert names == {keys.trial_name("a" * 37, "", number) for number in (1, 123)}


def test_the_job_itself_is_never_changed():
    found = cluster_job()
    before = copy.deepcopy(found.manifest)
    for make in (trial_manifest, answered_job, answer_patch):
        make(found, suggestion(workers=5))
    assert found.manifest == before


def test_a_trials_environment_comes_first_and_once():
    env = [
        {"name": "BEFORE", "value": "lr is $(AUTOTUNER_LEARNING_RATE)"},
        *BASELINE,
        {"name": "AUTOTUNER_UNTUNED", "value": "kept"},
    ]
    tried = suggestion(3, batch_size=64, parameters={"learning_rate": 0.2}, workers=2, micro_batch_size=8)
    made = trial_manifest(job(trainer={"env": env}), tried)
    names = [entry["name"] for entry in made["spec"]["trainer"]["env"]]
    assert len(names) == len(set(names))
    assert names.index("AUTOTUNER_LEARNING_RATE") < names.index("BEFORE")
    assert environment(made) == {
        **trial_environment(tried),
        "BEFORE": "lr is $(AUTOTUNER_LEARNING_RATE)",
        "AUTOTUNER_UNTUNED": "kept",
    }
    assert environment(made)["AUTOTUNER_BATCH_SIZE"] == "64"
    assert made["spec"]["trainer"]["numNodes"] == 2


def test_a_trial_has_no_empty_members_which_kueue_would_drop_in_vain():
    trainer = {
        "args": [],
        "numNodes": 2,
        "env": [*BASELINE, {"name": "EMPTY", "value": ""}],
        "resourcesPerNode": {"limits": {}, "requests": {"cpu": "1"}},
    }
    made = trial_manifest(job(trainer=trainer), suggestion())["spec"]["trainer"]
    assert made["resourcesPerNode"] == {"requests": {"cpu": "1"}}
    assert "args" not in made
    assert {"name": "EMPTY"} in made["env"]


# --- the answer ---------------------------------------------------------------------------------------------

ANSWER = suggestion(9, batch_size=128, parameters={"learning_rate": 0.4}, workers=4)


def test_the_answer_is_a_new_job_with_its_settings_and_no_seed():
    made = answered_job(cluster_job(), ANSWER)
    assert made["metadata"] == {
        "name": "toy-tuned",
        "namespace": "team",
        "labels": {"team": "vision", "kueue.x-k8s.io/queue-name": "gpu"},
        "annotations": {
            "sidecar.istio.io/inject": "false",
            keys.ANSWER_OF: "u-1",
            keys.SUGGESTION: made["metadata"]["annotations"][keys.SUGGESTION],
        },
    }
    assert environment(made) == {"AUTOTUNER_BATCH_SIZE": "128", "AUTOTUNER_LEARNING_RATE": "0.4"}
    assert made["spec"]["trainer"]["numNodes"] == 4
    assert made["spec"]["suspend"] is True
    assert made["spec"]["activeDeadlineSeconds"] == 60
    assert answered_job(job(), ANSWER)["spec"]["suspend"] is False
    assert not read(made).is_registered


def test_the_answers_name_is_the_one_that_is_asked_for_or_fits():
    assert answered_job(job(), ANSWER, "best")["metadata"]["name"] == "best"
    long = answered_job(job(name="a" * 41 + "-" + "b" * 21), ANSWER)["metadata"]["name"]
    assert long == "a" * 41 + "-tuned"


def test_the_answer_as_a_patch_has_all_variables_and_nothing_else():
    env = [*BASELINE, {"name": "DATA", "value": "/data"}]
    made = answer_patch(job(trainer={"env": env}), ANSWER)
    assert made == {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "toy", "namespace": "default"},
        "spec": {
            "suspend": False,
            "trainer": {
                "env": [
                    {"name": "AUTOTUNER_BATCH_SIZE", "value": "128"},
                    {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.4"},
                    {"name": "DATA", "value": "/data"},
                ],
                "numNodes": 4,
            },
        },
    }


# --- pods on a laptop ---------------------------------------------------------------------------------------


def test_a_node_gets_what_trainer_would_give_it():
    own = runtime(
        container={
            "command": ["python"],
            "args": ["runtime.py"],
            "workingDir": "src",
            "env": [{"name": "A", "value": "runtime"}, {"name": "B", "value": "runtime"}],
        }
    )
    trainer = {
        "command": ["torchrun"],
        "numNodes": 2,
        "numProcPerNode": 3,
        "env": [{"name": "C", "value": "$(B)"}, {"name": "B", "value": "job"}],
    }
    first, second = pod_plans(manifest(trainer=trainer), own, "127.0.0.1", 1234)
    assert (first.name, second.name) == ("toy-node-0-0", "toy-node-0-1")
    assert first.container["command"] == ["torchrun"]
    assert first.container["args"] == ["runtime.py"]
    assert first.container["workingDir"] == "src"
    # A variable that both have stays where the runtime has it.
    assert [(e["name"], e["value"]) for e in first.container["env"]] == [
        ("A", "runtime"),
        ("B", "job"),
        ("C", "$(B)"),
    ]
    assert second.environment == {
        "JOB_COMPLETION_INDEX": "1",
        "PET_NODE_RANK": "1",
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "3",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": "1234",
    }


def test_without_torch_in_the_policy_a_node_knows_its_index_alone():
    (only,) = pod_plans(manifest(), runtime(policy={}), "127.0.0.1", 1234)
    assert only.environment == {"JOB_COMPLETION_INDEX": "0"}


def test_a_laptop_does_not_stand_in_for_a_cluster_of_hundreds():
    with pytest.raises(InvalidJob, match=r"spec\.trainer\.numNodes"):
        pod_plans(manifest(trainer={"numNodes": 100_000}), TORCH, "127.0.0.1", 1234)


# --- hostile input ------------------------------------------------------------------------------------------

PLACES = st.sampled_from(
    [
        ("metadata",),
        ("metadata", "name"),
        ("metadata", "annotations"),
        ("metadata", "labels"),
        ("metadata", "namespace"),
        ("metadata", "uid"),
        ("spec",),
        ("spec", "suspend"),
        ("spec", "runtimeRef"),
        ("spec", "runtimeRef", "name"),
        ("spec", "runtimePatches"),
        ("spec", "managedBy"),
        ("spec", "trainer"),
        ("spec", "trainer", "env"),
        ("spec", "trainer", "env", 0),
        ("spec", "trainer", "env", 0, "value"),
        ("spec", "trainer", "env", 0, "valueFrom"),
        ("spec", "trainer", "command"),
        ("spec", "trainer", "args"),
        ("spec", "trainer", "numNodes"),
        ("spec", "trainer", "numProcPerNode"),
        ("spec", "trainer", "resourcesPerNode"),
        ("spec", "trainer", "image"),
    ]
)


@given(PLACES, JSON)
def test_whatever_stands_somewhere_in_a_job_it_is_refused_or_makes_a_trial(place, value):
    wrong = with_value(manifest(), place, value)
    try:
        found = read(wrong)
        found.spec()
    except InvalidJob:
        return
    made = trial_manifest(found, suggestion())
    assert json.loads(json.dumps(made)) == made
    assert devices(made, TORCH, {}) >= 1
    assert found.fingerprint
    try:
        assert pod_plans(made, TORCH, "127.0.0.1", 1)
    except InvalidJob:
        assert found.shape.workers > MAX_PODS


RUNTIME_PLACES = st.sampled_from(
    [
        ("metadata",),
        ("metadata", "name"),
        ("spec",),
        ("spec", "mlPolicy"),
        ("spec", "mlPolicy", "numNodes"),
        ("spec", "template"),
        ("spec", "template", "spec", "failurePolicy"),
        ("spec", "template", "spec", "replicatedJobs"),
        ("spec", "template", "spec", "replicatedJobs", 0),
        ("spec", "template", "spec", "replicatedJobs", 0, "name"),
        ("spec", "template", "spec", "replicatedJobs", 0, "template", "spec"),
        ("spec", "template", "spec", "replicatedJobs", 0, "template", "spec", "backoffLimit"),
        ("spec", "template", "spec", "replicatedJobs", 0, "template", "spec", "template", "spec"),
        (
            "spec",
            "template",
            "spec",
            "replicatedJobs",
            0,
            "template",
            "spec",
            "template",
            "spec",
            "containers",
        ),
    ]
)


@given(RUNTIME_PLACES, JSON)
def test_whatever_stands_somewhere_in_a_runtime_it_is_refused_or_makes_a_trial(place, value):
    wrong = with_value(runtime_manifest(), place, value)
    try:
        found = job(TrainingRuntime.from_manifest(wrong))
    except InvalidJob:
        return
    assert found.shape.processes >= 1


@given(st.sampled_from(["env", "resources", "command", "args", "workingDir", "image"]), JSON)
def test_whatever_stands_in_a_runtimes_container_it_is_refused_or_counted(field, value):
    try:
        found = job(runtime(container={field: value}))
    except InvalidJob:
        return
    assert found.shape.processes >= 1
    assert pod_plans(found.manifest, found.kind.runtime, "127.0.0.1", 1)
