"""Whether a manifest passes on what a trial sets, by the shapes in which people write commands."""

from __future__ import annotations

import time

import pytest

from autotuner.job.wiring import wiring_warnings
from tests.builders import container, manifest, replica

BATCH, LR = "$(AUTOTUNER_BATCH_SIZE)", "$(AUTOTUNER_LEARNING_RATE)"
PASSED = [f"--batch-size={BATCH}", f"--lr={LR}"]
SCRIPT = "python train.py"


def warnings(command=None, args=(), env=(), names=("learning_rate",), script=None):
    made = manifest(master=replica(container(command=command, args=args, env=env)))
    return wiring_warnings(made, names, script)


def env(**values):
    return [{"name": name, "value": value} for name, value in values.items()]


CODE = """
import os
bs=int(os.environ["AUTOTUNER_BATCH_SIZE"])
lr=float(os.environ["AUTOTUNER_LEARNING_RATE"])
"""
SDK = """
from autotuner import sdk
hp = sdk.hyperparameters(batch_size=256, learning_rate=0.1)
"""
UNLESS_SET = """
[ -z "$AUTOTUNER_BATCH_SIZE" ] && AUTOTUNER_BATCH_SIZE=64
python t.py -b $AUTOTUNER_BATCH_SIZE --lr ${AUTOTUNER_LEARNING_RATE:-0.1}
"""
ACCUMULATED = """
python t.py --per_device_train_batch_size 8 --lr $AUTOTUNER_LEARNING_RATE \\
    --gradient_accumulation_steps $((AUTOTUNER_BATCH_SIZE / 8))
"""
FILLED_IN = """
cat > c.json <<E
{"lr": "auto", "train_batch_size": "auto"}
E
python t.py $*
"""
WHOLE = "import os\nbs = int(os.environ['AUTOTUNER_BATCH_SIZE'])"
TRAINER = "from a import train\ntrain(**{'lr': 0.1, 'epochs': 3})\ntrain(per_device_train_batch_size=8,\n)"

