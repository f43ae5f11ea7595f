"""TrainJobs and their pods as the API server shows them, and where a trial stands by them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner.backends.kubernetes import train_jobs
from autotuner.backends.kubernetes.assess import NOTHING_SEEN, PodStatus
from autotuner.study.hold_up import HoldUpReason

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE = timedelta(minutes=10)


def at(minutes):
    return (NOON + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def trial(*held, suspend=False, resumed=None, nodes=2):
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": at(30)} for kind in held]
    if resumed is not None:
        conditions.append({"type": "Suspended", "status": "False", "lastTransitionTime": at(resumed)})
    return {
        "metadata": {"name": "toy-1", "creationTimestamp": at(0)},
        "spec": {"suspend": suspend, "trainer": {"numNodes": nodes}},
        "status": {"conditions": conditions},
    }


def pod(index, suffix="a", made=0, **container):
    """Return a pod as the API server shows it; `container` are fields of its training container's status."""
    labels = {
        "batch.kubernetes.io/job-completion-index": str(index),
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "jobset.sigs.k8s.io/restart-attempt": container.pop("attempt", "0"),
    }
    running = {"running": {"startedAt": at(made)}}
    return {
        "metadata": {
            "name": f"toy-1-node-0-{index}-{suffix}",
            "uid": f"{index}{suffix}",
            "labels": labels,
            "creationTimestamp": at(made),
            "ownerReferences": [{"kind": "Job", "name": "toy-1-node-0", "uid": "j"}],
        },
        "status": {"containerStatuses": [{"name": "node", "state": running, **container}]},
    }


def failed(code=1, reason="Error", minutes=10):
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": at(0), "finishedAt": at(minutes)}}


def stand(*pods, job=None):
    conditions = train_jobs.read_conditions(job or trial())
    read = [each if isinstance(each, PodStatus) else train_jobs.read_pod(each) for each in pods]
    return train_jobs.stand(conditions, read, NOON + timedelta(hours=1), PATIENCE, NOTHING_SEEN)


def test_a_trial_runs_since_all_of_its_nodes_run():
    assert stand(pod(0)).started_at is None
    assert stand(pod(0), pod(1, made=3)).started_at == NOON + timedelta(minutes=3)
    assert stand(pod(0), pod(1)).ending is None


def test_node_0_is_found_by_its_completion_index():
    assert [train_jobs.read_pod(pod(index)).is_rank_zero for index in (0, 1)] == [True, False]


def initializer(suffix="a", made=0, **status):
    """Return the pod of a runtime's dataset-initializer; `status` are fields of its container's status."""
    found = pod(0, suffix, made, **status)
    name = "dataset-initializer"
    found["metadata"]["name"] = f"toy-1-{name}-0-0-{suffix}"
    found["metadata"]["uid"] = f"i{suffix}"
    found["metadata"]["labels"]["jobset.sigs.k8s.io/replicatedjob-name"] = name
    found["spec"] = {"containers": [{"name": name}]}
    found["status"]["phase"] = "Running"
    found["status"]["containerStatuses"][0]["name"] = name
    return found


def test_a_trial_whose_initializer_runs_has_not_started_and_is_held_up():
    standing = stand(initializer())
    assert (standing.started_at, standing.ending) == (None, None)
    assert standing.hold_up.reason is HoldUpReason.INITIALIZING
    assert "toy-1-dataset-initializer-0-0-a still runs" in standing.hold_up.text


def test_an_initializer_that_fails_fails_the_trial_with_its_own_words():
    """The cluster lost nothing: the data set may not exist."""
    standing = stand(initializer(state=failed(2)), job=trial("Failed"))
    assert standing.ending.exit_code == 2
    (log,) = standing.ending.logs
    assert (log.pod, log.text) == (
        "toy-1-dataset-initializer-0-0-a",
        "the initializer dataset-initializer failed, and its log is gone",  # unless it can be read
    )


def test_nodes_that_are_not_created_after_their_initializer_are_reported():
    done = initializer(state=failed(0, "Completed", 12))
    assert stand(done).hold_up.reason is HoldUpReason.NO_POD
    lately = initializer(state=failed(0, "Completed", 59))
    assert stand(lately).hold_up is None
    assert stand(done, job=trial("Complete")).ending is not None


def test_an_initializer_that_is_started_again_is_no_second_attempt():
    again = [initializer(state=failed(2)), initializer("b", made=11)]
    assert stand(*again).ending is None
    done = initializer("b", made=11, state=failed(0, "Completed", 12))
    running = stand(again[0], done, pod(0, made=20), pod(1, made=20))
    assert (running.ending, running.started_at) == (None, NOON + timedelta(minutes=20))


def test_an_initializer_without_memory_is_no_batch_that_is_too_large():
    standing = stand(initializer(state=failed(137, "OOMKilled")), job=trial("Failed"))
    assert not standing.ending.killed_for_memory
    assert "OOMKilled in dataset-initializer: raise the memory limit" in standing.ending.exceeded


def test_an_initializer_is_not_node_0():
    assert not train_jobs.read_pod(initializer()).is_rank_zero


def test_a_complete_job_has_ended_well():
    standing = stand(pod(0, state=failed(0, "Completed")), pod(1), job=trial("Complete"))
    assert (standing.ending.exit_code, standing.ending.disruption) == (0, "")
    assert standing.ended_at == NOON + timedelta(minutes=30)


