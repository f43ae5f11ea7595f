"""Meters of the vision examples: PyTorch's ImageNet example, torchvision's references, timm.

A meter prints `value (average)`; the average is the value over the data set so far. The last line of an
evaluation, or a summary line ` * Acc@1 76.130`, has the value for the whole data set.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from autotuner.study.formats.finder import Finder, Found
from autotuner.study.formats.line import Line
from autotuner.study.formats.reading import Format, Label, Metric, Position, Reading, label_in, position_in

_HEAD: Final = re.compile(
    r"\s{0,4}(?P<head>(?:Epoch|Train|Test|Val|Valid|Validate|Validation|Eval|Evaluation)\b[^\[\d]{0,24}:[^\[\d]{0,16})\s{0,4}(?:(?P<epoch>\d{1,9})\s)?"
    r"(?:\[\s{0,8}(?P<one>\d{1,9})\s{0,4}(?:/\s{0,4}\d{1,9}\s{0,4})?\])?\s{0,8}\[\s{0,8}(?P<step>\d{1,12})\s?/\s?(?P<total>\d{1,12})",
    re.IGNORECASE,
)
"""`Epoch: [0][ 400/5005]`, `Test: [ 0/196]`, `Test (EMA): [12/12]`, `Train: 3 [ 50/1251 (  4%)]`."""
_EPOCH_IN_PAIR: Final = re.compile(
    r"\s?\]\s{1,4}(?:Final\b|Step\s{1,4}(?P<step>\d{1,12})/(?P<total>\d{1,12}))"
)
"""What follows `Valid: [ 2/50`, where that is the epoch: `] Step 390/390`, `] Final Prec@1 91.1%`."""
_OF_WHAT: Final = re.compile(r"\*\s{1,4}(?P<word>[A-Za-z]{2,12})\s{1,2}$")
"""`* Clip Acc@1 50.1` and `* Video Acc@1 56.1` are two metrics."""
_SUMMARY: Final = re.compile(r"\s{0,12}\*{1,3}\s{1,4}(?!\*)")
_TEST_SUMMARY: Final = re.compile(r"\s{0,4}Test:\s{1,4}(?=(?:[A-Z]{2,6}\s)?[A-Za-z]{2,8}@\d)")
_STATS: Final = re.compile(r"\s{0,4}Averaged stats:")
_VARIANT: Final = re.compile(r"\((?P<variant>[A-Za-z][\w -]{0,24})\)|\b(?P<ema>EMA)\b")


class MeterReader:
    """Reads meters, and the summaries of an evaluation."""

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric
        self._label = Label.UNKNOWN
        self._variant = ""

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the averages of a meter's line, or a summary's values."""
        text = line.text
        if head := _HEAD.match(text):
            self._label = label_in(head["head"]) or Label.TRAIN
            if self._label is Label.TEST:
                self._label = Label.VALIDATION  # these examples call the validation set so
            variant = _VARIANT.search(head["head"])
            self._variant = (variant["variant"] or variant["ema"]).lower() if variant else ""
            step, total = float(head["step"]), float(head["total"])
            epoch = head["one"] or head["epoch"]
            if inner := _EPOCH_IN_PAIR.match(text, head.end()):
                epoch, step, total = head["step"], float(inner["step"] or 1), float(inner["total"] or 1)
            position = Position(float(epoch), step, total) if epoch else Position(context.epoch, context.step)
            # Indices count from 0, and some scripts print the last one as the total.
            progress = 1.0 if step >= total - 1 else step / max(total, 1.0)
            if self._label is Label.TRAIN:
                return [self._reading(f, line, position, average=True) for f in self._finder.find(text)]
            return [
                replace(self._reading(f, line, position, average=True), progress=progress)
                for f in self._finder.find(text)
            ]
        is_stats, label = _STATS.match(text), self._label
        # Behind the training's meters it is the training's, if the evaluation has a summary of its own.
        is_tentative = bool(_SUMMARY.match(text)) and label is Label.TRAIN
        if _TEST_SUMMARY.match(text) or (_SUMMARY.match(text) and not is_tentative):
            label = self._label = Label.VALIDATION
        elif is_tentative:
            label = Label.VALIDATION
        elif not is_stats:
            return None
        found = list(self._finder.find(text))
        if not found and not is_stats:
            return None
        position = position_in(text).or_else(context)
        if position.total is not None:
            position = Position(position.epoch)
        return [
            replace(
                reading,
                label=self._metric.label or label,
                variant=self._variant or _of_what(text[: f.start]),
                progress=1.0 if is_tentative else None,
                is_tentative=is_tentative,
            )
            for f in found
            for reading in [self._reading(f, line, position, average=bool(is_stats))]
        ]

    def _reading(self, found: Found, line: Line, position: Position, *, average: bool) -> Reading:
        value = found.average if average and found.average is not None else found.value
        named = self._metric.label
        return Reading(
            value,
            position,
            named or self._label,
            line.raw,
            is_percent=found.is_percent,
            variant=self._variant,
            digits=found.digits,
        )


def _of_what(lead: str) -> str:
    word = _OF_WHAT.search(lead)
    return word["word"].lower() if word else ""


_MNIST: Final = re.compile(
    r"\s{0,4}(?P<label>Train|Training|Test|Validation|Val)\s(?:Epoch:\s{0,4}(?P<epoch>\d{1,9})\s{0,4}\[(?P<step>\d{1,12})/(?P<total>\d{1,12})\s?\(|set:)",
    re.IGNORECASE,
)


class MnistReader:
    """Reads PyTorch's MNIST example: `Test set: Average loss: 0.04, Accuracy: 9906/10000 (99%)`."""

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the test set's values, and the training's as such."""
        head = _MNIST.match(line.text)
        if head is None:
            return None
        label = label_in(head["label"])
        label = Label.VALIDATION if label is Label.TEST else label
        position = (
            Position(float(head["epoch"]), float(head["step"]), float(head["total"]))
            if head["epoch"]
            else context
        )
        if label is Label.VALIDATION:
            position = Position(position.epoch)
        return [
            Reading(
                found.value,
                position,
                self._metric.label or label,
                line.raw,
                is_percent=found.is_percent,
                digits=found.digits,
            )
            for found in self._finder.find(line.text)
        ]


METERS: Final = Format(
    "meters",
    "timm, torchvision and PyTorch's ImageNet example: `Test: [12/12] Acc@1: 99.6 (53.1)`, ` * Acc@1 76.1`",
    MeterReader,
)
MNIST: Final = Format(
    "mnist",
    "PyTorch's MNIST example: `Test set: Average loss: 0.04, Accuracy: 9906/10000 (99%)`",
    MnistReader,
)
