"""Jobs as people write them: what they run, what is wrong with them, and the trial that is made of them.

Each file under jobs/ holds a job, and a document that says what is expected of it:

    processes: processes of the Master's and of a Worker's pod; problem: why they are unknown
    total: processes of the job; mistakes, warnings: what `validate` says, as regular expressions
    render: a batch size, and its workers, micro-batch and accumulation; nearest: one without a layout
    trial: values of the trial by their path, where % stands for a dot and {trial} for the trial's name
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotuner.cli.render import rendered
from autotuner.errors import InvalidJob, Mistake
from autotuner.job.job import Job
from autotuner.job.processes import read_processes
from autotuner.job.trial_manifest import trial_manifest
from autotuner.job.validation import validate
from tests.builders import suggestion

FILES = sorted((Path(__file__).parent / "jobs").glob("*.yaml"))
CASES = {file.stem: list(yaml.safe_load_all(file.read_text())) for file in FILES}
WITHOUT_MISTAKES = [name for name, (_, said) in CASES.items() if "mistakes" not in said["expected"]]


def case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    made, said = CASES[name]
    return made, said["expected"]


def at(document: Any, path: str) -> Any:
    for step in path.split("."):
        key = step.replace("%", ".")
        document = document[int(key)] if isinstance(document, list) else document[key]
    return document


def environment(trial: dict[str, Any], kind: str) -> dict[str, str]:
    containers = trial["spec"]["pytorchReplicaSpecs"][kind]["template"]["spec"]["containers"]
    (container,) = (each for each in containers if each["name"] == "pytorch")
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def matches(found: list[Mistake], wanted: list[str]) -> None:
    texts = [str(each) for each in found]
    for pattern in wanted:
        assert any(re.search(pattern, text) for text in texts), (pattern, texts)
    assert len(texts) == len(wanted), texts


@pytest.mark.parametrize("name", CASES)
def test_a_job_is_understood_or_refused_with_what_is_wrong(name):
    made, expected = case(name)
    checked = validate(made)
    mistakes = list(checked.mistakes)
    if not mistakes:
        try:
            Job.from_manifest(made).spec()
        except InvalidJob as error:
            mistakes += error.mistakes
    matches(mistakes, expected.get("mistakes", []))
    matches(list(checked.warnings), expected.get("warnings", []))


@pytest.mark.parametrize("name", [name for name in CASES if {"processes", "problem"} & set(case(name)[1])])
def test_its_processes_are_counted_as_they_will_run(name):
    made, expected = case(name)
    found = read_processes(made)
    assert re.search(expected.get("problem", "^$"), found.problem)
    if "processes" in expected:
        assert [found.master, found.worker] == expected["processes"]
    if "total" in expected:
        assert Job.from_manifest(made).shape.processes == expected["total"]


@pytest.mark.parametrize("name", WITHOUT_MISTAKES)
def test_its_trial_has_the_batch_size_that_was_asked_for(name):
    made, expected = case(name)
    job, size = Job.from_manifest(made), expected["render"]["batch-size"]
    trial = rendered(job, size, {"learning_rate": "0.5"})
    workers, micro, accumulation = expected["render"]["layout"]
    replicas = trial["spec"]["pytorchReplicaSpecs"]
    own = made["spec"]["pytorchReplicaSpecs"]
    for kind in replicas:
        told = environment(trial, kind)
        assert (told["AUTOTUNER_BATCH_SIZE"], told["AUTOTUNER_LEARNING_RATE"]) == (str(size), "0.5")
        assert told.get("AUTOTUNER_MICRO_BATCH_SIZE") == (None if micro is None else str(micro))
        assert told.get("AUTOTUNER_ACCUMULATION_STEPS") == (None if micro is None else str(accumulation))
    if workers is not None:
        assert replicas["Worker"]["replicas"] == workers
    elif "Worker" in own:
        assert replicas["Worker"].get("replicas") == own["Worker"].get("replicas")
    processes = Job.from_manifest(trial).shape.processes if "problem" not in expected else expected["total"]
    assert size % processes == 0
    if micro is not None:
        assert processes * micro * accumulation == size


@pytest.mark.parametrize("name", WITHOUT_MISTAKES)
def test_its_trial_is_its_own_and_would_be_accepted(name):
    made, expected = case(name)
    trial = rendered(Job.from_manifest(made), expected["render"]["batch-size"], {})
    assert validate(trial).mistakes == ()
    own = trial["metadata"]["name"]
    for path, value in expected.get("trial", {}).items():
        wanted = yaml.safe_load(yaml.safe_dump(value).replace("{trial}", own))
        assert at(trial, path) == wanted, path


@pytest.mark.parametrize("name", [name for name in CASES if "nearest" in case(name)[1]])
def test_a_batch_size_without_a_layout_is_an_error_that_names_the_nearest(name):
    made, expected = case(name)
    with pytest.raises(InvalidJob, match=f"the nearest .* is {expected['nearest']['to']}"):
        rendered(Job.from_manifest(made), expected["nearest"]["batch-size"], {})


@pytest.mark.parametrize("name", [name for name in WITHOUT_MISTAKES if name.startswith("elastic")])
def test_two_trials_never_share_a_rendezvous(name):
    job = Job.from_manifest(case(name)[0])
    one, other = (trial_manifest(job, suggestion(number))["spec"]["elasticPolicy"] for number in (1, 2))
    assert one["rdzvId"] != other["rdzvId"]
    assert one["maxRestarts"] == 0


@pytest.mark.parametrize("name", WITHOUT_MISTAKES)
def test_nothing_of_the_job_is_lost_in_its_trial(name):
    made, expected = case(name)
    trial = rendered(Job.from_manifest(made), expected["render"]["batch-size"], {})
    for kind, replica in made["spec"]["pytorchReplicaSpecs"].items():
        kept = trial["spec"]["pytorchReplicaSpecs"][kind]["template"]
        assert kept.get("metadata") == replica["template"].get("metadata")
        for before, after in zip(
            replica["template"]["spec"]["containers"], kept["spec"]["containers"], strict=True
        ):
            left_out = {"env", "terminationMessagePolicy"}
            assert {k: v for k, v in before.items() if k not in left_out} == {
                k: v for k, v in after.items() if k not in left_out
            }
            kept_names = {entry["name"] for entry in after.get("env", ())}
            assert {entry["name"] for entry in before.get("env", ())} <= kept_names
