"""What is wrong is said with what to do about it, under the right exit code, and nothing is lost."""

from __future__ import annotations

import json
import resource
from itertools import pairwise

import pytest
import yaml

from tests.builders import annotations, container, manifest, replica
from tests.end_to_end.programs import LEARNS, Place

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghi")
)

FILES = {
    "empty": ("", "must hold a PyTorchJob or a TrainJob"),
    "no YAML": ("a: b: c", "must be YAML"),
    "no text": (b"\xff\xfe\x00", "FILE"),
    "a list": ("- 1\n- 2\n", "must hold one object"),
    "another kind": (
        "apiVersion: v1\nkind: Pod\n",
        "must be the kind PyTorchJob of kubeflow.org/v1, or TrainJob",
    ),
    "two objects": ("kind: Pod\n---\nkind: Service\n", "must hold a PyTorchJob or a TrainJob"),
    "two jobs": ("kind: PyTorchJob\n---\nkind: PyTorchJob\n", "holds 2 jobs"),
    "a template of Helm": (
        "kind: PyTorchJob\nmetadata: {name: '{{ .Release.Name }}-a'}\n",
        "template CHART >",
    ),
    "another template": ("kind: PyTorchJob\nmetadata: {name: {{ name }}}\n", "if this is a template, write"),
    "a key twice": ("kind: PyTorchJob\nspec: {}\nspec: {}\n", "'spec' is duplicated, in lines 2 and 3"),
    "a billion laughs": (LAUGHS, "at most 100000 values"),
    "a job within itself": ("kind: PyTorchJob\nspec: &s {a: *s}\n", "nested at most 100 deep"),
    "a date that is none": ("kind: PyTorchJob\nx: 2001-99-99\n", "must be YAML"),
    "no container": (
        yaml.safe_dump(manifest(master={"template": {"spec": {"containers": [{"name": "main"}]}}})),
        "container named pytorch",
    ),
    "not registered": (yaml.safe_dump(manifest(asked={})), "autotuner.dev/target"),
    "no replicas": (yaml.safe_dump(manifest() | {"spec": {}}), "must have replicas"),
    "a name that leads away": (yaml.safe_dump(manifest(name="../../x")), "metadata.name"),
    "labels of numbers": (yaml.safe_dump(manifest(metadata={"labels": {"a": 1}})), "put it in quotes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_job_exits_with_2_and_says_what_to_write(place: Place, name: str):
    content, said = FILES[name]
    file = place.folder / "job.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = place.run("validate", file.name)
    assert ran.code == 2
    assert said in ran.err
    assert ", for example " in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_exits_with_2(place: Place, name: str):
    ran = place.run("tune", name)
    assert ran.code == 2
    assert "must be a file that can be read" in ran.err


def test_validate_tells_every_mistake_at_once_for_people_and_machines(place: Place):
    asked = annotations(target="93%", batch_size="big", max_trails="5", paused="yes")
    file = place.save(manifest(asked=asked))
    ran = place.run("validate", file.name, "--json")
    assert ran.code == 2
    assert ran.json["valid"] is False
    assert {mistake["key"] for mistake in ran.json["mistakes"]} == {
        "autotuner.dev/target",
        "autotuner.dev/batch-size",
        "autotuner.dev/max-trails",
        "autotuner.dev/paused",
    }
    for mistake in ran.json["mistakes"]:
        assert set(mistake) == {"key", "value", "rule", "example"}
        assert mistake["rule"] in ran.err
    passed = ["--batch-size=$(AUTOTUNER_BATCH_SIZE)", "--lr=$(AUTOTUNER_LEARNING_RATE)"]
    wired = manifest(master=replica(container(args=passed)))
    assert place.run("validate", place.save(wired).name, "--json").json == {
        "valid": True,
        "mistakes": [],
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"command": None}, "--entrypoint"),
        ({"workingDir": "/no/such/folder"}, "--working-dir"),
        (
            {"env": [*container()["env"], {"name": "KEY", "valueFrom": {"secretKeyRef": {}}}]},
            "export KEY=...",
        ),
    ],
)
def test_what_only_a_cluster_has_is_reported_before_anything_runs(place: Place, changed, said):
    job = manifest(master=replica({**container(), **changed}))
    ran = place.run("tune", place.save(job).name)
    assert ran.code == 2
    assert said in ran.err
    assert not place.tuning.exists()


def test_a_thousand_workers_are_too_many_for_one_machine(place: Place):
    ran = place.run("tune", place.save(manifest(worker=replica(replicas=1000))).name)
    assert ran.code == 2
    assert "at most 256 pods" in ran.err


