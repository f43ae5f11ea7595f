"""Free text and `key=value`, the format of most logs that are written by hand."""

from __future__ import annotations

import re
from typing import Final

from autotuner.study.formats.finder import MAX_LEAD, Finder, Found
from autotuner.study.formats.line import Line
from autotuner.study.formats.reading import (
    Format,
    Label,
    Metric,
    Position,
    Reading,
    position_in,
)

_PART: Final = re.compile(
    r"(?<![A-Za-z])(?:(?:val(?:id(?:ation|ating)?)?|eval(?:uat(?:ion|e|ing))?|test(?:ing)?)[\]\s:|,_-]{1,4}(?:mini-?)?batch"
    r"|sample|image|img|case|video|patient)(?:\s?[:#=]\s{0,3}|\s{1,3})\[?\d{1,9}(?![\w/.%]|\s?/)",
    re.IGNORECASE,
)
"""`Sample: 32, validation mIoU: 28.8`, `val batch 3 loss 0.4`: of a part of an evaluation, or so far."""
_OF_BATCH: Final = re.compile(
    r"(?<![A-Za-z])batch(?:\s?[:#=]\s{0,3}|\s{0,3})[\[(]?\d{1,9}\s?(?:/|of)\s?\d", re.IGNORECASE
)
"""`Batch[400/6920]`: a batch of the training, where nothing says otherwise."""
_OF_STEP: Final = re.compile(
    r"(?<![A-Za-z])(?:lr|learning[ _]?rate|grad[ _]?norm|eta|ips|samples/s(?:ec)?"
    r"|(?:batch|data)[ _](?:cost|time))(?![A-Za-z])",
    re.IGNORECASE,
)
"""What lines of training steps have, and those of evaluations do not."""
_OF_EVALUATION: Final = re.compile(
    r"(?<![A-Za-z])(?:val(?:id\w{0,8})?|dev|eval\w{0,6}|tests?|testing)(?![A-Za-z])", re.IGNORECASE
)
_UNDER_WAY: Final = re.compile(
    r"(?<![A-Za-z])(?:val(?:id(?:ation|ating)?)?|dev|eval(?:uat(?:ion|e|ing))?|test(?:ing)?)\]?[\s:|,-]{0,4}"
    r"(?:\[?epoch[\s:#=]{0,3}\d{1,9}(?:\s?/\s?\d{1,9})?\]?[\s:|,-]{0,4}(?P<bars>(?<=\|\s)(?=\d{1,12}/\d{1,12}\s\|))?"
    r"|(?P<pair>\d{1,9}/\d{1,9}\s(?=\d{1,12}/\d{1,12}\s)))?"
    r"(?:\[?(?P<word>iter(?:ation)?s?|it|batch|step)[\s:#=]{0,3}(?:\d{1,12}\s?\()?|[\[(]|(?=\d{1,12}/\d{1,12}\s?\[[=>#.])|(?(bars)|(?(pair)|(?!))))"
    r"\s{0,8}(?P<step>\d{1,12})\s?(?:/|of)\s?(?P<total>\d{1,12})(?!\d)",
    re.IGNORECASE,
)
"""`[Eval][Epoch 1][Iter: 10/200]`, `Valid | Epoch 1 | 10/50 |`, `Val 3/300 10/25`: a part of an evaluation;
not `step 400/1000: val loss`, a whole one."""
_PAIR: Final = re.compile(r"[\[(]\s{0,8}(?P<count>\d{1,12})\s?/\s?(?P<total>\d{1,12})\s?[\])]")
_DUMP: Final = re.compile(
    r"[\W_]{0,8}(?:DLL [\d:. -]{10,40})?(?:"
    r"(?:PARAMETER|(?:re)?load\w{0,4}|resum\w{1,4}|restor\w{1,4}|sav(?:ed|ing)(?! dict for)"
    r"|continu\w{1,4})\s|(?:Namespace|argparse|args?|arguments?|config(?:uration)?|hparams?|hyper-?parameters?|cfg"
    r"|settings|options|parameters|flags|(?-i:(?:\w{1,40}\.){0,6}(?:[A-Z][A-Za-z]{1,40})?(?:Error|Exception|Warning))|command|cmd|usage|python3?|torchrun|argv|early.?stopping|EarlyStopping)"
    r"(?![\w])|--(?=\w))",
    re.IGNORECASE,
)
"""The start of a line that repeats a configuration or the content of a checkpoint."""


def is_key_value(text: str) -> bool:
    """Return whether a line holds `key=value` pairs and nothing else."""
    words = text.replace(",", " ").split()
    return bool(words) and all(0 < word.find("=") < len(word) - 1 for word in words)


class TextReader:
    """Reads free text."""

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values on the line."""
        text = line.text
        if not self._finder.mentions(text) or _DUMP.match(text):
            return None
        found = list(self._finder.find(text))
        if not found:
            return None
        if not all(each.variant for each in found):
            found = [each for each in found if not each.is_of_kind]  # `AP: 0.64, AP (M): 0.65`
        position = position_in(text).or_else(context)
        if line.is_redrawn and position.epoch is not None:
            position = Position(position.epoch)  # the next line of the epoch replaces this one
        is_definite = is_key_value(text) and found[0].label is not Label.TRAIN
        return [
            Reading(
                value=each.value,
                position=position,
                label=each.label or self._label_of(text, each),
                line=line.raw,
                is_percent=each.is_percent,
                is_definite=is_definite,
                progress=_progress(line, each),
                variant=each.variant,
                lead=each.lead,
                alternative=_alternative(each),
                digits=each.digits,
            )
            for each in found
        ]

    def _label_of(self, text: str, found: Found) -> Label:
        """Return that an accuracy without a label is the training's, if its line is of a training step."""
        if not self._metric.is_share or _OF_EVALUATION.search(text):
            return Label.UNKNOWN
        if _OF_BATCH.search(text[: found.start][-MAX_LEAD:]):
            return Label.TRAIN
        position = position_in(text)
        # A line of an epoch may name the learning rate, too.
        is_of_epoch = position.step is None and position.epoch is not None
        is_of_step = not is_of_epoch and _OF_STEP.search(text) is not None
        return Label.TRAIN if is_of_step else Label.UNKNOWN


def _progress(line: Line, found: Found) -> float | None:
    """Return the progress of a running average, or that the next line replaces this one."""
    lead = line.text[max(0, found.start - MAX_LEAD) : found.start]
    if found.label is not Label.TRAIN and _PART.search(lead):
        return 0.0
    part = _UNDER_WAY.search(lead)
    if part and found.label in {Label.VALIDATION, Label.TEST}:
        is_of_batches = bool(part["word"] or part["pair"]) or position_in(line.text).epoch is not None
        step, total = float(part["step"]), float(part["total"])
        if is_of_batches and step < total - 1:
            return step / total
    if found.average is not None and (pair := _PAIR.search(line.text)):
        count, total = float(pair["count"]), float(pair["total"])
        return 1.0 if count >= total - 1 else count / total
    return 1.0 if line.is_redrawn else None


def _alternative(found: Found) -> float | None:
    """Return the number in parentheses, if it may be an average that is meant instead."""
    other = found.average
    if other is None or other == found.value or abs(found.value + other - 100) < 0.1:  # noqa: PLR2004 (an error)
        return None
    return None if found.is_changed else other


FORMAT: Final = Format(
    "key-value", "key=value, `name: value` and free text, such as `Epoch 3 | Val Acc: 0.91`", TextReader
)
