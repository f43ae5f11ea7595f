"""Parameter groups: biases and normalisations get neither weight decay nor trust ratios.

Goyal et al. 2017 (arXiv:1706.02677, section 5.3) and every recipe since apply no weight decay to biases and
normalisations. Layer-wise optimizers exclude them from the trust ratio, too: |w| / |gradient| of a bias that
starts at zero is meaningless.
"""

from __future__ import annotations

import re
from typing import Any, Final

from torch import nn

from autotuner.train.optimizers.blocks import check

__all__ = ["parameter_groups"]

_NORMS: Final = re.compile(r"Norm(\d[dD])?$")
"""Normalisations by class name: PyTorch's own (BatchNorm2d, LayerNorm, RMSNorm, ...) and those of libraries
(LlamaRMSNorm), whose weights may have more than one dimension."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into a group that decays and adapts, and one that does neither.

    The second has the parameters of normalisations, and those with at most one dimension, such as biases. A
    parameter that two modules share is listed once. Every optimizer accepts the groups; those that do not
    know `adapt` ignore it. Empty groups are omitted.

    Raises:
        ValueError: The weight decay is negative or not finite; optimizers do not check that of a group.
    """
    check(weight_decay=weight_decay)
    decaying: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        is_norm = any(_NORMS.search(kind.__name__) for kind in type(module).__mro__)
        for parameter in module.parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            (exempt if is_norm or parameter.ndim <= 1 else decaying).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": weight_decay, "adapt": True},
        {"params": exempt, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]
