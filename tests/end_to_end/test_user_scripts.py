"""Scripts as users have them: what each trains, prints and resumes, and what is made of it."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.end_to_end.programs import Place

CURVE = """
import json, math, os, pathlib, random
noise = random.Random({seed})
batch = int(os.environ["AUTOTUNER_BATCH_SIZE"])
for epoch in range(1, 13):
    value = 0.96 - 0.9 * math.exp(-0.4 * epoch) + noise.uniform(-0.004, 0.004)
    print(f"val_accuracy={{value{effect}:.6f}} epoch={{epoch}}", flush=True)
"""
ASKED = {"target": "val_accuracy >= 0.9", "batch_size": "16..256", "run_length": "12"}
BY_SEED = 'int(os.environ["AUTOTUNER_SEED"])'
EFFECT = " - 1e-4 * batch"


@pytest.mark.parametrize("seed", [BY_SEED, "7"], ids=["its seed alone", "nothing"])
def test_a_script_that_uses_no_setting_gets_no_answer(place: Place, seed: str):
    file = place.write(CURVE.format(seed=seed, effect=""), asked=ASKED).name
    ran = place.run("tune", file, "--json")
    assert (ran.code, ran.json) == (1, None), ran.err
    shown = place.run("status", "toy-tuning", "--json").json
    assert (shown["phase"], shown["reason"]) == ("Failed", "NotWired")
    assert "measured the same to the last digit" in shown["message"]
    assert "--batch-size=$(AUTOTUNER_BATCH_SIZE)" in shown["message"]
    assert "answer" not in shown
    assert len(place.ledger()) <= 3


def test_a_script_that_uses_its_settings_and_no_seed_is_warned_of_its_confirmations(place: Place):
    asked = {**ASKED, "batch_size": "16..32", "confirmations": "2"}
    ran = place.run("tune", place.write(CURVE.format(seed="7", effect=EFFECT), asked=asked).name)
    assert ran.code == 0, ran.out + ran.err
    message = place.run("status", "toy-tuning", "--json").json["message"]
    assert "the script does not use AUTOTUNER_SEED" in message


def test_a_script_that_ignores_its_batch_gets_no_confirmed_answer_though_its_digits_differ(place: Place):
    by_rate = " + 0.002 * math.log(float(os.environ['AUTOTUNER_LEARNING_RATE']))"
    jitter = " + random.SystemRandom().gauss(0, 0.0005)"  # as on a GPU
    losses = """
for step in range(8):
    loss = 2.3 - 0.05 * step + noise.uniform(-0.01, 0.01) + random.SystemRandom().gauss(0, 0.00005)
    print(f"step {{step}} loss {{loss:.5f}}", flush=True)
for epoch in"""
    script = CURVE.replace("\nfor epoch in", losses).format(seed=BY_SEED, effect=by_rate + jitter)
    ran = place.run("tune", place.write(script, asked={**ASKED, "batch_size": "16..64"}).name, "--json")
    assert ran.code == 3, ran.out + ran.err
    assert (ran.json["batch_size"], ran.json["confirmed"]) == (64, 0)
    assert ran.json["reason"] == "AnswerInDoubt"
    message = place.run("status", "toy-tuning", "--json").json["message"]
    assert "batch size 64 cannot be confirmed: the first losses of trial" in message


CHECKPOINTS = """
import json, math, os, pathlib, random
noise = random.Random(int(os.environ["AUTOTUNER_SEED"]))
batch = int(os.environ["AUTOTUNER_BATCH_SIZE"])
folder = pathlib.Path({folder})
checkpoint = folder / "last.json"
start = json.loads(checkpoint.read_text())["epoch"] if checkpoint.exists() else 0
for epoch in range(start + 1, start + 13):
    value = 0.96 - 0.9 * math.exp(-0.4 * epoch) - 1e-4 * batch + noise.uniform(-0.004, 0.004)
    print(f"val_accuracy={{value:.6f}} epoch={{epoch}}", flush=True)
    checkpoint.write_text(json.dumps({{"epoch": epoch}}))
