"""What the command of a trial trains, compared with the batch size that it is given."""

from __future__ import annotations

import re
from typing import Any

import pytest

from autotuner.job.job import Job
from autotuner.job.wiring_notices import wiring_notices
from tests.builders import annotations, container, manifest, replica

EIGHT = {"limits": {"nvidia.com/gpu": 8}}
LAYOUT = {"AUTOTUNER_MICRO_BATCH_SIZE": "16", "AUTOTUNER_ACCUMULATION_STEPS": "1"}
RATE = "--lr=$AUTOTUNER_LEARNING_RATE"
TRAIN = f"torchrun --nproc_per_node=8 --nnodes=$PET_NNODES a.py {RATE} "
RECIPE = f"tune run --nproc_per_node=8 --nnodes=$PET_NNODES --rdzv_endpoint=$MASTER_ADDR:1 full {RATE} "
EACH = "--per_device_train_batch_size="
FILE = """
cat > c.yaml <<EOF
per_device_train_batch_size: $((AUTOTUNER_BATCH_SIZE / 16)) # of each GPU
per_device_eval_batch_size: 1
learning_rate: $AUTOTUNER_LEARNING_RATE
gradient_accumulation_steps: {}
EOF
torchrun --nproc_per_node=8 --nnodes=$PET_NNODES a.py c.yaml
"""
JSON = """
cat > ds.json <<EOF
{"train_micro_batch_size_per_gpu": $((AUTOTUNER_BATCH_SIZE / (2 * 4))), "zero_optimization": {"stage": 2}}
EOF
"""
SED = 'B=$((AUTOTUNER_BATCH_SIZE / 8)); sed -i "s/per_device_bs: .*/per_device_bs: {}/" c.yaml; '
YQ = 'B=$((AUTOTUNER_BATCH_SIZE / 8)); yq -i ".a.per_device_bs = $B" c.yaml; '
MICRO = EACH + "$AUTOTUNER_MICRO_BATCH_SIZE"


def said(script: str, own: dict[str, str] | None = None, read: str | None = None, **asked: Any) -> list[str]:
    """Return the warnings of a job with two pods of eight processes, whose batch size is 256."""
    values = {"AUTOTUNER_BATCH_SIZE": "256", "AUTOTUNER_LEARNING_RATE": "0.1", **(own or {})}
    env = [{"name": name, "value": value} for name, value in values.items()]
    made = container(command=("bash", "-c", script), env=env, resources=EIGHT)
    asked = {"batch_size": "64..4096", **asked}
    job = Job.from_manifest(manifest(master=replica(made), worker=replica(made), asked=annotations(**asked)))
    return [str(warning) for warning in wiring_notices(job, job.spec(), script=read)]


