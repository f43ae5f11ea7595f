"""A plain PyTorchJob trains for real, through operator and node stand-in."""

from pathlib import Path

from kubernetes import client

from tests.controlplane.jobs import Job
from tests.controlplane.waiting import eventually

DDP = Path(__file__).parent / "programs" / "ddp.py"


def test_a_job_with_a_worker_trains_to_success_and_deleting_it_removes_its_pods(admin, namespace):
    core = client.CoreV1Api(admin)
    job = Job("ddp", ("python", str(DDP)), workers=1, environment={"STEPS": "50"})
    job.create(admin, namespace)

    ended = eventually(lambda: job.conditions(admin, namespace).keys() & {"Succeeded", "Failed"})

    log = core.read_namespaced_pod_log(job.master, namespace)
    assert ended == {"Succeeded"}, log
    first, *_, last = log.splitlines()
    assert first.startswith("step=1 world=2 loss=")
    assert last.startswith("step=50 world=2 loss=")
    assert float(last.rpartition("=")[2]) < float(first.rpartition("=")[2])

    job.delete(admin, namespace)
    eventually(lambda: not core.list_namespaced_pod(namespace).items)
