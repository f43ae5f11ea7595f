"""Scripts that a job mounts from ConfigMaps of its own file: what they show, and what they do not decide."""

from __future__ import annotations

import re

import pytest
import yaml

from autotuner.cli.job_file import load_job
from autotuner.job.config_maps import config_maps_among, files_of, named_files, with_files
from autotuner.job.job import Job
from autotuner.job.processes import read_processes
from autotuner.job.training_runtime import TrainingRuntime
from autotuner.job.wiring_notices import wiring_notices
from tests.builders import annotations, container, manifest, replica
from tests.unit.job import test_trainjob as trainjobs

RUN = "torchrun --nproc_per_node=2 train.py --bs $AUTOTUNER_BATCH_SIZE --lr $AUTOTUNER_LEARNING_RATE\n"
FOUR = {"limits": {"nvidia.com/gpu": 4}}
VOLUME = {"configMap": {"name": "code"}}
READS = "import os\nbs = os.environ['AUTOTUNER_BATCH_SIZE']\nlr = os.environ['AUTOTUNER_LEARNING_RATE']\n"


def config_map(name="code", **data):
    files = {key.replace("_", "."): text for key, text in data.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}


def job(*command, asked=None, volume=VOLUME, mount=None, workers=0, maps=(), **data):
    """Return a job whose containers have the files of `data` below /scripts."""
    made = container(
        command=command,
        resources=FOUR,
        volumeMounts=[{"name": "s", "mountPath": "/scripts", **(mount or {})}],
    )
    pod = replica(made)
    pod["template"]["spec"]["volumes"] = [{"name": "s", **volume}]
    worker = {**pod, "replicas": workers} if workers else None
    asked = annotations(micro_batch_size="1..32") if asked is None else asked
    made = manifest(master=pod, worker=worker, asked=asked)
    return Job.from_manifest(made, config_maps=config_maps_among([config_map(**data), *maps, made]))


def warnings(made):
    return [str(warning.mistake) for warning in wiring_notices(made, made.readable_spec())]


STATED = 'must be the number that scripts in ConfigMaps of this file start, 2.*processes-per-replica: "2"'
PATHS = {
    "run by a shell": (["bash", "/scripts/run.sh"], {}),
    "run by itself": (["/scripts/run.sh"], {}),
    "run in a script": (["bash", "-c", "pip install x && bash /scripts/run.sh"], {}),
    "run in its folder": (["bash", "-c", "cd /scripts; ./run.sh"], {}),
    "a part of a volume": (["bash", "/a/go.sh"], {"mount": {"mountPath": "/a/go.sh", "subPath": "run.sh"}}),
    "under another name": (
        ["bash", "/scripts/b/go.sh"],
        {"volume": {"configMap": {"name": "code", "items": [{"key": "run.sh", "path": "b/go.sh"}]}}},
    ),
    "a projected volume": (["bash", "/scripts/run.sh"], {"volume": {"projected": {"sources": [VOLUME]}}}),
}


@pytest.mark.parametrize(("command", "fields"), PATHS.values(), ids=PATHS.keys())
def test_a_script_of_a_config_map_shows_its_processes_and_what_it_passes_on(command, fields):
    (warning,) = warnings(job(*command, run_sh=RUN, **fields))
    assert re.search(STATED, warning)


def test_a_script_of_a_config_map_is_no_part_of_the_job():
    # The controller would refuse what a command had accepted.
    made = job("bash", "/scripts/run.sh", run_sh=RUN)
    assert not made.kind.processes(made.manifest).is_known
    assert read_processes(with_files(made.manifest, made.files)).master == 2


def test_the_stated_number_is_compared_with_that_of_the_script():
    right, wrong = (annotations(micro_batch_size="1..32", processes_per_replica=each) for each in "24")
    assert warnings(job("bash", "/scripts/run.sh", asked=right, run_sh=RUN)) == []
    (warning,) = warnings(job("bash", "/scripts/run.sh", asked=wrong, run_sh=RUN))
    assert re.search(f"is '4': {STATED}", warning)
    # It decides nothing.
    assert warnings(job("bash", "/scripts/run.sh", asked=annotations(), run_sh=RUN)) == []


def test_pods_that_train_apart_by_a_script_are_warned_of():
    asked = annotations(micro_batch_size="1..32", processes_per_replica="2")
    alone = RUN.replace("torchrun", "torchrun --standalone")
    found = warnings(job("bash", "/scripts/run.sh", asked=asked, workers=1, run_sh=alone))
    assert any("starts a process group of one pod, but the job has 2 pods" in each for each in found)


