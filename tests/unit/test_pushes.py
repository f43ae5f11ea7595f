"""What trials push to their status is collected from the watch and counts as their log does."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner import keys
from autotuner.backends.kubernetes import KubernetesBackend
from autotuner.backends.kubernetes.pushes import MOST_DELETED, MOST_UNREAD, Pushes
from autotuner.job.job import Job
from autotuner.job.kinds import TRAINJOB
from autotuner.job.trial_manifest import trial_manifest
from autotuner.trial import Measurement, Outcome
from tests.builders import annotations, container, suggestion
from tests.unit.fake_api_server import FakeServer

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def registered(**asked):
    made = Job.from_manifest(
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {
                "name": "toy",
                "namespace": "ns",
                "uid": "u",
                "annotations": annotations(**{"target": "eval_accuracy >= 0.9", **asked}),
            },
            "spec": {
                "runtimeRef": {"name": "torch-distributed"},
                "suspend": True,
                "trainer": {"image": "toy", "command": ["torchrun", "train.py"], "env": container()["env"]},
            },
        }
    )
    return replace(made, uid="u")


class World:
    """A trial whose process pushes and may print, on a cluster that is watched."""

    def __init__(self, **asked):
        self.job = registered(**asked)
        self.now = NOON
        self.log = ""
        self.status = {}
        self.code = None
        self.is_deleted = False
        self.server = FakeServer(self.answer)
        self.restart()

    def restart(self):
        self.backend = KubernetesBackend(self.server.api(), lambda: self.now, keeps_views=True)

    def manifest(self):
        made = trial_manifest(self.job, suggestion(0))
        made["metadata"] |= {"uid": "t", "creationTimestamp": NOON.isoformat()}
        return {**made, "status": self.status}

    def pod(self):
        name = keys.trial_name("toy", "u", 0)
        began = {"startedAt": (NOON + timedelta(seconds=5)).isoformat()}
        state = {"running": began}
        if self.code is not None:
            ended = {"finishedAt": self.now.isoformat(), "exitCode": self.code}
            state = {"terminated": {**began, **ended}}
        return {
            "metadata": {
                "name": f"{name}-node-0-0-abcde",
                "uid": "pod",
                "creationTimestamp": NOON.isoformat(),
                "labels": {
                    "jobset.sigs.k8s.io/jobset-name": name,
                    "jobset.sigs.k8s.io/replicatedjob-name": "node",
                    "batch.kubernetes.io/job-completion-index": "0",
                },
                "ownerReferences": [{"kind": "Job", "name": f"{name}-node-0", "uid": "j"}],
            },
            "status": {"phase": "Running", "containerStatuses": [{"name": "node", "state": state}]},
        }

    def answer(self, _method, path, query):
        if "configmaps" in path:
            return 404, {}, b'{"message": "not found"}'
        if path.endswith("/log"):
            since = query.get("sinceTime", "")[:19]
            return 200, {}, "".join(line for line in self.log.splitlines(True) if line >= since).encode()
        items = [self.pod()] if path.endswith("/pods") else [self.manifest()]
        items = [] if self.is_deleted else items
        return 200, {}, json.dumps({"items": items}).encode()

    def push(self, seconds=10, **values):
        """Push some seconds after the last time; the watch shows it."""
        self.now += timedelta(seconds=seconds)
        metrics = [{"name": name, "value": str(value)} for name, value in values.items()]
        self.status = {"trainerStatus": {"metrics": metrics, "lastUpdatedTime": self.now.isoformat()}}
        self.watch()

    def watch(self):
        self.backend.note_trial(TRAINJOB, self.manifest())

    def print(self, text):
        self.now += timedelta(seconds=1)
        self.log += f"{self.now:%Y-%m-%dT%H:%M:%S}.5Z {text}\n"

    def end(self):
        self.now += timedelta(seconds=10)
        self.code = 0
        ended = {"type": "Complete", "status": "True", "lastTransitionTime": self.now.isoformat()}
        self.status = {**self.status, "conditions": [ended]}
        self.backend.forget_trials("u")

    def trial(self):
        (found,) = self.backend.observe(self.job, self.job.spec()).live
        return found


@pytest.fixture
def world():
    made = []

    def make(**asked):
        made.append(World(**asked))
        made[-1].watch()
        made[-1].trial()
        return made[-1]

    yield make
    for each in made:
        each.server.close()


def test_a_trial_that_prints_nothing_is_read_by_what_it_pushes(world):
    world = world()
    world.push(eval_accuracy=0.5, epoch=1)
    world.push(eval_accuracy=0.95, epoch=2)
    seen = world.trial()
    assert seen.is_running
    assert seen.measurements == (Measurement(1, 0.5), Measurement(2, 0.95))
    world.end()
    assert world.trial().outcome is Outcome.REACHED


def test_a_program_that_fails_behind_a_pipe_is_known_by_the_end_of_its_log(world):
    world = world()
    for line in (
        "{'eval_accuracy': 0.5, 'epoch': 1}",
        "Traceback (most recent call last):",
        '  File "train.py", line 3, in <module>',
        "    main()",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    ):
        world.print(line)
    world.end()
    ended = world.trial()
    assert ended.outcome is Outcome.OUT_OF_MEMORY
    assert not ended.is_complete


def test_pushes_between_two_looks_all_count_and_cost_no_request(world):
    world = world()
    before = len(world.server.requests)
    for epoch in range(1, 9):
        world.push(eval_accuracy=epoch / 10, epoch=epoch)
    assert len(world.server.requests) == before
    assert [m.value for m in world.trial().measurements] == [epoch / 10 for epoch in range(1, 9)]


def test_a_view_that_is_kept_does_not_bring_an_old_push_back(world):
    world = world()
    for epoch in (1, 2, 3):
        world.push(eval_accuracy=epoch / 10, epoch=epoch)
        world.trial()
    assert [m.step for m in world.trial().measurements] == [1, 2, 3]


def test_log_and_pushes_that_agree_are_read_once(world):
    world = world()
    for epoch, value in ((1, 0.5), (2, 0.95)):
        world.print(str({"eval_accuracy": value, "epoch": epoch}))
        world.push(eval_accuracy=value, epoch=epoch)
    world.end()
    ended = world.trial()
    assert ended.outcome is Outcome.REACHED
    assert ended.measurements == (Measurement(1, 0.5), Measurement(2, 0.95))
    assert ended.reads == "{'eval_accuracy': 0.5, 'epoch': 1}"


def test_log_and_pushes_that_disagree_hold_the_trial_in_doubt(world):
    world = world()
    world.print("{'eval_accuracy': 0.5, 'epoch': 1}")
    world.push(eval_accuracy=0.95, epoch=1)
    assert "disagree on eval_accuracy" in world.trial().doubt
    world.end()
    ended = world.trial()
    assert "0.5 from 'the log at step 1'; 0.95 from 'status.trainerStatus at step 1'" in ended.doubt
    assert not ended.measurements


def test_a_pattern_of_the_users_own_makes_the_log_the_only_source(world):
    world = world(metric_pattern=r"eval_accuracy': (?P<value>[\d.]+), 'epoch': (?P<step>\d+)")
    world.print("{'eval_accuracy': 0.5, 'epoch': 1}")
    world.push(eval_accuracy=0.95, epoch=1)
    assert not world.trial().doubt
    assert world.trial().measurements == (Measurement(1, 0.5),)


def test_a_miss_that_a_new_controller_saw_only_the_end_of_is_lost(world):
    world = world()
    world.push(eval_accuracy=0.95, epoch=1)
    world.push(120, eval_accuracy=0.5, epoch=2)
    world.restart()
    world.watch()
    world.end()
    ended = world.trial()
    assert ended.outcome is Outcome.LOST
    assert "pushed metrics while no controller watched" in ended.message


def test_a_miss_that_was_seen_from_its_start_is_a_miss(world):
    world = world()
    world.push(120, eval_accuracy=0.5, epoch=1)
    world.end()
    assert world.trial().outcome is Outcome.MISSED


def test_a_miss_that_was_seen_from_its_start_is_a_miss_where_the_clocks_differ(world):
    world = world()
    world.restart()
    world.now += timedelta(minutes=5)  # the controller's is ahead of the cluster's
    world.watch()
    world.push(120, eval_accuracy=0.5, epoch=1)
    world.end()
    assert world.trial().outcome is Outcome.MISSED


def test_a_flood_of_pushes_is_bounded_and_its_miss_is_lost(world):
    world = world()
    for epoch in range(1, 3 * MOST_UNREAD):
        world.push(1, eval_accuracy=0.5 + epoch / 1000, epoch=epoch)
    world.end()
    ended = world.trial()
    assert len(ended.measurements) == MOST_UNREAD
    assert ended.outcome is Outcome.LOST


def test_another_metric_that_was_pushed_is_named_in_the_failure(world):
    world = world(target="accuracy >= 0.9")
    world.push(eval_accuracy=0.95, epoch=1)
    world.end()
    ended = world.trial()
    assert ended.outcome is Outcome.FAILED
    assert "status.trainerStatus of its TrainJob has eval_accuracy, epoch" in ended.message


def test_what_a_trial_pushed_before_somebody_else_deleted_it_is_read(world):
    world = world()
    world.push(eval_accuracy=0.5, epoch=1)
    world.push(eval_accuracy=0.95, epoch=2)
    world.is_deleted = True
    assert world.backend.note_deleted(TRAINJOB, world.manifest())
    world.backend.forget_trials("u")
    ended = world.trial()
    assert ended.outcome is Outcome.REACHED
    assert [m.value for m in ended.measurements] == [0.5, 0.95]


def test_the_last_push_is_in_the_deleted_object(world):
    world = world()
    world.push(eval_accuracy=0.5, epoch=1)
    world.is_deleted = True
    metrics = [{"name": "eval_accuracy", "value": "0.95"}, {"name": "epoch", "value": "2"}]
    world.status = {"trainerStatus": {"metrics": metrics, "lastUpdatedTime": world.now.isoformat()}}
    world.backend.note_deleted(TRAINJOB, world.manifest())
    world.backend.forget_trials("u")
    assert world.trial().outcome is Outcome.REACHED


def test_unread_pushes_of_deleted_trials_are_bounded(world):
    pushes, made = Pushes(lambda: NOON), world().manifest()
    for number in range(MOST_DELETED + 10):
        pushes.note_deleted(TRAINJOB, {**made, "metadata": {**made["metadata"], "uid": str(number)}})
    assert len(pushes._trials) == MOST_DELETED


def test_a_trial_that_is_gone_is_forgotten(world):
    world = world()
    world.push(eval_accuracy=0.5, epoch=1)
    world.backend.stop(world.job, 0)
    assert not world.backend.note_deleted(TRAINJOB, world.manifest())
    assert not world.backend._reader.pushes._trials
    world.watch()
    world.backend.forget("u")
    assert not world.backend._reader.pushes._trials
