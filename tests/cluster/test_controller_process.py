"""The controller on a real cluster: election, readiness, the end, outages, hostile input, its rights."""

import json
import time

import pytest
from kubernetes import client

from autotuner import keys
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, TunedJob, image_of, learner
from tests.controlplane.waiting import eventually

LEASE = {"leader_election": "true", "lease_seconds": 6, "renew_seconds": 4, "retry_seconds": 1}


def holder(admin, namespace):
    try:
        return (
            client.CoordinationV1Api(admin).read_namespaced_lease("autotuner", namespace).spec.holder_identity
        )
    except client.ApiException as error:
        if error.status != 404:
            raise
        return None


def refusals(controller):
    """Return how many requests got no answer."""
    total = "autotuner_api_requests_total"
    return sum(v for k, v in controller.metrics().items() if k.startswith(total) and 'code="error"' in k)


def test_sigterm_ends_in_seconds_with_the_lease_released_and_the_next_takes_over(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.3)))
    job = TunedJob().create(admin, namespace)
    first, second = (new_controller(lease_namespace=namespace, **LEASE) for _ in range(2))

    with running(first):
        eventually(lambda: len(job.ledger()) >= 1)
        with running(second):
            second.wait_until_ready()
            assert second.metrics()["autotuner_leader"] == 0
            code, seconds = first.terminate()
            assert code == 0
            assert first.lines()[-1]["event"] == "ended"
            assert first.lines()[-1]["unfinished"] == []
            assert seconds < 20  # Kubernetes kills after 30
            eventually(lambda: second.metrics().get("autotuner_leader") == 1)
            eventually(job.is_in("Done"))

    numbers = [trial.number for trial in job.ledger()]
    assert numbers == list(range(len(numbers)))
    assert not job.trial_jobs()


def test_a_killed_leader_is_replaced_once_its_lease_has_ended(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.3)))
    job = TunedJob().create(admin, namespace)
    first, second = (new_controller(lease_namespace=namespace, **LEASE) for _ in range(2))

    with running(first), running(second):
        eventually(lambda: len(job.ledger()) >= 1)
        leader = next(c for c in (first, second) if c.metrics().get("autotuner_leader") == 1)
        leader.kill()
        eventually(job.is_in("Done"))

    assert job.answer["batch_size"] == 512


def test_a_leader_that_lost_its_lease_exits(admin, namespace, new_controller):
    first, second = (new_controller(lease_namespace=namespace, **LEASE) for _ in range(2))

    with running(first):
        name = eventually(lambda: holder(admin, namespace))
        with running(second):
            second.wait_until_ready()
            first.pause()
            eventually(lambda: holder(admin, namespace) not in {name, None})
            first.resume()
            assert first.wait() == 1

    assert first.lines()[-1]["event"] == "lease_lost"


@pytest.mark.timeout(400)
def test_an_api_outage_is_survived_without_a_busy_loop(
    admin, namespace, nodes, new_controller, control_plane
):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.5)))
    job = TunedJob().create(admin, namespace)

    # Without a lease: a leader that cannot renew it has to go, and Kubernetes starts it again.
    with running(new_controller(poll_seconds=1)) as controller:
        eventually(lambda: len(job.ledger()) >= 1)
        with control_plane.without_api_server():
            eventually(lambda: controller.get("/healthz")[0] == 200)
            began = time.monotonic()
            before = refusals(controller)
            eventually(lambda: time.monotonic() - began > 20)
            assert 0 < refusals(controller) - before < 60
        eventually(job.is_in("Done"), 120)
        assert controller.exit_code is None

    assert job.answer["batch_size"] == 512
    numbers = [trial.number for trial in job.ledger()]
    assert numbers == list(range(len(numbers)))


