"""Read the first training losses from logs: they show early whether two runs train alike.

Where a run is evaluated late, a check of the batch (`autotuner.study.findings.batch_check`) would cost nearly
a whole run. But most scripts print the loss of the training long before. With another batch the first losses
are different, and the check can be stopped.

That they are the same proves less: a script that accumulates gradients by itself may print the loss of each
micro-batch, and the first of them do not depend on the batch.

Trainings on GPUs are seldom deterministic, so that their digits differ although nothing was changed. But the
first losses are still close. In 24 real trainings (perceptrons, convolutions and transformers; the loss of
every step, of every tenth, and means of 10 and 50 steps) the first four were compared with those of the same
training, each of whose gradients had a relative error of 1e-6: in 20 they differed by at most 0.006 of the
usual change from one loss to the next. With a batch of 0.5 or 0.84 they differed by at least 0.08 of it.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from autotuner.study.formats.line import BAR, NUMBER, NUMBER_END, Line, to_number
from autotuner.study.quantum import written_to

KEPT: Final = 16
"""Number of losses that are kept of a run: two steps of eight processes that all print theirs."""
FEWEST: Final = 4
"""Minimum number of different losses that are compared: the first one may not depend on the batch."""
CLOSE: Final = 0.02
"""Maximum difference of two runs that seem to train alike, in usual changes from one loss to the next."""
APART: Final = 0.08
"""Minimum difference of two runs that train apart, in the same unit."""
_FEWEST_DIGITS: Final = 3
_MAX_LINE: Final = 2000
# The scale of a loss is that of mixed precision.
_LOSS: Final = re.compile(
    r"(?<![a-z])loss(?![_ ]?(?:scale|weight))\w{0,20}[\"']?\s{0,4}[:=]?\s{0,4}[\"']?"
    rf"({NUMBER}){NUMBER_END}",
    re.IGNORECASE,
)
_IS_BAR: Final = re.compile(rf"{BAR}|\d(?:it|s|batch|batches|step)/(?:s|it|batch|step)\b")


class FirstLosses:
    """Collects the first losses of a log, one a line.

    Progress bars do not count: which of their losses appear depends on the time.
    """

    def __init__(self) -> None:
        self._values: list[float] = []

    def note(self, line: Line) -> None:
        """Process a line."""
        if len(self._values) >= KEPT or line.is_redrawn:
            return
        text = line.text[:_MAX_LINE]
        match = _LOSS.search(text)
        if match is None or _IS_BAR.search(text):
            return
        digits = re.sub(r"[eE].*|\D", "", match[1]).lstrip("0")
        if len(digits) >= _FEWEST_DIGITS:
            self._values.append(to_number(match[1]))

    @property
    def values(self) -> tuple[float, ...]:
        """The losses, in the order of the log."""
        return tuple(self._values)


def are_comparable(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two runs have printed enough different losses to be compared."""
    return min(len(set(one)), len(set(other))) >= FEWEST


def differ(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether fewer than half of the losses of a run are among those of another.

    Their order does not count: processes print in any order.
    """
    common = set(one) & set(other)
    return are_comparable(one, other) and len(common) < len(set(other)) / 2


def are_close(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether the first losses of two runs are as close as those of one training that is repeated.

    This is seen only if they are printed with enough digits.
    """
    difference, change, resolution = _compared(one, other)
    return CLOSE * change >= max(difference, resolution)


def are_apart(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether the first losses of two runs show that they do not train alike."""
    difference, change, resolution = _compared(one, other)
    return difference >= max(APART * change, 2 * resolution)


def _compared(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Return the largest difference of the first losses, the usual change of losses, and their resolution.

    They are not numbers if the losses cannot be compared.
    """
    if not are_comparable(one[:FEWEST], other[:FEWEST]):
        return math.nan, math.nan, math.nan
    known = one[:KEPT]
    change = statistics.median(abs(after - before) for before, after in pairwise(known))
    difference = max(abs(a - b) for a, b in zip(one[:FEWEST], other[:FEWEST], strict=True))
    return difference, change, written_to(known)
