"""What a study's status says of its job's wiring, and what its runs take back."""

from __future__ import annotations

import re
import time

import pytest

from autotuner.backends.local.pods import Surroundings
from autotuner.backends.local.script import script_text
from autotuner.errors import InvalidJob
from autotuner.job.job import Job
from autotuner.job.options import MAX_TEXT
from autotuner.job.wiring_notices import wiring_notices
from autotuner.trial import Outcome, Purpose
from tests.builders import annotations, container, job, manifest, replica, suggestion, trial

BATCH = "--batch-size=$(AUTOTUNER_BATCH_SIZE)"


def said(*trials, args=(), script=None):
    made = job(master=replica(container(args=args)))
    return [str(warning) for warning in wiring_notices(made, made.spec(), trials, script)]


def env(**values):
    return [{"name": f"AUTOTUNER_{k}", "value": v} for k, v in {"BATCH_SIZE": "32", **values}.items()]


def baseline(**changed):
    return trial(0, tried=suggestion(0, purpose=Purpose.BASELINE), **changed)


def test_what_cannot_be_seen_is_said_until_runs_of_other_settings_show_it():
    (only,) = said()
    assert "the manifest does not show whether" in only
    assert said(baseline()) == [only]
    assert said(baseline(), trial(1, outcome=None, values=())) == [only]
    assert said(baseline(), trial(1)) == []


def test_what_is_seen_to_be_missing_is_said_for_good():
    (only,) = said(baseline(), trial(1), args=[BATCH])
    assert "nothing in command, args or env refers to AUTOTUNER_LEARNING_RATE" in only


def test_what_a_run_has_read_is_not_missing():
    assert said(trial(1, variables=("batch_size", "learning_rate"))) == []
    assert said(trial(1, variables=("learning_rate",)), args=[BATCH]) == []
    assert said(trial(1, variables=("micro_batch_size", "learning_rate"))) == []


def test_what_no_run_has_read_is_said_by_name():
    (only,) = said(baseline(variables=("batch_size", "seed")))
    assert "nothing in command, args or env refers to AUTOTUNER_LEARNING_RATE, and no run has read" in only


def test_a_run_that_goes_on_may_still_read_more():
    (only,) = said(baseline(outcome=None, variables=("batch_size",)))
    assert "the manifest does not show whether" in only
    lost = baseline(outcome=Outcome.LOST, values=(), variables=("learning_rate",))
    assert said(lost, baseline(variables=("batch_size",))) == []


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"micro_batch_size": "1..8"}, 1),
        ({}, 0),
        ({"micro_batch_size": "1..8", "processes_per_replica": "8"}, 0),
    ],
)
def test_a_program_that_may_start_a_process_on_each_gpu_is_said_where_it_counts(asked, count):
    passed = [BATCH, "--lr=$(AUTOTUNER_LEARNING_RATE)"]
    made = container(args=passed, resources={"limits": {"nvidia.com/gpu": 8}})
    found = job(master=replica(made), asked=annotations(**asked))
    warnings = [str(each) for each in wiring_notices(found, found.spec())]
    assert len([each for each in warnings if "counts as one process" in each]) == len(warnings) == count


@pytest.mark.parametrize(
    ("named", "count"), [({}, 1), ({"learning_rate": "critic_lr"}, 0)], ids=["unnamed", "named"]
)
def test_several_learning_rates_are_to_be_told_apart(named, count):
    passed = [BATCH, "--a=$(AUTOTUNER_ACTOR_LR)", "--c=$(AUTOTUNER_CRITIC_LR)"]
    space = "{actor_lr: {min: 0.01, max: 1}, critic_lr: {min: 0.01, max: 1}}"
    rates = env(ACTOR_LR="0.1", CRITIC_LR="0.1")
    made = job(
        master=replica(container(args=passed, env=rates)), asked=annotations(search_space=space, **named)
    )
    found = [str(warning) for warning in wiring_notices(made, made.spec())]
    assert len(found) == count
    assert all("actor_lr, critic_lr" in text and "autotuner.dev/learning-rate" in text for text in found)


@pytest.mark.parametrize(
    ("option", "processes", "said"),
    [
        (
            "--per_device_train_batch_size=$(AUTOTUNER_BATCH_SIZE)",
            8,
            "each of the 8 would take the whole one",
        ),
        ("model.micro_batch_size=$(AUTOTUNER_BATCH_SIZE)", 8, "pass on AUTOTUNER_MICRO_BATCH_SIZE"),
        ("--per_device_train_batch_size=$(AUTOTUNER_BATCH_SIZE)", 1, None),
        ("--batch-size=$(AUTOTUNER_BATCH_SIZE)", 8, None),
        (
            "--per_device_train_batch_size=8",
            8,
            r"fixed value.*example --per\w+=\$\(AUTOTUNER_MICRO_BATCH_SIZE",
        ),
    ],
)
def test_a_process_is_not_given_the_batch_of_all(option, processes, said):
    passed = ["torchrun", f"--nproc_per_node={processes}", "a.py", option, "--lr=$(AUTOTUNER_LEARNING_RATE)"]
    read = job(master=replica(container(command=passed)), asked=annotations(batch_size="32..1024"))
    found = [str(warning) for warning in wiring_notices(read, read.spec())]
    assert bool(found) == (said is not None)
    assert said is None or re.search(said, "\n".join(found))