WIRED = {
    "flags with =": {"args": PASSED},
    "flags and values apart": {"args": ["--batch-size", BATCH, "--lr", LR]},
    "in the command": {"command": ["python", "train.py", *PASSED]},
    "a shell, Kubernetes expands": {"command": ["sh", "-c", f"{SCRIPT} --bs {BATCH} --lr {LR}"]},
    "a shell expands": {
        "command": ["bash", "-lc"],
        "args": [f"{SCRIPT} --bs $AUTOTUNER_BATCH_SIZE --lr ${{AUTOTUNER_LEARNING_RATE:-0.1}}"],
    },
    "options of the shell": {
        "command": ["/bin/bash", "-euo", "pipefail", "-c", "--"],
        "args": ["exec python t.py -b $AUTOTUNER_BATCH_SIZE --lr $AUTOTUNER_LEARNING_RATE"],
    },
    "torchrun": {"command": ["torchrun", "--nproc_per_node=2", "train.py", *PASSED]},
    "python -m": {"command": ["python", "-m", "torch.distributed.run", "train.py", *PASSED]},
    "accelerate": {"command": ["accelerate", "launch", "--num_processes", "2", "train.py", *PASSED]},
    "deepspeed": {"command": ["deepspeed", "train.py", "--deepspeed", "ds.json", *PASSED]},
    "hydra": {"args": [f"data.batch_size={BATCH}", f"optimizer.lr={LR}"]},
    "env passthrough": {"env": env(BATCH_SIZE=BATCH, LR=LR)},
    "a fixed micro-batch beside the global one": {"args": [*PASSED, "--micro-batch-size", "4"]},
    "the micro-batch": {"args": ["--micro-batch-size=$(AUTOTUNER_MICRO_BATCH_SIZE)", f"--lr={LR}"]},
    "the evaluation's batch, too": {"args": [*PASSED, f"--eval-batch-size={BATCH}", f"--peak_lr={LR}"]},
    "the batch of all under a longer name": {
        "args": [f"global_train_batch_size={BATCH}", f"lr={LR}", "device_train_microbatch_size=4"]
    },
    "a part that the framework finds": {"args": [*PASSED, "--train_micro_batch_size_per_gpu=auto"]},
    "another batch": {"args": [*PASSED, "--eval-batch-size", "128", "--workers=8"]},
    "own place": {
        "args": [*PASSED, "--output-dir=$(AUTOTUNER_OUTPUT_DIR)", "--save-dir", "/o/$(AUTOTUNER_TRIAL)"]
    },
    "own place through env": {
        "args": [*PASSED, "--output-dir=$(OUT)"],
        "env": env(OUT="/mnt/out/$(AUTOTUNER_TRIAL)"),
    },
    "no resuming": {"args": [*PASSED, "--resume=", "--auto-resume", "false"]},
    "the SDK": {"script": "hp = sdk.hyperparameters(batch_size=256, learning_rate=0.1)"},
    "the script": {"script": "os.environ['AUTOTUNER_BATCH_SIZE']; os.getenv('AUTOTUNER_LEARNING_RATE')"},
    "the script puts names together": {"script": "os.environ[f'AUTOTUNER_{name.upper()}']"},
    "code in the command": {"command": ["python3", "-u", "-c", CODE]},
    "code in the arguments": {"command": ["python", "-c"], "args": [CODE]},
    "code behind a launcher": {"command": ["torchrun", "--no-python", "python", "-c", CODE]},
    "code with the SDK": {"command": ["python", "-c", SDK]},
    "code in a here-document": {"command": ["bash", "-c", f"cat > a.py <<'EOF'\n{CODE}\nEOF\npython a.py"]},
    "the SDK in a here-document": {"command": ["bash", "-c", f"python - <<EOF\n{SDK}\nEOF"]},
    "behind the script": {"command": ["sh", "-c", 'python t.py "$@"', "--", *PASSED]},
    "behind the script, from its name on": {"command": ["sh", "-c", '"$0" "$@"', "python", "t.py", *PASSED]},
    "behind the script, one by one": {
        "command": ["sh", "-c", "for a; do set -- $a; done; python t.py $1", "--", *PASSED]
    },
    "set only if it is not": {
        "command": [
            "sh",
            "-c",
            UNLESS_SET,
        ]
    },
    "values that the framework fills in": {
        "command": [
            "sh",
            "-c",
            f'cat > c <<E\n{{"lr": "auto", "train_batch_size": "auto"}}\nE\n{SCRIPT} $*',
            "--",
        ],
        "args": PASSED,
    },
    "a fixed part that is accumulated": {
        "command": [
            "sh",
            "-c",
            ACCUMULATED,
        ]
    },
    "the shell's program reads it": {
        "command": [
            "sh",
            "-c",
            "python -c 'import os; os.environ[\"AUTOTUNER_BATCH_SIZE\"]' $AUTOTUNER_LEARNING_RATE",
        ]
    },
}


@pytest.mark.parametrize("job", WIRED.values(), ids=WIRED.keys())
def test_what_is_passed_on_raises_no_doubt(job):
    assert warnings(**job) == []


