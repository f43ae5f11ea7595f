"""For Lightning's `Trainer`.

    trainer = Trainer(callbacks=[LightningCallback()], ...)

That is all: before the optimizers and loaders are made, the trial's hyperparameters replace the attributes
and `hparams` of the same names, of the module and of the data module, and after each validation the logged
metrics are reported. Without the tuner, nothing is changed.

The tuner also reads what Lightning prints by itself: a metric logged with `prog_bar=True` in its tqdm bar,
and the table of `validate` and `test`. But where rich is installed, Lightning's bar is rich's, which shows
nothing in a log before the run is over.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.parsing import lightning_getattr, lightning_hasattr, lightning_setattr

from autotuner import sdk
from autotuner.train.callbacks.shares import per_process
from autotuner.train.throughput import Throughput

__all__ = ["LightningCallback"]


class LightningCallback(Callback):  # type: ignore[misc, unused-ignore]  # Any where it is not installed
    """Applies the trial's hyperparameters before the optimizers are made, and reports after each validation.

    A hyperparameter is applied where the module, its `hparams` or the data module has one of that name:
    what `configure_optimizers` and the loaders read. What `__init__` has already used, such as the width of
    a layer, is the script's to read, with `autotuner.sdk`. `batch_size` becomes what one process takes at
    once, and the trainer's `accumulate_grad_batches` the rest. The seed is set when this object is made:
    make it before the module for its weights to follow.

    Args:
        environment: Where the tuner's values are; the process's environment where None.

    Raises:
        ValueError: When training starts: nothing has a `batch_size`, or it cannot be realised exactly.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
        self.hyperparameters = sdk.hyperparameters(environment)
        self._throughput = Throughput()
        self._batch_size = self.hyperparameters.get("batch_size")
        if "seed" in self.hyperparameters:
            seed_everything(int(self.hyperparameters.seed), workers=True)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Apply the hyperparameters."""
        if stage != "fit":
            return
        names = [name for name in self.hyperparameters if lightning_hasattr(pl_module, name)]
        present = {name: lightning_getattr(pl_module, name) for name in names}
        typed = {name: value for name, value in present.items() if isinstance(value, (bool, int, float, str))}
        values = sdk.hyperparameters(self._environment, **typed)
        for name in names:
            if name != "batch_size":
                lightning_setattr(pl_module, name, values[name])
        if self._batch_size is None:
            return
        if "batch_size" not in names:
            raise ValueError(
                "there is no `batch_size` to set: give the module or the data module an attribute or a"
                " hyperparameter of that name, which its train_dataloader reads"
            )
        micro_batch, accumulation = per_process(
            self.hyperparameters,
            processes=trainer.world_size,
            accumulation=trainer.accumulate_grad_batches,
        )
        lightning_setattr(pl_module, "batch_size", micro_batch)
        trainer.accumulate_grad_batches = accumulation

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Count the samples of a step."""
        if self._batch_size is not None:
            # All batches are counted as full ones; the last of an epoch may be smaller.
            self._throughput.add(int(self._batch_size) // trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the logged metrics, at the number of epochs that are done."""
        del pl_module
        self._throughput.stop()
        if trainer.sanity_checking:
            return
        batches = trainer.num_training_batches
        epoch: float = trainer.current_epoch + 1
        # Validation within an epoch is at a part of it.
        if isinstance(batches, int) and batches:
            epoch = trainer.current_epoch + min((trainer.fit_loop.batch_idx + 1) / batches, 1)
        metrics = {name: value for name, value in trainer.callback_metrics.items() if name != "epoch"}
        told: dict[str, Any] = {"samples_per_second": self._throughput.samples_per_second}
        if isinstance(batches, int):
            told["steps_per_epoch"] = math.ceil(batches / trainer.accumulate_grad_batches)
        with contextlib.suppress(TypeError, AttributeError, NotImplementedError):
            told["samples_per_epoch"] = len(trainer.train_dataloader.dataset)  # type: ignore[union-attr]
        sdk.report(epoch, **{**told, **metrics})
