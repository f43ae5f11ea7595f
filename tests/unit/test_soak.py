"""A trial that is polled for days costs no more memory than it has measurements.

`tests/benchmarks/controller_soak.py` measures the same over 4,000 polls.
"""

import gc
import tracemalloc
from datetime import timedelta

from autotuner.study.curve import CURVES
from autotuner.study.history import curve
from tests.unit.running_trial import TunedCluster

POLLS = 600
LINES_A_POLL = 15
MEBIBYTE = 1024 * 1024


def test_polls_of_a_run_with_thousands_of_measurements_leave_nothing_behind(cluster):
    """What a poll left behind would be its measurements and its curve: 50 MiB in all."""
    gc.collect()
    curves = len(CURVES)
    tracemalloc.start()
    for poll in range(POLLS):
        cluster.now += timedelta(seconds=15)
        # The log's older part has been read, and the API server does not send it again.
        cluster.lines = [
            f"{cluster.now:%Y-%m-%dT%H:%M:%S}.5Z accuracy=0.5 step={LINES_A_POLL * poll + line}\n"
            for line in range(LINES_A_POLL)
        ]
        (trial,) = cluster.observe()
        assert curve(trial).last_step == LINES_A_POLL * (poll + 1) - 1
        cluster.server.requests.clear()
        if poll == POLLS // 10:
            gc.collect()
            early = tracemalloc.get_traced_memory()[0]
    count = len(trial.measurements)
    del trial
    gc.collect()
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert count == POLLS * LINES_A_POLL
    assert len(CURVES) == curves
    # A measurement takes about 150 bytes.
    assert late - early < 3 * MEBIBYTE


def test_reconciles_of_a_study_with_such_a_run_leave_nothing_behind():
    cluster = TunedCluster()
    cluster.poll(1)
    gc.collect()
    curves = len(CURVES)
    tracemalloc.start()
    for poll in range(POLLS // 3):
        cluster.poll(3 * LINES_A_POLL)
        if poll == POLLS // 30:
            gc.collect()
            early = tracemalloc.get_traced_memory()[0]
    gc.collect()
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    (trial,) = cluster.observe()
    cluster.server.close()
    assert cluster.metrics.reconcile_errors.collect()[0].samples[0].value == 0
    assert trial.is_running
    assert len(trial.measurements) == 1 + POLLS * LINES_A_POLL
    assert len(CURVES) <= curves + 1
    assert late - early < 3 * MEBIBYTE