MICRO, STEPS = "$(AUTOTUNER_MICRO_BATCH_SIZE)", "$(AUTOTUNER_ACCUMULATION_STEPS)"
RATE = {"LEARNING_RATE": "0.1"}


def manifests(args, values, asked):
    """The same job as a PyTorchJob and as a TrainJob, with two processes."""
    asked = annotations(**asked)
    training = container(["torchrun", "train.py"], args, env(**values))
    yield manifest(master=replica(training), asked=asked, nprocPerNode="2")
    trainer = {**{k: v for k, v in training.items() if k != "name"}, "numNodes": 1, "numProcPerNode": 2}
    yield {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "toy", "annotations": asked},
        "spec": {"suspend": True, "runtimeRef": {"name": "torch-distributed"}, "trainer": trainer},
    }


@pytest.mark.parametrize(
    ("args", "values", "asked", "said"),
    [
        ([MICRO], RATE, {"micro_batch_size": "4..64"}, ['MICRO_BATCH_SIZE, value: "16"']),
        ([MICRO, STEPS], RATE, {"micro_batch_size": "4..8"},
         ['MICRO_BATCH_SIZE, value: "8"', 'ACCUMULATION_STEPS, value: "2"']),
        ([MICRO], RATE, {}, ["and the annotation autotuner.dev/micro-batch-size"]),
        ([MICRO, STEPS], {**RATE, "MICRO_BATCH_SIZE": "16", "ACCUMULATION_STEPS": "2"},
         {"micro_batch_size": "4..64"}, ["makes a batch of 64 .*BATCH_SIZE is 32.*16 x 1"]),
        ([MICRO, STEPS], {**RATE, "BATCH_SIZE": "33", "MICRO_BATCH_SIZE": "20", "ACCUMULATION_STEPS": "1"},
         {"micro_batch_size": "4..64"}, ["makes a batch of 40 .*BATCH_SIZE is 33.*BATCH_SIZE, value: .40"]),
        (["$(AUTOTUNER_MOMENTUM)"], RATE, {"search_space": "momentum: {min: 0.5, max: 0.9}"},
         ['no AUTOTUNER_MOMENTUM.*value: "0.5"']),
        (["$(AUTOTUNER_LEARNIGN_RATE)"], RATE, {}, ["no trial has AUTOTUNER_LEARNIGN_RATE"]),
    ],
    ids=["micro-batch", "accumulation", "no annotation", "another batch", "an odd one", "other", "misspelt"],
)  # fmt: skip
def test_a_variable_that_the_unchanged_job_does_not_have_is_a_mistake(args, values, asked, said):
    for made in manifests(args, values, asked):
        with pytest.raises(InvalidJob) as error:
            Job.from_manifest(made).spec()
        assert len(error.value.mistakes) == len(said)
        assert all(re.search(s, str(m)) for s, m in zip(said, error.value.mistakes, strict=True))


@pytest.mark.parametrize(
    "args",
    [[MICRO, STEPS], ["$(AUTOTUNER_SEED)", "$(AUTOTUNER_OUTPUT_DIR)"], ["$$(AUTOTUNER_X)"], ["$(HOME)"]],
    ids=["in env", "in every trial", "escaped", "not ours"],
)
def test_a_variable_that_the_unchanged_job_has_is_none(args):
    values = {**RATE, "MICRO_BATCH_SIZE": "8", "ACCUMULATION_STEPS": "2"}
    for made in manifests(args, values, {"micro_batch_size": "4..64"}):
        assert Job.from_manifest(made).spec().micro_batch_size is not None


