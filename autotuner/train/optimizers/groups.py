"""Which parameters large-batch recipes leave alone.

Goyal et al. 2017 (arXiv:1706.02677, section 5.3) and every recipe since apply no weight decay to biases and
normalisations: few numbers, whose size carries meaning. Layer-wise optimizers leave them out of the trust
ratio, too: |w| / |gradient| of a bias that starts at zero is no measure of anything.
"""

from __future__ import annotations

import re
from typing import Any, Final

from torch import nn

__all__ = ["parameter_groups"]

_NORMS: Final = re.compile(r"Norm(\d[dD])?$")
"""Normalisations by the names of their classes: torch's own (BatchNorm2d, LayerNorm, RMSNorm, ...) and those
that libraries bring with them (LlamaRMSNorm), whose weights may have more than one dimension."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into a group that decays and adapts, and one that does neither.

    The second has what belongs to a normalisation, and whatever has at most one dimension, as biases do. A
    parameter that two modules share is listed once. Any optimizer takes the groups; those that know no
    `adapt` pass it over. Empty groups are left out.
    """
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
