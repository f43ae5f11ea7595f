"""What every backend promises, as one suite of tests.

A backend plugs in with a `Harness`: subclass `BackendContract` in a test file, and give it a fixture
`harness`. The programs are real and small, so that a laptop's processes and a cluster's pods both run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from autotuner import keys
from autotuner.backends.base import Backend, Observation
from autotuner.job.job import Job
from autotuner.reconcile import reconcile
from autotuner.status import Event, Status
from autotuner.trial import Measurement, Outcome, Suggestion, Trial
from tests.controlplane.waiting import eventually

REPORTS = "import os; print('accuracy=0.5 epoch=1'); print('accuracy=0.95 epoch=2', flush=True)"
SECOND_REPORTS = f"""import os, re
# The pods of a Job end in five characters of their own.
if re.search("-1(-[a-z0-9]{{5}})?$", os.environ["POD"]): exec({REPORTS!r})
"""
FAILS = "import sys; print('no such file: /data', flush=True); sys.exit(3)"
FAILS_AT_ITS_EXIT = (
    "print('accuracy=0.5 epoch=1'); print('accuracy=0.6 epoch=2', flush=True); raise SystemExit(3)"
)
SILENT = "print('nothing to say', flush=True)"
RUNS_ON = (
    """import time; print('{"autotuner": 1, "step": 1, "accuracy": 0.5}', flush=True); time.sleep(600)"""
)
HOSTILE = (
    "import sys; sys.stdout.buffer.write(b'\\xff\\x00' * 500_000 + b'\\n');"
    "print('x' * 200_000); print('accuracy=' + '9' * 5000); print('accuracy=0.95 epoch=2', flush=True)"
)
STARTED = datetime(2026, 1, 1, 10, tzinfo=UTC)


class Harness(Protocol):
    """What the suite needs of a backend's world."""

    backend: Backend

    def register(self, manifest: Mapping[str, Any]) -> Job:
        """Bring a job into the world, and return it as the backend's callers read it."""
        ...

    def reread(self, job: Job) -> Job:
        """Return the job as it is now, with its status."""
        ...

    def restart(self) -> None:
        """Drop the backend as a crash does, and replace it by another instance."""
        ...


def manifest(program: str, **annotations: str) -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": "example/training",
        "command": ["python", "-c", program],
        "env": [
            {"name": "AUTOTUNER_BATCH_SIZE", "value": "256"},
            {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
        ],
    }
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": "contract",
            "annotations": {
                keys.TARGET: "accuracy >= 0.9",
                keys.PREFIX + "batch-size": "256..1024",
                **{keys.PREFIX + name: value for name, value in annotations.items()},
            },
        },
        "spec": {
            "runPolicy": {"suspend": True},
            "pytorchReplicaSpecs": {
                "Master": {
                    "replicas": 1,
                    "restartPolicy": "Never",
                    "template": {"spec": {"containers": [container]}},
                }
            },
        },
    }


def suggestion(number: int = 0) -> Suggestion:
    return Suggestion(number, 256, {"learning_rate": 0.1}, seed=7)


def finished(number: int = 0, **fields: Any) -> Trial:
    whole = Trial(
        suggestion(number),
        (Measurement(1, 0.5), Measurement(2, 0.95)),
        Outcome.REACHED,
        STARTED,
        STARTED.replace(hour=11),
        devices=2,
        message="why",
        extras={"noise_scale": 12.5},
    )
    return replace(whole, **fields)


def observe(harness: Harness, job: Job) -> Observation:
    return harness.backend.observe(job, job.spec())


def ended(harness: Harness, job: Job, number: int = 0) -> Trial:
    """Return a trial once it has ended by itself."""

    def look() -> Trial | None:
        found = (t for t in observe(harness, job).live if t.number == number and not t.is_running)
        return next(found, None)

    return eventually(look)


def measured(harness: Harness, job: Job, number: int = 0) -> Trial:
    """Return a trial once it has reported something."""

    def look() -> Trial | None:
        found = (t for t in observe(harness, job).live if t.number == number and t.measurements)
        return next(found, None)

    return eventually(look)


