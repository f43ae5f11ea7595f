"""Every format that is known by name is read as it is printed, or its doubt is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader

SAMPLES = [
    pytest.param(sample, id=f"{path.stem}: {sample['name']}")
    for path in sorted((Path(__file__).parent / "samples").glob("*.yaml"))
    for sample in yaml.safe_load(path.read_text())
]


def read(sample):
    reader = LogReader(parse_target(sample["target"]))
    reader.feed(sample["log"])
    reader.close()
    return reader


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_log_is_read_right_or_not_at_all(sample):
    reader = read(sample)
    # By text, for NaN is not equal to itself.
    measured = [[f"{m.step:g}", f"{m.value:.12g}"] for m in reader.measurements]
    if sample.get("lax") and (reader.doubt or reader.near_misses):
        return
    if "measurements" in sample:
        assert reader.doubt is None or reader.doubt.message == ""
        assert measured == [[f"{step:g}", f"{value:.12g}"] for step, value in sample["measurements"]]
    elif "values" in sample:
        assert reader.doubt is None or reader.doubt.message == ""
        assert [value for _, value in measured] == [f"{value:.12g}" for value in sample["values"]]
    else:
        assert measured == []
        assert reader.near_misses if sample.get("nothing") else reader.doubt or reader.near_misses


@pytest.mark.parametrize("sample", SAMPLES)
def test_what_is_known_early_is_the_beginning_of_what_is_known_late(sample):
    """What was polled at any time is no other than what is read of the whole log."""
    whole = read(sample)
    reader, polled = LogReader(parse_target(sample["target"])), []
    for line in sample["log"].splitlines(keepends=True):
        reader.feed(line)
        polled.append(reader.measurements)
    if whole.doubt is None:
        for known in polled:
            assert repr(whole.measurements[: len(known)]) == repr(known)