def test_readiness_follows_the_cluster_and_metrics_have_their_names(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=256, seconds=0.5)))
    job = TunedJob(annotations={keys.PREFIX + "max-trials": "4"}).create(admin, namespace)

    with running(new_controller()) as controller:
        controller.wait_until_ready()
        assert controller.get("/healthz") == (200, "ok\n")
        assert controller.get("/nothing")[0] == 404
        eventually(job.is_in("Done"))
        eventually(lambda: controller.metrics()['autotuner_studies{phase="Done"}'] == 1)
        metrics = controller.metrics()

    assert metrics['autotuner_trials_total{outcome="reached"}'] >= 1
    assert metrics["autotuner_gpu_seconds_total"] > 0
    assert metrics["autotuner_queue_depth"] >= 0
    assert metrics["autotuner_reconcile_duration_seconds_count"] > 0
    assert "autotuner_reconcile_errors_total" in metrics
    assert metrics['autotuner_api_requests_total{code="201",verb="create"}'] >= 4
    passes = [line for line in controller.lines() if line["event"] == "reconciled"]
    assert {"job", "phase", "started", "finished", "running", "seconds", "timestamp"} <= passes[0].keys()


def test_pages_show_every_study_with_its_running_trials_and_at_last_its_answer(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.5)))
    job = TunedJob().create(admin, namespace)
    report = f"/{namespace}/pytorchjobs/digits"

    def shows(text, path=report):
        code, page = controller.page(path)
        return code == 200 and text in page

    with running(new_controller()) as controller:
        controller.wait_until_ready()
        assert eventually(lambda: shows(f'href="{report}"', "/"))
        assert eventually(lambda: shows("</span>running"))
        eventually(job.is_in("Done"))
        assert eventually(lambda: shows("</span>Done", f"/{namespace}"))
        assert eventually(lambda: shows(f"largest batch size {job.answer['batch_size']}"))
        assert 'http-equiv="refresh"' not in controller.page(report)[1]
        assert controller.page("/kube-system/secrets/token")[0] == 404
        assert controller.page("/", host="localhost:8081")[0] == 200
        assert controller.page("/", host="rebound.example.com:8081")[0] == 403


def test_hostile_log_lines_and_names_do_no_harm(admin, namespace, nodes, new_controller):
    def hostile(invocation):
        yield 0.0, "x" * 3_000_000
        yield 0.0, "\x1b]0;owned\x07\x00accuracy=1e999 epoch=-1"
        yield 0.0, json.dumps({"accuracy": "__import__('os').system('touch /tmp/owned')"})
        yield 0.0, "(a+)+$" * 1000 + "!"
        for _ in range(3000):
            yield 0.0, "accuracy= epoch=" + "9" * 300
        yield from learner(largest=512)(invocation)

    nodes.add_image("example/training", image_of(hostile))
    job = TunedJob(
        annotations={
            keys.PREFIX + "metric-pattern": r"^accuracy=(?P<value>[0-9.]+) epoch=(?P<step>\d)$",
            keys.STATUS_PREFIX + "trials": "{" * 100,
            keys.STATUS_PREFIX + "answer": "not json",
        }
    ).create(admin, namespace)

    with running(new_controller(max_log_bytes=300_000)):
        eventually(job.is_in("Done", "Failed"), 120)

    assert job.phase == "Done", job.status
    assert job.answer["batch_size"] == 512


def test_a_job_of_another_owner_under_a_trials_name_is_left_alone_and_reported(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=4096)))
    job = TunedJob(annotations={keys.PREFIX + "paused": "true"}).create(admin, namespace)
    name = keys.trial_name(job.name, job.read().uid, 0)
    manifest = TunedJob(name).manifest()
    manifest["metadata"]["annotations"] = {}
    custom = client.CustomObjectsApi(admin)
    custom.create_namespaced_custom_object(*API, namespace, PLURAL, manifest)
    job.annotate(paused=None)

    with running(new_controller()):
        eventually(lambda: "is not a trial of digits" in job.status.get("message", ""))
        assert custom.get_namespaced_custom_object(*API, namespace, PLURAL, name)
        custom.delete_namespaced_custom_object(*API, namespace, PLURAL, name)
        eventually(job.is_in("Done"))


def test_a_config_map_of_another_owner_under_the_ledgers_name_is_left_alone_and_reported(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=4096)))
    core = client.CoreV1Api(admin)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "digits-tuning"}, "data": {"a": "b"}})
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        eventually(lambda: "does not belong to this job" in job.status.get("message", ""))
        assert core.read_namespaced_config_map("digits-tuning", namespace).data == {"a": "b"}
        core.delete_namespaced_config_map("digits-tuning", namespace)
        eventually(job.is_in("Done"))
