"""A warning about what a manifest passes on to the training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from autotuner import keys
from autotuner.errors import Mistake
from autotuner.job.options import Option

SET_WITH: Final = f"which trials set with {keys.key_of('micro_batch_size')}"
"""What sets the variables of micro-batches, for messages that recommend one of them."""
_SHOWN: Final = 120
"""Maximum characters of a value in a message."""


@dataclass(frozen=True, slots=True)
class WiringWarning:
    """One warning about a manifest: the place, its text, the rule, and a remedy to copy.

    `is_seen` is False if the manifest does not show whether something is wrong. `name` is `batch_size` or the
    hyperparameter that may not reach the training; empty for a shared path. `gives_whole` says that each
    process would train the batch of all.
    """

    where: str
    value: str
    rule: str
    remedy: str
    is_seen: bool = True
    name: str = ""
    gives_whole: bool = False

    @property
    def mistake(self) -> Mistake:
        """The warning in the form that all commands print."""
        return Mistake(self.where, self.value, self.rule, self.remedy)

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= _SHOWN else self.value[:_SHOWN] + "…"
        return f"{self.where} is {shown!r}: {self.rule}, for example {self.remedy}"


def replaced(option: Option, variable: str) -> str:
    """Return how an option is written that is given a variable."""
    reference = f"$({variable})"
    if option.name == variable.lower() and option.form == "override":
        return f"{variable}=${{{variable}:-{option.value}}}"
    if option.form == "edit":
        return re.sub(rf"{keys.ENV_PREFIX}\w+", variable, option.written)
    if option.form == "config":
        return f"{option.written.partition(':')[0]}: {reference}"
    if option.form == "env":
        return f'{{name: {option.where.rsplit(" ", 1)[-1]}, value: "{reference}"}}'
    if option.form in {"code", "read", "name"}:
        return f'os.environ["{variable}"]'
    if option.form in {"flag=", "override"}:
        return f"{option.written.partition('=')[0]}={reference}"
    return f"{option.written.partition(' ')[0]}={reference}"