def test_a_program_of_a_config_map_is_read():
    assert all("refers to" not in each for each in warnings(job("torchrun", "/scripts/a.py", a_py=READS)))
    found = warnings(job("torchrun", "/scripts/a.py", a_py="import os\nbatch_size = 256\nlr = 0.1\n"))
    assert any("/scripts/a.py is 'lr = 0.1': a fixed value ignores" in each for each in found)
    found = warnings(job("python", "/scripts/a.py", a_py=READS + "mp.spawn(main, nprocs=4)\n"))
    assert any(
        "processes-per-replica is '': must be given: Master: the processes that" in each for each in found
    )


def test_kubernetes_expands_nothing_in_a_config_map():
    script = "torchrun --nproc_per_node=2 a.py --bs $(AUTOTUNER_BATCH_SIZE) --lr $AUTOTUNER_LEARNING_RATE"
    first, _ = warnings(job("bash", "/scripts/run.sh", run_sh=script))
    assert re.search(r"/scripts/run.sh is .* write \$AUTOTUNER_BATCH_SIZE in this file", first)
    # Nor any other variable.
    made = job("bash", "/scripts/run.sh", run_sh="torchrun --nproc_per_node=$(AUTOTUNER_BATCH_SIZE) a.py")
    assert "cannot be known" in read_processes(with_files(made.manifest, made.files)).problem


def test_a_script_may_run_another_one():
    made = job("sh", "/scripts/a.sh", a_sh='exec bash /scripts/b.sh "$@"', b_sh=RUN, c_sh="python c.py")
    assert list(named_files(made.manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
                            ["containers"][0], made.files)) == ["/scripts/a.sh", "/scripts/b.sh"]  # fmt: skip
    assert re.search(STATED, warnings(made)[0])


OTHERS = {
    "another path": {"command": ["bash", "/other/run.sh"]},
    "another name": {"command": ["bash", "/scripts/my-run.sh"]},
    "another ConfigMap": {"volume": {"configMap": {"name": "other"}}},
    "a volume of another kind": {"volume": {"emptyDir": {}}},
    "a path that is put together": {"mount": {"subPathExpr": "$(POD)"}},
}


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS.keys())
def test_other_files_show_nothing(fields):
    command = fields.get("command", ["bash", "/scripts/run.sh"])
    others = {name: value for name, value in fields.items() if name != "command"}
    (warning,) = warnings(job(*command, run_sh=RUN, **others))
    assert "the manifest does not show whether the script reads them" in warning


def test_config_maps_of_another_namespace_or_without_sense_are_left_out():
    made = job("bash", "/scripts/run.sh", run_sh=RUN).manifest
    elsewhere = config_map(run_sh=RUN)
    elsewhere["metadata"]["namespace"] = "elsewhere"
    inside = {**made, "metadata": {**made["metadata"], "namespace": "here"}}
    assert files_of(inside, config_maps_among([elsewhere])) == {}
    odd = [None, {"kind": "ConfigMap", "apiVersion": "v1"}, config_map(run_sh=5), config_map("x", a=RUN)]
    assert files_of(made, config_maps_among([*odd, []])) == {}
    assert files_of(made, config_maps_among([config_map(run_sh="x" * 70_000)])) == {}


def test_the_config_maps_of_a_file_come_with_its_job(tmp_path):
    made = job("bash", "/scripts/run.sh", run_sh=RUN)
    together = {"apiVersion": "v1", "kind": "List", "items": [config_map(run_sh=RUN), dict(made.manifest)]}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(together))
    assert load_job(tmp_path / "job.yaml").files == made.files == {"/scripts/run.sh": RUN}


MOUNTED = {
    "volumes": [{"name": "s", **VOLUME}],
    "containers": [{"name": "node", "volumeMounts": [{"name": "s", "mountPath": "/scripts"}]}],
}


def train_job(command, **spec):
    made = trainjobs.manifest(
        asked=annotations(micro_batch_size="1..32"),
        trainer={"command": command, "resourcesPerNode": FOUR},
        **spec,
    )
    return made, config_maps_among([config_map(run_sh=RUN)])


def test_a_train_job_has_the_files_of_its_patches():
    pods = {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": MOUNTED}}}}]}
    patch = {"manager": "example.com/me", "trainingRuntimeSpec": {"template": {"spec": pods}}}
    made, maps = train_job(["bash", "/scripts/run.sh"], runtimePatches=[patch])
    (warning,) = warnings(Job.from_manifest(made, config_maps=maps))
    assert re.search(STATED, warning)


def test_a_train_job_has_the_files_of_its_runtime_and_may_run_its_command():
    container = {**MOUNTED["containers"][0], "command": ["bash", "/scripts/run.sh"]}
    document = trainjobs.runtime_manifest(container=container, pod={"volumes": MOUNTED["volumes"]})
    runtime = TrainingRuntime.from_manifest(document)
    made, maps = train_job(None)
    (warning,) = warnings(Job.from_manifest(made, {runtime.reference: runtime}.get, maps))
    assert re.search(STATED, warning)
