"""The callback, in the real Trainer of Hugging Face; and what that prints without it."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
from transformers import Trainer, TrainingArguments

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader
from autotuner.train.callbacks.huggingface import HuggingFaceCallback


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.batches = []

    def forward(self, inputs, labels):
        if self.training:
            self.batches.append(len(inputs))
        logits = self.linear(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def dataset(count=64):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 4, generator=generator)
    return [{"inputs": row, "labels": int(row.sum() > 0)} for row in inputs]


def arguments(folder, **options):
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        **{"disable_tqdm": True, **options},
    )


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def train(args, callback):
    model = Classifier()
    Trainer(
        model,
        args,
        train_dataset=dataset(),
        eval_dataset=dataset(16),
        compute_metrics=accuracy,
        callbacks=[callback],
    ).train()
    return model


def reports(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"autotuner"')]


def test_a_trial_trains_at_its_batch_size_and_reports_every_evaluation(tmp_path, capsys):
    args = arguments(tmp_path)
    model = train(
        args,
        HuggingFaceCallback(
            args,
            {
                "AUTOTUNER_BATCH_SIZE": "32",
                "AUTOTUNER_MICRO_BATCH_SIZE": "8",
                "AUTOTUNER_ACCUMULATION_STEPS": "4",
                "AUTOTUNER_LR": "0.25",
                "AUTOTUNER_WEIGHT_DECAY": "1",
                "AUTOTUNER_LR_SCHEDULER_TYPE": "constant",
                "AUTOTUNER_SEED": "9",
                "AUTOTUNER_TRIAL": "3",
                "AUTOTUNER_WIDTH": "7",
            },
        ),
    )
    assert set(model.batches) == {8}
    assert (args.gradient_accumulation_steps, args.learning_rate, args.weight_decay) == (4, 0.25, 1.0)
    assert (args.lr_scheduler_type, args.seed) == ("constant", 9)
    found = reports(capsys.readouterr().out)
    evaluations = [line for line in found if "eval_accuracy" in line]
    assert [line["step"] for line in evaluations] == [1.0, 2.0]
    assert all(0 <= line["eval_accuracy"] <= 1 for line in evaluations)
    assert {line["learning_rate"] for line in found if "learning_rate" in line} == {0.25}
    assert {(line["samples_per_epoch"], line["steps_per_epoch"]) for line in found} == {(64, 2)}


def test_without_the_tuner_nothing_is_changed_but_reports(tmp_path, capsys):
    args = arguments(tmp_path, gradient_accumulation_steps=2)
    model = train(args, HuggingFaceCallback(args, {}))
    assert (set(model.batches), args.gradient_accumulation_steps, args.learning_rate) == ({4}, 2, 0.1)
    assert len([line for line in reports(capsys.readouterr().out) if "eval_accuracy" in line]) == 2


def test_without_micro_batches_the_scripts_accumulation_stays(tmp_path):
    args = arguments(tmp_path, gradient_accumulation_steps=2)
    callback = HuggingFaceCallback(args, {"AUTOTUNER_BATCH_SIZE": "32", "AUTOTUNER_WIDTH": "7"})
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (16, 2)
    assert callback.hyperparameters.width == 7


@pytest.mark.parametrize(
    "environment",
    [
        {"AUTOTUNER_BATCH_SIZE": "33"},
        {"AUTOTUNER_BATCH_SIZE": "1"},
        {
            "AUTOTUNER_BATCH_SIZE": "32",
            "AUTOTUNER_MICRO_BATCH_SIZE": "8",
            "AUTOTUNER_ACCUMULATION_STEPS": "2",
        },
    ],
)
def test_a_batch_size_that_would_not_be_trained_at_is_refused(tmp_path, environment):
    args = arguments(tmp_path, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="choose batch sizes that these divide"):
        HuggingFaceCallback(args, environment)


@pytest.mark.parametrize("text", ["", "many", "32.5", "nan"])
def test_a_batch_size_that_is_no_whole_number_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"AUTOTUNER_BATCH_SIZE is .*must be a positive whole number"):
        HuggingFaceCallback(arguments(tmp_path), {"AUTOTUNER_BATCH_SIZE": text})


TOLD = {"AUTOTUNER_BATCH_SIZE": "32", "AUTOTUNER_LEARNING_RATE": "0.25"}


def test_the_batch_that_is_trained_and_the_steps_of_an_epoch_are_reported(tmp_path, capsys):
    args = arguments(tmp_path, gradient_accumulation_steps=2)
    train(args, HuggingFaceCallback(args, TOLD))
    found = reports(capsys.readouterr().out)
    assert {(line["batch_size"], line["steps_per_epoch"]) for line in found} == {(32, 2)}


def test_what_the_script_logs_is_reported_and_does_not_take_the_place_of_what_is_known(tmp_path, capsys):
    class Logging(Trainer):
        def log(self, logs, *more):
            own = {"step": 7, "batch_size": 4, "samples_per_second": 1.0, "autotuner": 2}
            scalars = {"recall": np.float32(0.5), "tensor": torch.tensor(0.25), "text": "no number"}
            super().log({**logs, **own, **scalars}, *more)

    args = arguments(tmp_path)
    callback = HuggingFaceCallback(args, TOLD)
    Logging(
        Classifier(), args, train_dataset=dataset(), eval_dataset=dataset(16), callbacks=[callback]
    ).train()
    found = reports(capsys.readouterr().out)
    assert {line["step"] for line in found} == {1, 2}
    assert {(line["batch_size"], line["recall"], line["tensor"]) for line in found} == {(32, 0.5, 0.25)}
    assert not any("text" in line for line in found)


def test_a_search_for_a_batch_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="auto_find_batch_size is True: must be False"):
        HuggingFaceCallback(arguments(tmp_path, auto_find_batch_size=True), TOLD)
    args = arguments(tmp_path)
    callback = HuggingFaceCallback(args, TOLD)
    args.auto_find_batch_size = True
    with pytest.raises(ValueError, match="auto_find_batch_size is True: must be False"):
        train(args, callback)
    HuggingFaceCallback(arguments(tmp_path, auto_find_batch_size=True), {})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("per_device_train_batch_size", 8, "batch size 8 .*must be the trial's 32"),
        ("gradient_accumulation_steps", 3, "batch size 96 .*must be the trial's 32"),
        ("learning_rate", 0.1, "learning_rate is 0.1: must be the trial's 0.25"),
    ],
)
def test_arguments_that_were_changed_after_the_callback_are_refused(tmp_path, name, value, said):
    args = arguments(tmp_path)
    callback = HuggingFaceCallback(args, TOLD)
    setattr(args, name, value)
    with pytest.raises(ValueError, match=said):
        train(args, callback)


def test_a_loader_with_another_batch_is_refused(tmp_path):
    class Own(Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=4)

    args = arguments(tmp_path)
    callback = HuggingFaceCallback(args, TOLD)
    trainer = Own(Classifier(), args, train_dataset=dataset(), eval_dataset=dataset(16), callbacks=[callback])
    with pytest.raises(ValueError, match=r"batch size 4 .*must be the trial's 32"):
        trainer.train()


def test_an_optimizer_with_a_rate_of_its_own_is_warned_of(tmp_path):
    args = arguments(tmp_path)
    callback = HuggingFaceCallback(args, TOLD)
    model = Classifier()
    trainer = Trainer(
        model,
        args,
        train_dataset=dataset(),
        eval_dataset=dataset(16),
        callbacks=[callback],
        optimizers=(torch.optim.SGD(model.parameters(), lr=0.5), None),
    )
    with pytest.warns(UserWarning, match="learning rates are .*0.5.*must be the trial's 0.25"):
        trainer.train()


def test_a_loss_that_diverges_is_reported(tmp_path, capsys):
    class Diverging(Classifier):
        def forward(self, inputs, labels):
            output = super().forward(inputs, labels)
            return {**output, "loss": output["loss"] * float("nan")}

    args = arguments(tmp_path)
    callback = HuggingFaceCallback(args, {})
    Trainer(
        Diverging(), args, train_dataset=dataset(), eval_dataset=dataset(16), callbacks=[callback]
    ).train()
    assert "NaN" in {line.get("loss") for line in reports(capsys.readouterr().out)}


@pytest.mark.parametrize("has_bar", [False, True])
def test_what_it_prints_by_itself_is_read(tmp_path, has_bar):
    args = arguments(tmp_path, disable_tqdm=not has_bar)
    trainer = Trainer(
        Classifier(), args, train_dataset=dataset(), eval_dataset=dataset(16), compute_metrics=accuracy
    )
    log = io.StringIO(newline="")
    # A container's log has both streams.
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        trainer.train()
    for metric in ("eval_accuracy", "eval_loss", "loss"):
        parser = LogReader(parse_target(f"{metric} >= 0.5"))
        parser.feed(log.getvalue())
        parser.close()
        logged = [(entry["epoch"], entry[metric]) for entry in trainer.state.log_history if metric in entry]
        read = [(m.step, pytest.approx(m.value, rel=1e-3)) for m in parser.measurements]
        assert logged == read
        assert len(read) == 2
