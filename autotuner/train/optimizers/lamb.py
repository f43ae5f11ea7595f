"""LAMB: Adam with a step size in each layer that is proportional to the layer's weights.

You, Li, Reddi et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020
(arXiv:1904.00962), Algorithm 2. What LARS is to SGD, LAMB is to AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuner.train import foreach
from autotuner.train.optimizers.blocks import Batch, add_scaled, ratios
from autotuner.train.optimizers.moments import MomentOptimizer

__all__ = ["Lamb"]


class Lamb(MomentOptimizer):
    """Implements LAMB (You et al. 2020, Algorithm 2, with the identity as its function phi).

    For each block with weights w and gradient g, after t steps::

        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        r = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps) + weight_decay * w
        w <- w - lr * |w| / |r| * r

    The ratio of a block whose weights or update are zero is 1. The paper does not clip gradients; if a recipe
    does, use `torch.nn.utils.clip_grad_norm_` before the step.

    Args:
        params: Parameters or groups. A group with `adapt: False` takes steps of AdamW: biases and
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
        first, roots, _ = self.updated_moments(batch, batch.gradients, group)
        updates = foreach.div(first, roots)
        if group["weight_decay"]:
            foreach.add_(updates, batch.weights, alpha=group["weight_decay"])

        trust = ratios(batch.norms(batch.weights), batch.norms(updates)) if group["adapt"] else None
        add_scaled(batch.weights, updates, trust, by=-group["lr"])
