"""Decide which of the first readings of a log are the metric's, and when there are enough to tell.

The labels decide: validation before test, and either before values without a label. Until it is clear, the
readings wait: another data set, process or batch may print a value of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.formats import TEXT
from autotuner.study.formats.reading import Label, Metric, Reading, label_in, position_in
from autotuner.study.logs.early import DERIVED, is_echo
from autotuner.study.logs.groups import distinct, grouped, may_be_grouped, may_take_turns, taking_turns
from autotuner.study.logs.scale import Implausible, scaled
from autotuner.study.logs.units import has_two_units

PRIORITY: Final = {Label.VALIDATION: 3, Label.TEST: 2, Label.UNKNOWN: 1, Label.TRAIN: 0}
"""Which label's values are the metric's; the highest one that the log has."""
MOST: Final = 64
"""Maximum number of readings that wait for the choice."""
_SEVERAL: Final = 6
"""Number of values of a kind that may not be meant after which no other kind is expected."""
_REPEATED: Final = 4
"""Number of equal lines that are values of their own, of a run that learns nothing."""
_ENOUGH: Final = 20
"""Number of unlabelled readings after which no label is expected any more."""
_VERB: Final = re.compile(r"\s{0,8}(?:validat|evaluat|eval)(?:e|ing)?\s", re.IGNORECASE)
"""The begin of a line that tells what is done, and not on which data."""
Stream = tuple[Label, str]
"""Values that belong together: their label, and what else tells them from others."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How to choose among readings: of which metric, for which target.

    `is_pattern` says that the readings come from the user's own pattern, which says what is meant, and
    `is_one_process` that the log is of one process, so that no other one prints a value of its own.
    """

    metric: Metric
    target: Target
    is_pattern: bool = False
    is_one_process: bool = False

    def is_due(self, pending: Sequence[Reading], held: Iterable[Stream]) -> bool:
        """Return whether the waiting readings show which are meant; `held` are those of unfinished bars."""
        if len(pending) >= MOST:
            return True
        readings = _once(preferred(pending))
        best = PRIORITY[readings[0].label]
        if all(self.is_echo(r) for r in readings) or self._is_too_early(readings):
            return False
        # What has an epoch or a step is of the training, and shows whether more is to come.
        placed = [r for r in readings if not r.position.is_empty] or readings
        first, last = placed[0], readings[-1]
        if any(s != first.stream and PRIORITY[s[0]] >= best for s in held):
            return False  # an unfinished bar may show what is meant
        is_exact = first.is_definite and (first.uses_step or self.is_pattern)
        is_known = first.label is Label.VALIDATION or is_exact
        if is_known and not first.position.is_empty and not has_two_units(first):
            # Another value of the epoch, of another data set or process, shows that the first is in doubt.
            is_alone = is_exact or self.is_one_process or (first.is_definite and first.format == TEXT)
            if is_alone or not self._may_meet(first):
                return True
            return any(r.position != first.position for r in readings) and not may_take_turns(readings)
        if first.position.is_empty and not self.is_pattern and may_take_turns(readings):
            return False
        if first.label is Label.UNKNOWN and not self.is_pattern:
            if first.position.epoch is not None:
                # Values of batches within one epoch are the training's, and the evaluation is still to come.
                return int(first.position.epoch) != int(last.position.epoch or 0) or (
                    len(readings) >= _ENOUGH and first.position.step == last.position.step
                )
            if first.position.is_empty and may_be_grouped(readings):
                return False
            alike = sum(r.stream == first.stream for r in readings)
            return alike >= 2 and not self.is_echo(first)  # noqa: PLR2004
        return len(readings) >= 2  # noqa: PLR2004

    def is_echo(self, reading: Reading) -> bool:
        """Return whether a reading may be the target itself, printed before the training."""
        return not self.is_pattern and is_echo(reading, self.target)

    def ambiguity(
        self, readings: Sequence[Reading], training: Sequence[Reading], pending: Sequence[Reading]
    ) -> tuple[str, tuple[Reading, ...]] | None:
        """Return why it is in doubt which of the first readings is meant, and the readings that show it.

        They may be of batches, or several of an epoch. `training` are those of the training, by their label,
        and `pending` those of all labels.
        """
        if self.is_pattern:
            return None
        name = self.metric.name
        if pair := _of_verb(readings[0], pending):
            return f"lines that begin with the same verb have {name} of several data sets", pair
        if training and (batch := _of_training(readings)) is not None:
            reason = f"{name} stands on lines of batches, and the training has values of that name"
            return reason, (batch, training[0])
        if not self.metric.is_loss and (batch := _of_batches(readings)) is not None:
            reason = (
                f"{name} stands on lines of batches within an epoch, which may be the training's;"
                " name the metric of the validation, or choose these values with a pattern"
            )
            return reason, (batch,)
        if readings[0].position.is_empty and (pair := grouped(readings)):
            numbers = "the numbers that lines begin with"
            return f"{name} may have several values an epoch, as {numbers} tell", pair
        if readings[0].position.is_empty and (pair := taking_turns(readings)):
            return f"lines with different words take turns to have {name}", pair
        return self._only_first_meets(readings)

    def _only_first_meets(self, readings: Sequence[Reading]) -> tuple[str, tuple[Reading, ...]] | None:
        """Return why the first value may not be meant if it meets the target, and others do not."""
        name, first = self.metric.name, readings[0]
        if not self._may_meet(first):
            return None
        if (pair := taking_turns(readings)) and not self._may_meet(pair[1]):
            return f"lines with different words take turns to have {name}, and some meet the target", pair
        if first.position.epoch is None and not first.position.is_empty:
            other = next((r for r in readings if r.position.epoch is not None), None)
            if other is not None and not self._may_meet(other):
                reason = f"the first {name} meets the target at a step, a later one of an epoch does not"
                return reason, (first, other)
        return None

    def _may_meet(self, reading: Reading) -> bool:
        first = scaled(reading, self.metric, self.target, first=None, is_pattern=self.is_pattern)
        return not isinstance(first, Implausible) and self.target.is_met(first)

    def _may_be_of_batch(self, reading: Reading) -> bool:
        """Return whether an accuracy may be a training batch's, and the evaluation still to come.

        It has a step, no epoch, and no label; as many as may wait do so for a validation's value.
        """
        is_of_step = reading.position.epoch is None and reading.position.step is not None
        is_free = reading.format == TEXT and not (reading.is_definite or reading.uses_step)
        return reading.label is Label.UNKNOWN and is_of_step and is_free and self.metric.is_share

    def _is_too_early(self, readings: Sequence[Reading]) -> bool:
        """Return whether too few values follow one that may be a setting or be derived from the metric."""
        is_exact = readings[0].is_definite and readings[0].uses_step
        if self.is_pattern or is_exact:
            return False
        if any(self._may_be_of_batch(r) for r in readings):
            return True
        if len(readings) >= _SEVERAL:
            return False
        if all(r.variant in DERIVED for r in readings):
            return True
        placed, first = [r for r in readings if not r.position.is_empty], readings[0]
        if not placed or (first.label is Label.UNKNOWN and placed[0].position.epoch is None):
            return self.target.is_met(first.value)
        return len(placed) < 2 and first.position.is_empty and first.label is Label.UNKNOWN  # noqa: PLR2004


def preferred(readings: Sequence[Reading]) -> list[Reading]:
    """Return those of the label with the highest priority."""
    best = max(PRIORITY[r.label] for r in readings)
    return [r for r in readings if PRIORITY[r.label] == best]


def _once(readings: list[Reading]) -> list[Reading]:
    """Return readings, of a line that two loggers print one: it shows no more than one of them."""
    once = distinct(readings)
    return readings if len(once) == 1 and len(readings) >= _REPEATED else once


def _of_verb(first: Reading, others: Sequence[Reading]) -> tuple[Reading, Reading] | None:
    """Return two readings of which a verb alone calls one the validation's, if the other's line has it, too.

    `Validate test mAP: 0.3` says what is done with the test set, and so does `Validate bal mAP: 0.9` above.
    """
    verb = _VERB.match(first.text)
    if verb is None or label_in(first.text[verb.end() :]):
        return None
    is_alike = (r for r in others if r.label is Label.TEST and r.text.startswith(verb[0]))
    other = next(is_alike, None)
    return None if other is None else (first, other)


def _of_training(readings: Sequence[Reading]) -> Reading | None:
    """Return a value without a label of a batch within an epoch, where the training's have a label."""
    if readings[0].label is not Label.UNKNOWN:
        return None
    places = [position_in(reading.text) for reading in readings]  # of their own lines
    is_of_batches = all(None not in {place.epoch, place.step} for place in places)
    return readings[0] if is_of_batches else None


def _of_batches(readings: Sequence[Reading]) -> Reading | None:
    """Return a value without a label of one of several batches of an epoch; an evaluation has one value.

    Tunings aim at the loss of the training, which is printed so too, but at no accuracy of it.
    """
    if readings[0].label is not Label.UNKNOWN or readings[0].uses_step:
        return None
    places = [position_in(reading.text) for reading in readings]  # of their own lines
    for (one, of_one), (_, of_next) in pairwise(zip(readings, places, strict=True)):
        is_within = of_one.epoch is not None and of_one.epoch == of_next.epoch
        if is_within and None not in {of_one.step, of_next.step} and of_one.step != of_next.step:
            return one
    # One line an epoch, and each is of the same batch: steps that grow may be those of the whole run.
    steps = [place.step for place in places]
    is_part = all(p.step is not None and p.total is not None and p.step < p.total - 1 for p in places)
    is_same = len(steps) > 1 and len(set(steps)) == 1
    return readings[0] if is_part and is_same and places[0].epoch is not None else None
