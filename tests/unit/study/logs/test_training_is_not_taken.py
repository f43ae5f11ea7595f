"""However training and validation are printed, the training's accuracy reaches no target."""

from __future__ import annotations

import pytest

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader

TARGET = parse_target("acc >= 0.9")

TRAINING = [
    "train acc: {t}",
    "Training accuracy: {t} acc={t}",
    "train_acc={t}",
    "acc={t}",
    "acc: {t}",
    "loss: 0.1 acc: {t} lr: 0.1",
    "[train] acc {t}",
    "Train: acc={t}",
    "{{'acc': {t}}}",
    "train: {{'acc': {t}}}",
    "100%|##| 10/10 [00:01<00:00, acc={t}]",
    "Train: 100%|##| 10/10 [00:01<00:00, acc={t}]",
    "[100/100] acc: {t}",
    "step 100/100 acc {t}",
    "acc (train): {t}",
    "Epoch {e} acc: {t}",
    "Epoch: [{e}] acc: {t}",
    "acc {t} ({t})",
    "train/acc: {t}",
    "batch acc: {t}",
    "mean acc: {t}",
    "| acc | {t} |",
    "  acc: {t}",
    "training... acc {t}",
    "train_step: acc={t}",
    "acc[train] {t}",
    "mini-batch acc {t}",
    "Epoch {e} finished, acc {t}",
]
VALIDATION = [
    "val acc: {v}",
    "valid_acc={v}",
    "[val] acc {v}",
    "Test: acc={v}",
    "{{'val_acc': {v}}}",
    "val: {{'acc': {v}}}",
    "Val: 100%|##| 10/10 [00:01<00:00, acc={v}]",
    "Evaluating\n  acc: {v}",
    "Validation:\nacc: {v}",
    "acc (val): {v}",
    "acc on val: {v}",
    "* acc {v}",
    "acc={v}",
    "acc: {v}",
    "{{'acc': {v}}}",
    "100%|##| 5/5 [00:01<00:00, acc={v}]",
    "Test set: Average loss: 0.3, acc: {v}",
    "Val Acc.: {v}",
    "acc@val {v}",
    "acc[val] {v}",
    "acc_val {v}",
]


@pytest.mark.parametrize("training", TRAINING)
@pytest.mark.parametrize("header", ["Epoch {e}\n", "epoch={e} "])
def test_the_training_is_not_taken_for_the_validation(training, header):
    for validation in VALIDATION:
        reader, measured = LogReader(TARGET), []
        for epoch in range(3):
            values = {"t": round(0.95 + 0.01 * epoch, 2), "v": round(0.5 + 0.05 * epoch, 2), "e": epoch}
            for line in f"{header}{training}\n{validation}\n".format(**values).splitlines(keepends=True):
                reader.feed(line)
                measured += reader.measurements
        reader.close()
        measured += reader.measurements
        assert all(m.value < 0.9 for m in measured), validation
