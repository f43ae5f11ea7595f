"""Pods live as on a kubelet: how they are started, restarted, and ended."""

import json
from pathlib import Path

import pytest

from tests.controlplane.guardian import marked_processes
from tests.controlplane.images import Image
from tests.controlplane.jobs import Job
from tests.controlplane.waiting import eventually

SHOW_SURROUNDINGS = """
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}))
"""
IGNORE_SIGTERM = "trap 'echo no' TERM; echo ready; while true; do sleep 0.05; done"
OBEY_SIGTERM = "trap 'echo farewell; exit 0' TERM; echo ready; while true; do sleep 0.05; done"


def surroundings(cluster, job):
    cluster.create(job)
    cluster.wait_until(job, "Succeeded")
    return json.loads(cluster.log(job.master))


def test_a_program_sees_its_variables_arguments_and_nothing_of_the_tests(cluster, monkeypatch):
    monkeypatch.setenv("LEAKED", "1")
    fields = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    job = Job(
        "seen",
        ("python", "-c", SHOW_SURROUNDINGS, "--batch-size=$(AUTOTUNER_BATCH_SIZE)", "$$(POD)"),
        container={"env": [{"name": "AUTOTUNER_BATCH_SIZE", "value": "512"}, fields]},
    )

    seen = surroundings(cluster, job)

    assert seen["arguments"] == ["--batch-size=512", "$(POD)"]
    assert seen["environment"]["POD"] == seen["environment"]["HOSTNAME"] == job.master
    assert "LEAKED" not in seen["environment"]


def test_the_operators_variables_lead_to_the_master(cluster):
    seen = surroundings(cluster, Job("seen", ("python", "-c", SHOW_SURROUNDINGS)))["environment"]

    assert seen["MASTER_ADDR"] == seen["PET_MASTER_ADDR"] == "127.0.0.1"
    assert seen["MASTER_PORT"] == seen["PET_MASTER_PORT"] != "23456"
    assert (seen["RANK"], seen["WORLD_SIZE"]) == ("0", "1")


def test_a_working_directory_that_the_machine_lacks_is_made_in_the_pods_folder(cluster):
    job = Job("made", ("python", "-c", SHOW_SURROUNDINGS), container={"workingDir": "/no/such/place"})

    assert surroundings(cluster, job)["folder"].endswith("/no/such/place")
    assert not Path("/no/such/place").exists()


def test_an_image_has_an_entry_point_and_folders(cluster, nodes, tmp_path):
    (tmp_path / "train.py").write_text(SHOW_SURROUNDINGS)
    image = Image(
        entrypoint=("python", "/workspace/train.py"),
        arguments=("--default",),
        folders={"/workspace": tmp_path},
        environment={"FROM_IMAGE": "1"},
    )
    nodes.add_image("example/train", image)
    job = Job("image", image="example/train", container={"workingDir": "/workspace"})

    seen = surroundings(cluster, job)

    assert seen["arguments"] == ["--default"]
    assert seen["folder"] == str(tmp_path)
    assert seen["environment"]["FROM_IMAGE"] == "1"


def test_a_script_sees_arguments_and_variables_and_its_result_is_the_exit_code(cluster, nodes):
    def script(invocation):
        yield 60.0, f"{invocation.arguments} {invocation.environment['RANK']}"
        return 3

    nodes.add_image("script", Image(script=script, speed=6000.0))
    job = Job("script", image="script", container={"args": ["--rank=$(RANK)"]})
    cluster.create(job)

    cluster.wait_until(job, "Failed")

    assert cluster.terminated(job.master).exit_code == 3
    assert cluster.log(job.master) == "('--rank=0',) 0\n"


