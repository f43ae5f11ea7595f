"""Pods and jobs as the API server returns them, with absent fields and values of the wrong type."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.backends.kubernetes.pods import read_conditions, read_pod

LABELS = {
    "training.kubeflow.org/replica-type": "master",
    "training.kubeflow.org/replica-index": "0",
    "training.kubeflow.org/job-role": "master",
}


def pod(status, **metadata):
    return read_pod({"metadata": {"name": "p", "uid": "u", "labels": LABELS, **metadata}, "status": status})


def container(**state):
    return {"containerStatuses": [{"name": "pytorch", "state": state}]}


def test_a_running_container_tells_since_when():
    read = pod({"phase": "Running", **container(running={"startedAt": "2026-01-01T12:00:00Z"})})
    assert read.started_at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert read.is_rank_zero
    assert read.stuck is None


def test_the_training_containers_end_counts_and_not_a_sidecars():
    status = {
        "phase": "Failed",
        "containerStatuses": [
            {"name": "sidecar", "state": {"terminated": {"exitCode": 9}}},
            {
                "name": "pytorch",
                "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "last"}},
            },
        ],
    }
    read = pod(status)
    assert (read.exit_code, read.reason, read.log_tail) == (1, "Error", "last")


UNKNOWN = {"terminated": {"exitCode": 255, "reason": "Unknown"}}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {
                "conditions": [
                    {"type": "DisruptionTarget", "status": "True", "reason": "Preemption", "message": "m"}
                ]
            },
            "Preemption: m",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "Evicted: low on disk"),
        ({"phase": "Failed", "reason": "DeadlineExceeded", "message": "long"}, "DeadlineExceeded: long"),
        ({"phase": "Failed"}, ""),
        (
            {"containerStatuses": [{"name": "pytorch", "state": UNKNOWN}]},
            "its node does not know how the container ended, as after a restart of the node",
        ),
        ({"containerStatuses": [{"name": "pytorch", "state": {}, "lastState": UNKNOWN}]}, ""),
        ({"conditions": [{"type": "DisruptionTarget", "status": "False"}]}, ""),
    ],
)
def test_what_the_cluster_did_to_a_pod(status, said):
    assert pod(status).disruption == said


@pytest.mark.parametrize(
    ("message", "exceeded"),
    [
        ('Usage of EmptyDir volume "dshm" exceeds the limit "1Gi". ', "memory"),
        ('Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". ', "storage"),
        ("Pod ephemeral local storage usage exceeds the total limit of containers 10Gi. ", "storage"),
        ('Container pytorch exceeded its local ephemeral storage limit "10Gi". ', "storage"),
        ("The node was low on resource: ephemeral-storage. Container pytorch was using 10Gi. ", ""),
        ("The node was low on resource: memory. ", ""),
    ],
)
def test_a_pod_that_exceeds_its_own_limit_is_no_fault_of_the_node(message, exceeded):
    volumes = [{"name": "scratch", "emptyDir": {}}, {"name": "dshm", "emptyDir": {"medium": "Memory"}}]
    status = {"phase": "Failed", "reason": "Evicted", "message": message}
    assert read_pod({"metadata": {}, "spec": {"volumes": volumes}, "status": status}).exceeded == exceeded


def test_a_pod_that_exceeds_the_deadline_of_its_template_is_no_fault_of_the_node():
    assert pod({"phase": "Failed", "reason": "DeadlineExceeded"}).exceeded == "time"


def scheduled(status, reason="", message=""):
    at = "2026-01-01T12:00:30Z"
    condition = {"type": "PodScheduled", "status": status, "lastTransitionTime": at}
    return {"phase": "Pending", "conditions": [{**condition, "reason": reason, "message": message}]}


def init(name="fetch", **state):
    return {"initContainerStatuses": [{"name": name, "state": state}]}


CREATING = container(waiting={"reason": "ContainerCreating"})
INITIALIZING = container(waiting={"reason": "PodInitializing"})
TAKEN = scheduled("True")
NO_ROOM = "pod group is not ready, 2 Pending, 3 minAvailable"


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (TAKEN | container(waiting={"reason": "ErrImagePull", "message": "x"}), "Image", "ErrImagePull: x"),
        (TAKEN | init(waiting={"reason": "ImagePullBackOff"}), "Image", "ImagePullBackOff"),
        (
            TAKEN | container(waiting={"reason": "CreateContainerConfigError", "message": "no secret"}),
            "Configuration",
            "CreateContainerConfigError: no secret",
        ),
        (TAKEN | CREATING, "Starting", "ContainerCreating"),
        (TAKEN | INITIALIZING | init(running={}), "Starting", "PodInitializing"),
        (
            TAKEN | INITIALIZING | init(running={"startedAt": "2026-01-01T12:01:00Z"}),
            "Initializing",
            "its init container fetch still runs",
        ),
        (scheduled("False", "Unschedulable", "0/2 nodes"), "Unschedulable", "Unschedulable: 0/2 nodes"),
        (scheduled("False", "Unschedulable", NO_ROOM), "Gang", f"Unschedulable: {NO_ROOM}"),
        (scheduled("False", "SchedulingGated", "gated"), "Queued", "SchedulingGated: gated"),
        ({"phase": "Pending"}, "Unschedulable", "no scheduler has considered it (default-scheduler)"),
    ],
)
def test_what_keeps_a_pod_from_starting(status, reason, said):
    stuck = pod(status, creationTimestamp="2026-01-01T12:00:00Z").stuck
    assert (stuck.reason, stuck.text) == (reason, said)
    conditions = status.get("conditions", [])
    assert stuck.since.second == (30 if any(c["status"] == "True" for c in conditions) else 0)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Running", **container(waiting={"reason": "CrashLoopBackOff"})},
        {"phase": "Succeeded"},
        TAKEN | container(running={"startedAt": "2026-01-01T12:01:00Z"}),
        {},
    ],
)
def test_a_pod_that_runs_or_has_run_is_not_stuck(status):
    assert pod(status).stuck is None


def test_a_sidecar_that_has_started_keeps_no_pod_from_starting():
    proxy = {"name": "proxy", "restartPolicy": "Always"}
    status = TAKEN | INITIALIZING | init("proxy", running={"startedAt": "2026-01-01T12:01:00Z"})
    waits = read_pod({"metadata": {}, "spec": {"initContainers": [proxy]}, "status": status})
    assert waits.stuck.text == "its sidecar proxy still runs"
    status["initContainerStatuses"][0]["started"] = True
    starts = read_pod({"metadata": {}, "spec": {"initContainers": [proxy]}, "status": status})
    assert starts.stuck.text == "PodInitializing"


@pytest.mark.parametrize(
    ("conditions", "since"),
    [
        ([], "00"),
        ([{"type": "Suspended", "status": "False", "lastTransitionTime": "2026-01-01T12:00:09Z"}], "09"),
    ],
)
def test_a_job_waits_since_it_was_made_or_admitted(conditions, since):
    metadata = {"creationTimestamp": "2026-01-01T12:00:00Z", "labels": {"kueue.x-k8s.io/queue-name": "a"}}
    read = read_conditions({"metadata": metadata, "status": {"conditions": conditions}})
    assert f"{read.waiting_since:%S}" == since
    assert read.queue == "a"


@pytest.mark.parametrize(
    ("spec", "ends_with_first"),
    [
        ({"elasticPolicy": {}, "pytorchReplicaSpecs": {"Worker": {}}}, True),
        ({"elasticPolicy": {}, "pytorchReplicaSpecs": {"Master": {}, "Worker": {}}}, False),
        ({"pytorchReplicaSpecs": {"Worker": {}}}, False),
    ],
)
def test_the_operator_ends_an_elastic_job_without_a_master_with_its_first_worker(spec, ends_with_first):
    assert read_conditions({"spec": spec}).ends_with_first is ends_with_first


def test_an_init_container_that_failed_is_the_pods_failure():
    status = {
        "phase": "Failed",
        "initContainerStatuses": [
            {"name": "init", "state": {"terminated": {"exitCode": 7, "startedAt": "2026-01-01T12:00:00Z"}}}
        ],
    }
    read = pod(status)
    assert read.exit_code == 7
    assert read.started_at is None
    assert read.preparer == "init container init"


def test_the_memory_of_an_init_container_is_none_of_the_trainings():
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    read = pod({"phase": "Failed", "initContainerStatuses": [{"name": "download", "state": killed}]})
    assert (read.exit_code, read.reason) == (137, "OOMKilled in init container download")


def test_an_init_container_that_is_a_sidecar_fails_no_pod():
    status = {
        "phase": "Running",
        "initContainerStatuses": [{"name": "proxy", "state": {"terminated": {"exitCode": 137}}}],
        **container(running={"startedAt": "2026-01-01T12:00:00Z"}),
    }
    proxy = {"name": "proxy", "restartPolicy": "Always"}
    read = read_pod({"metadata": {}, "spec": {"initContainers": [proxy]}, "status": status})
    assert read.exit_code is None
    assert read.has_sidecars


@pytest.mark.parametrize(
    ("names", "has_sidecars"), [(["pytorch"], False), (["istio-proxy", "pytorch"], True)]
)
def test_a_container_beside_the_training_is_a_sidecar(names, has_sidecars):
    assert pod({"containerStatuses": [{"name": name} for name in names]}).has_sidecars is has_sidecars


@pytest.mark.parametrize(("finished", "is_first"), [("12:00:40", True), ("12:00:10", False), (None, True)])
def test_a_deletion_counts_from_when_it_was_asked_for(finished, is_first):
    ended = {"exitCode": 143, "finishedAt": f"2026-01-01T{finished}Z"}
    status = container(terminated=ended) if finished else {}
    read = pod(status, deletionTimestamp="2026-01-01T12:00:50Z", deletionGracePeriodSeconds=30)
    assert read.is_deleted_first is is_first


def test_running_since_survives_the_end_of_the_job():
    conditions = [
        {"type": "Running", "status": "False", "lastTransitionTime": "2026-01-01T12:00:00Z"},
        {"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T12:05:00Z"},
    ]
    read = read_conditions(
        {"status": {"conditions": conditions}, "spec": {"pytorchReplicaSpecs": {"Master": {}}}}
    )
    assert read.running_since == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert read.ended_at == datetime(2026, 1, 1, 12, 5, tzinfo=UTC)
    assert read.has_failed
    assert read.replicas == 1


def test_a_trial_that_was_suspended_again_does_not_run():
    conditions = [
        {"type": "Running", "status": "False", "lastTransitionTime": "2026-01-01T12:00:00Z"},
        {"type": "Suspended", "status": "True", "lastTransitionTime": "2026-01-01T12:00:00Z"},
    ]
    read = read_conditions({"status": {"conditions": conditions}, "spec": {"runPolicy": {"suspend": True}}})
    assert read.running_since is None
    assert read.is_suspended


FIELDS = [
    "metadata",
    "status",
    "spec",
    "conditions",
    "containerStatuses",
    "initContainerStatuses",
    "initContainers",
    "restartPolicy",
    "volumes",
    "emptyDir",
    "medium",
    "message",
    "state",
    "terminated",
    "waiting",
    "type",
    "name",
    "labels",
    "reason",
    "lastTransitionTime",
    "pytorchReplicaSpecs",
    "Master",
    "replicas",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["metadata", "status", "spec"]), JSON))
def test_whatever_is_in_an_object_it_is_read(anything):
    read_pod(anything)
    read_conditions(anything)


@pytest.mark.parametrize(("noted", "behind"), [("11:59:20", 40), ("12:00:00", 0), ("12:00:03", 0)])
def test_an_operator_that_dates_a_job_before_its_creation_has_a_clock_behind(noted, behind):
    read = read_conditions(
        {
            "metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"},
            "status": {
                "conditions": [
                    {"type": "Created", "status": "True", "lastTransitionTime": f"2026-01-01T{noted}Z"}
                ]
            },
        }
    )
    assert read.clock_behind == timedelta(seconds=behind)


def test_a_time_without_a_zone_counts_as_absent():
    assert pod(container(running={"startedAt": "2026-01-01T12:00:00"})).started_at is None
