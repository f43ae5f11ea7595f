"""Measure the memory of a controller that polls one run with many metric lines for days.

    python -m tests.benchmarks.controller_soak [polls] [metric lines]

The API server is a small HTTP server in the same process. Everything else is the controller as it runs on
a cluster: the queue, the reconcile, the reading of logs, the search. Prints the resident memory and the CPU
time of a poll at tenths of the run.
"""

from __future__ import annotations

import logging
import sys
import time

import psutil
import structlog

from tests.unit.running_trial import TunedCluster


def main() -> None:
    polls, lines = (int(given) for given in (*sys.argv[1:], 4000, 9000)[:2])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    cluster, process = TunedCluster(), psutil.Process()
    began, printed = time.process_time(), 0
    for poll in range(polls):
        wanted = lines * (poll + 1) // polls
        cluster.poll(wanted - printed)
        printed = wanted
        if (poll + 1) % max(polls // 10, 1) == 0:
            spent, began = time.process_time() - began, time.process_time()
            memory = process.memory_info().rss / 2**20
            each = 1000 * spent / max(polls // 10, 1)
            print(
                f"{poll + 1:6d} polls {printed:6d} lines {memory:7.1f} MiB {each:6.1f} ms a poll", flush=True
            )
    (trial,) = cluster.observe()
    print(f"{len(trial.measurements)} measurements, still running: {trial.is_running}")
    cluster.server.close()


if __name__ == "__main__":
    main()