def test_a_micro_batch_that_no_trial_sets_is_said_and_leaves_the_batch_in_doubt():
    rate = "$(AUTOTUNER_LEARNING_RATE)"
    for made in manifests([MICRO, rate], {**RATE, "MICRO_BATCH_SIZE": "16"}, {}):
        read = Job.from_manifest(made)
        (only,) = wiring_notices(read, read.spec())
        assert "the job's own in all trials" in str(only)
        assert (only.name, only.is_seen) == ("batch_size", True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"max_trials": "3"}, "max-trials is '3': must be at least 4 to confirm an answer"),
        ({"max_trials": "5", "confirmations": "5"}, "max-trials is '5': must be at least 6"),
        ({"max_trials": "4"}, None),
        ({"start_from": "other, toy"}, "names the job itself.*for example other"),
        ({"start_from": "toy"}, "start-from is 'toy': names the job itself"),
        ({"start_from": "other"}, None),
    ],
)
def test_a_valid_annotation_that_defeats_its_purpose_is_said(asked, said):
    passed = [BATCH, "--lr=$(AUTOTUNER_LEARNING_RATE)"]
    made = job(master=replica(container(args=passed)), asked=annotations(**asked))
    found = [str(warning) for warning in wiring_notices(made, made.spec())]
    assert len(found) == (said is not None)
    assert all(re.search(said, text) for text in found)


@pytest.fixture
def reads(tmp_path):
    def script(command, args=()):
        made = manifest(master=replica(container(command=command, args=args)))
        return script_text(Job.from_manifest(made), Surroundings(tmp_path, shell={}))

    return script


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (["python", "src/train.py"], ["--lr=1"]),
        (["torchrun", "--nproc_per_node=2", "src/train.py"], []),
        (["python", "-m", "src.train"], []),
        (["sh", "-c", "cd . && exec python src/train.py --lr $AUTOTUNER_LEARNING_RATE"], []),
    ],
)
def test_the_script_that_a_command_names_is_read(tmp_path, reads, command, args):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text("import settings\nimport torch\n")
    (tmp_path / "src/settings.py").write_text("import os; os.environ['AUTOTUNER_BATCH_SIZE']\n")
    assert "AUTOTUNER_BATCH_SIZE" in reads(command, args)


@pytest.mark.parametrize("args", [["--config", "conf/run.yaml"], ["--config=conf/run.yaml"]])
def test_a_configuration_that_a_command_names_may_pass_the_variables_on(tmp_path, args):
    (tmp_path / "conf").mkdir()
    (tmp_path / "train.py").write_text("import yaml\n")
    made = job(master=replica(container(command=["python", "train.py"], args=args)))

    def told(config):
        (tmp_path / "conf/run.yaml").write_text(config)
        script = script_text(made, Surroundings(tmp_path, shell={}))
        return [str(warning) for warning in wiring_notices(made, made.spec(), script=script)]

    passed = "batch: ${oc.env:AUTOTUNER_BATCH_SIZE}\nlr: ${oc.env:AUTOTUNER_LEARNING_RATE}\n"
    assert not told(passed)
    fixed = told("hyperparameters: {batch_size: 64, learning_rate: 0.1}\n")
    assert len(fixed) == 2
    assert all("the script does not read it" in warning for warning in fixed)


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("val_loss >= 0.6", "val_loss <= 0.6"),
        ("valid_ppl >= 20", "valid_ppl <= 20"),
        ("accuracy <= 0.9", "accuracy >= 0.9"),
        ("val_acc1 <= 76", "val_acc1 >= 76"),
    ],
)
def test_a_target_that_a_bad_model_meets_is_warned_of(target, right):
    made = job(master=replica(container()), asked=annotations(target=target))
    shown = [str(w) for w in wiring_notices(made, made.spec()) if w.where == "autotuner.dev/target"]
    assert len(shown) == 1
    assert shown[0].endswith(f'for example "{right}"')


@pytest.mark.parametrize(
    "target",
    [
        "val_loss <= 0.6", "accuracy >= 0.9", "top1_error <= 24", "top1_err <= 24", "loss >= -3.5",
        "wer <= 0.1", "accuracy_drop <= 0.01", "score >= 1", "reward <= 5", "dice_loss <= 0.2",
    ],
)  # fmt: skip
def test_other_targets_are_not_warned_of(target):
    made = job(master=replica(container()), asked=annotations(target=target))
    assert not [w for w in wiring_notices(made, made.spec()) if w.where == "autotuner.dev/target"]


@pytest.mark.parametrize("word", ["< run.json.tmpl", "<run.json.tmpl"])
def test_a_template_of_which_envsubst_makes_the_configuration_may_pass_the_variables_on(tmp_path, word):
    (tmp_path / "train.py").write_text("import json, sys; config = json.load(open(sys.argv[1]))\n")
    command = ["sh", "-c", f"envsubst {word} > run.json && python train.py run.json"]
    made = job(master=replica(container(command=command)))

    def told(template):
        (tmp_path / "run.json.tmpl").write_text(template)
        script = script_text(made, Surroundings(tmp_path, shell={}))
        return [str(warning) for warning in wiring_notices(made, made.spec(), script=script)]

    assert not told('{"batch": $AUTOTUNER_BATCH_SIZE,\n "lr": ${AUTOTUNER_LEARNING_RATE}}\n')
    (fixed,) = told('{"batch": 64,\n "lr": $AUTOTUNER_LEARNING_RATE}\n')
    assert "AUTOTUNER_BATCH_SIZE, and the script does not read it" in fixed


