"""A cluster with one trial that runs, for the Kubernetes backend, over HTTP."""

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from autotuner.backends.kubernetes import KubernetesBackend
from autotuner.controller.controller import Controller
from autotuner.controller.metrics import Metrics
from autotuner.job.job import Job
from autotuner.job.pytorchjob import PYTORCHJOB
from autotuner.job.trial_manifest import trial_manifest
from autotuner.trial import Purpose, Suggestion
from tests.contract.suite import REPORTS, finished, manifest
from tests.unit.fake_api_server import FakeServer

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
JOB = replace(Job.from_manifest(manifest(REPORTS)), namespace="ns", uid="u")


class Cluster:
    """One trial that runs, its pod's log, and ConfigMaps."""

    def __init__(self):
        self.now = START
        self.lines = []
        self.config_maps = {}
        self.has_succeeded = False
        self.pod_uid = "pod"
        self.server = FakeServer(self.answer)
        self.restart()

    def restart(self):
        self.backend = KubernetesBackend(self.server.api(), lambda: self.now, keeps_views=True)

    suggestion = Suggestion(0, 256, {"learning_rate": 0.1}, 1)

    def trial(self):
        found = trial_manifest(JOB, self.suggestion)
        found["metadata"]["uid"] = "t"
        kinds = ["Succeeded"] if self.has_succeeded else ["Running"]
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": START.isoformat()} for kind in kinds
        ]
        return {**found, "status": {"conditions": conditions}}

    def pod(self):
        labels = {
            "job-name": self.trial()["metadata"]["name"],
            "job-role": "master",
            "replica-type": "master",
        }
        return {
            "metadata": {
                "name": "p",
                "uid": self.pod_uid,
                "labels": {f"training.kubeflow.org/{name}": value for name, value in labels.items()},
                "ownerReferences": [{"uid": "t"}],
            },
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "pytorch", "state": {"running": {"startedAt": START.isoformat()}}}
                ],
            },
        }

    def answer(self, method, path, query):
        name = path.rpartition("/")[2]
        if "configmaps" in path:
            return self.config_map(method, name)
        if name == "log":
            since = query.get("sinceTime", "")
            return 200, {}, "".join(line for line in self.lines if line >= since[:19]).encode()
        if method == "POST" and name == PYTORCHJOB.plural:
            return 201, {}, self.server.requests[-1][4]
        items = [self.pod()] if name == "pods" else [self.trial()]
        return 200, {}, json.dumps({"items": items}).encode()

    def config_map(self, method, name):
        sent = json.loads(self.server.requests[-1][4] or "{}")
        if method == "POST" and sent["metadata"]["name"] in self.config_maps:
            return 409, {}, b'{"message": "already exists"}'
        if method == "POST":
            self.config_maps[sent["metadata"]["name"]] = sent
            return 201, {}, json.dumps(sent).encode()
        if name not in self.config_maps:
            return 404, {}, b'{"message": "not found"}'
        if method == "PATCH":
            merged = self.config_maps[name]["data"] | sent["data"]
            self.config_maps[name]["data"] = {k: v for k, v in merged.items() if v is not None}
        return 200, {}, json.dumps(self.config_maps[name]).encode()

    def run(self, steps, seconds=30, text="accuracy={value} epoch={step}"):
        """Let the trial print a line every so many seconds, and poll after each; return the trial."""
        for step in steps:
            self.now += timedelta(seconds=seconds)
            value = 0.95 if step == 5 else 0.5
            self.lines.append(f"{self.now:%Y-%m-%dT%H:%M:%S}.5Z {text.format(value=value, step=step)}\n")
            (trial,) = self.observe()
        return trial

    def observe(self):
        return self.backend.observe(JOB, JOB.spec()).live

    def writes(self):
        return [r for r in self.server.requests if r[0] in {"POST", "PATCH"} and "configmaps" in r[1]]


class TunedCluster(Cluster):
    """A controller of a job whose baseline met the target, and whose next trial is far from its end."""

    suggestion = Suggestion(1, 1024, {"learning_rate": 0.1}, 2)

    def __init__(self):
        self.job = deepcopy(manifest(REPORTS, **{"run-length": "100000"}))
        self.job["metadata"] |= {"namespace": "ns", "uid": JOB.uid}
        self.ticks = 0.0
        self.steps = 0
        super().__init__()
        baseline = Suggestion(0, 256, {"learning_rate": 0.1}, 1, Purpose.BASELINE)
        self.backend.record(JOB, finished(suggestion=baseline))
        self.controller.on_job(PYTORCHJOB, "ADDED", self.job)

    def restart(self):
        super().restart()
        self.metrics = Metrics()
        self.controller = Controller(
            self.server.api(),
            self.backend,
            self.metrics,
            max_parallel_trials=None,
            poll_seconds=15,
            resync_seconds=300,
            clock=lambda: self.now,
            ticks=lambda: self.ticks,
        )

    def answer(self, method, path, query):
        if not path.endswith(f"/pytorchjobs/{self.job['metadata']['name']}"):
            return super().answer(method, path, query)
        if method == "PATCH":
            sent = json.loads(self.server.requests[-1][4])
            self.job["metadata"]["annotations"] |= sent["metadata"]["annotations"]
        return 200, {}, json.dumps(self.job).encode()

    def poll(self, lines):
        """Have the trial print so many lines, and the controller poll it."""
        self.now += timedelta(seconds=15)
        self.ticks += 15
        # The log's older part has been read, and the API server does not send it again.
        self.lines = [
            f"{self.now:%Y-%m-%dT%H:%M:%S}.5Z accuracy=0.5 step={step}\n"
            for step in range(self.steps, self.steps + lines)
        ]
        self.steps += lines
        self.controller.work_once()
        self.server.requests.clear()
