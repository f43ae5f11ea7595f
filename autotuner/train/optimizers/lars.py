"""LARS: SGD with momentum and a step size in each layer that is proportional to the layer's weights.

You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017 (arXiv:1708.03888),
Algorithm 1. In the first epochs, the learning rate that most layers need at a large batch makes layers with a
small ratio |weights| / |gradient| diverge; LARS gives each layer a rate proportional to that ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from autotuner.train import foreach
from autotuner.train.optimizers.blocks import Batch, BlockOptimizer, Tensors, add_scaled, check, ratios

__all__ = ["Lars"]


class Lars(BlockOptimizer):
    """Implements LARS (You et al. 2017, Algorithm 1).

    For each block with weights w, gradient g and velocity v::

        trust = trust_coefficient * |w| / (|g| + weight_decay * |w|)
        v <- momentum * v + trust * (g + weight_decay * w)
        w <- w - lr * v

    The learning rate is outside of the velocity, as in `torch.optim.SGD`. With a constant rate this is the
    paper's algorithm; with a schedule it is the paper's with the momentum correction of Goyal et al. 2017
    (arXiv:1706.02677, remark 3), so schedules need nothing else. The trust of a block whose weights or
    gradient are zero is 1.

    Args:
        params: Parameters or groups. A group with `adapt: False` takes steps of SGD with momentum: biases
            and normalisations, see `autotuner.train.parameter_groups`.
        lr: Learning rate; with the usual trust coefficient, around 1 to 30.
        momentum: Decay of the velocity.
        weight_decay: The paper's beta, an L2 penalty.
        trust_coefficient: The paper's eta: the fraction of its norm by which a block changes at lr 1.

    Raises:
        ValueError: A hyperparameter is out of range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        check(lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": True,
        }
        super().__init__(params, defaults)

    def step_batch(self, batch: Batch, group: Mapping[str, Any]) -> None:
        """Update these parameters."""
        decay = group["weight_decay"]
        updates: Tensors = batch.gradients
        trust = None
        if group["adapt"]:
            weights, gradients = batch.norms(batch.weights), batch.norms(batch.gradients)
            # If the gradient is zero, the sum |g| + decay * |w| is not: this case needs its own test.
            sum_ = torch.where(gradients > 0, gradients + decay * weights, 0.0)
            trust = ratios(group["trust_coefficient"] * weights, sum_)
        if decay:
            updates = foreach.add(batch.gradients, batch.weights, alpha=decay)
        velocities = self.moments(batch, "momentum_buffer")
        foreach.mul_(velocities, group["momentum"])
        add_scaled(velocities, updates, trust)
        foreach.add_(batch.weights, velocities, alpha=-group["lr"])
