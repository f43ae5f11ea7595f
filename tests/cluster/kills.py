"""Kill a controller again and again while it tunes, and see whether its studies are whole afterwards."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from tests.cluster.controllers import Controller, running
from tests.cluster.tuned_jobs import Cluster
from tests.controlplane.waiting import eventually


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
    """Assert that each trial ran once, was recorded once, and is gone."""
    numbers = [trial.number for trial in job.ledger()]
    assert numbers == list(range(len(numbers)))
    assert not job.trial_jobs()
    runs = Counter(start for start in starts if start.startswith(f"{job.name}-"))
    assert runs == Counter(f"{job.name}-{number}" for number in numbers)