def test_init_containers_run_before_and_a_failed_one_fails_the_pod(cluster):
    first = {"name": "first", "image": "any", "command": ["sh", "-c", "echo first"]}
    second = {"name": "second", "image": "any", "command": ["sh", "-c", "echo second; exit 4"]}
    job = Job("init", ("true",), pod={"initContainers": [first, second]})
    cluster.create(job)

    cluster.wait_until(job, "Failed")

    status = cluster.pod(job.master).status
    assert [s.state.terminated.exit_code for s in status.init_container_statuses] == [0, 4]
    assert status.container_statuses[0].state.waiting.reason == "PodInitializing"
    assert cluster.log(job.master, container="second") == "second\n"


def test_workers_start_after_their_master(cluster, nodes):
    nodes.break_image("slow")
    job = Job("ordered", ("sleep", "600"), workers=1, image="slow", worker_container={"image": "any"})
    cluster.create(job)
    cluster.wait_until_waiting(job.master, "ImagePullBackOff")
    cluster.wait_until_waiting(job.worker(), "PodInitializing")

    nodes.mend_image("slow")

    worker = eventually(lambda: cluster.container(job.worker()).state.running)
    assert worker.started_at >= cluster.container(job.master).state.running.started_at


def test_a_pod_that_obeys_ends_well_within_its_grace_period(cluster):
    job = Job("obedient", ("sh", "-c", OBEY_SIGTERM))
    cluster.run(job)
    eventually(lambda: "ready" in cluster.log(job.master))
    cluster.keep(job.master)

    cluster.core.delete_namespaced_pod(job.master, cluster.namespace)

    terminated = cluster.terminated(job.master)
    assert (terminated.exit_code, terminated.reason) == (0, "Completed")
    assert cluster.log(job.master) == "ready\nfarewell\n"
    cluster.let_go(job.master)


def test_a_pod_that_does_not_obey_is_killed_after_its_grace_period(cluster):
    job = Job("defiant", ("sh", "-c", IGNORE_SIGTERM), pod={"terminationGracePeriodSeconds": 1})
    cluster.run(job)
    eventually(lambda: "ready" in cluster.log(job.master))
    cluster.keep(job.master)

    cluster.core.delete_namespaced_pod(job.master, cluster.namespace)

    assert cluster.terminated(job.master).exit_code == 137
    assert cluster.log(job.master) == "ready\nno\n"
    cluster.let_go(job.master)


@pytest.mark.parametrize("end", ["crashed", "deleted outright"])
def test_nothing_that_a_container_has_started_outlives_it(cluster, nodes, end):
    program = "setsid sleep 600 & exec sleep 600"  # as torchrun does: a session of its own
    job = Job("leaving", ("sh", "-c", program), environment={"NAMESPACE": cluster.namespace})
    mark = f"NAMESPACE={cluster.namespace}"
    cluster.run(job)
    processes = eventually(lambda: len(found := set(marked_processes(mark))) == 2 and found)

    if end == "crashed":
        nodes.crash(cluster.namespace, job.master, 1, "")
    else:
        cluster.core.delete_namespaced_pod(job.master, cluster.namespace, grace_period_seconds=0)

    # The operator may make the pod again before it learns that it was being deleted.
    eventually(lambda: processes.isdisjoint(marked_processes(mark)))


def test_a_restart_policy_of_on_failure_restarts_until_success(cluster):
    program = "test -e ran && exit 0; touch ran; exit 1"
    job = Job("again", ("sh", "-c", program), restart_policy="OnFailure")
    cluster.create(job)

    cluster.wait_until(job, "Succeeded")

    assert cluster.container(job.master).restart_count == 1


def test_pods_continue_and_report_while_the_api_server_is_away(control_plane, cluster, tmp_path):
    wait, done = tmp_path / "go", tmp_path / "done"
    program = f"echo begin; until test -e {wait}; do sleep 0.05; done; echo end; touch {done}"
    job = Job("steadfast", ("sh", "-c", program))
    cluster.run(job)

    with control_plane.without_api_server():
        wait.touch()
        eventually(done.exists)

    cluster.wait_until(job, "Succeeded")
    assert cluster.log(job.master) == "begin\nend\n"
