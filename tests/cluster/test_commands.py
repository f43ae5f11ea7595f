"""The commands that look, on a cluster through a kubeconfig that may read and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import TunedJob, image_of, learner
from tests.controlplane import rbac
from tests.controlplane.waiting import eventually

CHECKOUT = Path(__file__).parents[2]

READ_ONLY = [
    {"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
]


@pytest.fixture
def autotuner(control_plane, user_with, namespace, tmp_path):
    """Return a function that runs the command as a user who may only read."""
    rights = rbac.manifests_of_rules(READ_ONLY, namespace, name=f"reader-{namespace}", cluster_wide=False)
    token = user_with(rights).api_key["authorization"]
    kubeconfig = control_plane.write_kubeconfig(tmp_path / "reader", token, namespace)

    def run(*arguments):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")},
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": str(CHECKOUT),
        }
        return subprocess.run(
            [sys.executable, "-m", "autotuner", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_a_tuning_is_shown_listed_reported_and_exported(
    admin, namespace, nodes, new_controller, autotuner, tmp_path
):
    nodes.add_image("example/training", image_of(learner(largest=512)))
    job = TunedJob().create(admin, namespace)
    with running(new_controller()):
        eventually(job.is_in("Done"))

    shown = json.loads(autotuner("status", "digits", "--json").stdout)
    everything = json.loads(autotuner("status", "--json").stdout)
    rows = json.loads(autotuner("trials", "digits", "--json").stdout)
    report = autotuner("report", "digits", "-o", "page.html")
    export = autotuner("export", "digits", "--storage", f"sqlite:///{tmp_path}/study.db")

    assert shown["answer"] == job.answer
    assert [each["answer"] for each in everything] == [job.answer]
    assert [row["number"] for row in rows] == [trial.number for trial in job.ledger()]
    assert report.returncode == 0, report.stderr
    assert "digits" in (tmp_path / "page.html").read_text()
    assert export.returncode == 0, export.stderr
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{tmp_path}/study.db")
    assert len(study.trials) == len(rows)


def test_a_job_that_is_not_there_is_an_error_that_says_so(autotuner):
    answer = autotuner("status", "nothing")
    assert answer.returncode != 0
    assert "there is no PyTorchJob or TrainJob nothing in namespace" in answer.stderr + answer.stdout
