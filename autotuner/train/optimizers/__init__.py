"""Optimizers for large batches, and the ones they are compared with, by name."""

from autotuner.train.optimizers.groups import parameter_groups
from autotuner.train.optimizers.lamb import Lamb
from autotuner.train.optimizers.lans import Lans
from autotuner.train.optimizers.lars import Lars
from autotuner.train.optimizers.named import OPTIMIZERS, make_optimizer

__all__ = ["OPTIMIZERS", "Lamb", "Lans", "Lars", "make_optimizer", "parameter_groups"]
