"""The common base of LAMB and LANS: Adam's moments of the gradients, with bias correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from autotuner.train import foreach
from autotuner.train.optimizers.blocks import Batch, BlockOptimizer, Tensors, check


class MomentOptimizer(BlockOptimizer):
    """A layer-wise optimizer with Adam's hyperparameters; a subclass documents them and scales the update."""

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

    def updated_moments(
        self, batch: Batch, gradients: Tensors, group: Mapping[str, Any]
    ) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """Update the moments m and v of each block with its gradient.

        Returns:
            m; the roots (sqrt(v / (1 - beta2**t)) + eps) * (1 - beta1**t), so that m / root is Adam's update;
            and 1 - beta1**t. Both bias corrections are applied to the root: one pass over memory less than
            applying them separately.
        """
        beta1, beta2 = group["betas"]
        steps = self.count(batch)
        first, second = self.moments(batch, "exp_avg"), self.moments(batch, "exp_avg_sq")
        foreach.lerp_(first, gradients, 1 - beta1)
        foreach.mul_(second, beta2)
        foreach.addcmul_(second, gradients, gradients, value=1 - beta2)
        biases = [1 - beta1**step for step in steps]
        roots = foreach.sqrt(second)
        foreach.mul_(roots, [b / (1 - beta2**step) ** 0.5 for b, step in zip(biases, steps, strict=True)])
        foreach.add_(roots, [b * group["eps"] for b in biases])
        return first, list(roots), biases
