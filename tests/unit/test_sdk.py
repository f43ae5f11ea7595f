"""The line that a script prints and the environment that it reads."""

import contextlib
import copy
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner import sdk
from autotuner.spec.values import Target
from autotuner.study.logs.log_reader import LogReader
from autotuner.trial import Measurement


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
        (None, "1", 1),
        (None, "lars", "lars"),
    ],
)
def test_a_value_from_the_environment_has_the_type_of_its_default(default, text, expected):
    value = sdk.hyperparameters({"AUTOTUNER_X": text}, x=default).x
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32", 32),
        ("1e-3", 0.001),
        ("lars", "lars"),
        ("", ""),
        ("-2", -2),
        ("true", True),
        ("false", False),
    ],
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


@pytest.mark.parametrize(("default", "text"), [(0.1, "fast"), (1, ""), (1, "true"), (True, "maybe")])
def test_text_in_place_of_a_number_names_the_variable(default, text):
    with pytest.raises(ValueError, match="AUTOTUNER_X is"):
        sdk.hyperparameters({"AUTOTUNER_X": text}, x=default)


def test_a_missing_hyperparameter_says_what_to_do():
    with pytest.raises(AttributeError, match="AUTOTUNER_MOMENTUM"):
        _ = sdk.hyperparameters({}).momentum


def test_a_value_that_the_script_changes_is_changed_however_it_is_read():
    hp = sdk.hyperparameters({"AUTOTUNER_LEARNING_RATE": "0.1"}, batch_size=64)
    hp.learning_rate *= 4
    assert hp.learning_rate == hp["learning_rate"] == {**hp}["learning_rate"] == 0.4
    assert copy.deepcopy(hp) == hp


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


@given(
    st.floats(allow_subnormal=False),
    st.floats(-1e12, 1e12, allow_subnormal=False) | st.integers(-(10**14), 10**14),
    st.sampled_from(
        ["quality", "val_quality", "Qualität", "mean quality", "质量", "🎯 quality", "eval/quality"]
    ),
)
def test_a_reported_value_is_read_back_exactly(value, step, name):
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        sdk.report(step, loss=2.5, **{name: value})
    # A threshold that no value is too far from.
    reader = LogReader(Target(metric=name, comparison=">=", threshold=1e6))
    reader.feed(written.getvalue())
    reader.close()
    assert repr(reader.measurements) == repr((Measurement(float(step), value),))


def test_a_name_that_marks_the_lines_is_refused_for_a_metric():
    with pytest.raises(ValueError, match="choose another name"):
        sdk.report(1, autotuner=0.5)


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0), ("12", 0), ("", 1)])
def test_only_the_first_process_reports(monkeypatch, capsys, rank, lines):
    monkeypatch.setenv("RANK", rank)
    sdk.report(1, accuracy=0.5)
    assert len(reported(capsys)) == lines


def test_the_processes_of_a_group_are_distinguished_after_its_end():
    pytest.importorskip("torch")
    script = (
        "import torch.distributed as dist; store = dist.HashStore();"
        "dist.init_process_group('gloo', store=store, rank={rank}, world_size={size});"
        "sdk.report(1, a=1); dist.destroy_process_group(); sdk.report(2, a=1)"
    )
    assert [line["step"] for line in run(script.format(rank=0, size=1))] == [1, 2]
    other = (
        "import sys, types; group = types.ModuleType('torch.distributed'); group.is_available = lambda: True;"
        "group.get_rank = lambda: 1; group.is_initialized = lambda: True;"
        "sys.modules['torch.distributed'] = group; sdk.report(1, a=1);"
        "group.is_initialized = lambda: False; sdk.report(2, a=1)"
    )
    assert run(other) == []


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_RANK", "PMI_RANK"])
def test_the_processes_of_mpirun_are_distinguished(monkeypatch, capsys, name):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv(name, "1")
    sdk.report(1, accuracy=0.5)
    assert reported(capsys) == []
    monkeypatch.setenv("RANK", "0")  # of a launcher below mpirun
    sdk.report(1, accuracy=0.5)
    assert len(reported(capsys)) == 1


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


def run(script, **environment):
    """Run a script in a process of its own, as a trial does; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", "from autotuner import sdk\n" + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **{f"AUTOTUNER_{name}": value for name, value in environment.items()}},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


TOLD = {"BATCH_SIZE": "64", "LEARNING_RATE": "0.1", "SEED": "3"}


@pytest.mark.parametrize(
    ("script", "reads"),
    [
        ("hp = sdk.hyperparameters(); hp.batch_size; hp['seed']", ["batch_size", "seed"]),
        ("hp = sdk.hyperparameters(batch_size=1, learning_rate=1.0); hp.learning_rate", ["learning_rate"]),
        ("dict(**sdk.hyperparameters())", ["batch_size", "learning_rate", "seed"]),
        ("hp = sdk.hyperparameters(epochs=3); hp.epochs; hp.get('batch_size')", ["batch_size"]),
        ("import copy; copy.deepcopy(sdk.hyperparameters()).seed", ["seed"]),
    ],
)
def test_the_first_report_says_which_variables_were_read(script, reads):
    first, second = run(script + "; sdk.report(1, accuracy=0.5)", **TOLD)
    assert first == {"autotuner": 1, "reads": reads}
    assert second == {"autotuner": 1, "step": 1, "accuracy": 0.5}


@pytest.mark.parametrize(
    "script",
    ["", "hp = sdk.hyperparameters(batch_size=1); 'seed' in hp; len(hp); repr(hp); list(hp)"],
)
def test_what_is_not_asked_for_is_not_read(script):
    assert run(script + "\nsdk.report(1, accuracy=0.5)", **TOLD) == [
        {"autotuner": 1, "step": 1, "accuracy": 0.5}
    ]


def test_what_is_read_later_is_said_with_the_next_report_and_at_the_end():
    script = (
        "hp = sdk.hyperparameters(); hp.seed; sdk.report(1); sdk.report(2);"
        "hp.batch_size; sdk.report(3); hp.trial"
    )
    assert [line.get("reads", line.get("step")) for line in run(script, TRIAL="1", **TOLD)] == [
        ["seed"],
        1,
        2,
        ["batch_size", "seed"],
        3,
        ["batch_size", "seed", "trial"],
    ]


def test_a_script_that_prints_its_metric_by_itself_says_what_it_read_at_its_end():
    assert run("sdk.hyperparameters().seed", **TOLD) == [{"autotuner": 1, "reads": ["seed"]}]
    assert run("import sys; sdk.hyperparameters().seed; sys.stdout.close()", **TOLD) == []


def test_a_process_without_standard_output_continues():
    assert (
        run("import sys; sys.stdout = None; sdk.hyperparameters().seed; sdk.report(1, accuracy=0.5)", **TOLD)
        == []
    )


def test_without_the_tuner_and_in_other_processes_nothing_is_said():
    assert run("sdk.hyperparameters(batch_size=64).batch_size") == []
    script = "import os; os.environ['RANK'] = '1'; sdk.hyperparameters().seed; sdk.report(1)"
    assert run(script, **TOLD) == []
