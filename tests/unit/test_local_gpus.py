"""Trials of one machine get GPUs of their own, and `parallel-trials: auto` is how many fit."""

import pytest

from autotuner.backends.local.gpus import VISIBLE, GpuShares, machine_gpus, trials_at_once
from autotuner.job.job import Job
from autotuner.job.kind import PodPlan
from autotuner.spec.tuning_spec import MOST_AUTO_TRIALS
from tests.builders import annotations, container, manifest, replica

EIGHT = tuple("01234567")


def gpus(count):
    return {"limits": {"nvidia.com/gpu": count}} if count else {}


def a_job(each, replicas=0, **asked):
    made = container(resources=gpus(each))
    return Job.from_manifest(
        manifest(
            master=replica(made),
            worker=replica(made, replicas) if replicas else None,
            asked=annotations(parallel_trials="auto", **asked),
        )
    )


def train_job(each, nodes):
    return Job.from_manifest(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": "toy", "annotations": annotations(parallel_trials="auto")},
            "spec": {
                "runtimeRef": {"name": "torch-distributed"},
                "suspend": True,
                "trainer": {
                    "image": "registry/toy:1",
                    "command": ["torchrun", "train.py"],
                    "env": container()["env"],
                    "numNodes": nodes,
                    "resourcesPerNode": gpus(each),
                },
            },
        }
    )


def plan(name, each):
    return PodPlan(name, {"resources": gpus(each)}, {"RANK": "0"})


@pytest.mark.parametrize(
    ("job", "count", "expected"),
    [
        (a_job(1), 8, 8),
        (a_job(2), 8, 4),
        (a_job(1, replicas=2), 8, 2),
        (a_job(3), 8, 2),
        (a_job(1), 100, MOST_AUTO_TRIALS),
        (a_job(2), 1, 1),
        (a_job(1), 0, 1),
        (a_job(0), 8, 1),
        (train_job(2, nodes=2), 8, 2),
        (train_job(1, nodes=1), 3, 3),
    ],
)
def test_as_many_trials_run_at_once_as_the_gpus_allow(job, count, expected):
    assert trials_at_once(job, job.spec(), [str(number) for number in range(count)]) == expected


def test_a_study_that_may_grow_its_workers_leaves_room_for_the_most():
    job = a_job(1, replicas=1, workers="1..3")
    assert trials_at_once(job, job.spec(), EIGHT) == 2


def test_gpus_are_those_that_the_shell_shows_or_those_of_the_machine(tmp_path):
    for name in ("nvidia10", "nvidia2", "nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert machine_gpus({}, tmp_path) == ("0", "2", "10")
    assert machine_gpus({VISIBLE: "3, GPU-8f1c"}, tmp_path) == ("3", "GPU-8f1c")
    assert machine_gpus({VISIBLE: "-1"}, tmp_path) == machine_gpus({VISIBLE: ""}, tmp_path) == ()


def test_pods_of_trials_that_run_at_once_see_gpus_of_their_own():
    shares = GpuShares(EIGHT)
    seen = [
        each.environment[VISIBLE]
        for trial in (0, 1)
        for each in shares.take(trial, [plan("master", 1), plan("worker", 2)])
    ]
    assert seen == ["0", "1,2", "3", "4,5"]


def test_gpus_of_a_trial_that_has_ended_are_given_again():
    shares = GpuShares(("0", "1"))
    shares.take(0, [plan("master", 2)])
    assert VISIBLE not in shares.take(1, [plan("master", 1)])[0].environment
    shares.release(0)
    assert shares.take(2, [plan("master", 1)])[0].environment == {"RANK": "0", VISIBLE: "0"}


def test_pods_that_ask_for_no_gpu_see_what_the_shell_shows():
    assert GpuShares(EIGHT).take(0, [plan("master", 0)]) == [plan("master", 0)]
