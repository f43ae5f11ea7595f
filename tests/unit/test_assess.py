"""From what a cluster shows of a trial to how it ended: every row of the failure table, purely."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner.backends.kubernetes.assess import REST_GRACE, SIDECAR_GRACE, Conditions, PodStatus, assess
from autotuner.backends.kubernetes.hold_ups import Stuck
from autotuner.spec.values import Target
from autotuner.study.endings.outcome import Ending, classify
from autotuner.study.hold_up import HoldUpReason
from autotuner.trial import Measurement, Outcome

CREATED = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
RUNNING = CREATED + timedelta(seconds=10)
ENDED = CREATED + timedelta(seconds=100)
NOW = CREATED + timedelta(seconds=200)
PATIENCE = timedelta(minutes=10)
TARGET = Target(metric="accuracy", comparison=">=", threshold=0.9)

GOES_ON = Conditions(replicas=2, running_since=RUNNING)
SUCCEEDED = replace(GOES_ON, has_succeeded=True, ended_at=ENDED)
FAILED = replace(GOES_ON, has_failed=True, ended_at=ENDED)

MASTER = PodStatus("t-master-0", "m", "master", is_rank_zero=True, created_at=CREATED, started_at=RUNNING)
WORKER = PodStatus("t-worker-0", "w", "worker", created_at=CREATED, started_at=RUNNING + timedelta(seconds=5))


def died(pod, code=1, after=0, **fields):
    return replace(
        pod, exit_code=code, reason="Error", finished_at=ENDED + timedelta(seconds=after), **fields
    )


OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.53 GiB."

ROWS = {
    "CUDA out of memory": ([died(MASTER, log_tail=OOM), WORKER], Outcome.OUT_OF_MEMORY, "CUDA out of memory"),
    "CUDA out of memory on a worker, which the master notices later": (
        [died(MASTER, after=3, log_tail="NCCL error"), died(WORKER, log_tail=OOM)],
        Outcome.OUT_OF_MEMORY,
        "CUDA out of memory",
    ),
    "killed for host memory": (
        [replace(died(MASTER, 137), reason="OOMKilled"), WORKER],
        Outcome.OUT_OF_MEMORY,
        "OOMKilled",
    ),
    "an init container that was killed for its memory": (
        [replace(died(MASTER, 137), reason="OOMKilled in init container download"), WORKER],
        Outcome.FAILED,
        "init container download: raise the memory limit",
    ),
    "killed for host memory on a worker": (
        [died(MASTER), replace(died(WORKER, 137, after=1), reason="OOMKilled")],
        Outcome.OUT_OF_MEMORY,
        "OOMKilled",
    ),
    "preempted": (
        [died(MASTER, 143, disruption="PreemptionByScheduler: room"), WORKER],
        Outcome.LOST,
        "PreemptionByScheduler",
    ),
    "a worker preempted, and the master failing for its absence": (
        [
            died(MASTER, log_tail="NCCL error"),
            died(WORKER, 143, after=5, disruption="EvictionByEvictionAPI: drain"),
        ],
        Outcome.LOST,
        "t-worker-0: EvictionByEvictionAPI",
    ),
    "kubelet eviction": (
        [replace(MASTER, disruption="Evicted: low on memory"), WORKER],
        Outcome.LOST,
        "Evicted",
    ),
    "eviction for a full volume of shared memory": (
        [
            replace(died(MASTER, 137), disruption="Evicted: Usage of EmptyDir volume", exceeded="memory"),
            WORKER,
        ],
        Outcome.OUT_OF_MEMORY,
        "t-master-0: Evicted: Usage of EmptyDir volume",
    ),
    "eviction for the pod's own limit of storage": (
        [MASTER, replace(WORKER, disruption="Evicted: Pod ephemeral local storage", exceeded="storage")],
        Outcome.FAILED,
        "t-worker-0: Evicted: Pod ephemeral local storage",
    ),
    "the deadline of the pod's own template": (
        [replace(died(MASTER, 143), disruption="DeadlineExceeded: long", exceeded="time"), WORKER],
        Outcome.FAILED,
        "t-master-0: DeadlineExceeded: long: raise the activeDeadlineSeconds of the pod template",
    ),
    "killed for host memory before another pod is preempted": (
        [
            died(MASTER, 143, after=5, disruption="PreemptionByScheduler: room"),
            replace(died(WORKER, 137), reason="OOMKilled"),
        ],
        Outcome.OUT_OF_MEMORY,
        "OOMKilled",
    ),
    "a container beside the training, which fails after it": (
        [replace(died(MASTER, 0), has_sidecars=True), died(WORKER, 0)],
        Outcome.FAILED,
        "the run ended well, but its log is empty",
    ),
    "node lost, its pod stuck terminating": (
        [replace(MASTER, disruption="DeletionByTaintManager: NoExecute", is_deleted_first=True), WORKER],
        Outcome.LOST,
        "DeletionByTaintManager",
    ),
    "a pod deleted by hand": (
        [died(MASTER, 143, is_deleted_first=True), WORKER],
        Outcome.LOST,
        "deleted while it ran",
    ),
    "a worker deleted by hand, the master failing later": (
        [died(MASTER, after=4, log_tail="NCCL error"), died(WORKER, 143, is_deleted_first=True)],
        Outcome.LOST,
        "t-worker-0 was deleted",
    ),
    "the operator clearing up a worker after the master failed": (
        [died(MASTER, 3, log_tail="ValueError: bad"), died(WORKER, 143, after=2, is_deleted_first=True)],
        Outcome.FAILED,
        "ValueError: bad",
    ),
    "a master that ended well, and a worker that is gone": (
        [replace(died(MASTER, 0), has_sidecars=True)],
        Outcome.LOST,
        "none of its processes has failed",
    ),
    "all pods gone": ([], Outcome.LOST, "its pods are gone"),
    "a worker replaced silently, the master failing of it": (
        [died(MASTER, log_tail="NCCL error"), replace(WORKER, created_at=RUNNING + timedelta(seconds=90))],
        Outcome.LOST,
        "replaced by a new one",
    ),
    "a program's own failure": (
        [died(MASTER, 3, log_tail="ValueError: bad"), WORKER],
        Outcome.FAILED,
        "exit code 3: ValueError: bad",
    ),
    "an init container that failed": (
        [died(WORKER, 2, started_at=None), MASTER],
        Outcome.FAILED,
        "exit code 2",
    ),
    "an init container that lacked memory, and no batch was in it": (
        [died(MASTER, log_tail="MemoryError", started_at=None, init_container="fetch"), WORKER],
        Outcome.FAILED,
        "init container fetch of pod t-master-0: exit code 1: MemoryError",
    ),
    "an init container that lost its connection": (
        [died(MASTER, log_tail="curl: (56) Connection reset", started_at=None, init_container="fetch")],
        Outcome.LOST,
        "init container fetch of pod t-master-0: curl: (56) Connection reset",
    ),
    "an initializer that was killed": (
        [died(replace(MASTER, role="dataset-initializer", is_initializer=True), log_tail="Killed")],
        Outcome.FAILED,
        "initializer dataset-initializer of pod t-master-0: exit code 1: Killed",
    ),
}


@pytest.mark.parametrize(("pods", "outcome", "said"), ROWS.values(), ids=ROWS.keys())
def test_why_a_job_failed_follows_from_its_pods(pods, outcome, said):
    standing = assess(FAILED, pods, NOW, PATIENCE)
    assert standing.ending is not None
    found, message = classify(standing.ending, (), TARGET)
    assert found is outcome
    assert said in message
    assert standing.ended_at == ENDED


def test_a_failed_worker_that_is_gone_was_the_clusters_doing():
    job = replace(FAILED, failed={"worker": 1})
    standing = assess(job, [died(MASTER, log_tail="NCCL error")], NOW, PATIENCE)
    assert classify(standing.ending, (), TARGET)[0] is Outcome.LOST


def test_a_worker_that_the_operator_cleared_up_says_nothing():
    job = replace(FAILED, failed={"master": 1})
    standing = assess(job, [died(MASTER, log_tail="ValueError: bad")], NOW, PATIENCE)
    assert classify(standing.ending, (), TARGET)[0] is Outcome.FAILED


def test_a_master_cleared_up_in_the_second_in_which_the_worker_failed_says_nothing():
    job = replace(FAILED, failed={"worker": 1})
    pods = [
        died(MASTER, 143, is_deleted_first=True),
        died(WORKER, log_tail="torch.OutOfMemoryError: CUDA out of memory"),
    ]
    for ordered in (pods, pods[::-1]):
        standing = assess(job, ordered, NOW, PATIENCE)
        assert classify(standing.ending, (), TARGET)[0] is Outcome.OUT_OF_MEMORY


def test_a_pod_deleted_by_hand_ends_the_other_in_the_same_second():
    job = replace(FAILED, failed={"master": 1, "worker": 1})
    pods = [died(MASTER, log_tail="NCCL error"), died(WORKER, 143, is_deleted_first=True)]
    for ordered in (pods, pods[::-1]):
        standing = assess(job, ordered, NOW, PATIENCE)
        assert classify(standing.ending, (), TARGET)[0] is Outcome.LOST


def test_success_ends_a_trial_whatever_becomes_of_its_workers():
    cleared = died(WORKER, 143, is_deleted_first=True, disruption="")
    standing = assess(SUCCEEDED, [died(MASTER, 0), cleared], NOW, PATIENCE)
    assert standing.ending == Ending(exit_code=0)


def test_a_run_that_met_the_target_has_reached_it_however_it_ended():
    standing = assess(FAILED, ROWS["preempted"][0], NOW, PATIENCE)
    assert classify(standing.ending, [Measurement(1, 0.95)], TARGET)[0] is Outcome.REACHED


def test_a_trial_has_started_when_all_of_its_pods_have():
    assert assess(GOES_ON, [MASTER], NOW, PATIENCE).started_at is None
    assert assess(GOES_ON, [MASTER, replace(WORKER, started_at=None)], NOW, PATIENCE).started_at is None
    assert assess(GOES_ON, [MASTER, WORKER], NOW, PATIENCE).started_at == WORKER.started_at


def test_a_finished_trial_whose_pods_are_gone_still_says_when_it_ran():
    standing = assess(SUCCEEDED, [], NOW, PATIENCE)
    assert (standing.started_at, standing.ended_at) == (RUNNING, ENDED)


@pytest.mark.parametrize(
    ("after", "first_seen"),
    [(timedelta(seconds=1), {"t-master-0": "earlier"}), (timedelta(seconds=90), {})],
    ids=["another UID", "made much later"],
)
def test_a_rank_zero_pod_that_replaces_another_is_another_run(after, first_seen):
    replacement = replace(MASTER, created_at=RUNNING + after, started_at=None)
    standing = assess(GOES_ON, [replacement, WORKER], NOW, PATIENCE, first_seen)
    assert standing.ending is not None
    assert "replaced by a new one" in standing.ending.disruption


def test_a_worker_of_another_uid_explains_why_the_master_failed():
    pods = [died(MASTER, log_tail="NCCL error"), WORKER]
    standing = assess(FAILED, pods, NOW, PATIENCE, {MASTER.name: MASTER.uid, WORKER.name: "earlier"})
    assert classify(standing.ending, (), TARGET)[0] is Outcome.LOST


@pytest.mark.parametrize("seconds", [3, 50])
def test_an_operator_whose_clock_is_behind_loses_no_trial(seconds):
    """The pods seem to be made after the run began."""
    behind = replace(GOES_ON, running_since=CREATED - timedelta(seconds=seconds))
    assert assess(behind, [MASTER, WORKER], NOW, PATIENCE).ending is None


def test_an_operator_whose_clock_is_known_to_be_far_behind_loses_no_trial():
    hour = timedelta(hours=1)
    behind = replace(GOES_ON, running_since=RUNNING - hour, clock_behind=hour)
    assert assess(behind, [MASTER, WORKER], NOW, PATIENCE).ending is None


def test_a_suspended_trial_waits_and_is_not_lost():
    waiting = Conditions(replicas=2, is_suspended=True)
    assert assess(waiting, [], NOW, PATIENCE).ending is None


PULL = Stuck(HoldUpReason.IMAGE, "ImagePullBackOff: no such image", CREATED)
ROOM = Stuck(HoldUpReason.UNSCHEDULABLE, "0/2 nodes", CREATED)
INIT = Stuck(HoldUpReason.INITIALIZING, "its init container init-pytorch still runs", CREATED)
MADE = Conditions(replicas=2, waiting_since=CREATED)


def waits(pod, stuck):
    return replace(pod, started_at=None, stuck=stuck)


@pytest.mark.parametrize(
    ("job", "pods", "reason", "said"),
    [
        (MADE, [], "NoPod", "0 of 2 pods have been created"),
        (MADE, [waits(MASTER, ROOM)], "NoPod", "1 of 2 pods have been created"),
        (
            MADE,
            [waits(MASTER, PULL), waits(WORKER, INIT)],
            "Image",
            "pod t-master-0 cannot start: ImagePullBackOff: no such image",
        ),
        (MADE, [MASTER, waits(WORKER, ROOM)], "Unschedulable", "pod t-worker-0 cannot start: 0/2 nodes"),
        (MADE, [MASTER, waits(WORKER, INIT)], "Initializing", f"pod t-worker-0 cannot start: {INIT.text}"),
        (replace(MADE, is_suspended=True, queue="team-a"), [], "Queued", "it waits in queue team-a"),
        (replace(MADE, is_suspended=True), [], "Queued", "it is suspended, and in no queue"),
    ],
)
def test_what_holds_a_trial_up_is_reported_once_patience_has_run_out(job, pods, reason, said):
    waited = NOW - CREATED
    assert assess(job, pods, NOW, waited + timedelta(seconds=1)).hold_up is None
    held = assess(job, pods, NOW, waited).hold_up
    assert (held.reason, held.text) == (reason, said)


def test_a_trial_whose_pods_all_run_is_not_held_up():
    assert assess(replace(MADE, running_since=RUNNING), [MASTER, WORKER], NOW, timedelta(0)).hold_up is None


def test_a_preempted_master_that_exits_well_is_lost():
    master = died(MASTER, 0, disruption="PreemptionByScheduler: room")
    standing = assess(SUCCEEDED, [master, WORKER], NOW, PATIENCE)
    assert classify(standing.ending, [Measurement(1, 0.5)], TARGET)[0] is Outcome.LOST
    assert classify(standing.ending, [Measurement(1, 0.95)], TARGET)[0] is Outcome.REACHED
    assert not standing.ending.is_complete


def test_a_worker_preempted_after_success_changes_nothing():
    late = died(WORKER, 143, after=5, disruption="EvictionByEvictionAPI: drain")
    assert assess(SUCCEEDED, [died(MASTER, 0), late], NOW, PATIENCE).ending == Ending(exit_code=0)


def test_a_master_that_fails_while_a_worker_waits_for_its_node_is_lost():
    pending = waits(WORKER, ROOM)
    standing = assess(FAILED, [died(MASTER, log_tail="RendezvousTimeoutError"), pending], NOW, PATIENCE)
    outcome, message = classify(standing.ending, (), TARGET)
    assert outcome is Outcome.LOST
    assert "t-worker-0" in message


def test_a_memory_error_outranks_a_later_disruption():
    pods = [died(MASTER, log_tail=OOM), died(WORKER, 143, after=5, disruption="EvictionByEvictionAPI: drain")]
    standing = assess(FAILED, pods, NOW, PATIENCE)
    assert classify(standing.ending, (), TARGET)[0] is Outcome.OUT_OF_MEMORY


def test_a_memory_error_outranks_an_earlier_death_of_another_pod():
    pods = [died(MASTER, log_tail="KeyError: 'label'"), died(WORKER, after=2, log_tail=OOM)]
    standing = assess(FAILED, pods, NOW, PATIENCE)
    assert classify(standing.ending, (), TARGET)[0] is Outcome.OUT_OF_MEMORY


ALONE = replace(WORKER, name="t-worker-1", uid="w1")
AFTER_GRACE = ENDED + SIDECAR_GRACE


@pytest.mark.parametrize(
    ("pods", "outcome", "said"),
    [
        ([died(MASTER, 0), WORKER], Outcome.MISSED, ""),
        ([died(MASTER, 0), died(WORKER, 0)], Outcome.MISSED, ""),
        (
            [died(MASTER, 3, log_tail="ValueError: bad"), WORKER],
            Outcome.FAILED,
            "exit code 3: ValueError: bad",
        ),
        ([MASTER, died(WORKER, log_tail=OOM)], Outcome.OUT_OF_MEMORY, "CUDA out of memory"),
        ([replace(died(MASTER, 137), reason="OOMKilled"), WORKER], Outcome.OUT_OF_MEMORY, "OOMKilled"),
        (
            [replace(WORKER, is_rank_zero=True, exit_code=0, finished_at=ENDED), died(ALONE, 0)],
            Outcome.MISSED,
            "",
        ),
    ],
    ids=["master", "all", "failed", "worker out of memory", "killed for memory", "without a master"],
)
def test_the_end_of_the_training_container_ends_a_trial_whose_sidecars_run_on(pods, outcome, said):
    assert assess(GOES_ON, pods, AFTER_GRACE - timedelta(seconds=1), PATIENCE).ending is None
    standing = assess(GOES_ON, pods, AFTER_GRACE, PATIENCE)
    assert standing.ended_at == ENDED
    assert standing.started_at == WORKER.started_at
    found, message = classify(standing.ending, [Measurement(1, 0.5)], TARGET)
    assert found is outcome
    assert said in message


@pytest.mark.parametrize(
    "pods",
    [[MASTER, died(WORKER, 0)], [died(WORKER, 0), ALONE], [died(WORKER, 0)], []],
    ids=["the master runs", "another worker runs", "a worker is missing", "nothing"],
)
def test_a_trial_continues_while_a_training_container_that_decides_does(pods):
    assert assess(GOES_ON, pods, AFTER_GRACE + timedelta(hours=1), PATIENCE).ending is None


def test_a_suspended_trial_is_not_ended_by_what_its_last_pods_did():
    waiting = replace(GOES_ON, is_suspended=True)
    assert assess(waiting, [died(MASTER, 143)], AFTER_GRACE, PATIENCE).ending is None


# --- elastic jobs -------------------------------------------------------------------------------------------

FIRST_ENDED = replace(SUCCEEDED, ends_with_first=True)
WORKERS = (
    replace(WORKER, name="t-worker-0", is_rank_zero=True),
    replace(WORKER, name="t-worker-1", uid="w1"),
)


def ended_well(pod, after=0):
    return replace(pod, exit_code=0, reason="Completed", finished_at=ENDED + timedelta(seconds=after))


def test_a_job_that_ends_with_its_first_worker_continues_until_all_have_ended():
    early, late = WORKERS
    at_once = ENDED + timedelta(seconds=5)
    assert assess(FIRST_ENDED, [ended_well(early), late], at_once, PATIENCE).ending is None
    starting = replace(late, started_at=None)
    assert assess(FIRST_ENDED, [ended_well(early), starting], at_once, PATIENCE).ending is None
    both = [ended_well(early), ended_well(late, 60)]
    assert assess(FIRST_ENDED, both, ENDED + timedelta(seconds=61), PATIENCE).ending == Ending(0)


def test_a_worker_that_never_ends_holds_up_the_end_for_a_bounded_time():
    early, late = WORKERS
    standing = assess(FIRST_ENDED, [ended_well(early), late], ENDED + REST_GRACE, PATIENCE)
    assert standing.ending == Ending(0)


def test_a_worker_that_fails_after_the_first_has_succeeded_fails_the_trial():
    early, late = WORKERS
    crashed = died(late, code=3, after=20, log_tail="no space left")
    standing = assess(FIRST_ENDED, [ended_well(early), crashed], ENDED + timedelta(seconds=30), PATIENCE)
    assert standing.ending is not None
    assert standing.ending.exit_code == 3


def test_a_job_that_ends_with_its_master_does_not_wait_for_its_workers():
    at_once = ENDED + timedelta(seconds=5)
    assert assess(SUCCEEDED, [ended_well(MASTER), WORKER], at_once, PATIENCE).ending == Ending(0)
