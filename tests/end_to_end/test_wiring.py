"""Whether a user's script trains what a trial asks: what is said before the first trial, and after."""

from __future__ import annotations

import json
import re

import pytest

from tests.end_to_end.programs import LEARNS, Place

PASSED = ["--batch-size=$(AUTOTUNER_BATCH_SIZE)", "--lr=$(AUTOTUNER_LEARNING_RATE)"]


def test_validate_and_tune_warn_of_what_the_script_never_reads(place: Place):
    script = LEARNS.replace('os.environ.get("AUTOTUNER_LEARNING_RATE"), ', "")
    file = place.write(script, args=["--lr", "0.1", "--output-dir", "/mnt/out"]).name
    checked = place.run("validate", file, "--json")
    assert (checked.code, checked.json["valid"], checked.json["mistakes"]) == (0, True, [])
    rules = " ".join(warning["rule"] for warning in checked.json["warnings"])
    # The script reads its batch size by itself.
    assert "AUTOTUNER_BATCH_SIZE" not in rules
    assert (
        "nothing in command, args or env refers to AUTOTUNER_LEARNING_RATE, and the script does not" in rules
    )
    assert "a fixed value ignores AUTOTUNER_" in rules
    assert "trials share this path" in rules
    assert all(set(warning) == {"key", "value", "rule", "example"} for warning in checked.json["warnings"])

    shown = place.run("validate", file)
    assert shown.err.count("warning: ") == len(checked.json["warnings"])
    ran = place.run("tune", file)
    assert ran.code == 0, ran.err
    assert ran.err.count("warning: ") == len(checked.json["warnings"])
    assert "  in doubt: Master args" in ran.out
    assert "a fixed value ignores AUTOTUNER_" in place.run("status", "toy-tuning", "--json").json["message"]


def test_a_job_that_passes_everything_on_is_not_warned_of(place: Place):
    ran = place.run("validate", place.write(LEARNS, args=PASSED).name)
    assert (ran.code, ran.err) == (0, "")


def test_mistakes_do_not_hide_warnings(place: Place):
    ran = place.run("validate", place.write(asked={"max_trials": "many"}, args=["--lr=1"]).name, "--json")
    assert ran.code == 2
    assert any("a fixed value" in warning["rule"] for warning in ran.json["warnings"])


def test_the_line_that_the_metric_is_read_from_is_shown(place: Place):
    script = LEARNS.replace("accuracy=", "val_accuracy=")
    ran = place.run("tune", place.write(script, asked={"target": "val_accuracy >= 0.9"}, args=PASSED).name)
    assert ran.code == 0, ran.out + ran.err
    (first,) = re.findall(
        r"reads (val_accuracy=0\.1\d+ at epoch 1 from: val_accuracy=0\.1\d+ epoch=1)\n", ran.out
    )
    assert place.run("status", "toy-tuning", "--json").json["reads"] == first
    assert first in place.run("status", "toy-tuning").out
    assert all('"reads":' in entry for entry in place.ledger().values())


TWICE = """
import os, time
for epoch in range(1, 6):
    print(f"model accuracy={0.1 * epoch:.3f} epoch={epoch}", flush=True)
    print(f"ema accuracy={min(1.0, 0.2 * epoch):.3f} epoch={epoch}", flush=True)
time.sleep(float(os.environ.get("PACE", "0")))
"""
"""Prints two values of its metric, and does not say which is meant."""


@pytest.mark.parametrize("pace", ["0", "600"], ids=["ended", "running"])
def test_a_log_in_doubt_ends_the_command_until_the_annotation_is_there(place: Place, pace: str):
    place.environment = {"PACE": pace}
    file = place.write(TWICE, args=PASSED).name
    held = place.run("tune", file)
    assert held.code == 3, held.out + held.err
    assert "the metric is in doubt" in held.out
    assert "ema accuracy=0.200 epoch=1" in held.out
    assert "add autotuner.dev/metric-pattern" in held.out
    assert "run the same command again" in held.err
    assert place.ledger() == {}
    assert not place.processes()
    shown = place.run("status", "toy-tuning", "--json").json
    assert (shown["phase"], shown["reason"]) == ("Invalid", "MetricInDoubt")
    assert place.run("tune", file, "--json").json is None

    place.environment = {}
    pattern = r"ema accuracy=(?P<value>\S+) epoch=(?P<step>\d+)"
    asked = {"metric_pattern": pattern}
    ran = place.run("tune", place.write(TWICE, asked=asked, args=PASSED).name)
    assert ran.code == 0, ran.out + ran.err
    assert "reads accuracy=0.2 at step 1 from: ema accuracy=0.200 epoch=1" in ran.out


def test_a_script_that_was_changed_instead_is_run_again(place: Place):
    file = place.write(TWICE, args=PASSED).name
    assert place.run("tune", file).code == 3
    (place.folder / "train.py").write_text(LEARNS)
    assert place.run("tune", file).code == 0


def test_a_variable_that_the_sdk_never_read_is_warned_of_by_name(place: Place):
    script = """
from autotuner import sdk
hp = sdk.hyperparameters(batch_size=32, learning_rate=0.1)
for epoch in range(1, 6):
    sdk.report(epoch, accuracy=0.2 * epoch - hp.batch_size * 1e-4, batch_size=hp.batch_size)
"""
    ran = place.run("tune", place.write(script).name, "--json")
    assert ran.code == 0, ran.err
    # The script names the learning rate, so nothing is amiss before it runs.
    assert "warning" not in ran.err
    message = place.run("status", "toy-tuning", "--json").json["message"]
    assert "nothing in command, args or env refers to AUTOTUNER_LEARNING_RATE, and no run has" in message
    assert "AUTOTUNER_BATCH_SIZE is" not in message
    entries = [json.loads(entry) for entry in place.ledger().values()]
    assert all(entry["variables"] == ["batch_size"] for entry in entries)
    assert {entry["extras"]["batch_size"] for entry in entries} == {32.0}


def test_a_run_length_in_epochs_for_a_log_of_steps_ends_the_command_until_it_is_right(place: Place):
    script = LEARNS.replace("epoch={epoch}", "step={63 * epoch}")
    assert script != LEARNS
    held = place.run("tune", place.write(script, asked={"run_length": "5"}, args=PASSED).name)
    assert held.code == 3, held.out + held.err
    assert "run-length is 5, but the first accuracy of trial 0 is at step 63 of its log" in held.out
    assert not place.processes()
    shown = place.run("status", "toy-tuning", "--json").json
    assert (shown["phase"], shown["reason"]) == ("Invalid", "RunLengthTooShort")
    right = place.write(script, asked={"run_length": "315"}, args=PASSED)
    assert place.run("tune", right.name).code == 0


def test_a_batch_whose_run_is_too_short_to_report_bounds_the_answer_and_the_command_says_so(place: Place):
    script = """
import os
batch = int(os.environ["AUTOTUNER_BATCH_SIZE"])
for step in range(1, 8 * 3200 // batch + 1):
    if step % 100 == 0:
        print(f"accuracy={min(0.95, step * batch / 3200) - batch * 1e-4:.4f} step={step}", flush=True)
"""
    asked = {"batch_size": "32..4096", "run_length": "800"}
    ran = place.run("tune", place.write(script, asked=asked, args=PASSED).name)
    assert ran.code == 0, ran.out + ran.err
    assert "warning: trial" in ran.out
    assert "ended without reporting accuracy: at batch size" in ran.out
    # At 256 a run has a hundred steps, and reports once.
    assert 200 < place.run("status", "toy-tuning", "--json").json["answer"]["batch_size"] <= 256
