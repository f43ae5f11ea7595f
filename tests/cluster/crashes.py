"""Let a controller die again and again while it tunes, and see whether its studies are whole afterwards."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from autotuner.backends.kubernetes import Api, KubernetesBackend
from autotuner.backends.kubernetes.api import jobs_path
from autotuner.backends.kubernetes.readers import job_of
from autotuner.errors import BackendError
from autotuner.job.kind import JobKind
from autotuner.reconcile import is_settled, reconcile
from autotuner.trial import Outcome
from tests.cluster.controllers import Controller, running
from tests.cluster.tuned_jobs import Cluster
from tests.controlplane.plane import ControlPlane
from tests.controlplane.waiting import eventually


class Crash(Exception):
    """The process died."""


class CrashingApi(Api):
    """An API server whose caller dies right after each change that it makes."""

    changes = 0

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._die(super().create(path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._die(super().patch(path, body))

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._die(super().delete(path, body))

    def _die(self, _answer: object) -> dict[str, Any]:
        type(self).changes += 1
        raise Crash


def one_life(
    control_plane: ControlPlane, namespace: str, name: str, kind: JobKind, api_type: type[Api]
) -> bool:
    """Make passes until the process dies; return whether the job is settled."""
    api = api_type(control_plane.configuration())
    backend = KubernetesBackend(api)
    try:
        job = job_of(api, api.get(jobs_path(namespace, name, kind)), namespace)
        if is_settled(job):
            return True
        reconcile(backend, job, datetime.now(UTC))
    except (Crash, BackendError):
        pass
    return False


def end_both(
    control_plane: ControlPlane, kind: JobKind, smooth: Cluster, crashed: Cluster, starts: Sequence[str]
) -> None:
    """Tune one job undisturbed and another with a crash after each change, and assert that they end alike."""
    namespace, changes = smooth.namespace, CrashingApi.changes
    eventually(lambda: one_life(control_plane, namespace, smooth.name, kind, Api), 240)
    eventually(lambda: one_life(control_plane, namespace, crashed.name, kind, CrashingApi), 240)

    assert CrashingApi.changes - changes > 3 * len(crashed.ledger())
    assert crashed.phase == smooth.phase == "Done"
    # How much of a curve a pass finds depends on real time, and with it the number of trials and which of the
    # two bounds ends the search. In simulated time all of it is the same (tests/simulation).
    for field in ("batch_size", "confirmed"):
        assert crashed.answer[field] == smooth.answer[field]
    assert {smooth.answer["reason"], crashed.answer["reason"]} <= {"LargerUnlikely", "GainTooSmall"}
    assert_whole(smooth, starts)
    assert_whole(crashed, starts)


def kill_at_random(controller: Controller, jobs: Sequence[Cluster], dice: random.Random) -> int:
    """Kill and start a controller until all jobs are done; return how often it was killed.

    Each time it works for a few reconciles, however long that takes the machine.
    """

    def is_over() -> bool:
        return all(job.phase in {"Done", "Failed", "Invalid"} for job in jobs)

    def reconciles() -> int:
        return sum(line["event"] == "reconciled" for line in controller.lines())

    kills = 0
    with running(controller):
        controller.wait_until_ready()
        while not is_over():
            wanted = reconciles() + dice.randrange(1, 10)
            eventually(lambda wanted=wanted: reconciles() >= wanted or is_over())
            controller.kill()
            kills += 1
            controller.start()
    return kills


def assert_whole(job: Cluster, starts: Sequence[str]) -> None:
    """Assert that each trial ran once, was recorded once, and is gone.

    One that no longer mattered may have been stopped before its process started.
    """
    ledger = job.ledger()
    assert [trial.number for trial in ledger] == list(range(len(ledger)))
    assert not job.trial_jobs()
    runs = Counter(start for start in starts if start.startswith(f"{job.name}-"))
    for trial in ledger:
        fewest = 0 if trial.started_at is None and trial.outcome is Outcome.DOMINATED else 1
        assert fewest <= runs.pop(f"{job.name}-{trial.number}", 0) <= 1, trial
    assert not runs
