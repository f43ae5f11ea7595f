"""A plain PyTorchJob trains for real, through operator and node stand-in."""

from dataclasses import replace
from pathlib import Path

from tests.controlplane.jobs import Job
from tests.controlplane.waiting import eventually

DDP = Path(__file__).parent / "programs" / "ddp.py"
TRAINING = Job("ddp", ("python", str(DDP)), workers=1, environment={"STEPS": "50"})


def test_a_job_with_a_worker_trains_to_success_and_deleting_it_removes_its_pods(cluster):
    cluster.create(TRAINING)

    cluster.wait_until(TRAINING, "Succeeded")

    first, *_, last = cluster.log(TRAINING.master).splitlines()
    assert first.startswith("step=1 world=2 loss=")
    assert last.startswith("step=50 world=2 loss=")
    assert float(last.rpartition("=")[2]) < float(first.rpartition("=")[2])

    TRAINING.delete(cluster.admin, cluster.namespace)
    eventually(lambda: not cluster.core.list_namespaced_pod(cluster.namespace).items)


def test_two_jobs_train_at_once_without_meeting_on_a_port(cluster):
    jobs = [replace(TRAINING, name=f"ddp-{number}") for number in range(2)]
    for job in jobs:
        cluster.create(job)

    for job in jobs:
        cluster.wait_until(job, "Succeeded")

    for job in jobs:
        assert "step=50 world=2" in cluster.log(job.master)


def test_torchrun_finds_its_peers_through_the_operators_variables(cluster):
    job = replace(TRAINING, command=("torchrun", "--nproc-per-node=1", str(DDP)))
    cluster.create(job)

    cluster.wait_until(job, "Succeeded")

    assert "step=50 world=2" in cluster.log(job.master)