def test_a_script_that_is_not_there_or_too_long_counts_as_unseen(tmp_path, reads):
    assert reads(["python", "train.py"]) is None
    assert reads(["/usr/bin/entrypoint"]) is None
    assert reads(None) is None
    (tmp_path / "train.py").write_text("#" * (MAX_TEXT + 1))
    assert reads(["python", "train.py"]) is None
    (tmp_path / "train.py").write_text("import other\n")
    (tmp_path / "other.py").write_text("#" * MAX_TEXT)
    assert reads(["python", "train.py"]) is None


@pytest.mark.parametrize(
    "text", ["import a\n" * 7000, "from " * 13_000, "'" * 65_000, "import " + "a." * 30_000]
)
def test_no_script_costs_more_than_a_moment(tmp_path, reads, text):
    (tmp_path / "train.py").write_text(text)
    started = time.process_time()
    reads(["sh", "-c", f"python train.py {text}"])
    reads(["python", "train.py"])
    assert time.process_time() - started < 2


READS = 'import os\nbatch, lr = os.environ["AUTOTUNER_BATCH_SIZE"], os.environ["AUTOTUNER_LEARNING_RATE"]\n'


@pytest.mark.parametrize(
    "line",
    [
        "mp.spawn(main, nprocs=4)",
        "    workers = [Process(target=train, args=(rank,)) for rank in range(4)]",
        "    p = ctx.Process(\n        target=train)",
        'notebook_launcher(train, num_processes=2)  # see "accelerate launch"',
    ],
)
def test_a_script_that_starts_processes_itself_is_asked_for_their_number(line):
    (only,) = said(baseline(), trial(1), script=READS + line)
    assert "AUTOTUNER_BATCH_SIZE is the batch of all of them" in only
    assert 'autotuner.dev/processes-per-replica: "4"' in only
    assert line.strip().splitlines()[0] in only


def test_the_number_of_processes_that_is_stated_is_believed():
    made = job(asked=annotations(processes_per_replica="4"), master=replica(container()))
    found = wiring_notices(made, made.spec(), (), READS + "mp.spawn(main)")
    assert not [warning for warning in found if "starts processes" in warning.rule]


@pytest.mark.parametrize("line", ["# mp.spawn(main)", 'mp.set_start_method("spawn")', "pool = Pool(4)"])
def test_a_script_that_starts_no_training_is_not_asked(line):
    assert said(baseline(), trial(1), script=READS + line) == []


SAMPLED = """
from torch.utils.data import DataLoader, DistributedSampler
loader = DataLoader(data, batch_size={}, sampler=DistributedSampler(data))
held_out = DataLoader(others, batch_size=args.batch_size)
"""
READ = 'int(os.environ["AUTOTUNER_BATCH_SIZE"])'


def sampled(size, *, workers=1, args=(BATCH, "--lr=$(AUTOTUNER_LEARNING_RATE)"), code=SAMPLED):
    made = container(args=args)
    two = job(master=replica(made), worker=replica(made, replicas=workers) if workers else None)
    return [str(warning) for warning in wiring_notices(two, two.spec(), script=code.format(size))]


@pytest.mark.parametrize("size", ["args.batch_size", READ, "args.batch_size, num_workers=len(os.listdir())"])
def test_the_batch_of_all_for_the_samples_of_each_process_is_warned_of(size):
    (only,) = sampled(size)
    assert "each of the 2 would take the whole one: divide it" in only


@pytest.mark.parametrize(
    "size",
    [
        "args.batch_size // dist.get_world_size()",
        "args.batch_size, shuffle=True)\nargs.batch_size = int(args.batch_size / count",
        "64",
        "args.micro",
    ],
)
def test_a_batch_that_a_script_divides_is_not_warned_of(size):
    assert sampled(size) == []


def test_one_process_takes_the_batch_of_all():
    assert sampled("args.batch_size", workers=0) == []


def test_a_program_in_the_command_is_read_for_its_sampler():
    code = f"import os\n{SAMPLED.format(READ)}\nlr = os.environ['AUTOTUNER_LEARNING_RATE']"
    script = f"cat > a.py <<'E'\n{code}\nE\n"
    made = container(command=("bash", "-c", script + "torchrun --nproc_per_node=2 a.py"))
    one = job(master=replica(made))
    (only,) = [str(warning) for warning in wiring_notices(one, one.spec())]
    assert "each of the 2 would take the whole one: divide it" in only
