"""LANS: LAMB with normalised gradients and Nesterov's look-ahead.

Zheng, Lin, Zha and Li, "Accelerated Large Batch Optimization of BERT Pretraining in 54 minutes", 2020
(arXiv:2006.13484), Algorithm 2. It trained with batches of 96 thousand, LAMB with 64 thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autotuner.train import foreach
from autotuner.train.optimizers.blocks import Batch, add_scaled, ratios
from autotuner.train.optimizers.moments import MomentOptimizer

__all__ = ["Lans"]


class Lans(MomentOptimizer):
    """Implements LANS (Zheng et al. 2020, Algorithm 2, with the identity as its function phi).

    For each block with weights w and gradient g, after t steps::

        g <- g / |g|
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        root = sqrt(v / (1 - beta2**t)) + eps
        p = m / (1 - beta1**t) / root + weight_decay * w
        q = g / root + weight_decay * w
        w <- w - lr * (beta1 * |w| / |p| * p + (1 - beta1) * |w| / |q| * q)

    The ratios of a block whose weights or update are zero are 1. Because gradients are normalised, clipping
    them changes nothing.

    Args:
        params: Parameters or groups. A group with `adapt: False` takes both ratios to be 1: biases and
            normalisations, see `autotuner.train.parameter_groups`.
        lr: Learning rate; around 0.001 to 0.02.
        betas: Decay of the first and the second moment.
        eps: Added to the root of the second moment.
        weight_decay: The paper's lambda, decoupled as in AdamW.

    Raises:
        ValueError: A hyperparameter is out of range.
    """

    def step_batch(self, batch: Batch, group: Mapping[str, Any]) -> None:
        """Update these parameters."""
        beta1, _ = group["betas"]
        lengths = batch.norms(batch.gradients)
        # A gradient of zeros stays zero: there is no direction to normalise.
        lengths = torch.where(lengths > 0, lengths, 1.0).to(batch.gradients[0].dtype)
        gradients = foreach.div(batch.gradients, lengths.unbind())
        first, roots, biases = self.updated_moments(batch, gradients, group)
        slow, fast = foreach.div(first, roots), foreach.div(gradients, roots)
        foreach.mul_(fast, biases)  # the gradient itself has none
        if group["weight_decay"]:
            foreach.add_(slow, batch.weights, alpha=group["weight_decay"])
            foreach.add_(fast, batch.weights, alpha=group["weight_decay"])

        trust_slow = trust_fast = None
        if group["adapt"]:
            weights = batch.norms(batch.weights)
            trust_slow, trust_fast = ratios(weights, batch.norms(slow)), ratios(weights, batch.norms(fast))
        add_scaled(batch.weights, slow, trust_slow, by=-group["lr"] * beta1)
        add_scaled(batch.weights, fast, trust_fast, by=-group["lr"] * (1 - beta1))
