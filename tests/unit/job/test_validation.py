"""What the cluster would refuse, and what a job's owner should know."""

from __future__ import annotations

import re

import pytest

from autotuner.job.job import Job
from autotuner.job.validation import validate
from tests.builders import annotations, container, manifest, replica
from tests.wrong_jobs import CONTAINERS, IMAGELESS, REFUSED, REPLICAS, UNFIT, changed


def launched(*command):
    return manifest(master=replica(container(command=command)))


@pytest.mark.parametrize(("made", "says"), [*REFUSED, *UNFIT])
def test_what_the_cluster_would_refuse_is_a_mistake(made, says):
    found = validate(made).mistakes
    assert any(re.search(says, str(mistake)) for mistake in found), found
    assert all(mistake.rule and mistake.example for mistake in found)


WRONG = [
    (f"{REPLICAS}/Worker/template/metadata", {"annotations": {"sidecar.istio.io/inject": False}},
     "Worker.template.metadata.annotations sidecar.istio.io/inject is 'False'.*for example \"false\""),
    (f"{REPLICAS}/Worker/template/metadata", {"labels": {"version": 2}}, 'labels version .*example "2"'),
    (f"{CONTAINERS}/0/resources", {"limits": {"memory": "16GB"}}, "limits memory is '16GB': must be a quant"),
    (f"{CONTAINERS}/0/resources", {"limits": {"nvidia.com/gpu": "0.5"}}, "no part of a device"),
    (f"{CONTAINERS}/0/resources", {"nvidia.com/gpu": 2}, "gpu is '2': must be in limits or requests"),
    (f"{CONTAINERS}/0/resources", {"limits": [2]}, "resources.limits is .*must be a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "says"), WRONG)
def test_what_a_pod_would_not_get_is_a_mistake(place, value, says):
    (mistake,) = validate(changed(place, value)).mistakes
    assert re.search(says, str(mistake))


@pytest.mark.parametrize(
    "resources",
    [
        None,
        {"requests": {"cpu": "500m", "memory": "1.5Gi", "ephemeral-storage": 1e9}, "limits": None},
        {"limits": {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "8k", "hugepages-2Mi": "0.5Gi"}},
        {"claims": [{"name": "gpu"}]},
    ],
)
def test_what_a_container_may_ask_for_is_no_mistake(resources):
    made = changed(f"{CONTAINERS}/0/resources", {})
    made["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resources"] = (
        resources
    )
    assert validate(made).mistakes == ()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (changed("spec/runPolicy", {}), "spec.runPolicy.suspend is ''.*suspend: true"),
        (changed("spec/runPolicy/suspend", False), "spec.runPolicy.suspend is 'false'"),
        (changed("metadata/labels", {"kueue.x-k8s.io/queue-name": "a"}), "autotuner.dev/queue: a"),
        (manifest(asked=annotations(queue="default")), "assigns to every job of the namespace"),
        (changed("status", {"conditions": [{"type": "Failed", "status": "True"}]}), "already finished"),
        (changed("spec/cleanPodPolicy", "None"),
         "spec.cleanPodPolicy.*drops it.*for example spec.runPolicy.cleanPodPolicy"),
        (

         changed(f"{REPLICAS}/Worker/template/metadata", {"labels": {"scheduling.x-k8s.io/pod-group": "g"}}),
            "one pod group",
        ),
        (launched("torchrun", "--rdzv_id=7", "t.py"), r"--rdzv_id is '7'.*example --rdzv_id=\$\(PET_RDZV_ID"),
        (launched("sh", "-c", "torchrun --rdzv-id run1 t.py"), "--rdzv-id is 'run1'.*train together"),
        (launched("torchrun", "--max-restarts=3", "t.py"), "--max-restarts is '3'.*example --max-restarts=0"),
    ],
)  # fmt: skip
def test_what_runs_otherwise_than_its_owner_may_think_is_a_warning(made, says):
    found = validate(made)
    assert found.mistakes == ()
    (warning,) = found.warnings
    assert re.search(says, str(warning))


def test_a_job_that_is_ready_has_neither_mistakes_nor_warnings():
    found = validate(manifest(worker=replica()))
    assert (found.mistakes, found.warnings) == ((), ())


def test_a_rendezvous_of_the_trials_own_is_no_warning():
    own = ("torchrun", "--rdzv_id=$(PET_RDZV_ID)", "--max_restarts=0", "t.py")
    assert validate(launched(*own)).warnings == ()


def test_a_rendezvous_at_an_address_of_the_trials_own_may_have_any_id():
    own = ("torchrun", "--rdzv_id=7", "--rdzv_backend=c10d", "--rdzv_endpoint=$(MASTER_ADDR):29400", "t.py")
    assert validate(launched(*own)).warnings == ()


def joined(master, worker, workers=1, **spec):
    replicas = [replica(container(command=command.split())) for command in (master, worker)]
    return manifest(master=replicas[0], worker={**replicas[1], "replicas": workers}, **spec)