"""


def test_a_run_that_resumes_another_trials_checkpoint_is_not_counted_and_is_said(place: Place):
    file = place.write(CHECKPOINTS.format(folder='"."'), asked={**ASKED, "max_trials": "6"}).name
    ran = place.run("tune", file, "--json")
    assert ran.code != 0
    assert ran.json is None or ran.json["confirmed"] == 0
    message = place.run("status", "toy-tuning", "--json").json["message"]
    assert "it seems to have resumed that trial's checkpoint, and is not counted" in message
    assert "$(AUTOTUNER_OUTPUT_DIR)" in message


def test_each_trial_has_a_folder_of_its_own_for_checkpoints(place: Place):
    asked = {**ASKED, "batch_size": "16..32"}
    script = CHECKPOINTS.format(folder='os.environ["AUTOTUNER_OUTPUT_DIR"]')
    ran = place.run("tune", place.write(script, asked=asked).name, "--json")
    assert ran.code == 0, ran.err
    assert "resumed" not in place.run("status", "toy-tuning", "--json").json["message"]
    for number in range(len(place.ledger())):
        kept = place.tuning / "output" / str(number) / "last.json"
        assert 3 <= json.loads(kept.read_text())["epoch"] <= 12


PERCENT = """
for epoch in range(1, 6):
    print(f"Validation accuracy: {{min(19 * epoch, 93.1):.1f}}{sign} (epoch {{epoch}})", flush=True)
"""


def test_percentages_with_their_sign_are_read_as_the_fractions_that_the_target_means(place: Place):
    ran = place.run("tune", place.write(PERCENT.format(sign="%"), asked={"max_trials": "1"}).name)
    (entry,) = (json.loads(each) for each in place.ledger().values())
    assert [value for _, value in entry["curve"]] == pytest.approx([0.19, 0.38, 0.57, 0.76, 0.931])
    assert entry["outcome"] == "reached"
    assert "reads accuracy=0.19 at epoch 1 from: Validation accuracy: 19.0% (epoch 1)" in ran.out


def test_percentages_without_a_sign_are_in_doubt_and_the_target_that_fits_is_named(place: Place):
    ran = place.run("tune", place.write(PERCENT.format(sign="")).name)
    assert ran.code == 3, ran.out + ran.err
    assert "the metric is in doubt" in ran.out
    assert 'autotuner.dev/target: "accuracy >= 90"' in ran.out.replace("'", '"')
    assert place.ledger() == {}


def test_a_metric_of_another_name_is_reported_after_one_run(place: Place):
    script = 'for epoch in range(1, 6):\n    print(f"epoch {epoch}: val_acc_top1 = {0.19 * epoch:.3f}")\n'
    ran = place.run("tune", place.write(script, asked={"target": "val_acc >= 0.9"}).name)
    assert ran.code == 1
    assert len(place.ledger()) == 1
    assert "the log has 'val_acc_top1'" in ran.out
    assert 'autotuner.dev/target: "val_acc_top1 >= 0.9"' in ran.out
    assert "add autotuner.dev/metric-pattern: " in ran.out


@pytest.mark.parametrize("end", ["sys.exit(0.9)", "sys.exit('done')"])
def test_a_script_that_exits_with_another_code_than_0_after_every_run_is_tuned(place: Place, end: str):
    script = CURVE.format(seed=BY_SEED, effect=" - 4e-4 * batch") + f"import sys\n{end}\n"
    asked = {**ASKED, "run_length": None, "batch_size": "16..512", "max_trials": "12", "confirmations": "1"}
    ran = place.run("tune", place.write(script, asked=asked).name, "--json")
    assert ran.code == 0, ran.out + ran.err
    # 0.953 after twelve epochs: 132 is the largest batch size.
    assert 64 <= ran.json["batch_size"] <= 150
    missed = [t for t in place.trials() if t["outcome"] == "missed"]
    assert missed
    assert all("it failed after its last step: exit code 1" in t["message"] for t in missed)


def test_a_program_that_fails_behind_a_pipe_has_failed(place: Place):
    file = place.write("raise ValueError('no data')\n")
    job = yaml.safe_load(file.read_text())
    pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    pod["containers"][0]["command"] = ["bash", "-c", "python train.py 2>&1 | tee log.txt"]
    ran = place.run("tune", place.save(job).name)
    assert ran.code == 1
    assert "ValueError: no data" in ran.out
    assert "set -o pipefail" in ran.out
    assert "print it from rank 0" not in ran.out


def test_a_line_that_the_terminal_cannot_show_ends_nothing(place: Place):
    place.environment = {"PYTHONIOENCODING": "ascii"}
    script = CURVE.format(seed=BY_SEED, effect=EFFECT).replace('f"val', 'f"\\u2713 val')
    script = "import sys\nsys.stdout.reconfigure(encoding='utf-8')\n" + script
    ran = place.run("tune", place.write(script, asked={**ASKED, "batch_size": "16..32"}).name)
    assert ran.code == 0, ran.out + ran.err
    assert "from: \\u2713 val_accuracy=" in ran.out


def test_a_script_that_prints_nothing_is_reported_with_where_to_print(place: Place):
    ran = place.run("tune", place.write("open('train.log', 'w').write('accuracy=0.95 epoch=1')").name)
    assert ran.code == 1
    assert "its log is empty: print accuracy from rank 0 to standard output or standard error" in ran.out
    assert "metric-pattern" not in ran.out