@pytest.mark.parametrize(
    ("script", "asked", "words"),
    [
        # Divided by the processes of one pod, by the number of pods, or by a number that does not follow it.
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / 8))", {}, "size=32.* size 256 .*16 processes.* 512:"),
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / PET_NNODES))", {}, "trains 2048:"),
        (f"B=$(expr $AUTOTUNER_BATCH_SIZE / 8)\n{TRAIN}{EACH}$B", {}, "trains 512:"),
        (f'B=$(echo "$AUTOTUNER_BATCH_SIZE / 8" | bc)\n{TRAIN}{EACH}$B', {}, "trains 512:"),
        (f'B=$(python -c "print($AUTOTUNER_BATCH_SIZE // 8)")\n{TRAIN}{EACH}$B', {}, "trains 512:"),
        (f"B=$((AUTOTUNER_BATCH_SIZE / 4)); {TRAIN}{EACH}$((B / 2))", {}, "trains 512:"),
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / 16))", {"workers": "1..4"}, "24 processes .* 384:"),
        # Rounded down where the batch is no multiple.
        (TRAIN + EACH + "4 --gradient_accumulation_steps=$((AUTOTUNER_BATCH_SIZE / 4 / 16))", {},
         "size=4, gradient_accumulation_steps=4'.* 272 .* 256:"),
        # torchtune's batch size is that of a process.
        (RECIPE + "batch_size=$AUTOTUNER_BATCH_SIZE", {}, "'batch_size=256'.* 4096:"),
        # A maximum.
        (f"M=$((AUTOTUNER_BATCH_SIZE / 16)); if [ $M -gt 32 ]; then M=32; fi; {TRAIN}{EACH}$M", {},
         "size=32'.* 2176 .* 512:"),
        # A configuration file.
        (FILE.format("2"), {}, "size=16, gradient_accumulation_steps=2'.* 512:"),
        (JSON + TRAIN + "--deepspeed ds.json", {}, "train_micro_batch_size_per_gpu=32'.* 512:"),
        (SED.format("$B") + TRAIN + "c.yaml", {}, "per_device_bs=32'.* 512:"),
        (YQ + TRAIN + "c.yaml", {}, "per_device_bs=32'.* 512:"),
        # Steps that are not passed on, or are the same in all trials.
        (TRAIN + MICRO, {"micro_batch_size": "1..16"}, "and on 16 processes"),
        (TRAIN + MICRO + " --accum-freq 4", {"micro_batch_size": "1..16"}, "trains 1024:"),
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / 16)) --gradient-accumulation-steps=4", {}, "trains 1024:"),
    ],
)  # fmt: skip
def test_another_batch_than_the_one_of_the_trial_is_warned_of(script, asked, words):
    (only,) = said(script, LAYOUT if asked.get("micro_batch_size") else None, **asked)
    assert re.search(words, only), only
    assert "pass on AUTOTUNER_MICRO_BATCH_SIZE and AUTOTUNER_ACCUMULATION_STEPS" in only


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / 16))", {}),
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / (PET_NNODES * 8)))", {"workers": "1..4"}),
        (FILE.format("1"), {}),
        (FILE.format("auto"), {}),
        (SED.format("$((B / 2))") + TRAIN + "c.yaml", {}),
        (FILE.format("2").rstrip() + " --gradient_accumulation_steps=1", {}),
        (TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / 16 / 2)) --gradient_accumulation_steps 2",
         {"processes_per_replica": "8", "batch_size": "256..256"}),
        (TRAIN + MICRO + " --gradient_accumulation_steps=$AUTOTUNER_ACCUMULATION_STEPS",
         {"micro_batch_size": "1..16"}),
        # With the batch of all a script finds out the steps, and an option of any name may be either.
        (TRAIN + "--micro-batch-size 4 --global-batch-size $AUTOTUNER_BATCH_SIZE", {}),
        (TRAIN + "--batch-size $((AUTOTUNER_BATCH_SIZE / 8))", {}),
        # What cannot be computed.
        (f"source b.sh; {TRAIN}{EACH}$(half $AUTOTUNER_BATCH_SIZE)", {}),
    ],
)  # fmt: skip
def test_a_batch_that_is_the_trials_or_is_not_shown_is_not_warned_of(script, asked):
    assert said(script, LAYOUT if asked.get("micro_batch_size") else None, **asked) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"bash run.sh {RATE} {EACH}$((AUTOTUNER_BATCH_SIZE / 8))", "'bash run.sh .*' starts are unknown"),
        # Hugging Face's Trainer uses all GPUs of one process.
        (f"python a.py {RATE} {EACH}$((AUTOTUNER_BATCH_SIZE / 16))", "counts as one process"),
    ],
)
def test_a_batch_of_processes_whose_number_is_uncertain_is_asked_about(script, words):
    (only,) = said(script)
    assert re.search(
        rf"size=\d+'.* batch size 256 has, and how many there are is uncertain .*{words}", only
    ), only
    assert only not in said(script, processes_per_replica="8")


@pytest.mark.parametrize("asked", [{}, {"processes_per_replica": "8"}])
def test_a_batch_that_is_divided_among_pods_that_train_apart_is_asked_about(asked):
    script = f"torchrun --standalone --nproc_per_node=8 a.py {RATE} {EACH}$((AUTOTUNER_BATCH_SIZE / 16))"
    (only,) = said(script, **asked)
    assert re.search(r"size=16'.* the pods may train apart .*group of one pod.* example --nnodes=", only), (
        only
    )


def test_processes_that_are_assumed_are_said_once():
    (only,) = said(
        f"python a.py {RATE} {MICRO}",
        LAYOUT | {"AUTOTUNER_BATCH_SIZE": "32"},
        micro_batch_size="1..16",
        batch_size="16..4096",
    )
    assert "counts as one process" in only


def test_a_script_may_read_the_steps_by_itself():
    reads = "os.environ['AUTOTUNER_ACCUMULATION_STEPS']"
    assert said(TRAIN + MICRO, LAYOUT, reads, micro_batch_size="1..16") == []


def test_a_long_script_is_not_read_for_each_trial():
    assert said("x=1\n" * 5_000 + TRAIN + EACH + "$((AUTOTUNER_BATCH_SIZE / 8))") == []


def test_the_batch_of_all_for_each_process_is_warned_of_once():
    (only,) = said(TRAIN + EACH + "$AUTOTUNER_BATCH_SIZE")
    assert "each of the 16 would take the whole one" in only
