"""What keeps a trial from starting: a stable reason, and the cluster's own message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from autotuner.trial import Trial


class HoldUpReason(StrEnum):
    """Why a trial has not started, as in metrics and Events; if several apply, the first counts."""

    NO_POD = "NoPod"
    """Pods were not created: a quota, an admission webhook, a gang scheduler whose queue is full."""
    IMAGE = "Image"
    CONFIGURATION = "Configuration"
    """A container cannot be created: a Secret, a ConfigMap or a command is missing."""
    UNSCHEDULABLE = "Unschedulable"
    GANG = "Gang"
    """A gang scheduler waits for room for all of the trial's pods."""
    STARTING = "Starting"
    """A container is being created for a long time, usually because a volume is not mounted."""
    INITIALIZING = "Initializing"
    """An init container has not ended."""
    QUEUED = "Queued"
    """A queue has not admitted the trial."""


@dataclass(frozen=True, slots=True)
class HoldUp:
    """A reason why a trial does not start.

    `trial` is its number, `message` the cluster's message.
    """

    trial: int
    reason: HoldUpReason
    message: str

    @property
    def subject(self) -> str:
        """The beginning of the message, which does not change while the hold-up lasts."""
        return f"trial {self.trial} is held up ({self.reason}): "

    def __str__(self) -> str:
        return self.subject + self.message


FOR_ROOM: Final = frozenset({HoldUpReason.QUEUED, HoldUpReason.UNSCHEDULABLE, HoldUpReason.GANG})
"""Hold-ups of trials that wait for room."""


def unexpected(held_up: Iterable[HoldUp], trials: Iterable[Trial]) -> tuple[HoldUp, ...]:
    """Return the hold-ups of a study with `parallel-trials: auto` that are worth a warning.

    Such a study keeps a trial waiting for room while others run; only where none runs is that a hold-up.
    """
    runs = any(trial.is_running and trial.started_at is not None for trial in trials)
    return tuple(held for held in held_up if not (runs and held.reason in FOR_ROOM))
