"""Which hyperparameter is the learning rate, if no annotation says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from autotuner.spec.values import Dimension, FloatDimension

_USUAL: Final = ("learning_rate", "lr")
_WITHOUT_THE_WORD: Final = frozenset({"blr", "lr0"})
"""The rate for a batch of 256 samples (MAE), and the initial one (Ultralytics)."""
_OTHER_WORDS: Final = frozenset(
    {
        "min", "minimum", "final", "end", "last", "floor", "eta", "warmup", "decay", "gamma", "step", "steps",
        "epochs", "factor", "mult", "multiplier", "scale", "ratio", "fraction", "power", "patience", "cycle",
        "drop", "noise", "log", "log10", "exponent",
    }
)  # fmt: skip
"""Words of names such as `min_lr`, `lr_decay` and `log_lr`, which are of a schedule or on another scale."""


def learning_rate_among(names: Collection[str]) -> str | None:
    """Return the name of the learning rate; None if no name, or more than one, may be that of one.

    `learning_rate` takes precedence, then `lr`, then a single name such as `base_lr`.
    """
    usual = next((name for name in _USUAL if name in names), None)
    alike = [name for name in names if _is_alike(name)]
    return usual or (alike[0] if len(alike) == 1 else None)


def learning_rate_of(space: Mapping[str, Dimension]) -> str | None:
    """Return the learning rate's name in a search space; one such as `base_lr` needs a positive range."""
    usual = [name for name in _USUAL if name in space]
    return learning_rate_among([*usual, *rates_in(space)])


def rates_in(space: Mapping[str, Dimension]) -> list[str]:
    """Return the names of positive ranges in a search space that may be learning rates."""
    return [
        name
        for name, dimension in space.items()
        if _is_alike(name) and isinstance(dimension, FloatDimension) and dimension.minimum > 0
    ]


def _is_alike(name: str) -> bool:
    words = name.replace("learning_rate", "lr").split("_")
    return name in _WITHOUT_THE_WORD or ("lr" in words and not _OTHER_WORDS.intersection(words))
