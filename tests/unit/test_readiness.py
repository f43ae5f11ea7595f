"""Whether the cluster serves a kind of job to tune, and what is said where it serves none."""

import json

import pytest

from autotuner.controller.main import KindCheck
from autotuner.job.kinds import KINDS, TRAINJOB
from tests.unit.fake_api_server import FakeServer

SERVED = {"/apis/kubeflow.org/v1": ["pytorchjobs"], "/apis/trainer.kubeflow.org/v1alpha1": ["trainjobs"]}


@pytest.fixture
def problem():
    """Return a function from what a cluster serves to what is wrong with it."""
    servers = []

    def ask(served, kinds=KINDS):
        def answer(_method, path, _query):
            if path not in served:
                return 404, {}, b'{"message": "not found"}'
            return 200, {}, json.dumps({"resources": [{"name": name} for name in served[path]]}).encode()

        servers.append(FakeServer(answer))
        return KindCheck(servers[-1].api(), kinds).problem()

    yield ask
    for server in servers:
        server.close()


@pytest.mark.parametrize("group", SERVED)
def test_one_kind_is_enough(problem, group):
    assert problem(SERVED) == ""
    assert problem({group: SERVED[group]}) == ""


@pytest.mark.parametrize("served", [{}, {"/apis/kubeflow.org/v1": ["tfjobs"]}])
def test_a_cluster_without_any_is_told_what_is_missing(problem, served):
    said = problem(served)
    assert "not serve PyTorchJobs (kubeflow.org/v1) or TrainJobs (trainer.kubeflow.org/v1alpha1)" in said
    assert "install Kubeflow Trainer" in said


def test_a_kind_that_is_not_tuned_does_not_count(problem):
    assert "not serve TrainJobs" in problem({"/apis/kubeflow.org/v1": ["pytorchjobs"]}, [TRAINJOB])