DOUBTFUL = {
    "nothing is passed on": (
        {"args": ["--epochs=3"]},
        "the manifest does not show whether",
        "--batch-size=$(AUTOTUNER_BATCH_SIZE)",
    ),
    "a configuration file": ({"args": ["--config", "c.yaml"]}, "the file c.yaml", BATCH),
    "one is missing": (
        {"args": [f"--bs={BATCH}"]},
        "nothing in command, args or env refers to AUTOTUNER_LEARNING_RATE",
        LR,
    ),
    "the script reads one": (
        {"script": "os.environ['AUTOTUNER_BATCH_SIZE']"},
        "and the script does not read it",
        LR,
    ),
    "no shell expands": (
        {"args": ["--batch-size=$AUTOTUNER_BATCH_SIZE", f"--lr={LR}"]},
        "no shell runs here",
        "--batch-size=$(AUTOTUNER_BATCH_SIZE)",
    ),
    "no shell expands braces": (
        {"args": ["--batch-size=${AUTOTUNER_BATCH_SIZE}", f"--lr={LR}"]},
        "no shell runs here",
        "--batch-size=$(AUTOTUNER_BATCH_SIZE)",
    ),
    "a literal flag": (
        {"args": ["--batch-size=256", f"--lr={LR}"]},
        "a fixed value",
        "--batch-size=$(AUTOTUNER_BATCH_SIZE)",
    ),
    "a literal apart": (
        {"args": ["--batch_size", "256", f"--lr={LR}"]},
        "a fixed value",
        "--batch_size=$(AUTOTUNER_BATCH_SIZE)",
    ),
    "a literal after the reference": (
        {"args": [*PASSED, "--lr", "0.1"]},
        "in addition to a reference",
        f"--lr={LR}",
    ),
    "a literal in a shell": (
        {"command": ["sh", "-c", f"{SCRIPT} --lr 0.1 --bs $AUTOTUNER_BATCH_SIZE"]},
        "a fixed value",
        f"--lr={LR}",
    ),
    "a literal override": (
        {"args": [f"data.batch_size={BATCH}", "optimizer.lr=0.1"]},
        "a fixed value",
        f"optimizer.lr={LR}",
    ),
    "a literal per device": (
        {"args": ["--per_device_train_batch_size", "8", f"--learning_rate={LR}"]},
        "a fixed value",
        "--per_device_train_batch_size=$(AUTOTUNER_BATCH_SIZE)",
    ),
    "a literal in env": (
        {"args": [f"--lr={LR}"], "env": env(BATCH_SIZE="256")},
        "a fixed value",
        '{name: BATCH_SIZE, value: "$(AUTOTUNER_BATCH_SIZE)"}',
    ),
    "a literal before the program": (
        {"command": ["sh", "-c", f"BATCH_SIZE=256 {SCRIPT} --lr $AUTOTUNER_LEARNING_RATE"]},
        "a fixed value",
        BATCH,
    ),
    "a shared place": (
        {"args": [*PASSED, "--output-dir", "/mnt/out"]},
        "trials share this path",
        "--output-dir=$(AUTOTUNER_OUTPUT_DIR)",
    ),
    "a shared place in env": (
        {"args": PASSED, "env": env(OUTPUT_DIR="/mnt/out")},
        "trials share this path",
        '{name: OUTPUT_DIR, value: "$(AUTOTUNER_OUTPUT_DIR)"}',
    ),
    "a shared place through env": (
        {"args": [*PASSED, "--save-dir=$(OUT)"], "env": env(OUT="/mnt/out")},
        "trials share this path",
        "--save-dir=$(AUTOTUNER_OUTPUT_DIR)",
    ),
    "a shared place of hydra": (
        {"args": [*PASSED, "trainer.default_root_dir=/mnt/out"]},
        "trials share this path",
        "trainer.default_root_dir=$(AUTOTUNER_OUTPUT_DIR)",
    ),
    "a checkpoint's place": (
        {"command": ["bash", "-c", f"{SCRIPT} {' '.join(PASSED)} --checkpoint-dir /ckpt"]},
        "trials share this path",
        "--checkpoint-dir=$(AUTOTUNER_OUTPUT_DIR)",
    ),
    "a number in code": ({"command": ["python", "-c", TRAINER]}, "a fixed value", "LEARNING_RATE"),
    "a number in a here-document": (
        {"command": ["bash", "-c", f"cat > a.py <<'EOF'\n{TRAINER}\nEOF\npython a.py"]},
        "a fixed value",
        'os.environ["AUTOTUNER_BATCH_SIZE"]',
    ),
    "a number in a configuration that is written": (
        {"command": ["sh", "-c", f"cat > c.yaml <<E\nbatch_size: 32\nlearning_rate: 0.1\nE\n{SCRIPT}"]},
        "a fixed value",
        f"learning_rate: {LR}",
    ),
    "a comment of a script": (
        {"command": ["sh", "-c", f"# takes $AUTOTUNER_BATCH_SIZE\n{SCRIPT} --lr $AUTOTUNER_LEARNING_RATE"]},
        "nothing in command, args or env refers to AUTOTUNER_BATCH_SIZE",
        BATCH,
    ),
    "a script that sets the variable": (
        {
            "command": [
                "sh",
                "-c",
                f"export AUTOTUNER_BATCH_SIZE=64; {SCRIPT} -b $AUTOTUNER_BATCH_SIZE --lr {LR}",
            ]
        },
        "a fixed value",
        "AUTOTUNER_BATCH_SIZE=${AUTOTUNER_BATCH_SIZE:-64}",
    ),
    "values in each other's place": (
        {"args": [f"--batch-size={LR}", f"--lr={BATCH}"]},
        "the value of another option",
        f"--learning-rate={LR}",
    ),
    "the batch of the evaluation alone": (
        {"args": [f"--eval-batch-size={BATCH}", f"--lr={LR}"]},
        "is no batch of the training",
        BATCH,
    ),
    "words that the script does not use": (
        {"command": ["bash", "-c", SCRIPT], "args": PASSED},
        "does not use this word",
        '"$@"',
    ),
    "a word that is the script's name": (
        {"command": ["bash", "-c", f'{SCRIPT} "$@"'], "args": PASSED},
        "does not use this word",
        '"$@"',
    ),
    "an option in a script that is written": (
        {"command": ["bash", "-c", f"cat > a.sh <<EOF\n{SCRIPT} --lr 0.1\nEOF\nbash a.sh"]},
        "a fixed value",
        f"--lr={LR}",
    ),
    "an escaped reference": (
        {"args": ["--batch-size=$$(AUTOTUNER_BATCH_SIZE)", f"--lr={LR}"]},
        "nothing in command, args or env refers to AUTOTUNER_BATCH_SIZE",
        BATCH,
    ),
    "resuming": ({"args": [*PASSED, "--resume"]}, "continues another trial", "$(AUTOTUNER_OUTPUT_DIR)"),
    "resuming from a place": (
        {"args": [*PASSED, "--resume_from_checkpoint=/ckpt/last"]},
        "continues another trial",
        "--resume_from_checkpoint=$(AUTOTUNER_OUTPUT_DIR)",
    ),
}


