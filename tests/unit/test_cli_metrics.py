"""`autotuner metrics` shows what would be read from a log."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from autotuner.cli import app
from autotuner.study import formats

RUN = "epoch=1 accuracy=0.3\nepoch=2 accuracy=0.95\nepoch=3 accuracy=0.5\n"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(RUN)
    return path


def run(*arguments, **options):
    return CliRunner().invoke(app, ["metrics", *map(str, arguments)], **options)


def test_a_log_that_is_read_ends_with_0(log):
    result = run(log, "--target", "accuracy >= 0.9")
    assert result.exit_code == 0
    assert "reads accuracy=0.3 at epoch 1 from: epoch=1 accuracy=0.3" in result.output
    assert "accuracy >= 0.9 is reached at step 2" in result.output
    assert result.output.count("*") == 3


def test_json_is_for_machines(log):
    result = run(log, "--target", "accuracy >= 0.99", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "measurements": [[1, 0.3], [2, 0.95], [3, 0.5]],
        "reached": False,
        "format": "key-value",
        "warnings": [],
    }


def test_a_log_in_doubt_ends_with_1_and_reaches_nothing(log):
    log.write_text("epoch=1 accuracy=95.1\n")
    result = run(log, "--target", "accuracy >= 0.9", "--json")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["measurements"] == []
    assert not told["reached"]
    assert "autotuner.dev/target: 'accuracy >= 90'" in told["warnings"][0]
    shown = run(log, "--target", "accuracy >= 0.9")
    assert "doubt: 95.1 cannot be accuracy" in shown.output


def test_a_log_without_the_metric_ends_with_1_and_says_what_comes_near(log):
    result = run(log, "--target", "acuracy >= 0.9")
    assert result.exit_code == 1
    assert "the log has 'accuracy'" in result.output


@pytest.mark.parametrize(
    ("line", "target", "proposed"),
    [
        ("eval_loss=0.63 eval_accuracy=0.8", "eval_acc >= 0.8", ["eval_accuracy >= 0.8"]),
        ("eval_loss=0.63 eval_los_accuracy=0.8", "eval_los <= 0.8", ["eval_loss <= 0.8"]),
        ("test_accuracy=0.73", "test_acc >= 94", ["test_accuracy >= 0.94"]),
        ("test_accuracy=73.2", "test_acc >= 0.94", ["test_accuracy >= 94"]),
        ("test_accuracy=nan", "test_acc >= 94", ["test_accuracy >= 94"]),
    ],
)
def test_a_name_that_comes_near_is_of_the_same_kind_and_unit(log, line, target, proposed):
    log.write_text(f"epoch=1 {line}\n")
    said = run(log, "--target", target).output
    assert re.findall(r'autotuner.dev/target: "([^"]*)"', said) == proposed


def test_a_pattern_and_a_format_are_taken(log):
    result = run(log, "--target", "x >= 0.9", "--metric-pattern", r"accuracy=(\S+)", "--json")
    assert json.loads(result.output)["format"] == "metric-pattern"
    assert run(log, "--target", "accuracy >= 0.9", "--log-format", "json").exit_code == 1


def test_standard_input_is_a_log():
    result = run("-", "--target", "accuracy >= 0.9", input=RUN)
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--target", "accuracy > 0.9"], "--target is 'accuracy > 0.9'"),
        ([], "--target is missing"),
        (["--target", "a >= 1", "--log-format", "xml"], "--log-format is 'xml'"),
        (["--target", "a >= 1", "--metric-pattern", "("], "--metric-pattern is '('"),
    ],
)
def test_bad_arguments_end_with_2_and_a_rule(log, arguments, key):
    result = run(log, *arguments)
    assert result.exit_code == 2
    assert key in result.output
    assert "for example" in result.output


def test_a_missing_log_is_a_bad_argument(tmp_path):
    assert run(tmp_path / "none.log", "--target", "a >= 1").exit_code == 2
    assert run("--target", "a >= 1").exit_code == 2
    assert run(tmp_path, "--target", "a >= 1").exit_code == 2


def test_formats_are_listed():
    result = run("--formats")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == list(formats.NAMES)


def test_values_that_are_no_numbers_are_shown(log):
    log.write_text("epoch=1 loss=nan\nepoch=2 loss=inf\n")
    assert run(log, "--target", "loss <= 0.9").exit_code == 0
    log.write_text("".join(f"epoch={i} loss={i}\n" for i in range(1, 101)))
    assert "(84 more)" in run(log, "--target", "loss <= 0.9").output
