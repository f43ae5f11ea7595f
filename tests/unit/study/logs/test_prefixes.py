"""What launchers and loggers write before each line changes no reading."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import yaml

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader
from tests.unit.study.logs.test_samples import SAMPLES

CASES = [
    case
    for case in yaml.safe_load(
        (Path(__file__).parents[3] / "cases" / "own_logs.yaml").read_text(encoding="utf-8")
    )
    # A line with two ranks is of neither. Results of RLlib and MLPerf's records have no padding before them,
    # `[3] accuracy=0.8` behind glog's prefix is that of step 3, and a rank looks like the key of a history.
    if not re.search(r"rank|pid=|GPU|device|Result for|:::MLP|\{1: \{|^\[0\] ", case["log"], re.MULTILINE)
]

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
    "a logger named trainer": "2024-01-01 00:00:00,123 - trainer - INFO - ",
    "a logger named train": "2024-01-01 00:00:00,123 - train - INFO - ",
    "the level before the logger": "2024-01-01 00:00:00,123 - INFO - __main__ - ",
    "Transformers' examples": "01/31/2024 00:00:00 - INFO - __main__ -   ",
    "Transformers": "[INFO|trainer.py:123] 2024-01-01 00:00:00,123 >> ",
    "Hydra's own": "[2024-01-01 00:00:00,123][__main__][INFO] - ",
    "a logger in brackets behind the level": "[2024-01-01 00:00:00,123][INFO][trainer] - ",
    "a logger without dashes": "2024-01-01 00:00:00,123 my.trainer INFO: ",
    "a place in the code": "2024-01-01 00:00:00,123 - main.py[line:12] - INFO: ",
    "absl": "I0101 00:00:00.123456 140123456789012 train.py:12] ",
    "a clock of twelve hours": "01/31/2024 11:00:00 AM ",
    "a month in words": "31-Jan-24 11:00:00 - ",
    "RecBole": "31 Jan 11:00    INFO  ",
    "syslog": "Jan  1 00:00:00 node-1 train[123]: ",
    "structlog": "2024-01-01 00:00:00 [info     ] ",
    "a place in parentheses": "(main.py:12) ",
    "bars": "2024-01-01 00:00:00 | INFO | ",
    "bars with a logger": "2024-01-01 00:00:00 | INFO     | my.trainer | ",
    "a process in brackets": "[MainProcess] ",
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


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES.keys())
def test_a_prefix_hides_no_case_and_reveals_none(prefix):
    changed = []
    for case in CASES:
        read = _read(case["target"], _prefixed(case["log"], prefix))
        if read != _read(case["target"], case["log"]):
            changed.append((case["name"], read))
    assert changed == []


@pytest.mark.parametrize(
    "record",
    [
        {"levelname": "INFO", "name": "trainer", "message": ""},
        {"time": "2024-01-01T00:00:00Z", "stream": "stdout", "log": ""},
        {"event": "", "level": "info", "timestamp": "2024-01-01 00:00:00"},
    ],
    ids=", ".join,
)
def test_a_record_of_a_logger_hides_no_case_and_reveals_none(record):
    changed = []
    for case in CASES:
        lines = re.split(r"(?<=[\n\r])", case["log"])
        if "{" in case["log"] or lines[-1]:
            continue
        log = "".join(
            json.dumps({k: v or line for k, v in record.items()}) + "\n" for line in lines if line.strip()
        )
        if "\r" not in case["log"] and _read(case["target"], log) != _read(case["target"], case["log"]):
            changed.append(case["name"])
    assert changed == []


def test_a_record_with_the_metric_is_no_message():
    row = '{{"level": "info", "msg": "val", "epoch": {0}, "acc": 0.8{0}}}\n'
    log = row.format(1) + row.format(2)
    assert _read("acc >= 0.9", log) == ["1 0.81", "2 0.82"]


def test_the_rank_in_a_message_is_that_of_its_process():
    rows = ("[rank0]: Epoch 1 acc 0.81", "[rank1]: Epoch 1 acc 0.91", "[rank0]: Epoch 2 acc 0.82")
    reader = LogReader(parse_target("acc >= 0.9"))
    reader.feed("".join(json.dumps({"level": "INFO", "message": row}) + "\n" for row in rows))
    reader.close()
    assert reader.doubt is not None


def test_the_same_lines_of_several_processes_mixed_change_no_reading():
    changed = []
    for number, case in enumerate(c for c in CASES if "\r" not in c["log"] and "{" not in c["log"]):
        read = _read(case["target"], _of_processes(case["log"], random.Random(number)))
        if read and read != _read(case["target"], case["log"])[: len(read)]:
            changed.append((case["name"], read))
    assert changed == []


@pytest.mark.parametrize(
    "log",
    [
        "Epoch {e}\nValidation:\n  loss: 0.4\n  accuracy: 0.8{e}\n",
        "| epoch | accuracy |\n| {e} | 0.8{e} |\n",
        "Train: accuracy 0.9{e}\nEpoch {e} validation results\nAccuracy: 0.8{e}\n",
    ],
)
def test_sections_of_several_processes_mix(log):
    alone = "".join(log.format(e=e) for e in (1, 2, 3))
    assert _read("accuracy >= 0.9", _of_processes(alone, random.Random(0))) == ["1 0.81", "2 0.82", "3 0.83"]


def test_values_below_the_headings_of_several_processes_that_differ_are_in_doubt():
    row = "[rank0]: Validation:\n[rank1]: Validation:\n[rank0]:   acc: 0.8{}\n[rank1]:   acc: 0.8{}\n"
    log = row.format(1, 2) + row.format(2, 3)
    reader = LogReader(parse_target("acc >= 0.82"))
    reader.feed(log)
    reader.close()
    assert reader.doubt is not None


def test_the_place_in_the_code_at_the_end_of_a_line_changes_no_reading():
    rows = ("Epoch 1 | train acc 0.97 | val acc 0.81", "Epoch 2 | train acc 0.98 | val acc 0.82")
    log = "".join(f"[01/31/24 11:00:00] INFO     {row:50} train.py:12\n" for row in rows)
    assert _read("val acc >= 0.9", log) == ["1 0.81", "2 0.82"]


def test_a_name_between_bars_behind_the_level_may_be_the_metric():
    log = "".join(f"2024-01-01 00:00:00 | INFO | val.acc | 0.8{e} |\n" for e in (1, 2))
    assert _read("val.acc >= 0.9", log) == ["1 0.81", "2 0.82"]


def test_two_lines_in_one_behind_a_prefix_are_two():
    row = "[pod/job-0/pytorch] Epoch {0} acc 0.{0}1Epoch {0} acc 0.{0}2\n"
    assert _read("acc >= 0.1", "".join(row.format(e) for e in (1, 2, 3))) == []


@pytest.mark.parametrize("pattern", [r"^\s*__main__\s+-\s+acc (\S+)", r"^ INFO - __main__ - acc (\S+)"])
def test_a_pattern_may_begin_within_a_prefix(pattern):
    reader = LogReader(parse_target("acc >= 0.9"), pattern=pattern)
    reader.feed("2024-01-01 00:00:00,123 - INFO - __main__ - acc 0.81\n")
    reader.close()
    assert [m.value for m in reader.measurements] == [0.81]


def _read(target, text):
    reader = LogReader(parse_target(target))
    reader.feed(text)
    reader.close()
    # By text, for NaN is not equal to itself.
    return [f"{m.step:g} {m.value:g}" for m in reader.measurements]


def _of_processes(text, random):
    """Return the lines of four processes, line by line in any order."""
    lines = text.splitlines(keepends=True)
    return "".join(f"[rank{rank}]: {line}" for line in lines for rank in random.sample(range(4), 4))


def _prefixed(text, prefix):
    lines = re.split(r"(?<=[\n\r])", text)
    return "".join(prefix + line if line.strip() else line for line in lines)
