"""The exceptions of the autotuner, one tree.

    AutotunerError
    ├── InvalidJob          the user's job or annotations: each mistake with value, rule and example
    ├── InvalidRecord       a ledger entry or a trial annotation that is not ours or not complete
    ├── InvalidConfiguration  the controller's own configuration
    ├── Unrealisable        a batch size, or a job's bounds, for which there is no layout
    └── BackendError        the cluster or the machine; try again later
        ├── Conflict        an object that is not ours has a name that we need
        ├── Refused         the cluster's rules forbid a change (a policy, a quota, a webhook)
        └── Unwritable      the ledger cannot be written (full disk, read-only directory, no permission)

Users read these messages: they give the value, the rule and the remedy. A mistake has the form
`KEY is VALUE: must be RULE, for example EXAMPLE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AutotunerError(Exception):
    """Base of every error that the autotuner raises on purpose."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that a user must change: the key, its value, the rule (`must be ...`), a valid example."""

    key: str
    value: str
    rule: str
    example: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= _SHOWN else self.value[:_SHOWN] + "…"
        return f"{self.key} is {shown!r}: {self.rule}, for example {self.example}"


_SHOWN = 80
"""Characters of a wrong value that a message shows."""


class InvalidJob(AutotunerError):
    """The job cannot be tuned as it is written. Carries all mistakes and warnings, not only the first."""

    def __init__(self, mistakes: Sequence[Mistake], warnings: Sequence[Mistake] = ()) -> None:
        self.mistakes = tuple(mistakes)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class InvalidRecord(AutotunerError):
    """A ledger entry or trial annotation that cannot be read."""


class InvalidConfiguration(AutotunerError):
    """The controller's configuration has a wrong value."""


class Unrealisable(AutotunerError):
    """No workers, micro-batch and accumulation realise a batch size exactly within the job's bounds."""


class BackendError(AutotunerError):
    """The cluster or the machine failed a call; the same call may succeed later."""


class Conflict(BackendError):
    """An object that is not ours has a name that we need."""


class Refused(BackendError):
    """The cluster's rules forbid a change; it is refused until the rules are changed."""


class Unwritable(BackendError):
    """The ledger cannot be written."""
