"""Logs through the API server, with each option that the controller uses and those beside it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import urllib3
from kubernetes import client

from tests.controlplane.images import Image
from tests.controlplane.jobs import Job
from tests.controlplane.waiting import eventually

SCRIPTED = Job("scripted", image="scripted")


@pytest.fixture
def print_lines(cluster, nodes):
    """Return a function that runs a job to its end which prints given lines."""

    def run(*lines):
        def script(_):
            for line in lines:
                yield 0.0, line

        nodes.add_image(SCRIPTED.image, Image(script=script))
        cluster.create(SCRIPTED)
        cluster.wait_until(SCRIPTED, "Succeeded")

    return run


def test_a_log_comes_whole_and_as_written(cluster, print_lines):
    lines = ["plain", "", "tab\tand no-break\u00a0space", "progress\r100%", "x" * 40_000]
    print_lines(*lines)

    assert cluster.log(SCRIPTED.master) == "".join(f"{line}\n" for line in lines)


def test_an_unfinished_last_line_is_shown_once_the_program_has_ended(cluster):
    job = Job("unfinished", ("printf", "one\ntwo"))
    cluster.create(job)
    cluster.wait_until(job, "Succeeded")

    assert cluster.log(job.master) == "one\ntwo"


def test_tail_lines_shows_the_end(cluster, print_lines):
    print_lines("one", "two", "three")

    assert cluster.log(SCRIPTED.master, tail_lines=2) == "two\nthree\n"
    assert cluster.log(SCRIPTED.master, tail_lines=0) == ""


def test_limit_bytes_cuts_anywhere(cluster, print_lines):
    print_lines("one", "two", "three")

    assert cluster.log(SCRIPTED.master, limit_bytes=6) == "one\ntw"


def test_timestamps_have_nine_decimals_and_stand_once_a_line(cluster, print_lines):
    print_lines("one", "x" * 40_000)

    first, second = cluster.log(SCRIPTED.master, timestamps=True).splitlines()

    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    assert re.fullmatch(f"{stamp} one", first)
    assert re.fullmatch(f"{stamp} x{{40000}}", second)


def test_since_time_skips_earlier_lines(cluster, nodes):
    nodes.add_image(SCRIPTED.image, Image(script=two_lines_three_seconds_apart))
    cluster.create(SCRIPTED)
    cluster.wait_until(SCRIPTED, "Succeeded")
    stamped = cluster.log(SCRIPTED.master, timestamps=True).splitlines()[1]
    second = datetime.fromisoformat(stamped.split()[0])

    # The API server rounds times down to whole seconds.
    assert since(cluster, second - timedelta(seconds=1)) == "late\n"
    assert since(cluster, second - timedelta(hours=1)) == "early\nlate\n"
    assert since(cluster, second + timedelta(seconds=2)) == ""


def two_lines_three_seconds_apart(_):
    yield 0.0, "early"
    yield 3.0, "late"


def since(cluster, time):
    """Read the log as of a time; the Python client's method offers only ``since_seconds``."""
    configuration = cluster.admin.configuration
    with urllib3.PoolManager(ca_certs=configuration.ssl_ca_cert) as pool:
        answer = pool.request(
            "GET",
            f"{configuration.host}/api/v1/namespaces/{cluster.namespace}/pods/{SCRIPTED.master}/log",
            fields={"sinceTime": time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
            headers={"Authorization": f"Bearer {configuration.api_key['authorization']}"},
        )
    return answer.data.decode()


def test_following_gives_lines_as_they_come_and_ends_with_the_container(cluster, nodes):
    nodes.add_image(SCRIPTED.image, Image(script=wait_between_lines))
    cluster.run(SCRIPTED)

    with cluster.core.read_namespaced_pod_log(
        SCRIPTED.master, cluster.namespace, follow=True, _preload_content=False
    ) as stream:
        lines = iter(stream)
        assert next(lines) == b"first\n"
        assert cluster.pod(SCRIPTED.master).status.phase == "Running"
        assert next(lines) == b"second\n"
        nodes.crash(cluster.namespace, SCRIPTED.master, 1, "last\n")
        assert list(lines) == [b"last\n"]


def wait_between_lines(_):
    yield 0.0, "first"
    yield 1.0, "second"
    yield 3600.0, "never"


def test_a_follower_that_hangs_up_leaves_others_undisturbed(cluster, nodes):
    nodes.add_image(SCRIPTED.image, Image(script=wait_between_lines))
    cluster.run(SCRIPTED)

    def follow():
        return cluster.core.read_namespaced_pod_log(
            SCRIPTED.master, cluster.namespace, follow=True, _preload_content=False
        )

    with follow() as stays:
        lines = iter(stays)
        assert next(lines) == b"first\n"
        with follow() as leaves:
            assert next(iter(leaves)) == b"first\n"
        assert next(lines) == b"second\n"


def test_a_follower_is_cut_off_when_the_node_is_lost(cluster, nodes):
    nodes.add_image(SCRIPTED.image, Image(script=wait_between_lines))
    cluster.run(SCRIPTED)

    with cluster.core.read_namespaced_pod_log(
        SCRIPTED.master, cluster.namespace, follow=True, _preload_content=False
    ) as stream:
        lines = iter(stream)
        assert next(lines) == b"first\n"
        nodes.lose(cluster.pod(SCRIPTED.master).spec.node_name)
        assert [line for line in lines if line != b"second\n"] == []


def test_a_lost_log_is_refused_but_its_end_stays_in_the_status(cluster, nodes):
    nodes.add_image(SCRIPTED.image, Image(script=wait_between_lines))
    cluster.run(SCRIPTED)
    nodes.crash(cluster.namespace, SCRIPTED.master, 1, "last words\n")
    assert cluster.terminated(SCRIPTED.master).message.endswith("last words\n")

    nodes.lose_log(cluster.namespace, SCRIPTED.master)

    with pytest.raises(client.ApiException, match="unable to retrieve container logs") as refusal:
        cluster.log(SCRIPTED.master)
    assert refusal.value.status == 400
    assert cluster.terminated(SCRIPTED.master).message.endswith("last words\n")


def test_a_rotated_log_has_its_newest_lines(cluster, nodes, print_lines):
    print_lines("one", "two", "three")

    nodes.rotate_log(cluster.namespace, SCRIPTED.master, 2)

    assert cluster.log(SCRIPTED.master) == "two\nthree\n"
    assert cluster.log(SCRIPTED.master, tail_lines=5) == "two\nthree\n"
    assert cluster.log(SCRIPTED.master, tail_lines=1) == "three\n"


def test_a_restarted_container_has_a_previous_log(cluster, nodes):
    job = Job("restarting", ("sh", "-c", "echo begin; exec sleep 600"), restart_policy="OnFailure")
    cluster.run(job)
    eventually(lambda: cluster.log(job.master) == "begin\n")

    nodes.crash(cluster.namespace, job.master, 1, "crash\n")

    restarted = eventually(
        lambda: (c := cluster.container(job.master)).restart_count == 1 and c.state.running and c
    )
    eventually(lambda: cluster.log(job.master) == "begin\n")
    assert cluster.log(job.master, previous=True) == "begin\ncrash\n"
    assert restarted.restart_count == 1
    assert restarted.last_state.terminated.exit_code == 1


def test_a_container_that_never_ran_twice_has_no_previous_log(cluster, print_lines):
    print_lines("one")

    with pytest.raises(client.ApiException, match="previous terminated") as refusal:
        cluster.log(SCRIPTED.master, previous=True)
    assert refusal.value.status == 400


def test_a_container_that_waits_has_no_log(cluster, nodes):
    nodes.break_image(SCRIPTED.image)
    cluster.create(SCRIPTED)
    cluster.wait_until_waiting(SCRIPTED.master, "ImagePullBackOff")

    with pytest.raises(client.ApiException, match="waiting to start") as refusal:
        cluster.log(SCRIPTED.master)
    assert refusal.value.status == 400
