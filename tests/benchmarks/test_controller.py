"""What the controller costs, on a real API server with the node stand-in.

Run it with `python -m pytest tests/benchmarks/test_controller.py -s`; each benchmark prints one line of JSON.
The aims are those of the design: at most 12 requests a trial beyond log reads, under a second (median) from a
trial's end to the next one's creation at 100 jobs, under 300 MB at 1,000 registered jobs. They are asserted
where they do not depend on the machine's speed (requests, memory), and printed where they do (latency, CPU):
the control plane, the pods and the controller share this machine's cores.
"""

import contextlib
import json
import statistics
import sys
import threading
import time
from collections import Counter

import psutil
import pytest
import urllib3
from kubernetes import client, watch

from autotuner import keys
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, TunedJob, image_of
from tests.controlplane.waiting import eventually

MEBIBYTE = 1024 * 1024
FRONTIER = {keys.PREFIX + "sampler": "frontier"}


def show(**figures):
    sys.stdout.write(f"\n{json.dumps(figures)}\n")


def trainer(seconds, ends=None):
    """Return a script that reaches the target at any batch size, at its last step, after some seconds."""

    def play(invocation):
        size = int(invocation.environment["AUTOTUNER_BATCH_SIZE"])
        for epoch in range(1, 5):
            yield (
                seconds / 4,
                f"accuracy={0.95 if epoch == 4 and size <= 1024 else 0.2 * epoch} epoch={epoch}",
            )
        if ends is not None:
            ends["{JOB}-{AUTOTUNER_TRIAL}".format(**invocation.environment)] = time.monotonic()

    return play


class Stopwatch:
    """Notes when trials are created and when their success is shown, as a watch of its own sees it."""

    def __init__(self, configuration, namespace):
        self.created, self.succeeded = {}, {}
        self._watch = watch.Watch()
        self._configuration, self._namespace = configuration, namespace
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._watch.stop()
        self._thread.join(30)

    def _follow(self):
        def pytorchjobs(**query):
            """List them.

            :rtype: object
            """
            return custom.list_namespaced_custom_object(*API, self._namespace, PLURAL, **query)

        # Ending a watch cuts its connection, which its reader takes for a failure.
        with client.ApiClient(self._configuration) as api, contextlib.suppress(urllib3.exceptions.HTTPError):
            custom = client.CustomObjectsApi(api)
            for event in self._watch.stream(
                pytorchjobs, label_selector=keys.TRIAL_JOB_UID, timeout_seconds=900
            ):
                item = event["object"]
                job = item["metadata"]["ownerReferences"][0]["name"]
                name = f"{job}-{item['metadata']['labels'][keys.TRIAL_NUMBER]}"
                now = time.monotonic()
                self.created.setdefault(name, now)
                for condition in item.get("status", {}).get("conditions", ()):
                    if condition["type"] == "Succeeded":
                        self.succeeded.setdefault(name, now)

    def gaps(self, since):
        """Return the seconds from an end of each trial to its job's next creation."""
        gaps = []
        for name, moment in since.items():
            job, _, number = name.rpartition("-")
            following = self.created.get(f"{job}-{int(number) + 1}")
            if following is not None and following > moment:
                gaps.append(following - moment)
        return gaps


@pytest.mark.timeout(600)
def test_requests_per_trial(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(trainer(6)))
    job = TunedJob(batch_size="256..8192", annotations=FRONTIER).create(admin, namespace)

    with running(new_controller(poll_seconds=2, resync_seconds=300)) as controller:
        eventually(job.is_in("Done", "Failed"), 400)
        metrics = controller.metrics()

    trials = len(job.ledger())
    requests = Counter()
    for name, value in metrics.items():
        if name.startswith("autotuner_api_requests_total"):
            requests[name.partition('verb="')[2].partition('"')[0]] += value
    per_trial = {verb: round(count / trials, 2) for verb, count in sorted(requests.items())}
    beyond_logs = sum(requests.values()) - requests["log"]
    show(trials=trials, requests_per_trial=per_trial, beyond_logs=round(beyond_logs / trials, 2))
    assert beyond_logs / trials <= 12


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [1, 10, 100])
def test_time_from_a_trials_end_to_the_next_one(
    admin, namespace, nodes, new_controller, control_plane, count
):
    ends = {}
    seconds = {1: 4, 10: 10, 100: 60}[count]
    nodes.add_image("example/training", image_of(trainer(seconds, ends)))
    # No look at the logs meanwhile ends a run before it ends by itself.
    with (
        Stopwatch(control_plane.configuration(), namespace) as stopwatch,
        running(new_controller(poll_seconds=600, resync_seconds=900)) as controller,
    ):
        controller.wait_until_ready()
        for number in range(count):
            TunedJob(f"job-{number}", batch_size="256..1024", annotations=FRONTIER).create(admin, namespace)
        eventually(lambda: len(stopwatch.gaps(stopwatch.succeeded)) >= max(3, 2 * count), 700)
        figures = {}
        for what, since in (("process", ends), ("status", stopwatch.succeeded)):
            gaps = sorted(stopwatch.gaps(since))
            figures[f"from_{what}_end"] = {
                "median": round(statistics.median(gaps), 3),
                "p90": round(gaps[int(0.9 * (len(gaps) - 1))], 3),
            }
        passes = [line["seconds"] for line in controller.lines() if line["event"] == "reconciled"]
    show(jobs=count, gaps=len(gaps), **figures, median_pass_seconds=statistics.median(passes))


@pytest.mark.timeout(900)
def test_memory_and_cpu_at_a_thousand_registered_jobs(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(trainer(120)))
    with running(new_controller(poll_seconds=15, resync_seconds=300, max_parallel_trials=100)) as controller:
        controller.wait_until_ready()
        process = psutil.Process(controller.pid)
        for number in range(1000):
            TunedJob(f"job-{number}", annotations=FRONTIER).create(admin, namespace)
        eventually(lambda: controller.metrics().get('autotuner_studies{phase="Searching"}', 0) >= 1000, 500)
        began, used = time.monotonic(), sum(process.cpu_times()[:2])
        largest = 0
        while time.monotonic() - began < 90:
            largest = max(largest, process.memory_info().rss)
            time.sleep(1)
        cpu = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - began)
    show(registered=1000, running=100, peak_rss_mib=round(largest / MEBIBYTE), cpu_cores=round(cpu, 3))
    assert largest < 300 * 1000 * 1000