NODES = "torchrun --nnodes=$(PET_NNODES)"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (joined(NODES, f"{NODES} --node_rank=1 t.py", 2), "Worker .* --node_rank is '1'.* all 2 pods"),
        (joined(NODES, f"{NODES} --node-rank 0 t.py"), r"Worker .*the Master.*--node-rank=\$\(PET_NODE_RANK"),
        (joined("accelerate launch", "accelerate launch --num_machines 2 --machine_rank 0 t.py"),
         "--machine_rank is '0'"),
        (joined(NODES, f"{NODES} --master_addr=localhost t.py"), "--master_addr is 'localhost'.*never meet"),
        (joined(NODES, f"{NODES} --rdzv_endpoint=localhost t.py", elasticPolicy={}), "PET_RDZV_ENDPOINT"),
        (joined(NODES, f"{NODES} --rdzv_backend=c10d --rdzv_endpoint=localhost:0 t.py"),
         r"example --rdzv_endpoint=\$\(PET_MASTER_ADDR\):\$\(PET_MASTER_PORT"),
    ],
)  # fmt: skip
def test_pods_that_never_join_are_a_warning(made, says):
    found = validate(made)
    assert found.mistakes == ()
    (warning,) = found.warnings
    assert re.search(says, str(warning))


@pytest.mark.parametrize(
    "made",
    [
        joined(f"{NODES} --node_rank=0 --master_addr=localhost t.py", f"{NODES} --node_rank=1 t.py"),
        joined(NODES, f"{NODES} --node_rank=$(RANK) --master_addr=$(MASTER_ADDR) t.py", 3),
        joined(NODES, f"{NODES} --rdzv_backend=c10d --node_rank=0 t.py", 3),
        joined(NODES, f"{NODES} --node_rank=0 t.py", 3, elasticPolicy={}),
        # A script that chooses, and one where each pod trains alone, which is another question.
        joined(NODES, f"bash -c a&&{NODES} --node_rank=0 t.py ||{NODES} --node_rank=1 t.py", 3),
        joined(NODES, "torchrun --nnodes=1 --node_rank=0 --master_addr=localhost t.py", 3),
        launched("bash", "-c", "# torchrun --master_addr=localhost\ntorchrun t.py"),
    ],
)
def test_pods_with_ranks_of_their_own_are_no_warning(made):
    assert validate(made).warnings == ()


def without_master(command, env=None, **spec):
    made = manifest(worker=replica(container(command=command.split(), env=env), 2), **spec)
    del made["spec"]["pytorchReplicaSpecs"]["Master"]
    return made


def test_workers_that_get_no_rank_are_a_warning():
    (warning,) = validate(without_master("torchrun --nnodes=2 --nproc_per_node=2 t.py")).warnings
    assert re.search("command is 'torchrun': gets no rank .* never meet.*example elasticPolicy", str(warning))
    made = without_master("torchrun t.py", asked=annotations(workers="1..4"))
    made["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = 1
    assert len(validate(made).warnings) == 1
    has_rank = [{"name": "PET_NODE_RANK", "value": "0"}]
    for made in (
        without_master("torchrun t.py", elasticPolicy={}),
        without_master("torchrun --rdzv_backend=c10d --rdzv_endpoint=$(HOST):29400 t.py"),
        without_master("torchrun --node_rank=$(INDEX) --master_addr=$(HOST) t.py"),
        without_master("torchrun --standalone t.py"),
        without_master("torchrun t.py", has_rank),
        without_master("python t.py"),
    ):
        assert validate(made).warnings == ()


def test_an_address_that_the_operator_replaces_is_no_mistake():
    own = [{"name": "MASTER_ADDR", "value": "toy-master-0"}]
    assert validate(changed(f"{CONTAINERS}/0/env", own)).mistakes == ()


def test_without_a_master_the_rendezvous_is_the_address():
    made = manifest(worker=replica(container(args=["--rdzv=toy-worker-0"])), elasticPolicy={})
    del made["spec"]["pytorchReplicaSpecs"]["Master"]
    (mistake,) = validate(made).mistakes
    assert mistake.example.startswith("$(PET_RDZV_ENDPOINT)")


def test_what_stands_without_a_value_is_read_as_if_it_were_left_out():
    made = manifest(worker=replica())
    made["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = None
    assert Job.from_manifest(made).kind.devices(made, {}) == 2
    made["status"] = {"conditions": [{"type": [], "status": "True"}]}
    assert validate(made).mistakes == ()


def test_a_job_that_is_not_registered_may_run():
    assert validate(changed("metadata/annotations", {}) | {"spec": manifest()["spec"]}).warnings == ()
    assert validate(manifest(asked={}, runPolicy={})).warnings == ()


def test_on_a_laptop_a_missing_image_is_a_warning():
    made = changed(f"{CONTAINERS}/0", IMAGELESS)
    assert Job.from_manifest(made).manifest == made
    found = validate(made, needs_images=False)
    assert found.mistakes == ()
    assert [warning.key for warning in found.warnings] == [
        "spec.pytorchReplicaSpecs.Worker container pytorch.image"
    ]


def test_thousands_of_unknown_fields_are_told_in_short():
    made = manifest()
    made["spec"] |= {f"x{index}": index for index in range(20_000)}
    assert len(validate(made).warnings) <= 20


@pytest.mark.parametrize("made", [None, [], "text", 3, {}, {"kind": "Pod"}, {"a": {1, 2}}])
def test_what_is_no_job_at_all_is_one_more_mistake(made):
    assert validate(made).mistakes
