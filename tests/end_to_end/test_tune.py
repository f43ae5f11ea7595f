"""`autotuner tune FILE`: the answer, in the forms that people and machines read, and its exit codes."""

from __future__ import annotations

import json

import yaml

from tests.builders import container, manifest, replica
from tests.end_to_end.programs import LEARNS, Place, until


def test_the_answer_is_the_largest_batch_that_meets_the_target(place: Place):
    file = place.write(asked={"batch_size": "16..64", "confirmations": "2"})
    ran = place.run("tune", file.name, "--json")
    assert ran.code == 0, ran.err
    answer = ran.json
    assert set(answer) == {
        "batch_size",
        "parameters",
        "confirmed",
        "confirmations",
        "missed",
        "metric",
        "probability_larger",
        "gpu_hours",
        "reason",
    }
    assert answer["batch_size"] == 64
    assert (answer["confirmed"], answer["confirmations"], answer["missed"]) == (2, 2, 0)
    assert answer["metric"] >= 0.9
    assert answer["reason"]
    confirmations = [trial for trial in place.trials() if trial["purpose"] == "confirm"]
    assert len({trial["seed"] for trial in confirmations}) == 2
    assert {(trial["batch_size"], trial["outcome"]) for trial in confirmations} == {(64, "reached")}

    # Asked again, it says the same, and runs nothing.
    before = place.ledger()
    again = place.run("tune", file.name, "--json")
    assert (again.code, again.json) == (0, answer)
    assert place.ledger() == before

    # The folder alone is enough for every command that reads it.
    file.unlink()
    shown = place.run("status", "toy-tuning", "--json").json
    assert (shown["job"], shown["phase"], shown["answer"]) == ("toy", "Done", answer)
    assert json.loads(json.dumps(shown["trials"]))["total"] == len(before)
    assert "phase" in place.run("status", "toy-tuning").out
    listed = place.run("trials", "toy-tuning").out
    assert len(listed.splitlines()) == len(before) + 1


def test_without_a_terminal_the_progress_is_plain_lines(place: Place):
    ran = place.run("tune", place.write().name)
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out
    lines = ran.out.splitlines()
    assert any(line.startswith("trial 0 starts: baseline, batch size 32") for line in lines)
    assert any(line.startswith("trial 0 reached at accuracy") for line in lines)
    assert any(line.startswith("largest batch size 32 with learning_rate") for line in lines)
    assert any("1 of 1 confirmation runs reached accuracy >= 0.9" in line for line in lines)


def test_an_answer_that_stays_unconfirmed_exits_with_3(place: Place):
    ran = place.run("tune", place.write(asked={"max_trials": "1"}).name, "--json")
    assert ran.code == 3, ran.err
    assert ran.json is None or ran.json["confirmed"] < ran.json["confirmations"]
    assert len(place.ledger()) == 1


def test_a_target_that_the_baseline_misses_is_said_and_exits_with_3(place: Place):
    ran = place.run("tune", place.write(LEARNS.replace("min(1.0,", "min(0.8,")).name)
    assert ran.code == 3
    assert "misses accuracy >= 0.9" in ran.out
    assert "its best is 0.7" in ran.out


def test_no_batch_size_that_meets_the_target_exits_with_3(place: Place):
    # The baseline's batch is too large already, and so are all that are allowed.
    env = [
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "128"},
        {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
    ]
    ran = place.run("tune", place.write(asked={"batch_size": "100..256"}, env=env).name, "--json")
    assert (ran.code, ran.json) == (3, None)


def test_a_program_that_exits_at_once_stops_the_tuning_after_three_with_its_last_lines(place: Place):
    program = "import sys\nprint('loading data')\nsys.exit('no such data set: imagenet')\n"
    ran = place.run("tune", place.write(program).name)
    assert ran.code == 1
    assert "3 trials in a row failed" in ran.out
    assert "no such data set: imagenet" in ran.out
    assert "run `autotuner retry toy-tuning`, and the same command again" in ran.err
    assert [trial["outcome"] for trial in place.trials()] == ["failed"] * 3


