"""Plain beliefs: what the measurements alone say, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import optuna

from autotuner.search.history import History, Setting, curve, setting
from autotuner.search.space import Space
from autotuner.search.study import ask
from autotuner.trial import Purpose, Trial

_PATIENCE = 10
"""Searches in a row without a larger batch after which the plain search ends."""


@dataclass(frozen=True)
class Beliefs:
    """What the search believes, given the trials."""

    history: History
    space: Space

    def chance(self, trial: Trial) -> float:
        """Return the probability that a running trial meets the target by its end."""
        target = self.history.spec.target
        seen = curve(trial)
        whole = [curve(t) for t in self.history.trials if self.history.has_reached(t)]
        length = self.history.run_length
        if not whole or not len(seen) or length is None or seen.last_step < length / 2:
            return 0.5
        now = seen.values[-1]
        gains = [
            target.sign * ((c.best(target) or 0.0) - np.interp(seen.last_step, c.steps, c.values))
            for c in whole
        ]
        return 0.0 if target.margin(float(now)) + 2 * max(gains) < 0 else 0.5

    def incumbent(self, rejected: Collection[Setting]) -> Setting | None:
        """Return the setting with the largest batch that is held to meet the target."""
        held = [setting(t) for t in self.history.trials if self.history.has_reached(t)]
        return max((s for s in held if s not in rejected), key=lambda s: s.batch_size, default=None)

    def probability_larger(self, batch_size: int) -> float | None:
        """Return the probability that a batch half a doubling larger is feasible."""
        if batch_size >= self.space.batch_sizes[1]:
            return 0.0
        since = [
            t for t in self.history.trials if t.suggestion.purpose is Purpose.SEARCH and not t.is_running
        ]
        return 0.0 if len(since) >= _PATIENCE else 1.0

    def propose(self, number: int) -> Setting:
        """Return what to try next."""
        digest = hashlib.sha256(f"{self.history.spec.seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        }
        name = self.history.spec.sampler
        sampler = samplers.get(name, lambda: optuna.samplers.GPSampler(seed=seed))()
        return ask(self.history, self.space, sampler)