@pytest.mark.parametrize(("job", "rule", "remedy"), DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_a_doubt_says_its_rule_and_a_remedy_to_copy(job, rule, remedy):
    found = warnings(**job)
    assert [w for w in found if rule in w.rule and remedy in w.remedy], found


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (["python", "t.py", f"--lr={LR}", f"--bs {BATCH}"], []),
        (["python", "t.py"], [f"--bs {BATCH} --lr {LR}"]),
        (["python"], [f"t.py --bs {BATCH} --lr {LR}"]),
        ([f"python t.py --bs {BATCH} --lr {LR}"], []),
    ],
)
def test_an_option_that_is_one_word_with_its_value_is_warned_of(command, args):
    (only,) = warnings(command, args)
    assert only.rule.startswith("is one word with a blank")
    assert f'"--bs", "{BATCH}"' in only.remedy


def test_an_option_of_a_launcher_that_is_one_word_with_its_value_is_warned_of():
    # torchrun takes it for the script.
    (only,) = warnings(["torchrun", "--nproc_per_node 4", "t.py", *PASSED])
    assert only.remedy == '["--nproc_per_node", "4"]'
    values = ["--note", "--a b", "--text=--a b", "--text with more words"]
    assert warnings(["python", "t.py", *PASSED, *values]) == []


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (["su", "user", "-c", f"python t.py --bs {BATCH} --lr {LR}"], []),
        (["./run.sh"], [f"--bs {BATCH} --lr {LR}"]),
        (None, [f"--bs {BATCH} --lr {LR}"]),
        (["python", "t.py", "--extra-args", f"--bs {BATCH} --lr {LR}"], []),
        (["python", "t.py", *PASSED, "--note=a $(AUTOTUNER_SEED)"], []),
    ],
)
def test_a_word_that_may_be_divided_raises_no_such_doubt(command, args):
    assert warnings(command, args) == []


def test_what_cannot_be_seen_is_said_once():
    assert len(warnings(args=["--config", "c.yaml"], names=("learning_rate", "weight_decay"))) == 1


def test_a_worker_that_repeats_its_master_is_told_once():
    one = replica(container(command=["python", "t.py", "--batch-size=64", f"--lr={LR}"], env=()))
    single = wiring_warnings(manifest(master=one), ["learning_rate"])
    assert [
        (w.value, w.rule) for w in wiring_warnings(manifest(master=one, worker=one), ["learning_rate"])
    ] == [(w.value, w.rule) for w in single]


