"""The line that a script prints and the environment that it reads."""

import copy
import json
import math
import pickle
import re
import subprocess
import sys

import pytest

from autotuner import sdk


def reported(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("default", "text", "expected"),
    [
        (256, "1024", 1024),
        (256, "1024.0", 1024),
        (0, "1e-4", 1e-4),
        (0.1, "1", 1.0),
        ("sgd", "1", "1"),
        (True, "false", False),
        (False, "1", True),
        (0.1, "inf", math.inf),
        (1, "inf", math.inf),
    ],
)
def test_a_value_from_the_environment_has_the_type_of_its_default(default, text, expected):
    value = sdk.hyperparameters({"AUTOTUNER_X": text}, x=default).x
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"), [("32", 32), ("1e-3", 0.001), ("lars", "lars"), ("", ""), ("-2", -2)]
)
def test_a_value_without_a_default_is_a_number_where_it_looks_like_one(text, expected):
    value = sdk.hyperparameters({"AUTOTUNER_X": text})["x"]
    assert value == expected
    assert type(value) is type(expected)


def test_defaults_hold_where_the_tuner_sets_nothing():
    hp = sdk.hyperparameters({"PATH": "/bin", "AUTOTUNER_": "3"}, batch_size=64, learning_rate=0.1)
    assert dict(hp) == {"batch_size": 64, "learning_rate": 0.1}
    assert len(hp) == 2


def test_the_tuner_wins_over_defaults_whatever_their_case():
    hp = sdk.hyperparameters({"AUTOTUNER_BATCHSIZE": "512", "AUTOTUNER_SEED": "7"}, batchSize=64)
    assert dict(hp) == {"batchSize": 512, "seed": 7}


@pytest.mark.parametrize(("default", "text"), [(0.1, "fast"), (1, ""), (True, "maybe")])
def test_text_in_place_of_a_number_names_the_variable(default, text):
    with pytest.raises(ValueError, match="AUTOTUNER_X is"):
        sdk.hyperparameters({"AUTOTUNER_X": text}, x=default)


def test_a_missing_hyperparameter_says_what_to_do():
    with pytest.raises(AttributeError, match="AUTOTUNER_MOMENTUM"):
        _ = sdk.hyperparameters({}).momentum


def test_hyperparameters_can_be_copied_and_sent_to_another_process():
    hp = sdk.hyperparameters({}, batch_size=64)
    assert copy.deepcopy(hp) == hp
    assert pickle.loads(pickle.dumps(hp)).batch_size == 64
    assert repr(hp) == "Hyperparameters(batch_size=64)"


def test_a_report_is_one_line_of_json(capsys):
    sdk.report(3, accuracy=0.93, samples_per_second=9031, noise_scale=None)
    assert reported(capsys) == [{"autotuner": 1, "step": 3, "accuracy": 0.93, "samples_per_second": 9031}]


def test_values_that_are_not_numbers_to_json_are_reported_as_strings(capsys):
    sdk.report(0.5, loss=math.nan, gain=math.inf, depth=-math.inf)
    (line,) = reported(capsys)
    assert line == {"autotuner": 1, "step": 0.5, "loss": "NaN", "gain": "Infinity", "depth": "-Infinity"}
    assert [float(line[name]) for name in ("gain", "depth")] == [math.inf, -math.inf]


def test_a_tensor_is_reported_as_its_number(capsys):
    torch = pytest.importorskip("torch")
    sdk.report(1, accuracy=torch.tensor(0.5), correct=torch.tensor(3))
    assert reported(capsys) == [{"autotuner": 1, "step": 1, "accuracy": 0.5, "correct": 3.0}]


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0), ("12", 0), ("", 1)])
def test_only_the_first_process_reports(monkeypatch, capsys, rank, lines):
    monkeypatch.setenv("RANK", rank)
    sdk.report(1, accuracy=0.5)
    assert len(reported(capsys)) == lines


def test_a_report_reaches_a_pipe_at_once_and_imports_only_the_standard_library():
    """A trial may be killed after any line, so a line must not wait in a buffer."""
    script = (
        "import os, sys; from autotuner import sdk; sdk.report(1, a=2)\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in {'torch', 'numpy', 'pydantic'}))\n"
        "sys.stdout.flush(); sdk.report(2, a=3); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    first, modules, second = done.stdout.splitlines()
    assert [json.loads(first)["step"], modules, json.loads(second)["step"]] == [1, "[]", 2]


def test_the_example_of_the_docstring_reads_what_the_meter_has():
    train = pytest.importorskip("autotuner.train")
    (attribute,) = re.findall(r"noise_scale=meter\.(\w+)", sdk.__doc__ or "")
    assert hasattr(train.NoiseScale(), attribute)
