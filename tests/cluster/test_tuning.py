"""The controller drives registered jobs to their answers, as its own process and with its role's rights."""

from kubernetes import client

from tests.cluster.controllers import RULES, Controller, running
from tests.cluster.tuned_jobs import TunedJob, image_of, learner
from tests.controlplane import rbac
from tests.controlplane.waiting import eventually


def terminating(admin: client.ApiClient) -> list[str]:
    namespaces = client.CoreV1Api(admin).list_namespace().items
    return [each.metadata.name for each in namespaces if each.status.phase == "Terminating"]


def test_a_registered_job_is_driven_to_its_answer(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512)))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()) as controller:
        eventually(job.is_in("Done", "Failed", "Invalid"), 120)
        eventually(lambda: "StudyDone" in job.events())
        refused = [name for name in controller.metrics() if 'code="403"' in name]

    assert job.phase == "Done", job.status
    assert job.answer["batch_size"] == 512
    assert job.answer["confirmed"] == 1
    assert not job.trial_jobs()
    assert not refused
    numbers = [trial.number for trial in job.ledger()]
    assert numbers == list(range(len(numbers)))


def test_without_namespaces_the_whole_cluster_is_watched(
    admin, namespace, nodes, control_plane, user_with, tmp_path
):
    nodes.add_image("example/training", image_of(learner(largest=512)))
    job = TunedJob().create(admin, namespace)
    # It works on what earlier tests left too, and is refused where their namespaces are on their way out.
    eventually(lambda: not terminating(admin), 60)
    rights = rbac.manifests_of_rules(RULES, namespace, name=f"autotuner-{namespace}", cluster_wide=True)
    token = user_with(rights).api_key["authorization"]
    kubeconfig = control_plane.write_kubeconfig(tmp_path / "kubeconfig", token)

    with running(Controller(kubeconfig, tmp_path / "controller.log")) as controller:
        eventually(job.is_in("Done"), 120)
        assert not [name for name in controller.metrics() if 'code="403"' in name]

    assert job.answer["batch_size"] == 512
