"""Train a small convolutional network on scikit-learn's digits with Lightning.

The only line for the autotuner is the callback: it replaces `batch_size` of the data module and
`learning_rate` of the module by the trial's before training starts, and reports after each validation.
Without the tuner, the script trains with the values given here.
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autotuner.train import make_optimizer
from autotuner.train.callbacks.lightning import LightningCallback


class Digits(LightningDataModule):
    """8 x 8 grey images of digits; the split is the same in every run."""

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 6 - 0.8
        labels = torch.tensor(digits.target)
        parts = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=digits.target)
        self.train, self.test = TensorDataset(parts[0], parts[2]), TensorDataset(parts[1], parts[3])

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Read `batch_size` here, not in the constructor, because the callback sets it in between."""
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the test set as one batch."""
        return DataLoader(self.test, batch_size=len(self.test))


class Network(LightningModule):
    """Two convolutions and a classifier, trained with SGD or LAMB."""

    def __init__(self, **hyperparameters: float | str) -> None:
        super().__init__()
        self.save_hyperparameters(hyperparameters)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the loss."""
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Log the metric; the callback reports it."""
        images, labels = batch
        self.log("accuracy", (self.layers(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer with the trial's name and learning rate."""
        return make_optimizer(self, self.hparams)


def main() -> None:
    """Train, validating after each epoch."""
    torch.set_num_threads(1)
    tuner = LightningCallback()  # before the module, for its weights to follow the trial's seed
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=12,
        callbacks=[tuner],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Network(learning_rate=0.05, optimizer="sgd"), Digits())


if __name__ == "__main__":
    main()
