"""LAMB: Adam with a step size in each layer that is proportional to the layer's weights.

You, Li, Reddi et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020
(arXiv:1904.00962), Algorithm 2. What LARS is to SGD, LAMB is to AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from autotuner.train import foreach
from autotuner.train.optimizers.blocks import Batch, BlockOptimizer, add_scaled, check, ratios

__all__ = ["Lamb"]


class Lamb(BlockOptimizer):
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

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        check(lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay)
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True}
        )

    def step_batch(self, batch: Batch, group: Mapping[str, Any]) -> None:
        """Update these parameters."""
        beta1, beta2 = group["betas"]
        steps = self.count(batch)
        first, second = self.moments(batch, "exp_avg"), self.moments(batch, "exp_avg_sq")
        foreach.lerp_(first, batch.gradients, 1 - beta1)
        foreach.mul_(second, beta2)
        foreach.addcmul_(second, batch.gradients, batch.gradients, value=1 - beta2)

        # Both bias corrections are applied to the root: one pass over memory less than applying them
        # separately.
        biases = [1 - beta1**step for step in steps]
        roots = foreach.sqrt(second)
        foreach.mul_(roots, [b / (1 - beta2**step) ** 0.5 for b, step in zip(biases, steps, strict=True)])
        foreach.add_(roots, [b * group["eps"] for b in biases])
        updates = foreach.div(first, roots)
        if group["weight_decay"]:
            foreach.add_(updates, batch.weights, alpha=group["weight_decay"])

        trust = ratios(batch.norms(batch.weights), batch.norms(updates)) if group["adapt"] else None
        add_scaled(batch.weights, updates, trust, by=-group["lr"])
