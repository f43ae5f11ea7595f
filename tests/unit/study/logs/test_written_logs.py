"""Logs written at random: a validation that misses the target, beside numbers that would meet it.

Whatever stands between its lines, no poll of such a log has reached the target, and what is read is the
validation's, all of it.
"""

from __future__ import annotations

import random

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader

NAMES = ("acc", "accuracy", "Accuracy", "top1", "Acc@1", "F1", "mIoU", "AUC")
LABELS = ("val", "Val", "valid", "Validation", "eval")
SEPARATORS = (": ", "=", " = ", " ")
EPOCHS = ("Epoch {e}", "epoch {e}:", "Epoch: {e}", "Epoch [{e}/9]", "[Epoch {e}]", "epoch={e}")
OTHERS = (
    "Epoch {e} lr{s}0.1",
    "train loss{s}0.3 train {n}{s}{high}",
    "Train {n}{s}{high}",
    "{n} on train set: {high}",
    "train/{n}{s}{high}",
    "Train: 100%|####| 10/10 [00:01<00:00, 9.0it/s, {n}={high}]",
    "Epoch {e}: 100%|####| 10/10 [00:01<00:00, 9.0it/s, loss=0.3, {n}={high}]",
    '{{"split": "train", "{n}": {high}, "epoch": {e}}}',
    "Best {v} {n}{s}{high}",
    "best {n} so far: {high}",
    '{{"best": {{"{n}": {high}}}, "epoch": {e}}}',
    "{n} improved from 0.1 to {high}",
    "max {n}{s}{high}",
    "prev {n}{s}{high}",
    "  class cat {n}{s}{high}",
    "{n} per class: {high} {high}",
    "EMA {v} {n}{s}{high}",
    "{v} {n} (EMA){s}{high}",
    "running {n}{s}{high}",
    "batch 10/20 {n}{s}{high}",
    "step {e}07 loss 0.3 {n}{s}{high}",
    "Test {n}{s}{high}",
    "Saving checkpoint to ckpt_epoch={e}_{n}={high}.pt",
    "Loaded model with {n}{s}{high}",
    "{n}@5{s}{high}",
    "{n}_macro{s}{high}",
    "target {n}{s}{high}",
    "{n} threshold {high}",
    '{{"config": {{"{n}": {high}}}}}',
    "| {n} | {high} |",
    "fold 0 {n}{s}{high}",
    "std {n}{s}{high}",
    "soft {v} {n}{s}{high}",
    "Peak {v} {n}{s}{high}",
    "[best] {v} {n}{s}{high}",
    "Best result (epoch 1): {v} {n}{s}{high}",
    "best until now: {v} {n}{s}{high}",
    "{v} step 3 of 100 {n}{s}{high}",
)


def written(chance):
    """Return a log, the metric's name and the validation's values."""
    name, label, separator = chance.choice(NAMES), chance.choice(LABELS), chance.choice(SEPARATORS)
    epoch, way = chance.choice(EPOCHS), chance.choice(("inline", "header", "joined"))
    values = [round(chance.uniform(0.3, 0.85), 4) for _ in range(chance.randint(1, 4))]
    others, place = chance.sample(OTHERS, 2), chance.choice(("before", "after", "start", "end"))

    def said(at):
        high = f"{chance.uniform(0.955, 0.995):.4f}"
        return [o.format(e=at, s=separator, n=name, v=label, high=high) for o in others]

    lines = said(1) if place == "start" else []
    for at, value in enumerate(values, start=1):
        lines += said(at) if place == "before" else []
        shown, placed = f"{label} {name}{separator}{value}", epoch.format(e=at)
        joined = f"{label}_{name}{separator}{value} {placed}"
        lines += {"inline": [f"{placed} {shown}"], "header": [placed, shown], "joined": [joined]}[way]
        lines += said(at) if place == "after" else []
    lines += said(len(values)) if place == "end" else []
    named = chance.choice((name, f"{label} {name}", f"{label}_{name}"))
    return "".join(line + "\n" for line in lines), named, values


@pytest.mark.parametrize("seed", range(12))
def test_no_number_beside_the_validation_is_taken_for_it(seed):
    chance, read, late = random.Random(seed), 0, 0
    for _ in range(150):
        log, name, values = written(chance)
        target = parse_target(f"{name} >= 0.95")
        reader = LogReader(target)
        for line in log.splitlines(keepends=True):
            reader.feed(line)
            assert not any(target.is_met(m.value) for m in reader.measurements), log
        known = len(reader.measurements)
        reader.close()
        assert [m.value for m in reader.measurements] in (values, []), log
        read += bool(reader.measurements)
        late += len(reader.measurements) - known > 1
    assert read > 100
    # A running trial is judged by what is known of its log so far.
    assert late < 5
