"""Language-model trainers: fairseq, Megatron and GPT-NeoX, OLMo, LitGPT.

nanoGPT's, torchtune's, NeMo's and Composer's lines are free text, bars and headers, which other formats read.
"""

from __future__ import annotations

import re
from typing import Final

from autotuner.study.formats.finder import Finder
from autotuner.study.formats.line import NUMBER, Line, to_number
from autotuner.study.formats.reading import (
    Format,
    Label,
    Metric,
    Position,
    Reading,
    digits_of,
    key,
    label_in,
    position_in,
)

_FAIRSEQ: Final = re.compile(
    r"[\s|]{0,8}(?:(?P<mode>train|valid|train_inner|valid_inner|test)\s?\|\s?)?epoch\s{1,4}(?P<epoch>\d{1,9})(?::\s{1,12}(?P<step>\d{1,12})\s?/\s?(?P<total>\d{1,12})|\s?\|(?!\s{0,4}\d{1,12}/))(?P<rest>.*)",
    re.IGNORECASE,
)
_SUBSET: Final = re.compile(r"\s{0,4}(?P<label>valid|test|train)\w{0,10} on '(?P<subset>[^']{1,80})' subset")


class FairseqReader:
    """Reads fairseq: training lines have `ppl=79.9`, validation lines, which are meant, `| ppl 118.06`."""

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric of a line, labelled by its kind."""
        del context
        head = _FAIRSEQ.match(line.text)
        if head is None:
            return None
        rest = head["rest"]
        subset = _SUBSET.match(rest)
        if subset is None and head["step"] is None and head["mode"] is None:
            return None
        label = label_in(subset["label"]) if subset else label_in((head["mode"] or "train").split("_")[0])
        variant = "" if subset is None or subset["subset"] in {"valid", "test"} else subset["subset"]
        epoch = float(head["epoch"])
        updates = position_in(rest).step
        position = Position(epoch, updates) if subset else Position(epoch)
        return [
            Reading(
                found.value,
                position,
                self._metric.label or label,
                line.raw,
                is_percent=found.is_percent,
                variant=variant,
                digits=found.digits,
            )
            for found in self._finder.find(rest)
        ]


_VALIDATED: Final = re.compile(
    r"(?:^|[\s\]:|-])(?P<data>validation|valid|test|evaluation)\s(?:loss|results)\sat\s"
    r"(?:iteration\s{1,8}(?P<step>\d{1,12})|(?:the\s)?end of training)(?P<rest>.*)",
    re.IGNORECASE,
)
_ITERATION: Final = re.compile(
    r"^\s{0,8}(?:iteration|steps?:)\s{1,12}(?P<first>\d{1,12})(?:\s?/\s{0,12}\d{1,12}\s?\||\sloss:)"
    r"|[\s\]:|-]iteration\s{1,12}(?P<step>\d{1,12})\s?/\s{0,12}\d{1,12}\s?\|"
)
_FIELD: Final = re.compile(
    rf"\|\s{{0,4}}(?P<name>[^|:]{{1,80}}?)(?:\s{{1,4}}value)?:\s{{0,4}}(?P<value>{NUMBER})(?![\w.])",
    re.IGNORECASE,
)


class MegatronReader:
    """Reads Megatron-LM and GPT-NeoX: `validation loss at iteration 1000 | lm loss value: 2.5E+00 |`.

    The lines of training iterations have the same name for a batch's loss; the validation is meant.
    """

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric
        self._own = {key(metric.name), key(metric.name).removesuffix("_value")}
        if self._own & {"val_loss", "validation_loss", "valid_loss", "eval_loss"}:
            self._own |= {"lm_loss"}

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric of a line, labelled by its kind."""
        if head := _VALIDATED.search(line.text):
            step = float(head["step"]) if head["step"] else context.step
            label = (
                Label.TEST
                if label_in(f"{head['data']} {head['rest'].split('|')[0]}") is Label.TEST
                else Label.VALIDATION
            )
            return [
                Reading(
                    to_number(field["value"]),
                    Position(None, step),
                    label,
                    line.raw,
                    digits=digits_of(field["value"]),
                    uses_step=True,
                )
                for field in _FIELD.finditer(head["rest"])
                if key(field["name"]).removesuffix("_value") in self._own
            ]
        if head := _ITERATION.search(line.text):
            position = Position(None, float(head["step"] or head["first"]))
            return [
                Reading(
                    f.value,
                    position,
                    self._metric.label or Label.TRAIN,
                    line.raw,
                    digits=f.digits,
                    uses_step=True,
                )
                for f in self._finder.find(line.text)
            ]
        return None


