"""The controller's Prometheus metrics: base units, `_total` on counters.

Each controller has a registry of its own, not the global one, so two controllers in one process do not mix.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from autotuner.decide.decision import Phase
from autotuner.study.hold_up import HoldUpReason
from autotuner.trial import Outcome, Trial

_SECONDS_AN_HOUR: Final = 3600
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The controller's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._studies = Gauge(
            "autotuner_studies", "Registered jobs by phase.", ["phase"], registry=self.registry
        )
        self._trials = Counter(
            "autotuner_trials", "Trials that have ended, by outcome.", ["outcome"], registry=self.registry
        )
        self._held_up = Gauge(
            "autotuner_trials_held_up",
            "Trials that have not started for longer than start_patience_seconds, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._gpu_seconds = Counter(
            "autotuner_gpu_seconds",
            "GPU-seconds used by ended trials (a process without a GPU counts as one).",
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "autotuner_reconcile_duration_seconds",
            "Duration of one reconcile of one job.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "autotuner_reconcile_errors", "Failed reconciles (retried).", registry=self.registry
        )
        self.queue_depth = Gauge(
            "autotuner_queue_depth", "Jobs that wait for a thread.", registry=self.registry
        )
        self.is_leader = Gauge(
            "autotuner_leader",
            "1 if this process holds the leader lease or needs none.",
            registry=self.registry,
        )
        self._requests = Counter(
            "autotuner_api_requests",
            "Requests to the Kubernetes API by verb (log: of pods) and HTTP status (error: no answer).",
            ["verb", "code"],
            registry=self.registry,
        )
        # Each series exists from the start, so that a rate over it has a first value.
        for phase in Phase:
            self._studies.labels(phase=str(phase))
        for outcome in Outcome:
            self._trials.labels(outcome=str(outcome))
        for reason in HoldUpReason:
            self._held_up.labels(reason=str(reason))
        self._phases: dict[str, str] = {}
        self._reasons: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def count_request(self, verb: str, code: str) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb=verb, code=code).inc()

    def count_trial(self, trial: Trial, now: datetime) -> None:
        """Count a trial that was recorded."""
        self._trials.labels(outcome=str(trial.outcome)).inc()
        self._gpu_seconds.inc(trial.gpu_hours(now) * _SECONDS_AN_HOUR)

    def note_phase(self, job: str, phase: str | None) -> None:
        """Set the phase of a job's study; None: the job is no longer registered."""
        with self._lock:
            before = self._phases.get(job)
            if before == phase:
                return
            if before is not None:
                self._studies.labels(phase=before).dec()
                del self._phases[job]
            if phase is not None:
                self._studies.labels(phase=phase).inc()
                self._phases[job] = phase

    def note_held_up(self, job: str, reasons: Sequence[str]) -> None:
        """Note why a job's trials do not start, a reason a trial; nothing where none is held up."""
        with self._lock:
            for reason in self._reasons.pop(job, ()):
                self._held_up.labels(reason=reason).dec()
            for reason in reasons:
                self._held_up.labels(reason=reason).inc()
            if reasons:
                self._reasons[job] = list(reasons)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
