"""A TrainJob is tuned on a laptop as a PyTorchJob is: its nodes are processes."""

from __future__ import annotations

from typing import Any

import yaml

from tests.builders import annotations
from tests.end_to_end.programs import Place
from tests.end_to_end.test_torch import PROGRAM

# Node 0 waits for the others at the rendezvous, and reports once all have come.
MEETS = """
import os, socket
rank, nodes = int(os.environ["PET_NODE_RANK"]), int(os.environ["PET_NNODES"])
address = os.environ["PET_MASTER_ADDR"], int(os.environ["PET_MASTER_PORT"])
assert os.environ["JOB_COMPLETION_INDEX"] == str(rank)
if rank == 0:
    with socket.create_server(address) as server:
        met = {server.accept()[0].recv(1) for _ in range(nodes - 1)}
    print(f"accuracy={len(met) / (nodes - 1)} epoch=5", flush=True)
else:
    for _ in range(1000):
        try:
            socket.create_connection(address).sendall(str(rank).encode())
            break
        except ConnectionRefusedError:
            import time
            time.sleep(0.01)
"""
READS = """
import os
print(f"batch {os.environ['AUTOTUNER_BATCH_SIZE']}, rate {os.environ['AUTOTUNER_LEARNING_RATE']}")
"""
ANCESTOR = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def train_job(
    place: Place, program: str, runtime: str = "torch-distributed", **trainer: Any
) -> dict[str, Any]:
    """Write a program, and return a TrainJob that runs it on two nodes."""
    (place.folder / "train.py").write_text(program)
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": "toy",
            "annotations": annotations(batch_size="16..32", run_length="5", confirmations="1"),
        },
        "spec": {
            "runtimeRef": {"name": runtime},
            "suspend": True,
            "trainer": {
                "command": ["python", "train.py"],
                "numNodes": 2,
                "env": [
                    {"name": "AUTOTUNER_BATCH_SIZE", "value": "32"},
                    {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
                ],
                **trainer,
            },
        },
    }


def own_runtime(name: str = "ours") -> dict[str, Any]:
    """Return a runtime whose container has the command."""
    container = {"name": "node", "command": ["python", "train.py"]}
    job = {
        "name": "node",
        "template": {
            "metadata": {"labels": ANCESTOR},
            "spec": {"template": {"spec": {"containers": [container]}}},
        },
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": name},
        "spec": {
            "mlPolicy": {"numNodes": 2, "torch": {}},
            "template": {"spec": {"replicatedJobs": [job]}},
        },
    }


def test_two_nodes_meet_and_are_tuned_to_a_confirmed_answer(place: Place):
    ran = place.run("tune", place.save(train_job(place, MEETS)).name, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["batch_size"], ran.json["confirmed"]) == (32, 1)
    shown = place.run("status", "toy-tuning", "--json").json
    assert (shown["job"], shown["phase"]) == ("toy", "Done")


def test_a_torchrun_script_finds_its_peers_on_every_node(place: Place):
    place.environment = {"PROCESSES": "4"}
    job = train_job(place, PROGRAM, command=["torchrun", "train.py"], numProcPerNode=2)
    ran = place.run("tune", place.save(job).name, "--json")
    assert ran.code == 0, ran.err


def test_a_runtime_comes_from_the_jobs_file_or_from_one_of_its_own(place: Place):
    job = train_job(place, MEETS, "ours")
    del job["spec"]["trainer"]["command"], job["spec"]["trainer"]["numNodes"]
    file = place.save(job)

    alone = place.run("validate", file.name)
    assert alone.code == 2
    assert "kubectl get clustertrainingruntime ours -o yaml > runtime.yaml" in alone.err

    (place.folder / "runtime.yaml").write_text(yaml.safe_dump(own_runtime()))
    ran = place.run("tune", file.name, "--runtime", "runtime.yaml", "--json")
    assert ran.code == 0, ran.err

    # The study's folder keeps both.
    (place.folder / "runtime.yaml").unlink()
    assert place.run("trials", "toy-tuning", "--json").code == 0

    file.write_text(yaml.safe_dump_all([own_runtime(), job]))
    assert place.run("validate", file.name).code == 0


def test_the_answer_is_given_as_a_patch_where_that_is_asked_for(place: Place):
    job = train_job(place, MEETS)
    job["metadata"]["annotations"] = annotations(
        batch_size="16..32", run_length="5", confirmations="1", apply="patch"
    )
    ran = place.run("tune", place.save(job).name, "--json")
    assert ran.code == 0, ran.err
    patch = yaml.safe_load(place.run("status", "toy-tuning", "--json").json["patch"])
    assert (patch["kind"], patch["metadata"]["name"], patch["spec"]["suspend"]) == ("TrainJob", "toy", False)
    assert {"name": "AUTOTUNER_BATCH_SIZE", "value": "32"} in patch["spec"]["trainer"]["env"]
    assert not (place.tuning / "answer.yaml").exists()


def test_the_answer_is_given_as_a_new_job_where_it_is_to_run(place: Place):
    job = train_job(place, MEETS)
    job["metadata"]["annotations"] = annotations(
        batch_size="16..32", run_length="5", confirmations="1", apply="true", apply_as="toy-large"
    )
    ran = place.run("tune", place.save(job).name, "--json")
    assert ran.code == 0, ran.err
    answer = yaml.safe_load((place.tuning / "answer.yaml").read_text())
    assert (answer["metadata"]["name"], answer["spec"]["suspend"]) == ("toy-large", False)
    assert not any(key.startswith("autotuner.dev/") for key in answer["metadata"]["annotations"])


def test_a_trial_is_rendered_as_it_would_be_submitted(place: Place):
    file = place.save(train_job(place, MEETS))
    ran = place.run("render", file.name, "--batch-size", "16", "--set", "learning_rate=0.2")
    assert ran.code == 0, ran.err
    trial = yaml.safe_load(ran.out)
    assert (trial["kind"], trial["spec"]["suspend"]) == ("TrainJob", False)
    environment = {entry["name"]: entry["value"] for entry in trial["spec"]["trainer"]["env"]}
    assert environment["AUTOTUNER_BATCH_SIZE"] == "16"
    assert environment["AUTOTUNER_LEARNING_RATE"] == "0.2"
    assert trial["spec"]["trainer"]["numNodes"] == 2


def test_a_trainjob_that_would_run_beside_its_trials_is_warned_of(place: Place):
    job = train_job(place, READS)
    job["spec"]["suspend"] = False
    ran = place.run("validate", place.save(job).name, "--json")
    (warning,) = ran.json["warnings"]
    assert (ran.code, warning["key"]) == (0, "spec.suspend")


def test_a_trainjob_whose_script_does_not_read_the_batch_size_is_warned_of(place: Place):
    ran = place.run("validate", place.save(train_job(place, MEETS)).name, "--json")
    assert any(
        "nothing in command, args or env refers to AUTOTUNER_BATCH_SIZE" in w["rule"]
        for w in ran.json["warnings"]
    )
