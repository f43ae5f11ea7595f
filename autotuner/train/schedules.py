"""How the learning rate moves over a run, whatever the batch size.

A schedule in steps is wrong as soon as the batch size changes: the number of steps in a run changes with it.
So a `Curve` here says which part of the peak rate holds at which part of the run, and warm-up lasts for a
part of the run, or for a number of samples over the run's number of samples. `make_schedule` turns a curve
into a torch scheduler, and is the only thing here that knows of steps.
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
"""The part of the peak learning rate, at a part of the run from 0 to 1."""

SCHEDULES: Final = ("constant", "linear", "polynomial", "cosine")
"""The names that `make_curve` knows."""


def constant() -> Curve:
    """Return the curve that stays at the peak."""
    return lambda _progress: 1.0


def polynomial(power: float = 2.0, *, final: float = 0.0) -> Curve:
    """Return the curve that falls from 1 to `final` as a power of what is left of the run; 1 is linear.

    The decay of You et al. 2017 (LARS, power 2), and, linear, of You et al. 2020 (LAMB).

    Raises:
        ValueError: The power is not positive.
    """
    if not power > 0:
        raise ValueError(f"power is {power}: it must be more than 0; 1 makes the decay linear")
    return lambda progress: final + (1 - final) * math.pow(1 - progress, power)


def cosine(*, final: float = 0.0) -> Curve:
    """Return the half wave from 1 to `final` of Loshchilov and Hutter 2017 (arXiv:1608.03983, equation 5)."""
    return lambda progress: final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def warmup(part: float, then: Curve, *, start: float = 0.0) -> Curve:
    """Return the curve that rises linearly from `start` to 1 over a part of the run, and then runs another.

    The gradual warm-up of Goyal et al. 2017 (arXiv:1706.02677, section 2.2), theirs being 5 of 90 epochs. The
    other curve has its whole course over the rest of the run. For a warm-up in samples, give their number
    over the run's.

    Raises:
        ValueError: The part is not one.
    """
    _check_part(part, "warmup")

    def curve(progress: float) -> float:
        if progress < part:
            return start + (1 - start) * progress / part
        return then((progress - part) / (1 - part))

    return curve


def final_collapse(part: float, trunk: Curve, *, power: float = 2.0) -> Curve:
    """Return a curve that follows another, and in the last part of the run falls from there to 0.

    After Codreanu, Podareanu and Saletore 2017 (arXiv:1711.04291): a rate that decays slowly through the run
    keeps the noise that large batches lack, and its collapse in the last few epochs is what the final
    accuracy needs. Within the collapse the rate goes as a power of what is left of it.

    Raises:
        ValueError: The part is not one.
    """
    _check_part(part, "collapse")

    def curve(progress: float) -> float:
        if progress <= 1 - part:
            return trunk(progress)
        return trunk(1 - part) * math.pow((1 - progress) / part, power)

    return curve


def make_curve(hyperparameters: Mapping[str, Any]) -> Curve:
    """Make the curve that the hyperparameters ask for, so that the search can choose one.

    Args:
        hyperparameters: `schedule` (one of `SCHEDULES`; `cosine` if absent), `warmup` (a part of the run)
            and `collapse` (a part of what the warm-up leaves), each 0 if absent, `power` (of the polynomial,
            2 if absent) and `final_rate` (where the decay ends, a part of the peak, 0 if absent). Others are
            passed over.

    Raises:
        ValueError: The name is unknown, or a value out of range.
    """
    get = hyperparameters.get
    name, final = get("schedule", "cosine"), get("final_rate", 0.0)
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}: it must be one of {', '.join(SCHEDULES)}")
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
    """Return a scheduler to be stepped once after each optimizer step.

    The rate of a step is the curve's in the middle of that step: over a run of few long steps the rates then
    add up to what they would in many short ones, and no step is lost to a rate of 0 at either end. Steps past
    the end of the run keep the last rate.

    Args:
        optimizer: Its learning rates are the peaks.
        curve: The part of the peak at each part of the run.
        steps: Optimizer steps of the whole run, see `GlobalBatches.steps`.

    Raises:
        ValueError: There is no step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: it must be at least 1")
    return LambdaLR(optimizer, lambda step: curve((min(step, steps - 1) + 0.5) / steps))


def _check_part(part: float, name: str) -> None:
    if not 0 < part < 1:
        raise ValueError(f"{name} is {part}: it is a part of the run, more than 0 and less than 1")
