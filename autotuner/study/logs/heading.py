"""Tell from the heading above a value which data set it was measured on: `Validation:`, `Test results`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from autotuner.study.formats.line import Line
from autotuner.study.formats.reading import Label, Position, Reading, label_in, position_in

_LINES: Final = 12
"""Lines below a heading that may belong to it."""
_LONGEST: Final = 80
"""Maximum characters of a heading."""
_NEAR: Final = 2
"""Lines between values of one evaluation, such as of two classifiers."""
_EPOCH: Final = r"epoch[\s:#]{0,3}\d{1,6}(?:\s?/\s?\d{1,6})?"
_HEADING: Final = re.compile(
    rf"(?:[\W_]{{0,12}}{_EPOCH}(?:[\W_]{{1,6}}phase)?)?[\W_]{{0,12}}(?:(?:phase|mode|split|stage)\s?[:=]\s?)?"
    r"(?:(?:start|begin|running|run|now|on|the|results?|evaluating|(?:check|comput|calculat|measur)ing|accuracy"
    r"|metrics|performance|for)\w{0,5}\s{1,2}){0,4}"
    r"(?P<word>train(?:ing)?|val(?:id(?:ation|ating)?)?|eval(?:uat(?:ion|e|ing))?|dev(?:elopment)?|test(?:ing)?)"
    r"(?:\s(?!epoch|at\s)[A-Za-z][\w.-]{0,24}){0,3}(?:\s?\([\w =:/-]{1,24}\))?"
    rf"(?:[\s,:|\[(-]{{1,4}}(?:(?:at|for|of|in)\s)?{_EPOCH})?[\W_]{{0,40}}"
    r"|.{0,60}[-|,:]\s(?P<of>train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|dev|test)"
    r"\s(?:metrics|results|scores)\s?:?",
    re.IGNORECASE,
)

_ABOVE: Final = re.compile(
    r"\s{0,8}(?P<word>train(?:ing)?|val(?:id(?:ation)?)?|eval(?:uation)?|test)\s?[|:]\s.{0,160}:\s{0,4}",
    re.IGNORECASE,
)
"""`eval | step: 1000 | output:`, with the record on the next line."""
_WEIGHTS: Final = re.compile(r"(?<![a-z])(?:ema|swa|teacher|student)(?![a-z])", re.IGNORECASE)
"""In a heading: the evaluation is of other weights than the model's."""

_ANOTHER: Final = "another below the heading"
"""The kind of a second value of an evaluation, such as of another class: it contradicts the first."""


class Heading:
    """The last heading of a log, and the value that it was the label of.

    Args:
        own: The label that the metric's own name implies.
    """

    def __init__(self, own: Label) -> None:
        self._own = own
        self._label = Label.UNKNOWN
        self._lines = 0
        self._variant = ""
        self._labelled: Reading | None = None
        self._since = 0
        self._above = Label.UNKNOWN
        self._above_lines = 0
        self._passed = 0
        self._given = "", 0, Label.UNKNOWN, Label.UNKNOWN

    @property
    def is_known(self) -> bool:
        """Whether the log has had a heading."""
        return self._label is not Label.UNKNOWN or self._above is not Label.UNKNOWN

    def note(self, text: str) -> None:
        """Process a line without a value, which may be a heading."""
        if len(text) <= _LONGEST and (found := _HEADING.fullmatch(text)):
            self._label, self._lines, self._labelled = label_in(found["word"] or found["of"]), _LINES, None
            weights = _WEIGHTS.search(text)
            self._variant = weights[0].lower() if weights else ""
            self._above, self._above_lines = self._label, 2
        elif len(text) <= 2 * _LONGEST and (found := _ABOVE.fullmatch(text)):
            self._above, self._above_lines = label_in(found["word"]), 2

    def pass_line(self) -> None:
        """Note that a line follows."""
        self._since += 1
        self._passed += 1
        self._above_lines -= self._above_lines > 0
        if self._lines:
            self._lines -= 1

    def follow(self, known: Position, position: Position, *, has_value: bool) -> None:
        """Note that a line names a place of the run; at another one than the known one a heading ends.

        The line below a heading may name its epoch: one without a value, or in decimals.
        """
        if position.epoch is not None and position.epoch != known.epoch:
            is_of_heading = not has_value or (known.epoch or 0.0) % 1
            if self._lines != _LINES - 1 or not is_of_heading:
                self._lines = 0
        elif position.step is not None and position.step != known.step:
            self._lines = 0

    def labelled(self, reading: Reading, line: Line) -> Reading:
        """Return a reading with the label of the heading, if it is one of its values.

        A line that is printed again at once has the label that it had before.
        """
        text, passed, given, label = self._given
        if line.text == text and 0 < self._passed - passed <= _NEAR and reading.label is given:
            return replace(reading, label=label)
        named = self._named(reading, line)
        if named is not reading and not named.variant:
            self._given = line.text, self._passed, reading.label, named.label
        return named

    def _named(self, reading: Reading, line: Line) -> Reading:
        if self._lines and not reading.variant and self._variant:
            reading = replace(reading, variant=self._variant)
        if reading.label is Label.VALIDATION is self._own and self._label is Label.TEST:
            # The label is the name's alone: `eval_wer` below `Test Set:` is of the test set.
            is_below, self._lines = bool(self._lines), 0
            return replace(reading, label=Label.TEST) if is_below else reading
        if reading.is_definite and not (reading.label or reading.uses_step) and self._above_lines:
            return replace(reading, label=self._above)
        if self._is_another(reading):
            return replace(reading, label=self._label, variant=_ANOTHER)
        if reading.label or reading.is_definite or not self._lines:
            return reading
        if self._label is Label.TRAIN and not line.indent:
            return reading
        # One value per heading: training lines may look the same and follow without one.
        self._lines, self._labelled, self._since = 0, reading, 0
        return replace(reading, label=self._label)

    def _is_another(self, reading: Reading) -> bool:
        """Return whether a value belongs to the same evaluation as the one that was labelled.

        It has the same words, or stands right below, at the same place of the run.
        """
        known = self._labelled
        if known is None or known.position != reading.position or reading.label or reading.variant:
            return False
        is_near = self._since <= _NEAR and position_in(reading.text).is_empty
        return not self._lines and (is_near or known.lead == reading.lead)
