"""Learning-rate schedules that do not depend on the batch size.

A schedule in steps is wrong as soon as the batch size changes, because the number of steps changes with it.
So a `Curve` gives the fraction of the peak rate for a fraction of the run, and warm-up lasts for a fraction
of the run, or for a number of samples divided by the run's number of samples. `make_schedule` converts a
curve to a PyTorch scheduler; it is the only function here that uses steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = [
    "SCHEDULES",
    "Curve",
    "constant",
    "cosine",
    "final_collapse",
    "make_curve",
    "make_schedule",
    "polynomial",
    "warmup",
]

Curve: TypeAlias = Callable[[float], float]
"""Maps a fraction of the run, from 0 to 1, to a fraction of the peak learning rate."""

SCHEDULES: Final = ("constant", "linear", "polynomial", "cosine")
"""The names that `make_curve` knows."""


def constant() -> Curve:
    """Return the curve that stays at the peak."""
    return lambda _progress: 1.0


def polynomial(power: float = 2.0, *, final: float = 0.0) -> Curve:
    """Return the curve that falls from 1 to `final` as a power of the rest of the run; 1 is linear.

    The decay of You et al. 2017 (LARS, power 2), and, linear, of You et al. 2020 (LAMB).

    Raises:
        ValueError: The power is not positive, or `final` is not between 0 and 1.
    """
    _check_final(final)
    if not power > 0:
        raise ValueError(f"power is {power}: must be more than 0, for example 1 for a linear decay")
    return lambda progress: final + (1 - final) * math.pow(1 - progress, power)


def cosine(*, final: float = 0.0) -> Curve:
    """Return the half cosine from 1 to `final` (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5).

    Raises:
        ValueError: `final` is not between 0 and 1.
    """
    _check_final(final)
    return lambda progress: final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def warmup(part: float, then: Curve, *, start: float = 0.0) -> Curve:
    """Return the curve that rises linearly from `start` to 1 over a part of the run, then follows another.

    This is the gradual warm-up of Goyal et al. 2017 (arXiv:1706.02677, section 2.2; theirs lasts 5 of 90
    epochs). The other curve runs completely over the rest of the run. For a warm-up in samples, divide their
    number by that of the run.

    Raises:
        ValueError: The part is not between 0 and 1.
    """
    _check_part(part, "warmup")

    def curve(progress: float) -> float:
        if progress < part:
            return start + (1 - start) * progress / part
        return then((progress - part) / (1 - part))

    return curve


def final_collapse(part: float, trunk: Curve, *, power: float = 2.0) -> Curve:
    """Return a curve that follows another, and falls to 0 in the last part of the run.

    After Codreanu, Podareanu and Saletore 2017 (arXiv:1711.04291): a rate that decays slowly during the run
    keeps the noise that large batches lack, and its collapse in the last few epochs gives the final accuracy.
    Within the collapse the rate is a power of the remaining part.

    Raises:
        ValueError: The part is not between 0 and 1.
    """
    _check_part(part, "collapse")

    def curve(progress: float) -> float:
        if progress <= 1 - part:
            return trunk(progress)
        return trunk(1 - part) * math.pow((1 - progress) / part, power)

    return curve


def make_curve(hyperparameters: Mapping[str, Any]) -> Curve:
    """Make the curve that the hyperparameters name, so that the search can choose one.

    Args:
        hyperparameters: `schedule` (one of `SCHEDULES`; `cosine` if absent), `warmup` (a fraction of the run)
            and `collapse` (a fraction of the run after the warm-up), each 0 if absent, `power` (of the
            polynomial, 2 if absent) and `final_rate` (the end of the decay, as a fraction of the peak, 0 if
            absent). Others are ignored.

    Raises:
        ValueError: The name is unknown, or a value is out of range.
    """
    get = hyperparameters.get
    name, final = get("schedule", "cosine"), get("final_rate", 0.0)
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}: must be one of {', '.join(SCHEDULES)}")
    if name == "constant":
        curve = constant()
    elif name == "cosine":
        curve = cosine(final=final)
    else:
        curve = polynomial(1.0 if name == "linear" else get("power", 2.0), final=final)
    if collapse := get("collapse", 0.0):
        curve = final_collapse(collapse, curve)
    if part := get("warmup", 0.0):
        curve = warmup(part, curve)
    return curve


def make_schedule(optimizer: Optimizer, curve: Curve, *, steps: int) -> LambdaLR:
    """Return a scheduler that must be stepped once after each optimizer step.

    The rate of a step is the value of the curve in the middle of that step. So the rates of a few long steps
    have the same mean as those of many short ones, and no step is lost to a rate of 0 at either end. Steps
    after the end of the run keep the last rate.

    Args:
        optimizer: The optimizer; its learning rates are the peaks.
        curve: The fraction of the peak for each fraction of the run.
        steps: Optimizer steps of the whole run, see `GlobalBatches.steps`.

    Raises:
        ValueError: The run has no steps.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: must be at least 1")
    return LambdaLR(optimizer, lambda step: curve((min(step, steps - 1) + 0.5) / steps))


def _check_final(final: float) -> None:
    if not 0 <= final <= 1:
        raise ValueError(f"final_rate is {final}: must be a fraction of the peak rate, from 0 to 1")


def _check_part(part: float, name: str) -> None:
    if not 0 < part < 1:
        raise ValueError(f"{name} is {part}: must be a fraction of the run, more than 0 and less than 1")
