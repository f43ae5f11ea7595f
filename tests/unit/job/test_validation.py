"""What the cluster would refuse, and what a job's owner should know."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from autotuner.job.validation import validate, wellformed
from tests.builders import annotations, container, manifest, replica

IMAGELESS = {"name": "pytorch", "command": ["python", "train.py"]}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return a job with a Master and a Worker, changed at one place; None removes what stands there."""
    made = copy.deepcopy(manifest(worker=replica()))
    *way, last = path.split("/")
    node = made
    for step in way:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    key = int(last) if isinstance(node, list) else last
    if value is None:
        del node[key]
    else:
        node[key] = value
    return made


REPLICAS = "spec/pytorchReplicaSpecs"
CONTAINERS = f"{REPLICAS}/Worker/template/spec/containers"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (changed(f"{REPLICAS}/Master/replicas", None), "Master.replicas is ''.*must be 1.*be given"),
        (changed(f"{REPLICAS}/Master/replicas", 2), "Master.replicas is '2'.*must be 1"),
        (changed(f"{REPLICAS}/Worker/replicas", 0), "Worker.replicas is '0'.*at least 1"),
        (changed(f"{REPLICAS}/Worker/replicas", "2"), "Worker.replicas is '2'.*whole number"),
        (changed(f"{REPLICAS}/worker", replica()), "knows only Master and Worker.*such as Worker"),
        (changed(f"{CONTAINERS}/0", IMAGELESS), "Worker container pytorch.image.*webhook"),
        (changed(f"{CONTAINERS}/0/image", ""), "container pytorch.image"),
        (changed("spec/nprocPerNode", 2), "spec.nprocPerNode is '2': must be a string, in quotes.*\"2\""),
        (changed("spec/elasticPolicy", {"minReplicas": "1"}),
         "elasticPolicy.minReplicas is '1': must be a whole"),
        (changed("spec/elasticPolicy", []), "spec.elasticPolicy is .*must be a mapping"),
        (changed("spec/runPolicy/suspend", "true"), "runPolicy.suspend is 'true'.*without quotes"),
        (changed("spec/runPolicy/managedBy", "kueue.x-k8s.io/multikueue"), "managedBy.*no pods and no logs"),
        (manifest(elasticPolicy={"rdzvBackend": "c10d"}), "elasticPolicy.*beside a Worker"),
        (
            manifest(worker=replica(), nprocPerNode="2", elasticPolicy={"nProcPerNode": 2}),
            "must not stand beside spec.nprocPerNode",
        ),
        (changed(f"{REPLICAS}/Worker/replica", 4), "Worker.replica is '4': there is no such field.*replicas"),
        (changed("spec/runpolicy", {}), "spec.runpolicy.*such as runPolicy"),
        (changed(f"{CONTAINERS}/0/arg", []), r"containers\[0\].arg.*such as args"),
        (changed("metadata", {"generateName": "resnet-"}),
         "metadata.name.*generateName 'resnet-'.*such as resnet"),
        (
            manifest(master=replica(container(args=["--master_addr=toy-master-0"]))),
            r"toy-master-0.*\$\(MASTER_ADDR\)",
        ),
        (manifest(master=replica(container(args=["--lr=${trialParameters.lr}"]))), "AUTOTUNER_LR"),
    ],
)  # fmt: skip
def test_what_the_cluster_would_refuse_is_a_mistake(made, says):
    found = validate(made).mistakes
    assert any(re.search(says, str(mistake)) for mistake in found), found
    assert all(mistake.rule and mistake.example for mistake in found)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (changed("spec/runPolicy", {}), "spec.runPolicy.suspend is ''.*suspend: true"),
        (changed("spec/runPolicy/suspend", False), "spec.runPolicy.suspend is 'false'"),
        (changed("metadata/labels", {"kueue.x-k8s.io/queue-name": "a"}), "autotuner.dev/queue: a"),
        (manifest(asked=annotations(queue="default")), "gives every job of the namespace"),
        (changed("status", {"conditions": [{"type": "Failed", "status": "True"}]}), "already run to its end"),
        (changed("spec/cleanPodPolicy", "None"), "spec.cleanPodPolicy.*ignored"),
        (

         changed(f"{REPLICAS}/Worker/template/metadata", {"labels": {"scheduling.x-k8s.io/pod-group": "g"}}),
            "one pod group",
        ),
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


def test_a_job_that_is_not_registered_may_run():
    assert validate(changed("metadata/annotations", {}) | {"spec": manifest()["spec"]}).warnings == ()
    assert validate(manifest(asked={}, runPolicy={})).warnings == ()


def test_on_a_laptop_a_missing_image_is_a_warning():
    made = changed(f"{CONTAINERS}/0", IMAGELESS)
    assert wellformed(made)
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
