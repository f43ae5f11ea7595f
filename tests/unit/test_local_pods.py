"""The environment that the operator would give the pods of a trial, on one machine."""

from pathlib import Path

import pytest

from autotuner.backends.local.pods import LOOPBACK, Surroundings, pods
from autotuner.errors import InvalidJob
from autotuner.job.pytorchjob import PYTORCHJOB
from tests.builders import manifest, replica


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "auto"),
        ({"nprocPerNode": "2"}, "2"),
        ({"elasticPolicy": {"nProcPerNode": 4}}, "4"),
        ({"elasticPolicy": {}}, "auto"),
    ],
)
def test_the_processes_of_a_pod_get_the_variables_that_the_operator_sets(fields, expected):
    made = manifest(worker=replica(), **fields)
    plans = PYTORCHJOB.pod_plans(made, LOOPBACK, port=1)
    found = pods(plans, made["metadata"], Surroundings(Path(), {}))
    assert [pod.environment["PET_NPROC_PER_NODE"] for pod in found] == [expected] * 2


def test_a_working_folder_that_does_not_exist_is_reported_before_a_program_is_started_in_it(tmp_path):
    made = manifest()
    chosen = Surroundings(tmp_path, {}, working_directory=tmp_path / "nope")
    with pytest.raises(InvalidJob) as caught:
        pods(PYTORCHJOB.pod_plans(made, LOOPBACK, port=1), made["metadata"], chosen)
    (mistake,) = caught.value.mistakes
    assert (mistake.key, mistake.value) == ("--working-dir", str(tmp_path / "nope"))
