"""The callback, in Lightning's real Trainer; and what that prints without it."""

import contextlib
import io
import json
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autotuner.spec.target import parse_target
from autotuner.study.logs.log_reader import LogReader

lightning = pytest.importorskip("lightning.pytorch")

from autotuner.train.callbacks.lightning import LightningCallback  # noqa: E402 (only where there is Lightning)


class Classifier(lightning.LightningModule):
    def __init__(self, learning_rate=0.1, width=4):
        super().__init__()
        self.save_hyperparameters()
        self.linear = nn.Linear(4, 2)
        self.batches = []

    def training_step(self, batch, _index):
        inputs, labels = batch
        self.batches.append(len(inputs))
        return nn.functional.cross_entropy(self.linear(inputs), labels)

    def validation_step(self, batch, _index):
        inputs, labels = batch
        self.log("accuracy", (self.linear(inputs).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)


class Data(lightning.LightningDataModule):
    def __init__(self, batch_size=4):
        super().__init__()
        self.batch_size = batch_size
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        self.samples = TensorDataset(inputs, (inputs.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.samples, batch_size=self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.samples, batch_size=64)


def trainer_of(callback, folder, more=(), **options):
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[callback, *more],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def train(callback, folder, data=None, model=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on numbers of workers
        trainer = trainer_of(callback, folder, **options)
        model = Classifier() if model is None else model
        trainer.fit(model, data if data is not None else Data())
    return model, trainer


def reports(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"autotuner"')]


def test_a_trial_trains_at_its_batch_size_and_reports_every_validation(tmp_path, capsys):
    callback = LightningCallback(
        {
            "AUTOTUNER_BATCH_SIZE": "32",
            "AUTOTUNER_MICRO_BATCH_SIZE": "8",
            "AUTOTUNER_ACCUMULATION_STEPS": "4",
            "AUTOTUNER_LEARNING_RATE": "1",
            "AUTOTUNER_SEED": "9",
            "AUTOTUNER_TRIAL": "3",
        }
    )
    model, trainer = train(callback, tmp_path)
    assert set(model.batches) == {8}
    assert (trainer.accumulate_grad_batches, trainer.global_step) == (4, 4)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1.0
    found = reports(capsys.readouterr().out)
    assert [line["step"] for line in found] == [1, 2]
    assert all(0 <= line["accuracy"] <= 1 for line in found)
    assert found[-1]["samples_per_second"] > 0
    assert [(line["samples_per_epoch"], line["steps_per_epoch"]) for line in found] == [(64, 2)] * 2


def test_validations_within_an_epoch_are_reported_at_their_part_of_it(tmp_path, capsys):
    train(LightningCallback({}), tmp_path, val_check_interval=0.5)
    assert [line["step"] for line in reports(capsys.readouterr().out)] == [0.5, 1, 1.5, 2]


def test_a_validation_outside_of_the_training_is_at_the_epochs_that_are_complete(tmp_path, capsys):
    trainer = trainer_of(LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"}), tmp_path)
    model, data = Classifier(), Data()
    trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    trainer.validate(model, data, verbose=False)
    found = reports(capsys.readouterr().out)
    assert [line["step"] for line in found] == [0, 1, 2, 2]
    assert [line.get("batch_size") for line in found] == [None, 32, 32, 32]


@pytest.mark.parametrize("name", ["step", "batch_size", "samples_per_epoch"])
def test_a_logged_metric_does_not_take_the_place_of_what_is_reported(tmp_path, capsys, name):
    class Named(Classifier):
        def validation_step(self, batch, index):
            super().validation_step(batch, index)
            self.log(name, 7.0)

    train(LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"}), tmp_path, model=Named())
    found = reports(capsys.readouterr().out)
    assert [(line["step"], line["batch_size"], line["samples_per_epoch"]) for line in found] == [
        (1, 32, 64),
        (2, 32, 64),
    ]


def test_manual_optimization_is_refused_where_it_would_train_another_batch(tmp_path):
    class Manual(Classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, index):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, index))
            optimizer.step()

    told = {"AUTOTUNER_BATCH_SIZE": "32"}
    model, _ = train(LightningCallback(told), tmp_path, model=Manual())
    assert set(model.batches) == {32}
    told |= {"AUTOTUNER_MICRO_BATCH_SIZE": "8", "AUTOTUNER_ACCUMULATION_STEPS": "4"}
    with pytest.raises(ValueError, match=r"manual optimization .*must be 1"):
        train(LightningCallback(told), tmp_path, model=Manual())


def test_without_the_tuner_nothing_is_changed(tmp_path):
    model, trainer = train(LightningCallback({}), tmp_path, accumulate_grad_batches=2)
    assert (set(model.batches), trainer.accumulate_grad_batches) == ({4}, 2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1


def test_a_seed_makes_the_weights(tmp_path):
    def weights(seed):
        callback = LightningCallback({"AUTOTUNER_SEED": seed})
        model, _ = train(callback, tmp_path)
        return model.linear.weight

    assert torch.equal(weights("1"), weights("1"))
    assert not torch.equal(weights("1"), weights("2"))


def test_a_batch_size_that_nothing_reads_is_refused(tmp_path):
    class Fixed(Data):
        def __init__(self):
            super().__init__()
            self.size = self.batch_size
            del self.batch_size

        def train_dataloader(self):
            return DataLoader(self.samples, batch_size=self.size)

    with pytest.raises(ValueError, match="no `batch_size` to set"):
        train(LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"}), tmp_path, data=Fixed())


def test_a_batch_size_that_would_not_be_trained_at_is_refused(tmp_path):
    with pytest.raises(ValueError, match="choose batch sizes that these divide"):
        train(LightningCallback({"AUTOTUNER_BATCH_SIZE": "33"}), tmp_path, accumulate_grad_batches=2)


def test_the_batch_that_is_trained_and_the_steps_of_an_epoch_are_reported(tmp_path, capsys):
    train(LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"}), tmp_path, accumulate_grad_batches=2)
    found = reports(capsys.readouterr().out)
    assert {(line["batch_size"], line["steps_per_epoch"]) for line in found} == {(32, 2)}


def test_a_loader_that_was_made_before_is_refused(tmp_path):
    class Early(Data):
        def __init__(self):
            super().__init__()
            self.loader = DataLoader(self.samples, batch_size=self.batch_size)

        def train_dataloader(self):
            return self.loader

    with pytest.raises(ValueError, match="loads 4 samples at once: must be 32"):
        train(LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"}), tmp_path, data=Early())


@pytest.mark.parametrize(
    ("finder", "told"),
    [
        ("BatchSizeFinder", "BATCH_SIZE"),
        ("LearningRateFinder", "LEARNING_RATE"),
        ("LearningRateFinder", "LR"),
    ],
)
def test_lightnings_own_searches_are_refused(tmp_path, finder, told):
    callback = LightningCallback({f"AUTOTUNER_{told}": "32"})
    callbacks = [callback, getattr(lightning.callbacks, finder)()]
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=callbacks, logger=False, default_root_dir=tmp_path
    )
    with pytest.raises(ValueError, match=f"{finder} .*must be removed"):
        trainer.fit(Classifier(), Data())


def test_a_tuner_that_scales_the_batch_size_is_refused(tmp_path):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"})],
        logger=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(ValueError, match=r"BatchSizeFinder .*must be removed"):
        lightning.tuner.Tuner(trainer).scale_batch_size(Classifier(), datamodule=Data())


def test_an_accumulation_that_changes_is_refused(tmp_path):
    scheduler = lightning.callbacks.GradientAccumulationScheduler({1: 2})
    with pytest.raises(ValueError, match="accumulate_grad_batches is 2: must stay 1"):
        train(LightningCallback({"AUTOTUNER_BATCH_SIZE": "32"}), tmp_path, more=[scheduler])


class Logging(Classifier):
    """Shows its metric in the progress bar, and keeps what it has measured."""

    def __init__(self):
        super().__init__()
        self.measured = []

    def validation_step(self, batch, _index):
        inputs, labels = batch
        value = (self.linear(inputs).argmax(1) == labels).float().mean()
        self.log("val_accuracy", value, prog_bar=True)
        if not self.trainer.sanity_checking:
            self.measured.append(float(value))


def test_what_its_bar_and_its_table_show_is_read(tmp_path):
    bar = lightning.callbacks.TQDMProgressBar()
    module, log = Logging(), io.StringIO(newline="")
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=3,
            callbacks=[bar],
            logger=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, Data())
        fitted = log.getvalue()
        trainer.validate(module, Data())
    parser = LogReader(parse_target("val_accuracy >= 0.5"))
    parser.feed(fitted)
    parser.close()
    read = [(m.step, pytest.approx(m.value, abs=1e-3)) for m in parser.measurements]
    assert list(enumerate(module.measured[:3])) == read
    table = LogReader(parse_target("val_accuracy >= 0.5"))
    table.feed(log.getvalue()[len(fitted) :])
    table.close()
    assert [m.value for m in table.measurements] == [pytest.approx(module.measured[3])]
