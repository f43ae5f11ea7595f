"""Find what keeps a trial from starting, from its job and its pods. Pure.

Every pod passes through most of these states; a state that lasts longer than the patience is a hold-up. It is
measured from the creation or admission of the job if pods are missing, from the creation of the pod until it
has a node, and then from the assignment of the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from autotuner.study.hold_up import HoldUpReason


@dataclass(frozen=True, slots=True)
class Stuck:
    """A state in which a pod does not start, with the pod's own message and the time since when."""

    reason: HoldUpReason
    text: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A hold-up of a trial: the UID of the object whose Events may say more, and a message for the user."""

    reason: HoldUpReason
    text: str
    subject: str = ""


def is_over(since: datetime | None, now: datetime, patience: timedelta) -> bool:
    """Return whether a state has lasted longer than the patience."""
    return since is not None and now - since >= patience


def first(found: Sequence[tuple[str, str, Stuck]]) -> Waiting | None:
    """Return the earliest hold-up of the pods; the others may be its effect."""
    order = list(HoldUpReason)
    ranked = sorted(found, key=lambda each: (order.index(each[2].reason), len(each[0]), each[0]))
    if not ranked:
        return None
    name, uid, state = ranked[0]
    return Waiting(state.reason, f"pod {name} cannot start: {state.text}", uid)
