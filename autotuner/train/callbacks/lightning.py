"""For Lightning's `Trainer`.

    trainer = Trainer(callbacks=[LightningCallback()], ...)

Before the optimizers and loaders are made, the callback sets the attributes and `hparams` of the module and
of the data module that have the names of the trial's hyperparameters. After each validation it reports the
logged metrics. Without the tuner it changes nothing.

It compares what is trained with the trial: another batch size of the loader, another accumulation, and
Lightning's own searches for a batch size or a learning rate are errors.

The tuner also reads what Lightning prints by itself: a metric logged with `prog_bar=True` in its tqdm bar,
and the table of `validate` and `test`. But if rich is installed, Lightning uses rich's bar, which
writes nothing to a log before the run has ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.parsing import lightning_getattr, lightning_hasattr, lightning_setattr

from autotuner import sdk
from autotuner.train.callbacks.shares import per_process, report
from autotuner.train.throughput import Throughput

__all__ = ["LightningCallback"]


class LightningCallback(Callback):  # type: ignore[misc, unused-ignore]  # Any where it is not installed
    """Applies the trial's hyperparameters before the optimizers are made, and reports after each validation.

    A hyperparameter is set if the module, its `hparams` or the data module has one of that name, for
    `configure_optimizers` and the loaders to read. If `__init__` needs it already, as for the width of a
    layer, the script must read it with `autotuner.sdk`. `batch_size` becomes what one process takes at
    once, and the trainer's `accumulate_grad_batches` the rest. The seed is set when the callback
    is created: create it before the module, so that the module's weights depend on it.

    Args:
        environment: The environment to read; if None, that of the process.

    Raises:
        ValueError: When training starts: nothing has a `batch_size`, or it cannot be realised exactly, or
            another is about to be trained, as by manual optimization, which does not accumulate; later, where
            the accumulation is changed.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
        self.hyperparameters = sdk.hyperparameters(environment)
        self._throughput = Throughput()
        self._batch_size = self.hyperparameters.get("batch_size")
        self._micro_batch = self._accumulation = 0
        if "seed" in self.hyperparameters:
            seed_everything(int(self.hyperparameters.seed), workers=True)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Apply the hyperparameters."""
        if stage != "fit":
            return
        self._refuse_searches(trainer)
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
        if accumulation > 1 and not pl_module.automatic_optimization:
            raise ValueError(
                f"batch size {self._batch_size} needs {accumulation} accumulation steps, and the module's"
                " manual optimization takes a step after each micro-batch: must be 1; leave the annotation"
                " micro-batch-size out, or use automatic optimization"
            )
        lightning_setattr(pl_module, "batch_size", micro_batch)
        trainer.accumulate_grad_batches = accumulation
        self._micro_batch, self._accumulation = micro_batch, accumulation

    def _refuse_searches(self, trainer: Trainer) -> None:
        """Refuse Lightning's own searches for what the trial sets; `Tuner` runs them as callbacks too."""
        for name, searches in (("batch_size", BatchSizeFinder), ("learning_rate", LearningRateFinder)):
            is_set = name in self.hyperparameters or (
                name == "learning_rate" and "lr" in self.hyperparameters
            )
            callbacks = getattr(trainer, "callbacks", ())  # not among its declared attributes
            if is_set and any(isinstance(callback, searches) for callback in callbacks):
                raise ValueError(
                    f"{searches.__name__} (also as a method of Tuner) chooses a {name} of its own: must be"
                    f" removed, because the trial sets its {name}"
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the loader's batch with what was asked."""
        del pl_module
        if self._batch_size is None:
            return
        loader = trainer.train_dataloader
        loaded = getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
        loaded = getattr(loader, "batch_size", None) or loaded
        # Loaders of the script's own making may not say.
        if isinstance(loaded, int) and loaded != self._micro_batch:
            raise ValueError(
                f"train_dataloader loads {loaded} samples at once: must be {self._micro_batch}, which is what"
                f" {trainer.world_size} processes x {self._accumulation} accumulation steps leave of batch"
                f" size {self._batch_size}; read self.batch_size in train_dataloader, not in __init__"
            )

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Count the samples of a step, and see that as many are accumulated as was asked."""
        if self._batch_size is not None:
            if trainer.accumulate_grad_batches != self._accumulation:
                raise ValueError(
                    f"accumulate_grad_batches is {trainer.accumulate_grad_batches}: must stay"
                    f" {self._accumulation}, or another batch size is trained than {self._batch_size}; leave"
                    " GradientAccumulationScheduler out of a trial"
                )
            # All batches are counted as full ones; the last of an epoch may be smaller.
            self._throughput.add(int(self._batch_size) // trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the logged metrics, at the number of epochs that are done."""
        del pl_module
        self._throughput.stop()
        if trainer.sanity_checking:
            return
        batches = trainer.num_training_batches
        # `trainer.validate` before or after the training is at the epochs that are complete.
        epoch: float = trainer.current_epoch
        if trainer.state.fn == TrainerFn.FITTING:
            # Validation within an epoch is at a part of it.
            is_part = isinstance(batches, int) and batches > 0
            epoch += min((trainer.fit_loop.batch_idx + 1) / batches, 1) if is_part else 1
        metrics = {name: value for name, value in trainer.callback_metrics.items() if name != "epoch"}
        is_counted = isinstance(batches, int) and batches > 0
        report(
            epoch,
            metrics,
            samples_per_second=self._throughput.samples_per_second,
            batch_size=self._trained(trainer),
            steps_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches) if is_counted else None,
            samples_per_epoch=_samples(trainer),
        )

    def _trained(self, trainer: Trainer) -> int | None:
        """Return the batch size that is trained; None where the trial sets none, and before the training."""
        if not self._micro_batch:
            return None
        return self._micro_batch * trainer.accumulate_grad_batches * trainer.world_size


def _samples(trainer: Trainer) -> int | None:
    """Return the samples of the training's data set; None where it has no length."""
    data = getattr(trainer.train_dataloader, "dataset", None)
    try:
        return len(data)  # type: ignore[arg-type]  # what has no length says so
    except (TypeError, NotImplementedError):
        return None
