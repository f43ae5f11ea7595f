"""The policies of a job, in one trial of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from autotuner.job.policies import deadline
from autotuner.job.trial_manifest import answered_spec, trial_manifest
from tests.builders import annotations, job, replica, suggestion

ELASTIC = {
    "rdzvBackend": "c10d",
    "rdzvConf": [{"key": "timeout", "value": "60"}],
    "minReplicas": 1,
    "maxReplicas": 8,
    "maxRestarts": 5,
    "metrics": [{"type": "Resource"}],
}


def elastic(**policy: object):
    return job(worker=replica(replicas=2), elasticPolicy={**ELASTIC, **policy})


def test_an_elastic_trial_runs_with_its_workers_from_start_to_end():
    made = trial_manifest(elastic(), suggestion(3, workers=4))
    assert made["spec"]["elasticPolicy"] == {
        "rdzvBackend": "c10d",
        "rdzvConf": [{"key": "timeout", "value": "60"}],
        "rdzvId": made["metadata"]["name"],
        "minReplicas": 4,
        "maxReplicas": 4,
        "maxRestarts": 0,
    }


@pytest.mark.parametrize(
    ("policy", "host"),
    [
        ({}, None),
        ({"rdzvHost": "toy-worker-0"}, "{trial}-worker-0"),
        ({"rdzvHost": "toy-worker-0.team.svc"}, "{trial}-worker-0.team.svc"),
        ({"rdzvHost": "elsewhere"}, "elsewhere"),
        ({"rdzvHost": "toy-etcd", "rdzvBackend": "etcd"}, "toy-etcd"),
        ({"rdzvHost": "toy-etcd", "rdzvBackend": "etcd-v2"}, "toy-etcd"),
    ],
)
def test_a_trials_rendezvous_is_its_own(policy, host):
    made = trial_manifest(elastic(**policy), suggestion(3))
    name = made["metadata"]["name"]
    assert made["spec"]["elasticPolicy"].get("rdzvHost") == (host and host.format(trial=name))


def test_an_applied_answer_keeps_the_workers_that_it_was_confirmed_with():
    made = answered_spec(elastic(), suggestion(workers=4))["elasticPolicy"]
    assert (made["minReplicas"], made["maxReplicas"], made["maxRestarts"]) == (4, 4, 5)
    assert "rdzvId" not in made


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (2, {"minAvailable": 3, "queue": "q", "minResources": {"cpu": "3"}}),
        (4, {"minAvailable": 5, "queue": "q"}),
    ],
)
def test_gang_scheduling_waits_for_the_pods_of_the_trial(workers, expected):
    policy = {"minAvailable": 3, "queue": "q", "minResources": {"cpu": "3"}}
    read = job(worker=replica(replicas=2), runPolicy={"suspend": True, "schedulingPolicy": policy})
    made = trial_manifest(read, suggestion(workers=workers))
    assert made["spec"]["runPolicy"]["schedulingPolicy"] == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(60, timedelta(minutes=1)), (0, None), ("60", None), (True, None), (None, None), (10**12, None)],
)
def test_the_jobs_own_deadline_is_read(seconds, expected):
    assert deadline({"spec": {"runPolicy": {"activeDeadlineSeconds": seconds}}}) == expected


def test_the_jobs_own_deadline_is_the_default_of_trial_timeout():
    policy = {"suspend": True, "activeDeadlineSeconds": 90}
    assert job(runPolicy=policy).spec().trial_timeout == timedelta(seconds=90)
    asked = annotations(trial_timeout="1h")
    assert job(runPolicy=policy, asked=asked).spec().trial_timeout == timedelta(hours=1)