@pytest.mark.parametrize(
    ("command", "values"),
    [
        (["python", "t.py", "--per_device_train_batch_size=$(BS)"], env(BS=BATCH)),
        (["python", "t.py"], env(PER_DEVICE_TRAIN_BATCH_SIZE=BATCH)),
        (["sh", "-c", "BS=$AUTOTUNER_BATCH_SIZE; python t.py --per_device_train_batch_size $BS"], ()),
        # Under the other names of a process's batch, and in other forms of a reference.
        (["python", "t.py", f"--per-device-batch-size={BATCH}"], ()),
        (["python", "t.py", f"--batch_size_per_device={BATCH}"], ()),
        (["python", "t.py", f"--training.local_batch_size={BATCH}"], ()),
        (["python", "t.py", "--micro_train_batch_size", BATCH], ()),
        (["python", "t.py", f"data.micro_batch_size_per_gpu={BATCH}"], ()),
        (["python", "t.py", f"--device_train_microbatch_size={BATCH}"], ()),
        (["python", "t.py", f"--mbs={BATCH}"], ()),
        (["sh", "-c", "python t.py --batch_size_per_gpu ${AUTOTUNER_BATCH_SIZE:-8}"], ()),
        (["sh", "-c", "python t.py --batch_size_per_gpu $((AUTOTUNER_BATCH_SIZE))"], ()),
        # In a configuration file, or a program, that the script writes.
        (
            ["sh", "-c", 'cat > c <<E\n{"train_micro_batch_size_per_gpu": $AUTOTUNER_BATCH_SIZE, "x": 1}\nE'],
            (),
        ),
        (["sh", "-c", f"cat > c.yaml <<E\nper_device_train_batch_size: {BATCH}\nE"], ()),
        (["sh", "-c", "yq -i '.a.per_device_batch_size = env(AUTOTUNER_BATCH_SIZE)' c.yaml"], ()),
        (["sh", "-c", f'sed -i "s/^per_device_bs: .*/per_device_bs: {BATCH}/" c.yaml'], ()),
        (["python", "-c", f"{WHOLE}\nrun(per_device_train_batch_size=bs, lr=0.1)"], ()),
        (["python", "-c", f"{SDK}\nrun(per_device_train_batch_size=hp.batch_size)"], ()),
        (["python", "-c", "run(micro_batch_size=int(os.getenv('AUTOTUNER_BATCH_SIZE', '8')))"], ()),
    ],
)
def test_a_process_that_is_given_the_batch_of_all_through_another_variable_is_warned_of(command, values):
    made = manifest(master=replica(container(command=command, env=values)))
    assert [w for w in wiring_warnings(made, [], processes=4) if "each of the 4" in w.rule]
    assert not [w for w in wiring_warnings(made, [], processes=1) if "each of the" in w.rule]


@pytest.mark.parametrize(
    "command",
    [
        ["python", "t.py", f"--per_device_eval_batch_size={BATCH}"],
        ["python", "t.py", f"--num_micro_batches={BATCH}"],
        ["sh", "-c", "python t.py --per_device_train_batch_size $((AUTOTUNER_BATCH_SIZE / 4))"],
        ["sh", "-c", 'cat > c <<E\n{"train_batch_size": $AUTOTUNER_BATCH_SIZE}\nE'],
        ["sh", "-c", f'sed "s/BATCH/{BATCH}/" a > b; sed "s/batch_size: 8/batch_size: {BATCH}/" a > b'],
        ["sh", "-c", f'echo "micro_batch_size = {BATCH}"; python t.py --batch-size={BATCH}'],
        ["python", "-c", f"{WHOLE} // 4\nrun(per_device_train_batch_size=bs)"],
        ["python", "-c", f"{WHOLE}\nrun(per_device_train_batch_size=bs // world)"],
    ],
)
def test_a_batch_that_is_divided_or_is_not_a_processs_raises_no_such_doubt(command):
    made = manifest(master=replica(container(command=command)))
    assert not [w for w in wiring_warnings(made, [], processes=4) if "each of the" in w.rule]


@pytest.mark.parametrize(
    ("args", "remedy"),
    [
        ([*PASSED, "--gradient-accumulation-steps=4"], "--gradient-accumulation-steps=1"),
        ([*PASSED, "--accum_iter", "4"], "--accum_iter 1"),
        ([f"data.batch_size={BATCH}", f"lr={LR}", "trainer.accumulate_grad_batches=4"],
         "trainer.accumulate_grad_batches=1"),
    ],
)  # fmt: skip
def test_steps_that_are_each_given_the_batch_of_all_are_warned_of(args, remedy):
    (found,) = warnings(command=["python", "train.py"], args=args)
    assert "trains 4 times as much" in found.rule
    assert found.remedy == remedy
    assert found.is_seen
    assert found.name == "batch_size"


@pytest.mark.parametrize(
    "args",
    [
        [*PASSED, "--gradient-accumulation-steps=1"],
        [*PASSED, "--eval_accumulation_steps=4"],
        [f"--global-batch-size={BATCH}", f"--lr={LR}", "--gradient-accumulation-steps=4"],
        [f"--train_batch_size={BATCH}", f"--lr={LR}", "--gradient_accumulation_steps=4"],
        [*PASSED, "--accum=$(AUTOTUNER_ACCUMULATION_STEPS)"],
        [*PASSED, "--accum=auto"],
        ["--batch-size=$(AUTOTUNER_MICRO_BATCH_SIZE)", f"--lr={LR}", "--accum=4"],
    ],
)
def test_steps_that_share_the_batch_raise_no_such_doubt(args):
    found = warnings(command=["python", "train.py"], args=args)
    assert not any("times as much" in warning.rule for warning in found)


