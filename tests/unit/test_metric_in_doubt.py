"""A study whose log is in doubt on a cluster: it starts nothing, says why, and the annotation resolves it."""

from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console

from autotuner import keys
from autotuner.reconcile import is_settled, reconcile
from autotuner.report.live_view import LiveTable
from autotuner.trial import Measurement, Outcome
from tests.unit.running_trial import JOB, START

BOTH = "model accuracy=0.{step} epoch={step}", "ema accuracy=0.9{step} epoch={step}"
PATTERN = {keys.PREFIX + "metric-pattern": r"ema accuracy=(?P<value>\S+) epoch=(?P<step>\d+)"}


def wrote(cluster, steps=(1, 2, 3)):
    for step in steps:
        for text in BOTH:
            cluster.now += timedelta(seconds=1)
            cluster.lines.append(f"{cluster.now:%Y-%m-%dT%H:%M:%S}.5Z {text.format(step=step)}\n")


def after(cluster, job):
    """Reconcile a job, and return what was seen with the job as it then stands."""
    cluster.backend.forget_trials(job.uid)
    seen = reconcile(cluster.backend, job, cluster.now)
    theirs = {k: v for k, v in job.annotations.items() if not k.startswith(keys.STATUS_PREFIX)}
    return seen, replace(job, annotations={**theirs, **seen.status.annotations})


@pytest.mark.parametrize("ends_in_doubt", [False, True])
def test_it_holds_and_continues_once_its_owner_says_how_to_read(cluster, ends_in_doubt):
    wrote(cluster)
    cluster.has_succeeded = ends_in_doubt
    seen, held = after(cluster, JOB)
    assert (held.annotations[keys.PHASE], held.annotations[keys.REASON]) == ("Invalid", "MetricInDoubt")
    assert (
        "several values" in held.annotations[keys.MESSAGE]
        or "under one name" in held.annotations[keys.MESSAGE]
    )
    assert "add autotuner.dev/metric-pattern" in held.annotations[keys.MESSAGE]
    assert not is_settled(held)
    assert (seen.started, seen.finished) == ((), ())
    assert [t.measurements for t in seen.trials] == [()]

    # A later poll, and another controller, hold as well, and nothing of what ran is lost.
    cluster.restart()
    _, held = after(cluster, held)
    assert held.annotations[keys.REASON] == "MetricInDoubt"

    told = replace(held, annotations={**held.annotations, **PATTERN})
    seen, going_on = after(cluster, told)
    assert going_on.annotations[keys.PHASE] == "Searching", going_on.annotations
    (trial, *_) = seen.trials
    assert trial.measurements[:2] == (Measurement(1, 0.91), Measurement(2, 0.92))
    assert [t.number for t in seen.finished] == [0]


def test_a_job_that_was_changed_instead_gives_the_doubtful_run_up(cluster):
    wrote(cluster)
    _, held = after(cluster, JOB)
    spec = {**held.manifest["spec"], "nprocPerNode": "1"}
    seen, going_on = after(cluster, held.with_spec(spec))
    assert [(t.number, t.outcome) for t in seen.finished] == [(0, Outcome.LOST)]
    assert going_on.annotations[keys.PHASE] == "Searching", going_on.annotations
    assert [s.rerun_of for s in seen.started] == [0]


def test_a_retry_gives_the_doubtful_run_up(cluster):
    wrote(cluster)
    _, held = after(cluster, JOB)
    moment = (START + timedelta(hours=1)).isoformat()
    retried = replace(held, annotations={**held.annotations, keys.RETRIED_AT: moment})
    seen, _ = after(cluster, retried)
    assert [(t.number, t.outcome) for t in seen.finished] == [(0, Outcome.LOST)]


def test_the_live_view_shows_the_doubt(cluster):
    wrote(cluster)
    seen, _ = after(cluster, JOB)
    console = Console(file=StringIO(), width=100, height=30, record=True)
    console.print(LiveTable("digits", JOB.spec(), seen.decision, seen.trials, START))
    assert "no trial starts until this is settled: in trial 0 the metric is in doubt" in console.export_text()