def test_options_stand_for_the_image(place: Place):
    (place.folder / "elsewhere").mkdir()
    file = place.write()
    (place.folder / "train.py").rename(place.folder / "elsewhere" / "train.py")
    job = yaml.safe_load(file.read_text())
    job["spec"]["pytorchReplicaSpecs"]["Master"] = replica(container(command=None, args=["train.py"]))
    place.save(job)
    assert place.run("tune", file.name, "--entrypoint", "python -u", "--working-dir", "elsewhere").code == 0


def test_a_file_in_the_folders_place_is_said_and_exits_with_1(place: Place):
    # This stands for a read-only folder, which does not stop root.
    file = place.write()
    place.tuning.write_text("precious")
    ran = place.run("tune", file.name)
    assert ran.code == 1
    assert "cannot write to toy-tuning" in ran.err
    assert "--directory" in ran.err
    assert place.tuning.read_text() == "precious"


def test_a_ledger_that_cannot_be_written_loses_nothing_and_continues_once_it_can(place: Place):
    file = place.write()
    place.tuning.mkdir()
    (place.tuning / "ledger").mkdir()
    # What has the draft's name and is no file cannot be written, not even by root.
    (place.tuning / "ledger" / "trial-00000.draft").mkdir()
    ran = place.run("tune", file.name)
    assert ran.code == 1
    assert "finished trials are safe" in ran.err
    assert "Traceback" not in ran.err
    (place.tuning / "ledger" / "trial-00000.draft").rmdir()
    assert place.run("tune", file.name).code == 0


def test_a_full_disk_is_reported_and_the_same_command_continues_once_there_is_room(place: Place):
    file = place.write()

    def fill() -> None:
        # No file may grow beyond: what the kernel answers is what a full disk does, without one.
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    ran = place.run("tune", file.name, preexec_fn=fill)
    assert ran.code == 1
    assert "cannot write to toy-tuning" in ran.err
    assert "Make room" in ran.err
    assert "Traceback" not in ran.err
    after = place.run("tune", file.name)
    assert after.code == 0, after.err
    assert {trial["outcome"] for trial in place.trials()} == {"reached"}


@pytest.mark.parametrize(
    ("command", "content"),
    [("status", None), ("trials", ""), ("report", "a: b: c"), ("status", "kind: Pod")],
)
def test_a_folder_that_is_no_tuning_is_said(place: Place, command: str, content: str | None):
    folder = place.folder / "folder"
    folder.mkdir()
    if content is not None:
        (folder / "job.yaml").write_text(content)
    ran = place.run(command, "folder")
    assert ran.code in {1, 2}
    assert ran.err.startswith("error: ")
    assert "Traceback" not in ran.err


def test_a_status_that_somebody_has_edited_breaks_nothing(place: Place):
    file = place.write()
    assert place.run("tune", file.name).code == 0
    edited = json.dumps({"status.autotuner.dev/answer": "[" * 50_000, "status.autotuner.dev/phase": "Fun"})
    for text, command in (("{", "status"), (edited, "status"), (edited, "report")):
        (place.tuning / "status.json").write_text(text)
        ran = place.run(command, "toy-tuning")
        assert ran.code == 0, ran.err
    # The tuner reads its ledger only, and corrects the status.
    assert place.run("tune", file.name).code == 0
    assert place.run("status", "toy-tuning", "--json").json["phase"] == "Done"


def test_a_variable_of_an_optional_secret_is_not_set_as_on_a_cluster(place: Place):
    reference = {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    script = f"import os\nassert 'KEY' not in os.environ\n{LEARNS}"
    file = place.write(script, env=[*container()["env"], {"name": "KEY", "valueFrom": reference}])
    ran = place.run("tune", file.name)
    assert ran.code == 0, ran.out + ran.err


def test_a_job_in_a_list_is_read_as_kubectl_writes_it(place: Place):
    file = place.save({"apiVersion": "v1", "kind": "List", "items": [manifest()]})
    ran = place.run("validate", file.name)
    assert ran.code == 0, ran.err
    place.save({"apiVersion": "v1", "kind": "List", "items": [manifest(), manifest()]})
    assert "holds 2 jobs" in place.run("validate", file.name).err


def test_a_registered_job_is_read_beside_others(place: Place):
    other = manifest(name="other", asked={})
    for kind in ("List", "PyTorchJobList"):
        file = place.save({"apiVersion": "v1", "kind": kind, "items": [other, manifest()]})
        ran = place.run("validate", file.name)
        assert ran.code == 0, ran.err
        assert "other" not in ran.out


def test_a_file_in_another_encoding_is_reported(place: Place):
    file = place.folder / "job.yaml"
    file.write_bytes(yaml.safe_dump(manifest()).encode("utf-16"))
    ran = place.run("validate", file.name)
    assert ran.code == 2
    assert "must be text in UTF-8" in ran.err