def test_a_train_job_is_read_too():
    job = {
        "kind": "TrainJob",
        "spec": {"trainer": {"command": ["python", "t.py"], "args": ["--batch-size=64", *PASSED[1:]]}},
    }
    assert any("a fixed value" in w.rule for w in wiring_warnings(job, ["learning_rate"]))


def test_a_searched_hyperparameter_of_any_name_is_looked_for():
    found = warnings(args=[*PASSED, "--label-smoothing=0.1"], names=("learning_rate", "label_smoothing"))
    assert any("--label-smoothing=$(AUTOTUNER_LABEL_SMOOTHING)" in w.remedy for w in found)


@pytest.mark.parametrize(
    "broken",
    [{}, {"spec": None}, {"spec": {"pytorchReplicaSpecs": {"Master": [1]}}}, {"spec": {"trainer": "x"}}],
)
def test_what_is_no_job_raises_nothing(broken):
    assert wiring_warnings(broken, ["learning_rate"]) == []


@pytest.mark.parametrize(
    "text", ["$" * 500_000, "'" * 500_001, "--a=" * 200_000, "a." * 300_000, "${A" * 200_000]
)
def test_no_text_costs_more_than_a_moment(text):
    started = time.process_time()
    warnings(command=["sh", "-c", text], args=[text], env=env(OUT=text), script=text)
    assert time.process_time() - started < 3


def test_a_hyperparameter_whose_name_is_spelt_in_two_ways_is_told_with_the_other_name():
    (found,) = warnings(args=PASSED, names=("learningrate",), command=["python", "train.py"])
    assert "nothing in command, args or env refers to AUTOTUNER_LEARNINGRATE" in str(found)
    assert "AUTOTUNER_LEARNING_RATE is passed on, but no trial changes it: use one name" in str(found)
    assert str(found).endswith("for example learning_rate in autotuner.dev/search-space")
    (other,) = warnings(args=PASSED, names=("momentum",), command=["python", "train.py"])
    assert "pass it on" in str(other)


PASSES = "torchrun train.py --bs=$AUTOTUNER_BATCH_SIZE"
LOST = {
    "a line without a backslash before it": (
        f"{PASSES}\n  --lr=$AUTOTUNER_LEARNING_RATE",
        "begins a command",
    ),
    "a blank behind the backslash": (f"{PASSES} \\ \n  --lr $(AUTOTUNER_LEARNING_RATE)", "begins a command"),
    "a comment between the lines": (
        f"{PASSES} \\\n  # --lr=0.1 \\\n  --lr=$AUTOTUNER_LEARNING_RATE",
        "begins a command",
    ),
    "single quotes": (f"{PASSES} --lr='$AUTOTUNER_LEARNING_RATE'", "is in single quotes"),
    "single quotes around a word": (f"{PASSES} --lr '${{AUTOTUNER_LEARNING_RATE}}'", "is in single quotes"),
    "a backslash": (f"{PASSES} lr=\\$AUTOTUNER_LEARNING_RATE", "behind a backslash"),
    "a variable that is not exported": (f"LR=$AUTOTUNER_LEARNING_RATE\n{PASSES}", "export it"),
    "a variable that is not exported, behind another": (
        f'cd /a; LR="$AUTOTUNER_LEARNING_RATE"; {PASSES}',
        "export it",
    ),
    "a configuration with its end in quotes": (
        f"cat > /a/c.yaml <<'EOF'\nlr: ${{AUTOTUNER_LEARNING_RATE}}\nEOF\n{PASSES} --config /a/c.yaml",
        "is written to /a/c.yaml as it is",
    ),
}


@pytest.mark.parametrize(("script", "says"), LOST.values(), ids=LOST.keys())
def test_an_option_that_a_script_does_not_pass_on_is_warned_of(script, says):
    (warning,) = warnings(["bash", "-c", script])
    assert says in warning.rule
    assert "AUTOTUNER_LEARNING_RATE" in warning.value


