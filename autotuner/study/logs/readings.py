"""Convert readings to measurements, or report a doubt.

A log may have several numbers under the metric's name. The labels in the log decide which is meant:
validation before test, and either before values without a label; training values are never taken for the
metric. The choice is made before anything counts, so the measurements at any time are the beginning of later
ones. A reading that contradicts the choice afterwards is a doubt, and then nothing counts.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Final

from autotuner.spec.values import Target
from autotuner.study.formats import RICH, STRUCTURED, TABLE, TEXT
from autotuner.study.formats.line import NUMBER, to_number
from autotuner.study.formats.reading import Label, Metric, Reading, position_in
from autotuner.study.logs.choice import MOST, PRIORITY, Choice, Stream, preferred
from autotuner.study.logs.doubt import Doubt, bounded, doubt
from autotuner.study.logs.early import from_training
from autotuner.study.logs.ranks import Ranks
from autotuner.study.logs.scale import Implausible, agree, are_fractions, fitting, scaled
from autotuner.study.logs.sibling import Sibling
from autotuner.study.logs.units import Unit, step_of, unit_of
from autotuner.study.thinning import MAX_MEASUREMENTS, thin
from autotuner.trial import Measurement

_RECORDS: Final = frozenset({"json", "nested-json", "huggingface"})
"""Formats whose names are exact, as programs write them: `loss` is not `eval_loss`."""
_TRAINING_EPOCHS: Final = 3
"""Number of epochs with training values only after which that is a doubt."""
_EXACT: Final = 4
"""Decimals of a value that is not equal to another one by chance."""
_SHOWN: Final = 60
_MAX_WARNINGS: Final = 10
_PERCENT_READINGS: Final = 3
_RECENT: Final = 256
"""Number of measurements that one is compared with that may be printed again."""
_BEFORE_EVALUATION: Final = frozenset({0.0, -1.0})
"""Values with which scripts fill a metric before its first evaluation: `val_loss = 0.0`."""
_PHASES: Final = ("phase ", "stage ")
"""Parts of one run, whose steps may go on."""
_LAST_NUMBER: Final = re.compile(rf"{NUMBER}$", re.IGNORECASE)
_STEPS_TO_ZERO: Final = 100
"""A loss of more than these many units of its last decimal does not fall to 0 from one epoch to the next."""


class Readings:
    """Takes readings in the order of the log; holds measurements, a doubt, and warnings.

    Args:
        metric: The metric's name.
        target: The target; its threshold distinguishes fractions from percentages.
        is_pattern: The readings come from the user's own pattern, which says what is meant.
    """

    def __init__(
        self, metric: Metric, target: Target, *, is_pattern: bool = False, is_one_process: bool = False
    ) -> None:
        self.metric = metric
        self.measurements: list[Measurement] = []
        self.first_line = ""
        self.format: str | None = None
        self._target = target
        self._is_pattern = is_pattern
        self._choice = Choice(metric, target, is_pattern, is_one_process)
        self._doubt: Doubt | None = None
        self._warnings: dict[str, None] = {}
        self._chosen: Stream | None = None
        self._unit = Unit.COUNT
        self._pending: list[Reading] = []
        self._held: dict[Stream, Reading] = {}
        self._training: list[Reading] = []
        self._partial: Reading | None = None
        self._fillers: list[Reading] = []
        self._ranks = Ranks(metric)
        self._last: Reading | None = None
        self._is_closed = False
        self._sibling = Sibling(metric)
        self._checked: Reading | None = None
        self._are_fractions = True
        self._uncounted = ""
        self._part_end: tuple[float, Reading] | None = None
        self._epochs: tuple[float, float] | None = None
        self._has_whole_part = False

    @property
    def doubt(self) -> Doubt | None:
        """Why nothing counts; None if nothing is in doubt."""
        if self._doubt is not None:
            return self._doubt
        waiting = self._pending or self._held or self._fillers
        if self._training and not self.measurements and not waiting:
            epochs = {r.position.epoch for r in self._training}
            if self._is_closed or len(epochs) >= _TRAINING_EPOCHS:
                name = self.metric.name
                if self._sibling.name:
                    # A pattern for the training values would be tuned on.
                    reason = (
                        f"{name} appears on training lines only, and the log has {self._sibling.name} too"
                    )
                    return doubt(self.metric, reason, self._training[-1], target=self._sibling_target)
                reason = (
                    f"{name} appears on training lines only; name the metric of the validation, or choose the"
                    " training values with a pattern"
                )
                return doubt(self.metric, reason, self._training[-1])
        if self._is_closed and self._partial is not None and not self.measurements:
            reason = f"{self.metric.name} appears within evaluations only, and never for a whole one"
            return doubt(self.metric, reason, self._partial)
        return None

    @property
    def is_counted(self) -> bool:
        """Whether steps only count the measurements, because the log names no other unit."""
        return self._unit is Unit.COUNT

    @property
    def unit(self) -> str:
        """What the steps count, `epoch` or `step`; empty where they count the measurements."""
        return self._unit.word if self.measurements else ""

    @property
    def uncounted(self) -> str:
        """A line with a value that stands for no evaluation, if the log has no other value."""
        return "" if self.measurements else self._uncounted

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the reading, for the user."""
        return tuple(self._warnings)

    def add(self, reading: Reading) -> None:
        """Process a reading."""
        if self._doubt is not None:
            return
        is_followed = self._ranks.is_followed(reading)
        if other := self._ranks.contradicted(reading):
            ranks = ("lines without a rank" if r.rank is None else f"rank {r.rank}" for r in (other, reading))
            self._raise(f"{' and '.join(ranks)} disagree on {self.metric.name}", other, reading)
            return
        if not is_followed:
            return
        if reading.label is Label.TRAIN and self.metric.label is not Label.TRAIN:
            if len(self._training) < MOST:
                self._training.append(reading)
            return
        stream = reading.stream
        if reading.progress is not None:
            if reading.progress < 1 and reading.format in _RECORDS | {TEXT}:
                self._partial = reading
            self._hold(stream, reading)
            return
        held = self._held.pop(stream, None)
        if held is not None and (held.progress or 0) >= 1:
            is_remark = reading.format == TEXT and held.format in STRUCTURED
            if is_remark or held.position.epoch != reading.position.epoch:
                self._take(held)
        self._take(reading)

    def is_cut_off(self, reading: Reading) -> bool:
        """Return whether the end of the log, a line without an end, may have cut off the digits of a value.

        What a killed process had not written yet is lost, in the middle of a line: `0.` is left of `0.4512`.
        """
        number = _LAST_NUMBER.search(reading.line)
        if number is None or to_number(number[0]) != reading.value:
            return False
        known = self._last or next(iter(self._pending), None)
        is_cut = number[0].endswith(".") or (known is not None and reading.digits < known.digits)
        if is_cut:
            self._warn(f"{bounded(reading.line)!r} is cut off, and its value is not counted")
        return is_cut

    def note_sibling(self, found: re.Match[str], rank: int | None = None) -> None:
        """Record a validation metric of the same name, such as `val_acc` in addition to `acc`."""
        self._sibling.note(found, rank)
        if self._chosen is not None and self._last is not None:
            self._check_sibling(self._last)

    def note_column(self, name: str) -> None:
        """Record the column of a table that is the metric on validation data, such as `val_acc` for `acc`.

        It is noted with each line behind the table, but checked once for each value.
        """
        self._sibling.note_column(name)
        if self._chosen is not None and self._last is not None and self._last is not self._checked:
            self._checked = self._last
            self._check_sibling(self._last)

    def note_epochs(self, epoch: float, epochs: float) -> None:
        """Record the epoch that a line names and their number: a part of the log that had all is whole."""
        if self._epochs is not None and epoch < self._epochs[0]:
            last = self._epochs[1] - (epoch == 0)  # they may count from 0
            self._has_whole_part = self._has_whole_part or self._epochs[0] >= last
        self._epochs = epoch, epochs

    def _check_sibling(self, reading: Reading) -> None:
        is_validation = reading.label in {Label.VALIDATION, Label.TRAIN} and not (
            reading.variant or not self._sibling.is_of_rank(reading.rank)
        )
        name = self.metric.name
        if is_validation and self._sibling.contradicts(reading) and not self._is_pattern:
            reason = f"{name} of the validation has values that {self._sibling.name} does not have"
            self._raise(reason, reading, target=self._sibling_target)
        if not self._sibling.name or is_validation or self._is_pattern:
            return
        if reading.is_definite and reading.format in _RECORDS and not self.metric.is_share:
            self._warn(f"{name} is read, but the log has {self._sibling.name} too")
            return
        of_what = reading.variant or (f"rank {reading.rank}" if reading.rank else reading.label)
        what = f"belongs to {of_what}" if reading.label else "may be a training value"
        reason = f"{name} {what}, and the log has {self._sibling.name} too"
        self._raise(reason, reading, target=self._sibling_target)

    @property
    def _sibling_target(self) -> str:
        return f"{self._sibling.name} {self._target.comparison} {self._target.threshold:g}"

    def settle(self) -> None:
        """Process the held readings of the epoch that has ended."""
        held, self._held = self._held, {}
        for reading in held.values():
            if (reading.progress or 0) >= 1:
                self._take(reading)

    def close(self) -> None:
        """Process the remaining readings: the log has ended."""
        self.settle()
        self._is_closed = True
        if self._chosen is None and self._pending:
            self._choose()
        self._end_fillers()
        self._check_fractions()
        self._check_epochs()
        if self.measurements and self._last is not None:
            self._check_sibling(self._last)
            self._is_part_as_long(self.measurements[-1].step, self._last)

    # --- what is held and what is chosen ---------------------------------------------------------------

    def _hold(self, stream: Stream, reading: Reading) -> None:
        held = self._held.get(stream)
        if held is not None and held.is_tentative:
            self._held.pop(stream)
            if reading.is_tentative or held.position.epoch != reading.position.epoch:
                self._take(held)
            held = None
        if held is not None and not _is_same_row(held, reading):
            self._held.pop(stream)
            if (held.progress or 0) >= 1:
                self._take(held)
        elif held is not None and held.lead != reading.lead and (held.progress or 0) >= 1:
            self._take(held)  # a bar of another data set
        elif held is not None and (reading.progress or 0) < (held.progress or 0):
            if held.value == reading.value and reading.position.epoch is not None:
                return  # a bar that starts the next epoch under the name of the last one
            if (held.progress or 0) >= 1:
                self._take(held)
        self._held[stream] = reading
        if len(self._held) > MOST:
            self.settle()

    def _take(self, reading: Reading) -> None:
        if self._doubt is not None:
            return
        stream = reading.stream
        if self._chosen is None:
            self._pending.append(reading)
            if self._choice.is_due(self._pending, self._held):
                self._choose()
        elif stream == self._chosen:
            self._take_value(reading)
        else:
            self._contradict(reading)

    def _choose(self) -> None:
        pending, self._pending = self._pending, []
        readings = preferred(pending)
        if not self._is_pattern:
            start = from_training(readings, self.metric, self._target)
            if start.warning:
                self._warn(start.warning)
            if start.doubt:
                self._raise(start.doubt, *start.doubtful)
            readings = list(start.readings)
        if not readings:
            return
        first = readings[0]
        ambiguity = self._choice.ambiguity(readings, self._training, pending)
        if ambiguity is not None:
            reason, shown = ambiguity
            self._raise(reason, *shown)
            return
        self._chosen = first.stream
        self._unit = unit_of(readings, is_pattern=self._is_pattern)
        self._check_sibling(first)
        for reading in pending:
            if PRIORITY[reading.label] < PRIORITY[first.label]:
                self._warn_other(reading)
        for reading in readings:
            self._take(reading)

    def _contradict(self, reading: Reading) -> None:
        label, _ = self._chosen or (Label.UNKNOWN, "")
        if PRIORITY[reading.label] < PRIORITY[label]:
            self._warn_other(reading)
            return
        known = self._last or reading
        is_same = known.position == reading.position and agree(known, reading, self.metric)
        if reading.label is label and (is_same or self._is_closing(reading)):
            return
        one, other = _described(known), _described(reading)
        self._raise(f"{self.metric.name} has {one} and {other} under one name", known, reading)

    def _is_closing(self, reading: Reading) -> bool:
        """Return whether a line without a place of its own repeats a value: the result at the end."""
        is_exact = reading.digits >= _EXACT and math.isfinite(reading.value)
        is_placed = not position_in(reading.text).is_empty
        return is_exact and not is_placed and any(m.value == reading.value for m in self.measurements)

    def _warn_other(self, reading: Reading) -> None:
        label, name = self._chosen[0] if self._chosen else Label.UNKNOWN, self.metric.name
        what = reading.label or "unlabelled"
        self._warn(f"{what} values of {name} are ignored, because there are {label or 'other'} values")

    # --- steps and values ------------------------------------------------------------------------------

    def _take_value(self, reading: Reading) -> None:
        value = self._scaled(reading)
        if value is None or self._is_of_another_run(reading) or self._is_filler(value, reading):
            return
        self._measure(reading, value)

    def _measure(self, reading: Reading, value: float) -> None:
        as_read = replace(reading, value=value)
        if self._is_summary(as_read) or self._is_remark(as_read):
            return
        last = self.measurements[-1] if self.measurements else None
        step = step_of(reading, self._unit, 0.0 if last is None else last.step)
        known = self._last
        if known is not None and self._unit is Unit.COUNT and self._is_beside(known, as_read):
            return
        if last is not None and known is not None and step == last.step:
            if agree(known, as_read, self.metric) or self._is_repeated(as_read):
                return
            self._raise(f"{self.metric.name} has several values at step {step:g}", known, reading)
            return
        if last is not None and step < last.step and self._is_left_out(step, as_read):
            return
        if not self.measurements:
            self.first_line, self.format = bounded(reading.line), reading.format
        self._last = as_read
        self._are_fractions = self._are_fractions and not reading.is_percent
        self.measurements.append(Measurement(step, value))
        if len(self.measurements) > MAX_MEASUREMENTS:
            self.measurements = thin(self.measurements, MAX_MEASUREMENTS // 2)
        if len(self.measurements) == _PERCENT_READINGS:
            self._check_fractions()

    def _is_filler(self, value: float, reading: Reading) -> bool:
        """Return whether a value may be from before the first evaluation, and would meet the target there.

        It waits for another value, and does not count once there is one.
        """
        if self._target.sign > 0 or self._target.threshold <= 0:
            return False
        if self.measurements:
            return self._is_left_empty(value, reading)
        if value in _BEFORE_EVALUATION:
            # Of what cannot count the first is enough, for the warning.
            limit = MAX_MEASUREMENTS if self._is_pattern or not self.metric.is_loss else 1
            if len(self._fillers) < limit:
                self._fillers.append(reading)
            return True
        self._leave_out_fillers()
        return False

    def _is_left_empty(self, value: float, reading: Reading) -> bool:
        """Return whether a loss of 0 stands for an epoch without an evaluation, not for a small value."""
        if value != 0 or not self.metric.is_loss or self._is_pattern or self._last is None:
            return False
        smallest = 10.0 ** -max(self._last.digits, reading.digits)
        is_empty = self._last.value > _STEPS_TO_ZERO * smallest
        if is_empty:
            self._warn(f"{bounded(reading.line)!r} comes without an evaluation and is not counted")
        return is_empty

    def _end_fillers(self) -> None:
        """Count zeros without any other value, unless no training brings the metric to them."""
        fillers = self._fillers
        is_zero = all(reading.value == 0 for reading in fillers)
        if not self._is_pattern and (self.metric.is_loss or not is_zero):
            self._leave_out_fillers()
            return
        self._fillers = []
        for reading in fillers:
            self._measure(reading, reading.value)

    def _leave_out_fillers(self) -> None:
        if self._fillers:
            line = self._uncounted = bounded(self._fillers[0].line)
            self._warn(f"{line!r} comes before the first evaluation and is not counted")
            self._fillers = []

    def _is_remark(self, reading: Reading) -> bool:
        """Return whether free text accompanies a structured format; a different value in it is in doubt."""
        known = self._last
        if known is None or reading.format != TEXT:
            return False
        # The rows of a table with epochs of its own are all that the program measures, too.
        is_beside_rows = known.is_definite and self.format == TABLE and position_in(reading.text).is_empty
        if self.format not in STRUCTURED and not is_beside_rows:
            return False
        if not agree(known, reading, self.metric) and not self._is_repeated(reading):
            others = f"a value in a {self.format} line and a different one in free text"
            self._raise(f"{self.metric.name} has {others}", known, reading)
        return True

    def _is_beside(self, known: Reading, reading: Reading) -> bool:
        """Report a doubt if two values stand on one line, such as `test acc` and `test avg acc`."""
        # A diverged run prints the same line again and again, and NaN is not equal to itself.
        differs = math.isfinite(known.value) and math.isfinite(reading.value) and known.value != reading.value
        if self._is_pattern or known.line != reading.line or not differs:
            return False
        self._raise(f"{self.metric.name} has several values on one line", known, reading)
        return True

    def _is_summary(self, reading: Reading) -> bool:
        """Return whether a value has no step where others have, and so repeats them or is in doubt."""
        known = self._last
        has_steps = self._unit in {Unit.STEP, Unit.FRACTION}
        if not has_steps or reading.position.step is not None or known is None:
            return False
        if agree(known, reading, self.metric):
            return True  # a bar or a summary repeats it
        if reading.position.epoch != known.position.epoch:
            return False
        others = "values within an epoch and a different one for the whole epoch"
        self._raise(f"{self.metric.name} has {others}", known, reading)
        return True

    def _is_left_out(self, step: float, reading: Reading) -> bool:
        """Return whether a value of an earlier step does not count; report a doubt or a warning about it."""
        recent = self.measurements[-_RECENT:]
        known = self._last or reading
        if any(m.step == step and self._is_same(known, m.value, reading) for m in recent):
            return True  # the best one printed again, or all of them in a summary, with more digits
        last = recent[-1].step
        if self._unit is Unit.STEP and (known.position.epoch or 0.0) < (reading.position.epoch or 0.0):
            name = self.metric.name
            reason = f"the steps of {name} start again in each epoch, and the log does not give its length"
            self._raise(reason, known, reading)
            return True
        self._warn(f"steps went back from {last:g} to {step:g}: the run was restarted, or has several parts")
        if step <= self.measurements[0].step:
            if self._is_of_another_phase(known, reading):
                return True
            if self._is_part_as_long(last, known) or self._is_after_whole_part(known, reading):
                return True
            self._part_end = (last, known)
        return False

    def _is_part_as_long(self, last: float, known: Reading) -> bool:
        """Report a doubt if two parts of the log end at one step, such as folds of a cross-validation.

        A run that was restarted breaks off anywhere.
        """
        end, several = self._part_end, last > self.measurements[0].step
        if end is None or end[0] != last or not several or self._is_pattern or self._doubt is not None:
            return False
        reason = f"the log has several runs, each with its {self.metric.name} up to step {last:g}"
        self._raise(reason, end[1], known)
        return True

    def _is_after_whole_part(self, known: Reading, reading: Reading) -> bool:
        """Report a doubt if a part of the log had all of its epochs before another began at the first.

        A pre-training and a fine-tuning do so. A run that was restarted had not ended.
        """
        if not self._has_whole_part or self._is_pattern or len(self.measurements) < 2:  # noqa: PLR2004 (epochs)
            return False
        name = self.metric.name
        reason = f"the log has several parts, of which one ended with its last epoch, each with its {name}"
        self._raise(reason, known, reading)
        return True

    def _is_of_another_phase(self, known: Reading, reading: Reading) -> bool:
        """Report a doubt if the steps begin again in another phase; a restarted run names the same."""
        parts = known.part, reading.part
        if self._is_pattern or parts[0] == parts[1] or not all(part.startswith(_PHASES) for part in parts):
            return False
        several = f"the log has several parts ({parts[0]}, {parts[1]}), each with its {self.metric.name}"
        self._raise(several, known, reading)
        return True

    def _is_same(self, known: Reading, value: float, reading: Reading) -> bool:
        return agree(replace(known, value=value), reading, self.metric)

    def _is_of_another_run(self, reading: Reading) -> bool:
        """Report a doubt if the log has several runs, such as the folds of a cross-validation."""
        known = self._last
        if known is None or self._is_pattern or known.part in {"", reading.part}:
            return False
        if known.part.split()[0] != reading.part.split()[0] or known.part.startswith(_PHASES):
            return False
        several = f"the log has several runs ({known.part}, {reading.part}), each with its {self.metric.name}"
        self._raise(several, known, reading)
        return True

    def _scaled(self, reading: Reading) -> float | None:
        """Return the value in the threshold's unit; None if it is in doubt."""
        first = self.measurements[0].value if self.measurements else None
        value = scaled(reading, self.metric, self._target, first=first, is_pattern=self._is_pattern)
        if isinstance(value, Implausible):
            self._raise(value.reason, reading, target=value.target)
            return None
        if reading.is_percent and abs(self._target.threshold) <= 1 and "%" in reading.line:
            self._warn(f"{self.metric.name} is printed in percent and read as a fraction, like the target")
        return value

    def _check_fractions(self) -> None:
        """Report a doubt if all values are fractions and the target is a percentage."""
        is_due = self._is_closed or len(self.measurements) >= _PERCENT_READINGS
        if not is_due or not self._are_fractions or self._last is None:
            return
        if are_fractions(self.measurements, self.metric, self._target):
            reason = f"{self.metric.name} looks like a fraction, but {self._target} looks like a percentage"
            self._raise(reason, self._last, target=fitting(self._target, 0.01))

    def _check_epochs(self) -> None:
        """Warn if only the last of several epochs was printed."""
        is_alone = len(self.measurements) == 1 and self.format == RICH
        if is_alone and self._last is not None and (self._last.position.epoch or 0) > 1:
            self._warn(
                f"only the last value of {self.metric.name} is read: rich draws a bar once, at the end, if"
                " its output is not a terminal; print the value after each epoch, or use another bar (in"
                " Lightning, TQDMProgressBar)"
            )

    def _is_repeated(self, reading: Reading) -> bool:
        """Return whether a value was measured before: the best model, evaluated again at the end."""
        tolerance = 10.0**-reading.digits
        return len(self.measurements) > 1 and any(
            math.isclose(m.value, reading.value, abs_tol=tolerance) for m in self.measurements[:-1]
        )

    def _raise(self, reason: str, *readings: Reading, target: str = "") -> None:
        if self._doubt is None:
            others = [*self._training, *self._pending, *self._held.values()]
            others = [other for other in others if other.stream not in {r.stream for r in readings}]
            self._doubt = doubt(self.metric, reason, *readings, target=target, others=others)

    def _warn(self, text: str) -> None:
        if len(self._warnings) < _MAX_WARNINGS:
            self._warnings.setdefault(text)


def _described(reading: Reading) -> str:
    of_what = f" ({bounded(reading.stream[1])[:_SHOWN]!r})" if reading.stream[1] else ""
    return f"{reading.label or 'unlabelled'} values{of_what}"


def _is_same_row(held: Reading, reading: Reading) -> bool:
    return held.position.epoch == reading.position.epoch and held.position.step == reading.position.step
