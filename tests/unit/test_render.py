"""The trial that would be submitted, as a command prints it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from autotuner.cli import app
from tests.builders import annotations, container, manifest, replica


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = manifest(
        master=replica(container(command=("torchrun", "--nproc_per_node=3", "train.py"))),
        asked=annotations(micro_batch_size="2..8"),
    )
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_trial_is_printed_as_yaml_and_nothing_else(file):
    ran = run("render", file, "--batch-size", 48, "--set", "learning_rate=0.25")
    assert ran.exit_code == 0, ran.output
    made = yaml.safe_load(ran.stdout)
    assert made["kind"] == "PyTorchJob"
    assert "ownerReferences" not in made["metadata"]
    (only,) = made["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry["value"] for entry in only["env"]}
    assert told["AUTOTUNER_BATCH_SIZE"] == "48"
    assert told["AUTOTUNER_LEARNING_RATE"] == "0.25"
    assert (told["AUTOTUNER_MICRO_BATCH_SIZE"], told["AUTOTUNER_ACCUMULATION_STEPS"]) == ("8", "2")


def test_without_options_a_trial_has_the_jobs_own_hyperparameters(file):
    assert "value: '0.1'" in run("render", file, "--batch-size", 48).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch-size", 50], "the nearest batch size that can is 48"),
        (["--batch-size", 2], "must lie within autotuner.dev/batch-size, 16..256, for example 18"),
        (["--batch-size", 1000], "for example 255"),
        (["--batch-size", 48, "--set", "lr=3"], "one of learning_rate"),
        (["--batch-size", 48, "--set", "learning_rate=fast"], "must be a number"),
        (["--batch-size", 48, "--set", "learning_rate"], "must be NAME=VALUE"),
    ],
)
def test_what_cannot_be_rendered_is_a_mistake(file, words, said):
    ran = run("render", file, *words)
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert not ran.stdout


def test_validate_tells_warnings_beside_mistakes(tmp_path):
    made = manifest(runPolicy={}, nprocPerNode="2", asked=annotations(workers="1..2"))
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(made))
    ran = run("validate", path, "--json")
    assert ran.exit_code == 2
    found = json.loads(ran.stdout)
    # The second one says that the script, which is not there, cannot be seen to read its variables.
    assert [w["key"] for w in found["warnings"]] == ["spec.runPolicy.suspend", "Master"]
    assert {m["key"] for m in found["mistakes"]} == {"autotuner.dev/workers"}
