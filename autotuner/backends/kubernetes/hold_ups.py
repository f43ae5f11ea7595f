"""Find what keeps a trial from starting, from its job and its pods, given as plain values.

Every pod passes through most of these states; one that lasts longer than the user's patience is a hold-up.
Patience starts with the state: with the job's creation or its admission by a queue where pods are missing,
with the pod's creation until it has a node, and with its node after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from autotuner.study.hold_up import HoldUpReason


@dataclass(frozen=True, slots=True)
class Stuck:
    """A state of a pod in which it does not start, what the pod itself says of it, and since when."""

    reason: HoldUpReason
    text: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A hold-up of a trial: the object whose Events may say more, by its UID, and words for the user."""

    reason: HoldUpReason
    text: str
    subject: str = ""


def is_over(since: datetime | None, now: datetime, patience: timedelta) -> bool:
    """Return whether something has lasted for longer than the user's patience."""
    return since is not None and now - since >= patience


def first(found: Sequence[tuple[str, str, Stuck]]) -> Waiting | None:
    """Return the hold-up that comes first of pods' names, UIDs and states: the others may be its effect."""
    order = list(HoldUpReason)
    ranked = sorted(found, key=lambda each: (order.index(each[2].reason), len(each[0]), each[0]))
    if not ranked:
        return None
    name, uid, state = ranked[0]
    return Waiting(state.reason, f"pod {name} cannot start: {state.text}", uid)
