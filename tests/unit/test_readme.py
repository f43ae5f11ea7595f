"""The job that the README shows passes on every variable that it searches."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from autotuner.job.job import Job
from autotuner.job.validation import validate
from autotuner.job.wiring import wiring_warnings
from autotuner.job.wiring_notices import wiring_notices
from autotuner.spec.parsers import parse_pattern
from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader
from autotuner.trial import Measurement

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks():
    return re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def test_the_job_of_the_readme_is_valid_and_passes_everything_on():
    (text,) = [block for block in blocks() if "kind: PyTorchJob" in block]
    document = yaml.safe_load(text)
    assert validate(document).mistakes == ()
    spec = Job.from_manifest(document).spec()
    assert set(spec.search_space) == {"learning_rate", "weight_decay", "optimizer"}
    assert set(spec.baseline_parameters) == set(spec.search_space)
    assert wiring_warnings(document, list(spec.search_space)) == []


def test_the_trainjob_of_the_readme_is_tuned_as_the_pytorchjob_is():
    texts = {
        kind: block for block in blocks() for kind in ("PyTorchJob", "TrainJob") if f"kind: {kind}" in block
    }
    older, newer = (Job.from_manifest(yaml.safe_load(texts[kind])) for kind in ("PyTorchJob", "TrainJob"))
    assert newer.annotations == older.annotations
    assert newer.baseline == older.baseline
    assert newer.shape.processes == older.shape.processes
    assert wiring_notices(newer, newer.spec()) == []


def test_the_lines_that_the_readme_recommends_count_at_once():
    for line, target in (
        ("val_accuracy=0.93 epoch=3\n", "val_accuracy >= 0.9"),
        ('{"autotuner": 1, "step": 3, "accuracy": 0.93}\n', "accuracy >= 0.9"),
    ):
        reader = LogReader(parse_target(target))
        reader.feed(line)
        assert reader.measurements == (Measurement(3, 0.93),)
    bare = LogReader(parse_target("accuracy >= 0.9"))
    bare.feed("accuracy=0.93 epoch=3\n")
    assert bare.measurements == ()


def test_the_pattern_of_the_readme_reads_its_line():
    (text,) = [block for block in blocks() if "metric-pattern" in block]
    pattern = yaml.safe_load(text)["autotuner.dev/metric-pattern"]
    assert parse_pattern(pattern) == pattern
    reader = LogReader(parse_target("accuracy >= 0.9"), pattern=pattern)
    reader.feed("model accuracy=0.1 epoch=2\nema accuracy=0.95 epoch=2\n")
    reader.close()
    assert reader.measurements == (Measurement(2, 0.95),)