PRINTED = [
    'echo "lr: $AUTOTUNER_LEARNING_RATE; go"',
    "printf '%s\\n' $(AUTOTUNER_LEARNING_RATE)",
    ": ${AUTOTUNER_LEARNING_RATE:?must be set}",
    '[ -z "$AUTOTUNER_LEARNING_RATE" ] && exit 1',
    'if [[ -z "$AUTOTUNER_LEARNING_RATE" ]]; then\n  exit 1\nfi',
]


@pytest.mark.parametrize("line", PRINTED)
def test_a_variable_that_a_script_only_prints_or_tests_is_not_passed_on(line):
    (warning,) = warnings(["bash", "-c", f"set -e\n{line}\n{PASSES}"])
    assert warning.rule.startswith("the script only prints or tests AUTOTUNER_LEARNING_RATE")


KEPT = [
    f"LR=$AUTOTUNER_LEARNING_RATE\n{PASSES} --lr=$LR",
    f"LR=$AUTOTUNER_LEARNING_RATE\nexport LR\n{PASSES}",
    f"export LR=$AUTOTUNER_LEARNING_RATE\n{PASSES}",
    f"set -a\nLR=$AUTOTUNER_LEARNING_RATE\n{PASSES}",
    f"LR=$AUTOTUNER_LEARNING_RATE {PASSES}",
    f"cat > .env <<EOF\nLR=$AUTOTUNER_LEARNING_RATE\nEOF\n{PASSES}",
    f'echo "lr: $AUTOTUNER_LEARNING_RATE" > c.yaml\n{PASSES} --config c.yaml',
    f'echo "lr: $AUTOTUNER_LEARNING_RATE" \\\n  | tee c.yaml\n{PASSES} --config c.yaml',
    f'{{\n  echo "lr: $AUTOTUNER_LEARNING_RATE"\n}} > c.yaml\n{PASSES} --config c.yaml',
    f"echo $(sed -i s/X/$AUTOTUNER_LEARNING_RATE/ c.yaml) > log; {PASSES} --config c.yaml",
    f'[ -n "$AUTOTUNER_LEARNING_RATE" ] && A="--lr=$AUTOTUNER_LEARNING_RATE"\n{PASSES} $A',
    f"A=(\n  --lr=$AUTOTUNER_LEARNING_RATE\n)\n{PASSES} ${{A[@]}}",
    f'A="\n  --lr=$AUTOTUNER_LEARNING_RATE\n"\n{PASSES} $A',
    f"{PASSES} \\\n  --lr=$AUTOTUNER_LEARNING_RATE  # --lr=0.1 \\\n",
    f"A='{PASSES} --lr=$AUTOTUNER_LEARNING_RATE'\neval $A",
    f"bash -c '{PASSES} --lr=$AUTOTUNER_LEARNING_RATE'",
    f"echo '--lr=$AUTOTUNER_LEARNING_RATE'; {PASSES} --lr=$AUTOTUNER_LEARNING_RATE",
    f"cat > c.yaml <<EOF\nlr: ${{AUTOTUNER_LEARNING_RATE}}\nEOF\n{PASSES} --config c.yaml",
    f"cat > c.yaml <<'EOF'\nlr: ${{oc.env:AUTOTUNER_LEARNING_RATE}}\nEOF\n{PASSES} --config c.yaml",
    f"cat > c.yaml <<'EOF'\nlr: ${{AUTOTUNER_LEARNING_RATE}}\nEOF\nenvsubst < c.yaml > d\n{PASSES} d",
    f"{PASSES} --config <(cat c.yaml) --lr=$AUTOTUNER_LEARNING_RATE",
    f"cat > a.sh <<'EOF'\n{PASSES} --lr=$AUTOTUNER_LEARNING_RATE\nEOF\nbash a.sh",
    f"case $1 in\n  --lr) A=--lr=$AUTOTUNER_LEARNING_RATE;;\nesac\n{PASSES} $A",
]


@pytest.mark.parametrize("script", KEPT)
def test_an_option_that_a_script_passes_on_in_another_way_is_no_warning(script):
    assert warnings(["bash", "-c", script]) == []


def test_the_options_of_a_very_long_script_are_not_read_for_ever():
    started = time.perf_counter()
    warnings(["bash", "-c", f"{PASSES}\n--lr=$AUTOTUNER_LEARNING_RATE\n" * 20_000])
    assert time.perf_counter() - started < 5


SERVERS = [
    ["/usr/sbin/sshd", "-D"],
    ["sh", "-c", "mkdir -p /run/sshd && /usr/sbin/sshd -De"],
    ["bash", "-c", "service ssh start; sleep infinity"],
]


