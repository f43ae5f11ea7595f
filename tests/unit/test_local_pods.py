"""The environment that the operator would give the pods of a trial, on one machine."""

from pathlib import Path

import pytest

from autotuner.backends.local.pods import Surroundings, pods
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
def test_the_processes_of_a_pod_are_told_as_the_operator_tells_them(fields, expected):
    made = manifest(worker=replica(), **fields)
    found = pods(made, Surroundings(Path(), {}), port=1)
    assert [pod.environment["PET_NPROC_PER_NODE"] for pod in found] == [expected] * 2