@pytest.mark.parametrize("index", [0, 1])
def test_a_container_that_was_started_again_has_failed_as_it_first_did(index):
    again = {"restartCount": 1, "lastState": failed(3)}
    standing = stand(*(pod(i, **(again if i == index else {})) for i in (0, 1)))
    assert standing.ending.exit_code == 3
    assert standing.ended_at == NOON + timedelta(minutes=10)


def test_a_container_that_waits_to_be_started_again_has_failed():
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    standing = stand(pod(0, restartCount=1, state=waiting, lastState=failed(137, "OOMKilled")), pod(1))
    assert standing.ending.killed_for_memory


def test_a_pod_that_was_made_again_ends_the_trial_with_what_ended_the_first():
    standing = stand(pod(0, state=failed(3)), pod(0, "b", made=11), pod(1))
    assert standing.ending.exit_code == 3


def test_a_pod_that_is_gone_and_was_made_again_was_lost():
    gone = replace(train_jobs.read_pod(pod(0)), is_gone=True)
    standing = stand(gone, pod(0, "b", made=11), pod(1))
    assert "restarted it" in standing.ending.disruption


def test_a_whole_trial_that_was_started_again_is_lost():
    standing = stand(pod(0, "b", attempt="1"), pod(1, "b", attempt="1"))
    assert standing.ending.exit_code is None
    assert standing.ending.disruption


def test_a_trial_that_is_suspended_has_not_ended_for_its_pods_are_gone():
    gone = replace(train_jobs.read_pod(pod(0)), is_gone=True)
    assert stand(gone, pod(0, "b", made=11), job=trial(suspend=True)).ending is None


def test_a_failed_job_still_tells_when_it_began_though_its_other_pods_are_gone():
    standing = stand(pod(1, state=failed(3)), job=trial("Failed"))
    assert standing.ending.exit_code == 3
    assert standing.started_at == NOON


def test_pods_that_are_not_there_any_more_are_kept_as_last_seen():
    seen = [train_jobs.read_pod(pod(0)), train_jobs.read_pod(pod(1))]
    first, second = train_jobs.with_gone(trial(), seen, [seen[1]])
    assert (first.uid, first.is_gone, second.uid, second.is_gone) == ("1a", False, "0a", True)


def test_pods_of_before_a_trial_was_resumed_are_of_another_run():
    seen = [train_jobs.read_pod(pod(0))]
    new = train_jobs.read_pod(pod(0, "b", made=6))
    assert train_jobs.with_gone(trial(suspend=True), seen, []) == []
    assert train_jobs.with_gone(trial(resumed=5), seen, [new]) == [new]
    going = replace(seen[0], is_deleted_first=True)
    assert train_jobs.with_gone(trial(resumed=5), (), [going, new]) == [new]


def test_a_pod_of_an_earlier_trial_of_the_name_is_not_of_this_one():
    assert train_jobs.is_pod_of(pod(0), trial())
    assert not train_jobs.is_pod_of(pod(0, made=-1), trial())
    other = pod(0)
    other["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "else-node-0"}]
    assert not train_jobs.is_pod_of(other, trial())


@pytest.mark.parametrize("broken", [{}, {"status": None}, {"status": {"conditions": "x", "jobsStatus": [1]}}])
def test_absent_and_hostile_fields_count_as_absent(broken):
    assert not train_jobs.read_conditions(broken).has_failed
    assert not train_jobs.has_begun(broken)
    assert train_jobs.read_pod(broken).started_at is None


# --- metrics that the process pushes ------------------------------------------------------------------------


def pushing(minutes=10, values=(("eval_accuracy", "0.8"),), **fields):
    found = trial(**fields)
    metrics = [{"name": name, "value": value} for name, value in values]
    found["status"]["trainerStatus"] = {"metrics": metrics, "lastUpdatedTime": at(minutes)}
    return found


def test_a_push_is_read_from_the_trials_own_status():
    pushed = train_jobs.pushed(pushing())
    assert pushed.values == {"eval_accuracy": "0.8"}
    assert pushed.at == NOON + timedelta(minutes=10)
    assert train_jobs.pushed(trial()) is None
    assert train_jobs.pushed(pushing(values=())) is None


def test_what_an_evicted_run_pushed_is_not_the_next_ones():
    assert train_jobs.pushed(pushing(suspend=True)) is None
    assert train_jobs.pushed(pushing(10, resumed=20)) is None
    again = train_jobs.pushed(pushing(21, resumed=20))
    assert again.run != train_jobs.pushed(pushing(21)).run


@pytest.mark.parametrize(
    "told",
    [None, [], "x", {"metrics": "x"}, {"metrics": [None, 3, []]}, {"metrics": [{}], "lastUpdatedTime": 3}],
)
def test_a_status_of_another_form_is_no_error(told):
    found = trial()
    found["status"]["trainerStatus"] = told
    assert train_jobs.pushed(found) is None or train_jobs.pushed(found).values == {"None": "None"}


def test_a_push_is_bounded():
    many = [(f"{number}" * 100, "9" * 1000) for number in range(1000)]
    pushed = train_jobs.pushed(pushing(values=many))
    assert len(pushed.values) <= 256
    assert max(map(len, [*pushed.values, *pushed.values.values()])) <= 64