@pytest.mark.parametrize("server", SERVERS)
def test_a_pod_in_which_another_ones_launcher_starts_processes_passes_nothing_on(server):
    master = replica(container(args=PASSED))
    made = manifest(master=master, worker=replica(container(command=server)))
    assert wiring_warnings(made, ["learning_rate"]) == []
    for other in (["sleep", "infinity"], ["sh", "-c", "/usr/sbin/sshd; python train.py"]):
        made = manifest(master=master, worker=replica(container(command=other)))
        assert len(wiring_warnings(made, ["learning_rate"])) == 1
    assert len(warnings(server)) == 1


@pytest.mark.parametrize(
    ("option", "is_warned_of"),
    [
        (f"train_dataloader.batch_size={BATCH}", True),
        (f"--data.train_data_loader.batch_size={BATCH}", True),
        # The script may have one loader for all, or divide it.
        (f"data.batch_size={BATCH}", False),
        (f"loader_workers.batch_size={BATCH}", False),
    ],
)
def test_the_batch_of_all_for_a_loader_is_warned_of(option, is_warned_of):
    made = manifest(master=replica(container(command=["torchrun", "t.py", option, f"--lr={LR}"])))
    found = wiring_warnings(made, ["learning_rate"], processes=4)
    assert [w.rule[:29] for w in found] == ["is the batch of a loader, and"] * is_warned_of
    assert wiring_warnings(made, ["learning_rate"], processes=1) == []


def test_the_batch_of_an_evaluation_may_be_fixed():
    fixed = ["val_dataloader.batch_size=8", "--data.test.batch-size=8", "eval/batch_size=8"]
    assert warnings(args=[*PASSED, *fixed]) == []


@pytest.mark.parametrize("option", ["--accum=4", "--accumulate=4", "train.accumulation=4"])
def test_a_fixed_accumulation_by_a_short_name_is_warned_of(option):
    (only,) = warnings(["python", "t.py", *PASSED, option])
    assert "to each of 4 steps trains 4 times as much" in only.rule


def test_a_variable_of_a_trial_in_another_container_is_warned_of():
    writes = {"name": "cfg", "image": "alpine", "command": ["sh", "-c", "echo $AUTOTUNER_SEED > /c/seed"]}
    shares = {"name": "log", "image": "alpine", "env": container()["env"], "command": ["tail", "-f", "/l"]}
    uploads = {"name": "up", "image": "s3", "env": env(PLACE="s3://a/$(AUTOTUNER_TRIAL)")}
    made = manifest(master=replica(container(args=PASSED)))
    pod = made["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    pod["initContainers"] = [writes]
    pod["containers"] += [shares, uploads]
    found = wiring_warnings(made, ["learning_rate"])
    assert [warning.where for warning in found] == ["Master container cfg", "Master container up"]
    assert all("in the training container only" in warning.rule for warning in found)


def test_a_variable_of_the_environment_need_not_be_exported_again():
    script = f"LR=$AUTOTUNER_LEARNING_RATE\n{PASSES}"
    assert warnings(["bash", "-c", script], env=env(LR="$(AUTOTUNER_LEARNING_RATE)")) == []


def test_an_option_of_a_launcher_on_a_line_of_its_own_is_warned_of():
    script = f"torchrun \\   # all GPUs\n  --nproc_per_node=2 \\\n  {PASSES} --lr $AUTOTUNER_LEARNING_RATE"
    (warning,) = warnings(["bash", "-c", script])
    assert (warning.value, warning.rule[:16]) == ("--nproc_per_node=2", "begins a command")


def test_a_path_with_the_name_of_the_pod_is_the_trials_own():
    label = {"fieldRef": {"fieldPath": "metadata.labels['training.kubeflow.org/job-name']"}}
    named = [
        {"name": "JOB", "valueFrom": label},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    assert warnings(args=[*PASSED, "--output_dir=/o/$(JOB)", "--save_dir=/s/$(POD)"], env=named) == []
    script = f"{PASSES} --lr=$AUTOTUNER_LEARNING_RATE --output_dir=/o/${{POD}}"
    assert warnings(["bash", "-c", script], env=named) == []
    for place in ("$(NODE)", "$(HOSTNAME)"):
        (shared,) = warnings(args=[*PASSED, f"--output_dir=/o/{place}"], env=named)
        assert "trials share this path" in shared.rule
