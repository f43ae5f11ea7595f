"""The folder of a study belongs to one job, is found by the job's name, and keeps the logs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.programs import Place

FAILS = "print('this machine has no such data set')\nraise SystemExit(3)\n"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def renamed(file: Path, **metadata: str) -> Path:
    job = yaml.safe_load(file.read_text())
    job["metadata"] |= metadata
    file.write_text(yaml.safe_dump(job, sort_keys=False))
    return file


@pytest.mark.parametrize("metadata", [{"name": "other"}, {"namespace": "team-b"}])
def test_another_jobs_folder_is_refused_and_left_as_it_is(place: Place, metadata):
    file = place.write()
    assert place.run("tune", file.name, "-d", "study").code == 0
    (place.folder / "study" / "trials" / "7").mkdir()  # what an interrupted trial leaves
    (place.folder / "study" / "trials" / "7" / "pods.json").write_text("[]")
    before = content(place.folder / "study")
    ran = place.run("tune", renamed(file, **metadata).name, "-d", "study")
    assert ran.code == 1
    assert "study holds the study of PyTorchJob default/toy, not of PyTorchJob " in ran.err
    assert "{}/{}".format(metadata.get("namespace", "default"), metadata.get("name", "toy")) in ran.err
    assert "--directory" in ran.err
    assert content(place.folder / "study") == before


def test_the_same_job_with_other_annotations_and_another_template_continues(place: Place):
    assert place.run("tune", place.write().name, "-d", "study").code == 0
    file = place.write(asked={"confirmations": "2"}, args=["--more"])
    ran = place.run("tune", renamed(file, namespace="default").name, "-d", "study", "--json")
    assert ran.code == 0, ran.err
    assert "continuing from 2 finished trials" in ran.err
    assert ran.json["confirmations"] == 2


def test_values_of_another_metric_are_not_taken_for_the_targets(place: Place):
    program = """
for epoch in range(1, 6):
    print(f"epoch {epoch} val_accuracy {0.19 * epoch:.3f} val_loss {1.3 - 0.19 * epoch:.3f}", flush=True)
"""
    asked = {"target": "val_accuracy >= 0.9", "max_trials": "2", "batch_size": "32..32"}
    assert place.run("tune", place.write(program, asked=asked).name).code == 0
    before = place.ledger()
    # An accuracy of 0.19 would meet it: no loss of these runs does.
    ran = place.run("tune", place.write(program, asked={**asked, "target": "val_loss <= 0.2"}).name)
    assert ran.code == 3, ran.out + ran.err
    assert "0.19 was read from" in ran.out
    assert "where val_loss is 1.11" in ran.out
    assert "reads val_loss" not in ran.out + ran.err
    assert place.ledger() == before
    assert "answer" not in place.run("status", "toy-tuning", "--json").json
    assert "in doubt" in place.run("trials", "toy-tuning").out
    # With the threshold alone changed, they count.
    ran = place.run("tune", place.write(program, asked={**asked, "target": "val_accuracy >= 0.8"}).name)
    assert ran.code == 0, ran.out + ran.err


def test_an_earlier_study_that_is_not_there_is_said_when_the_search_starts(place: Place):
    ran = place.run("tune", place.write(asked={"start_from": "nosuch"}).name)
    assert ran.out.count("the search starts without nosuch: there is no other job of this name") == 1


def test_a_study_starts_from_another_ones_trials(place: Place):
    asked = {"batch_size": "16..256", "max_trials": "30"}
    assert place.run("tune", place.write(asked=asked).name).code == 0
    alone = place.trials()
    file = renamed(place.write(asked={**asked, "start_from": "toy"}), name="later")
    ran = place.run("tune", file.name, "--json")
    assert ran.code == 0, ran.err
    assert "starts without" not in ran.err
    assert ran.json["batch_size"] == pytest.approx(64, rel=0.4)
    later = place.run("trials", "later-tuning", "--json").json
    assert [t["number"] for t in later] == list(range(len(later)))
    assert later[0]["purpose"] == "baseline"
    # The same search on the same program would propose the same without what the earlier study told it.
    assert [t["batch_size"] for t in later] != [t["batch_size"] for t in alone]


def test_a_folder_whose_job_cannot_be_read_is_refused(place: Place):
    file = place.write()
    place.tuning.mkdir()
    (place.tuning / "job.yaml").write_text("kind: [")
    ran = place.run("tune", file.name)
    assert ran.code == 1
    assert "unknown job" in ran.err
    assert (place.tuning / "job.yaml").read_text() == "kind: ["


def test_a_study_is_found_by_its_jobs_name_where_a_folder_has_that_name_too(place: Place):
    assert place.run("tune", place.write().name).code == 0
    (place.folder / "toy").mkdir()
    # As in deploy/examples/digits: the user's own file has the name of the copy in a study's folder.
    shutil.copy(place.tuning / "job.yaml", place.folder / "toy")
    ran = place.run("status", "toy", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["phase"] == "Done"


def test_the_users_own_job_yaml_is_not_overwritten_and_not_read_as_a_study(place: Place):
    file = place.write().rename(place.folder / "job.yaml")
    before = file.read_text()
    ran = place.run("tune", file.name, "--directory", ".")
    assert ran.code == 1
    assert "the study would overwrite job.yaml, which no study wrote" in ran.err
    assert file.read_text() == before
    ran = place.run("status", ".")
    assert ran.code == 1
    assert "is not the folder of a study" in ran.err


@pytest.mark.parametrize("command", ["status", "trials", "report"])
def test_a_study_that_does_not_exist_is_reported_with_the_places_searched(place: Place, command: str):
    place.environment = {"KUBECONFIG": str(place.folder / "none"), "HOME": str(place.folder)}
    ran = place.run(command, "nothing")
    assert ran.code == 1
    assert f"no folder nothing or nothing-tuning in {os.path.realpath(place.folder)}" in ran.err
    assert "there is no cluster: Invalid kube-config file" in ran.err


def test_without_a_cluster_the_status_of_all_jobs_names_the_study_of_this_folder(place: Place):
    place.environment = {"KUBECONFIG": str(place.folder / "none"), "HOME": str(place.folder)}
    assert place.run("status").err.strip().endswith("autotuner status NAME-tuning")
    assert place.run("tune", place.write().name).code == 0
    assert place.run("status").err.strip().endswith("autotuner status toy-tuning")


def test_the_log_of_a_failed_trial_is_named_wherever_the_failure_is_reported(place: Place):
    ran = place.run("tune", place.write(FAILS).name)
    assert ran.code == 1
    (log, *_) = sorted(place.tuning.glob("logs/0/*.log"))
    assert log.read_text() == "this machine has no such data set\n"
    shown = str(log.relative_to(place.folder))
    assert shown in ran.out + ran.err
    assert place.trials()[0]["log"] == shown
    assert shown in place.trials()[0]["message"]
    assert f"trial 0 failed: see {shown}" in place.run("trials", "toy").out
    assert place.run("report", "toy").code == 0
    assert shown in (place.folder / "report.html").read_text(encoding="utf-8")