def test_a_metric_that_never_appears_is_reported_with_how_to_print_it(place: Place):
    ran = place.run("tune", place.write("print('loss=0.1')\n").name)
    assert ran.code == 1
    assert "no line of its log carries accuracy" in ran.out
    assert "accuracy=0.5 epoch=1" in ran.out


def test_a_program_that_does_not_exist_is_reported_by_name(place: Place):
    file = place.write()
    job = yaml.safe_load(file.read_text())
    job["spec"]["pytorchReplicaSpecs"]["Master"] = replica(container(command=["no-such-program"]))
    ran = place.run("tune", place.save(job).name)
    assert ran.code == 1
    assert "cannot start 'no-such-program'" in ran.out


def test_a_run_that_diverges_is_an_observation_and_not_a_failure(place: Place):
    program = LEARNS.replace("print(", "print('accuracy=nan') if batch > 32 else print(", 1)
    ran = place.run(
        "tune", place.write(program, asked={"max_trials": "3", "batch_size": "16..64"}).name, "--json"
    )
    assert ran.code in {0, 3}, ran.err
    outcomes = {trial["batch_size"]: trial["outcome"] for trial in place.trials()}
    assert outcomes[32] == "reached"
    assert outcomes[64] == "diverged"


RECORDS_WHAT_IT_GETS = """
import json, os, sys, time
own = ("MASTER_", "RANK", "WORLD_SIZE", "PET_", "PYTHONUNBUFFERED", "AUTOTUNER_", "GREETING")
given = {name: value for name, value in os.environ.items() if name.startswith(own)}
pod = os.environ["POD"]
with open(f"{pod}.draft", "w") as file:
    json.dump({"args": sys.argv[1:], "folder": os.getcwd(), **given}, file)
os.rename(f"{pod}.draft", f"{pod}.json")
# The master's end is the trial's: it waits for the workers, at a pipe for each.
def pipe(worker):
    name = f"{pod[:-8]}{worker}.pipe"
    try:
        os.mkfifo(name)
    except FileExistsError:
        pass
    return name
if pod.endswith("master-0"):
    for worker in ("worker-0", "worker-1"):
        open(pipe(worker)).read()
else:
    open(pipe(pod[-8:]), "w").close()
print("accuracy=1 epoch=5")
"""
"""Writes arguments, folder and environment of each pod to a file; the master waits for its workers."""


