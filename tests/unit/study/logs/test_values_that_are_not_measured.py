"""A number that meets the target beside a training that does not is never counted as reached."""

from __future__ import annotations

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader
from tests.unit.study.logs.test_samples import SAMPLES

BEFORE = (
    "target {name}: {value}\n",
    "stop_at:\n  {name}: {value}\n",
    'config: {{"{name}": {value}}}\n',
    "[config] {name}={value} batch=32\n",
    "train(goal={value}, {name}={value})\n",
    "| {name} | {value} |\n",
    "zero-shot {name}: {value}\n",
    "Loading checkpoint with {name}={value}\n",
    "paper reports {name} {value}\n",
)
AFTER = (
    "Best {name}: {value}\n",
    "{name} (best): {value}\n",
    "{name}_best: {value}\n",
    "{name} improved from 0.1 to {value}\n",
    "Saving ckpt-{name}={value}.pt\n",
    "assert {name} >= {value}\n",
    "upper bound {name}: {value}\n",
    "per-sample {name}: {value}\n",
)


def _missed():
    """Yield the samples that end without the target."""
    for sample in (parameter.values[0] for parameter in SAMPLES):
        target, read = parse_target(sample["target"]), _read(sample["target"], sample["log"])
        if read and sample["log"].endswith("\n") and not any(map(target.is_met, read)):
            yield sample, target


def _read(target, text):
    reader = LogReader(parse_target(target))
    reader.feed(text)
    reader.close()
    return [m.value for m in reader.measurements]


def _meeting(target):
    """Return a value that meets the target, and may be the metric's."""
    is_up = (target.comparison == ">=") == (target.threshold > 0)
    value = target.threshold * (1.02 if is_up else 0.97)
    return f"{min(value, 1.0) if target.threshold <= 1 else value:.4g}"


@pytest.mark.parametrize("line", [*BEFORE, *AFTER])
def test_a_number_that_meets_the_target_is_not_enough(line):
    reached = []
    for sample, target in _missed():
        said = line.format(name=target.metric, value=_meeting(target))
        text = said + sample["log"] if line in BEFORE else sample["log"] + said
        if any(map(target.is_met, _read(sample["target"], text))):
            reached.append(sample["name"])
    assert reached == []


@pytest.mark.parametrize("filler", ["0.0000", "0", "-1", "-1.0"])
@pytest.mark.parametrize("name", ["val_loss", "val_error", "perplexity"])
def test_a_loss_that_is_printed_before_its_first_evaluation_is_not_counted(name, filler):
    head = "".join(f"step {step} | train_loss 4.{step} | {name} {filler}\n" for step in (10, 20))
    assert _read(f"{name} <= 2", head + f"step 30 | train_loss 2.9 | {name} 3.1\n") == [3.1]


@pytest.mark.parametrize("lines", [1, 2, 30])
def test_a_loss_of_zero_that_was_never_evaluated_is_no_success(lines):
    text = "".join(f"step {step} | loss 4.{step} | val_loss 0.0000\n" for step in range(lines))
    assert _read("val_loss <= 2", text) == []


def test_while_only_zeros_are_printed_nothing_is_reached():
    reader = LogReader(parse_target("val_error <= 2"))
    reader.feed("epoch 1 | val_error 0.0\nepoch 2 | val_error 0.0\n")
    assert reader.measurements == ()
    reader.close()
    assert [m.value for m in reader.measurements] == [0, 0]  # a run without any error


@pytest.mark.parametrize(
    ("target", "text", "values"),
    [
        ("val_acc >= 0.9", "epoch 1 val_acc 0.0\nepoch 2 val_acc 0.1\n", [0, 0.1]),  # nothing is learnt yet
        ("val_loss <= 2", "epoch 1 val_loss 3.0\nepoch 2 val_loss 0.0\n", [3, 0]),
        ("elbo <= -2", "epoch 1 elbo -1\nepoch 2 elbo -3\n", [-1, -3]),
    ],
)
def test_other_zeros_count(target, text, values):
    assert _read(target, text) == values
