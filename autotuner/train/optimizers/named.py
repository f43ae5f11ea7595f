"""Optimizers by name, so that the search can choose one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from autotuner.train.compression import hook_momentum
from autotuner.train.optimizers.groups import parameter_groups
from autotuner.train.optimizers.lamb import Lamb
from autotuner.train.optimizers.lans import Lans
from autotuner.train.optimizers.lars import Lars

__all__ = ["OPTIMIZERS", "make_optimizer"]

OPTIMIZERS: Final = ("sgd", "adamw", "lars", "lamb", "lans")
"""The names that `make_optimizer` knows."""

_ADAM_EPSILON: Final = {"adamw": 1e-8, "lamb": 1e-6, "lans": 1e-6}


def make_optimizer(model: nn.Module, hyperparameters: Mapping[str, Any]) -> Optimizer:
    """Make the optimizer that the hyperparameters name, with biases and normalisations in their own group.

        hp = sdk.hyperparameters(optimizer="sgd", learning_rate=0.1, weight_decay=1e-4)
        optimizer = train.make_optimizer(model, hp)

    Args:
        model: The model, after `distribute` and on its device.
        hyperparameters: `optimizer` (one of `OPTIMIZERS`; `sgd` if absent), `learning_rate` or `lr`,
            and, each with the usual default, `weight_decay` (0), `momentum` (0.9; SGD and LARS), `beta1`,
            `beta2`, `epsilon` (0.9, 0.999, 1e-8 for AdamW and 1e-6 for LAMB and LANS),
            `trust_coefficient` (0.001; LARS). Others are ignored, so you can pass all of them.

    Raises:
        ValueError: The name is unknown, or a hyperparameter is missing or out of range.
    """
    get = hyperparameters.get
    name = get("optimizer", "sgd")
    lr = get("learning_rate", get("lr"))
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}: must be one of {', '.join(OPTIMIZERS)}")
    if lr is None:
        raise ValueError("there is no learning rate: set `learning_rate` or `lr`, for example 0.1")
    groups = parameter_groups(model, get("weight_decay", 0.0))
    # With top-k compression the gradient exchange applies SGD's momentum, which must not be applied twice.
    momentum = 0.0 if hook_momentum(model, hyperparameters) else get("momentum", 0.9)
    # PyTorch's fused kernels; if a parameter is not on a GPU, PyTorch chooses.
    fused = True if all(parameter.is_cuda for parameter in model.parameters()) else None
    if name == "sgd":
        return SGD(groups, lr, momentum=momentum, fused=fused)
    if name == "lars":
        return Lars(groups, lr, momentum=momentum, trust_coefficient=get("trust_coefficient", 0.001))
    betas = get("beta1", 0.9), get("beta2", 0.999)
    eps = get("epsilon", _ADAM_EPSILON[name])
    if name == "adamw":
        return AdamW(groups, lr, betas=betas, eps=eps, fused=fused)
    return (Lamb if name == "lamb" else Lans)(groups, lr, betas=betas, eps=eps)