def test_command_args_env_and_folder_reach_the_program_as_on_a_cluster(place: Place):
    env = [
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "32"},
        {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
        {"name": "GREETING", "value": "batch $(AUTOTUNER_BATCH_SIZE), $(NOBODY), $$(GREETING)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    (place.folder / "work").mkdir()
    place.environment = {"AUTOTUNER_MICRO_BATCH_SIZE": "3", "RANK": "17"}
    args = ["--batch=$(AUTOTUNER_BATCH_SIZE)", "$(MASTER_ADDR):$(MASTER_PORT)", "$$(X) $(X)"]
    file = place.write(RECORDS_WHAT_IT_GETS, args=args, workers=2, env=env, workingDir="work")
    job = yaml.safe_load(file.read_text())
    for made in job["spec"]["pytorchReplicaSpecs"].values():
        made["template"]["spec"]["containers"][0]["command"] = ["python", "../train.py"]
    ran = place.run("tune", place.save(job).name, "--json")
    assert ran.code == 0, ran.err
    files = (place.folder / "work").glob("toy-e3b0c4-0-*.json")
    first = {file.stem.removeprefix("toy-e3b0c4-0-"): json.loads(file.read_text()) for file in files}
    assert set(first) == {"master-0", "worker-0", "worker-1"}
    port = first["master-0"]["MASTER_PORT"]
    for rank, pod in enumerate(("master-0", "worker-0", "worker-1")):
        assert first[pod] == {
            "args": ["--batch=32", f"127.0.0.1:{port}", "$(X) $(X)"],
            "folder": str(place.folder / "work"),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "RANK": str(rank),
            "WORLD_SIZE": "3",
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": port,
            "PET_NODE_RANK": str(rank),
            "PET_NNODES": "3",
            "PET_NPROC_PER_NODE": "auto",
            "PYTHONUNBUFFERED": "1",
            "AUTOTUNER_BATCH_SIZE": "32",
            "AUTOTUNER_LEARNING_RATE": "0.1",
            "AUTOTUNER_SEED": first["master-0"]["AUTOTUNER_SEED"],
            "AUTOTUNER_TRIAL": "0",
            "AUTOTUNER_OUTPUT_DIR": str(place.tuning / "output" / "0"),
            "GREETING": "batch 32, $(NOBODY), $(GREETING)",
        }


def test_a_secret_from_the_shell_reaches_the_program_and_not_the_disk(place: Place):
    program = "import os\nassert os.environ['TOKEN'] == 'hunter2'\n" + LEARNS
    env = [
        {"name": "AUTOTUNER_BATCH_SIZE", "value": "32"},
        {"name": "AUTOTUNER_LEARNING_RATE", "value": "0.1"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
    ]
    file = place.write(program, env=env)
    refused = place.run("tune", file.name)
    assert refused.code == 2
    assert "export TOKEN=..." in refused.err
    place.environment = {"TOKEN": "hunter2"}
    ran = place.run("tune", file.name)
    assert ran.code == 0, ran.out
    written = [found.read_text(errors="replace") for found in place.folder.rglob("*") if found.is_file()]
    assert not any("hunter2" in text for text in written if "assert os.environ" not in text)


def test_a_status_that_came_with_the_file_is_not_taken_for_this_machines(place: Place):
    file = place.write()
    assert place.run("tune", file.name).code == 0
    job = yaml.safe_load(file.read_text())
    job["metadata"]["annotations"] |= json.loads((place.tuning / "status.json").read_text())
    place.save(job)
    ran = place.run("tune", file.name, "--directory", "other", "--json")
    assert ran.code == 0, ran.err
    assert list((place.folder / "other" / "ledger").glob("trial-*.json"))


def test_a_paused_job_starts_nothing(place: Place):
    ran = place.run("tune", place.write(asked={"paused": "true"}).name)
    assert ran.code == 3
    assert not place.ledger()


def test_workers_alone_are_a_job_too(place: Place):
    file = place.write()
    job = yaml.safe_load(file.read_text())
    replicas = job["spec"]["pytorchReplicaSpecs"]
    replicas["Worker"] = replicas.pop("Master")
    assert place.run("tune", place.save(job).name).code == 0


def test_two_tuners_do_not_share_a_folder(place: Place):
    place.environment = {"PACE": "60"}
    file = place.write()
    first = place.start("tune", file.name)
    try:
        until(lambda: len(place.processes()) >= 3, "the first tuner's trial")
        second = place.run("tune", file.name)
        assert second.code == 1
        assert "in use by another autotuner" in second.err
        assert place.run("status", place.tuning.name, "--json").json["phase"] == "Searching"
    finally:
        first.terminate()
        first.communicate(timeout=60)
    assert first.returncode == 130


def test_a_manifest_builder_of_these_tests_is_a_valid_job(place: Place):
    assert place.run("validate", place.save(manifest()).name).code == 0


def test_auto_runs_as_many_trials_at_once_as_the_gpus_allow_each_on_its_own(place: Place):
    place.environment["CUDA_VISIBLE_DEVICES"] = "0,1,2,3"
    program = f"import os\nopen('seen', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')\n{LEARNS}"
    file = place.write(
        program,
        asked={"batch_size": "16..64", "confirmations": "2", "parallel_trials": "auto"},
        resources={"limits": {"nvidia.com/gpu": 2}},
        env=[*container()["env"], {"name": "PACE", "value": "0.3"}],
    )
    ran = place.run("tune", file.name)
    assert ran.code == 0, ran.err
    assert "up to 2 at once, 4 GPUs" in ran.out
    assert set((place.folder / "seen").read_text().splitlines()) == {"0,1", "2,3"}
