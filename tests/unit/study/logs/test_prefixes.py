"""What launchers and loggers write before each line changes no reading."""

from __future__ import annotations

import re

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader
from tests.unit.study.logs.test_samples import SAMPLES

PREFIXES = {
    "logging": "2024-01-01 00:00:00,123 - root - INFO - ",
    "hydra": "[2024-01-01 00:00:00,123] [INFO] [train.py:12:main] ",
    "glog": "I0101 00:00:00.123456 140735 train.py:12] ",
    "loguru": "2024-01-01 00:00:00.123 | INFO     | __main__:main:12 - ",
    "a clock": "[00:00:12] ",
    "a UNIX time": "1700000000.123 ",
    "kubelet": "2024-01-01T00:00:00.123456789Z stdout F ",
    "kubectl": "[pod/job-master-0/pytorch] ",
    "torchrun": "[default0]:",
    "a rank": "[rank0]: ",
    "mpirun": "[1,0]<stdout>:",
    "Ray": "(RayTrainWorker pid=123, ip=10.0.0.1) ",
    "a colour": "\x1b[32m",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES.keys())
def test_a_prefix_changes_no_reading(prefix):
    changed = []
    # A line with two ranks is of neither.
    samples = [s for s in (parameter.values[0] for parameter in SAMPLES) if "[rank" not in s["log"]]
    for sample in samples:
        read = _read(sample["target"], _prefixed(sample["log"], prefix))
        if read and read != _read(sample["target"], sample["log"]):
            changed.append((sample["name"], read))
    assert changed == []


def _read(target, text):
    reader = LogReader(parse_target(target))
    reader.feed(text)
    reader.close()
    # By text, for NaN is not equal to itself.
    return [f"{m.step:g} {m.value:g}" for m in reader.measurements]


def _prefixed(text, prefix):
    lines = re.split(r"(?<=[\n\r])", text)
    return "".join(prefix + line if line.strip() else line for line in lines)