class BackendContract:
    """The promises. A subclass has a fixture `harness`."""

    @pytest.fixture
    def harness(self) -> Harness:
        raise NotImplementedError("the subclass of a backend has this fixture")

    def test_a_job_without_trials_has_nothing_to_show(self, harness):
        job = harness.register(manifest(REPORTS))
        seen = observe(harness, job)
        assert not seen.recorded
        assert not seen.live
        assert not seen.notices
        assert not harness.backend.existing(job)

    def test_a_trial_runs_with_its_suggestion_and_its_measurements_are_read(self, harness):
        job = harness.register(manifest(REPORTS))
        harness.backend.start(job, suggestion())
        trial = ended(harness, job)
        assert trial.suggestion == suggestion()
        assert trial.measurements == (Measurement(1, 0.5), Measurement(2, 0.95))
        assert trial.outcome is Outcome.REACHED
        assert trial.started_at is not None
        assert trial.ended_at is not None
        assert trial.started_at <= trial.ended_at
        assert trial.devices == 1

    def test_a_running_trial_is_read_while_it_runs(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        trial = measured(harness, job)
        assert trial.is_running
        assert trial.measurements == (Measurement(1, 0.5),)
        assert trial.started_at is not None
        harness.backend.stop(job, 0)

    def test_measurements_are_not_read_twice(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        measured(harness, job)
        for _ in range(3):
            assert len(measured(harness, job).measurements) == 1
        harness.backend.stop(job, 0)

    def test_starting_twice_runs_one_trial(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        harness.backend.start(job, suggestion())
        assert list(harness.backend.existing(job)) == [0]
        assert len(measured(harness, job).measurements) == 1
        harness.backend.stop(job, 0)

    def test_stopping_ends_a_trial_and_stopping_nothing_succeeds(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        measured(harness, job)
        harness.backend.stop(job, 0)
        harness.backend.stop(job, 0)
        harness.backend.stop(job, 99)
        assert not harness.backend.existing(job)
        assert not observe(harness, job).live

    def test_several_trials_run_beside_each_other(self, harness):
        job = harness.register(manifest(RUNS_ON))
        for number in (0, 1, 2):
            harness.backend.start(job, suggestion(number))
        for number in (0, 1, 2):
            assert measured(harness, job, number).suggestion == suggestion(number)
        assert list(harness.backend.existing(job)) == [0, 1, 2]
        harness.backend.stop(job, 1)
        assert list(harness.backend.existing(job)) == [0, 2]
        harness.backend.stop(job, 0)
        harness.backend.stop(job, 2)

    def test_a_program_that_fails_is_a_failure_with_its_last_lines(self, harness):
        job = harness.register(manifest(FAILS))
        harness.backend.start(job, suggestion())
        trial = ended(harness, job)
        assert trial.outcome is Outcome.FAILED
        assert "exit code 3" in trial.message
        assert "no such file: /data" in trial.message

    def test_the_message_about_a_program_without_a_metric_says_what_to_print(self, harness):
        job = harness.register(manifest(SILENT))
        harness.backend.start(job, suggestion())
        trial = ended(harness, job)
        assert trial.outcome is Outcome.FAILED
        assert "no line of its log carries accuracy" in trial.message

    @pytest.mark.parametrize("elastic", [{}, {"elasticPolicy": {"rdzvBackend": "c10d"}}], ids=["", "elastic"])
    def test_the_metric_is_read_from_the_worker_that_prints_it(self, harness, elastic):
        made = manifest(SECOND_REPORTS)
        replica = made["spec"]["pytorchReplicaSpecs"].pop("Master")
        env = replica["template"]["spec"]["containers"][0]["env"]
        env.append({"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
        made["spec"] |= {"pytorchReplicaSpecs": {"Worker": {**replica, "replicas": 2}}, **elastic}
        job = harness.register(made)
        harness.backend.start(job, suggestion())
        trial = ended(harness, job)
        assert trial.outcome is Outcome.REACHED
        assert [m.value for m in trial.measurements] == [0.5, 0.95]

    def test_hostile_output_is_read_past(self, harness):
        job = harness.register(manifest(HOSTILE))
        harness.backend.start(job, suggestion())
        trial = ended(harness, job)
        assert Measurement(2, 0.95) in trial.measurements
        assert trial.outcome is Outcome.REACHED

    def test_what_is_recorded_is_read_back_whole(self, harness):
        job = harness.register(manifest(REPORTS))
        trials = [
            finished(0),
            finished(1, outcome=Outcome.LOST, measurements=(), started_at=None, extras={}),
            finished(2, outcome=Outcome.DIVERGED, measurements=(Measurement(1, float("inf")),)),
        ]
        for trial in trials:
            harness.backend.record(job, trial)
        assert list(observe(harness, job).recorded) == trials

    def test_recording_twice_records_once(self, harness):
        job = harness.register(manifest(REPORTS))
        harness.backend.record(job, finished())
        harness.backend.record(job, finished())
        assert list(observe(harness, job).recorded) == [finished()]

    def test_a_recorded_trial_is_live_until_it_is_removed(self, harness):
        job = harness.register(manifest(REPORTS))
        harness.backend.start(job, suggestion())
        trial = ended(harness, job)
        harness.backend.record(job, trial)
        seen = observe(harness, job)
        assert [t.number for t in seen.recorded] == [0]
        assert [t.number for t in seen.live] == [0]
        harness.backend.stop(job, 0)
        seen = observe(harness, job)
        assert [t.number for t in seen.recorded] == [0]
        assert not seen.live

    def test_the_ledger_outlives_the_process(self, harness):
        job = harness.register(manifest(REPORTS))
        harness.backend.record(job, finished())
        harness.restart()
        assert list(observe(harness, job).recorded) == [finished()]

    def test_a_trial_can_be_started_again_after_a_crash_and_runs_once(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        measured(harness, job)
        harness.restart()
        # It may have gone with the process that started it, or run on.
        assert {t.number for t in observe(harness, job).live} <= {0}
        harness.backend.start(job, suggestion())
        assert measured(harness, job).measurements == (Measurement(1, 0.5),)
        assert list(harness.backend.existing(job)) == [0]
        harness.backend.stop(job, 0)
        assert not harness.backend.existing(job)

    @pytest.mark.parametrize(("length", "outcome"), [("2", Outcome.MISSED), ("3", Outcome.FAILED)])
    def test_a_program_that_fails_after_its_last_step_has_missed(self, harness, length, outcome):
        job = harness.register(manifest(FAILS_AT_ITS_EXIT, **{"run-length": length}))
        reconcile(harness.backend, job, datetime.now(UTC))
        ended(harness, job)
        (trial,) = reconcile(harness.backend, job, datetime.now(UTC)).finished
        assert trial.outcome is outcome
        assert "exit code 3" in trial.message
        assert ("after its last step" in trial.message) is (outcome is Outcome.MISSED)
        for number in harness.backend.existing(job):
            harness.backend.stop(job, number)

    def test_the_study_of_a_job_is_found_by_name(self, harness):
        job = harness.register(manifest(REPORTS))
        harness.backend.record(job, finished())
        study = harness.backend.study(job, job.name)
        assert study.job.name == job.name
        assert [(t.number, t.measurements) for t in study.trials] == [(0, finished().measurements)]
        assert harness.backend.study(job, "resnet50") is None

    def test_a_search_continues_without_an_earlier_study_that_is_not_there(self, harness):
        job = harness.register(manifest(RUNS_ON, **{"start-from": "resnet50"}))
        seen = reconcile(harness.backend, job, datetime.now(UTC))
        assert [s.number for s in seen.started] == [0]
        message = seen.status.annotations[keys.MESSAGE]
        assert "the search starts without resnet50: there is no other job of this name" in message
        harness.backend.stop(job, 0)

    def test_a_large_ledger_keeps_every_result(self, harness):
        job = harness.register(manifest(REPORTS))
        curve = tuple(Measurement(step, 0.123456789 + step * 1e-7) for step in range(2000))
        for number in range(300):
            harness.backend.record(job, finished(number, measurements=curve))
        recorded = observe(harness, job).recorded
        assert [t.number for t in recorded] == list(range(300))
        assert all(t.measurements[-1] == curve[-1] for t in recorded)

    def test_a_status_is_published_and_replaced(self, harness):
        job = harness.register(manifest(REPORTS))
        first = Status({keys.PHASE: "Searching", keys.MESSAGE: "one", keys.ANSWER: "{}"})
        second = Status({keys.PHASE: "Searching", keys.MESSAGE: "two"})
        for status in (first, first, second):
            harness.backend.publish(harness.reread(job), status, [])
            shown = harness.reread(job).annotations
            ours = {key: value for key, value in shown.items() if key.startswith(keys.STATUS_PREFIX)}
            assert ours == status.annotations

    def test_an_event_can_be_published_twice(self, harness):
        job = harness.register(manifest(REPORTS))
        status = Status({keys.PHASE: "Done", keys.MESSAGE: "done"})
        event = Event("Normal", "StudyDone", "done " * 400)
        for _ in range(2):
            harness.backend.publish(harness.reread(job), status, [event])

    def test_another_metric_reads_the_log_from_its_start(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        measured(harness, job)
        other = replace(job, annotations={**job.annotations, keys.TARGET: "loss <= 0.5"})
        assert not observe(harness, other).live[0].measurements
        assert measured(harness, job).measurements == (Measurement(1, 0.5),)
        harness.backend.stop(job, 0)

    def test_a_run_to_its_own_end_is_complete(self, harness):
        job = harness.register(manifest(REPORTS))
        harness.backend.start(job, suggestion())
        assert ended(harness, job).is_complete is True

    def test_a_run_that_fails_is_not_complete(self, harness):
        job = harness.register(manifest(FAILS))
        harness.backend.start(job, suggestion())
        assert ended(harness, job).is_complete is False

    @pytest.mark.parametrize(
        "wrong", [{"max-trials": "many"}, {"batch-size": "1024..256"}, {"batch-size": "512..1024"}]
    )
    def test_an_invalid_edit_keeps_what_runs_and_records_what_ends(self, harness, wrong):
        job = harness.register(manifest(REPORTS))
        harness.backend.start(job, suggestion())
        ended(harness, job)
        edits = {keys.PREFIX + name: value for name, value in wrong.items()}
        edited = replace(job, annotations={**job.annotations, **edits})
        seen = reconcile(harness.backend, edited, datetime.now(UTC))
        assert seen.status.annotations[keys.PHASE] == "Invalid"
        assert [(t.number, t.outcome) for t in seen.finished] == [(0, Outcome.REACHED)]
        assert [t.number for t in observe(harness, job).recorded] == [0]

    def test_an_edit_that_leaves_unknown_how_logs_are_read_keeps_what_runs(self, harness):
        job = harness.register(manifest(RUNS_ON))
        harness.backend.start(job, suggestion())
        measured(harness, job)
        wrong = replace(job, annotations={**job.annotations, keys.TARGET: "93%"})
        reconcile(harness.backend, wrong, datetime.now(UTC))
        assert list(harness.backend.existing(job)) == [0]
        assert measured(harness, job).is_running
        harness.backend.stop(job, 0)