_OLMO: Final = re.compile(
    r"(?:[^\[]{0,80}\s|\s{0,8})\[(?:eval_)?step=(?P<step>\d{1,12})(?:/\d{1,12})?(?:,\s?epoch=\d{1,9})?(?:,[^\]]{0,80})?\]\s{0,4}$"
)
_OLMO_ROW: Final = re.compile(
    rf"\s{{2,16}}(?P<name>[\w./@ -]{{1,120}})=(?P<value>{NUMBER})\s{{0,4}}$", re.IGNORECASE
)


class OlmoReader:
    """Reads OLMo: a header `[step=1/739328,epoch=0]`, and below it one metric per line.

    Pretraining sees its data about once, so the epoch does not change; the step is used.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._step: float | None = None

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's row."""
        del context
        if head := _OLMO.match(line.text):
            self._step = float(head["step"])
            return []
        if self._step is None:
            return None
        row = _OLMO_ROW.match(line.text)
        if row is None:
            self._step = None
            return None
        if not self._metric.is_named(row["name"]):
            return []
        label = self._metric.label or Label.UNKNOWN
        return [
            Reading(
                to_number(row["value"]),
                Position(None, self._step),
                label,
                line.raw,
                is_definite=True,
                uses_step=True,
                digits=digits_of(row["value"]),
            )
        ]


_LITGPT: Final = re.compile(r"\s{0,4}(?:Epoch (?P<epoch>\d{1,9}) \| )?iter\s{1,4}(?P<step>\d{1,12})(?![\w.])")
_LOSSES: Final = re.compile(rf"loss train: {NUMBER}, val: (?:{NUMBER}|n/a)")


class LitGptReader:
    """Reads LitGPT: `Epoch 1 | iter 120 | val_loss: 2.10`; it validates several times an epoch."""

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric
        self._is_val = key(metric.name) in {"val_loss", "loss_val", "validation_loss"}

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric of a line, at its iteration."""
        del context
        head = _LITGPT.match(line.text)
        if head is None:
            return None
        position = Position(float(head["epoch"]) if head["epoch"] else None, float(head["step"]))
        if self._is_val and _LOSSES.search(line.text):
            return []  # it repeats the last validation's loss, which had a line of its own
        return [
            Reading(
                f.value,
                position,
                self._metric.label or f.label,
                line.raw,
                is_percent=f.is_percent,
                digits=f.digits,
                uses_step=True,
            )
            for f in self._finder.find(line.text)
        ]


FAIRSEQ: Final = Format(
    "fairseq", "fairseq: `| epoch 001 | valid on 'valid' subset | loss 8.114 | ppl 118.06`", FairseqReader
)
MEGATRON: Final = Format(
    "megatron",
    "Megatron-LM and GPT-NeoX: `validation loss at iteration 1000 | lm loss value: 2.5E+00 |`",
    MegatronReader,
)
OLMO: Final = Format("olmo", "OLMo: `[step=1/739328,epoch=0]`, then `train/Perplexity=195,153`", OlmoReader)
LITGPT: Final = Format("litgpt", "LitGPT: `Epoch 1 | iter 120 | val_loss: 2.10`", LitGptReader)
