"""Records on one line: JSON, Python dictionaries, lines of MLPerf, DLLogger and Katib.

Hugging Face's Trainer and Accelerate's examples print dictionaries, the SDK prints JSON.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from autotuner.study.formats.text import TextReader

_ITEM: Final = re.compile(
    r"[\"'](?P<name>[^\"'{}\n]{1,160})[\"']\s{0,4}:\s{0,4}(?:[\"'](?P<text>[^\"'\n]{0,160})[\"']|(?P<bare>\[[^\]\n]{0,400}\]?|[^\s,{}\"']{1,80})"
    r"|(?P<opens>\{))",
)
"""One item of a dictionary: parses in linear time, without evaluating anything."""
_NUMBER: Final = re.compile(rf"(?P<value>{NUMBER})(?P<percent>\s?%)?", re.IGNORECASE)
_EPOCHS: Final = ("epoch", "epoch_num", "epochs", "current_epoch")
_STEPS: Final = (
    "step",
    "global_step",
    "iteration",
    "iter",
    "steps",
    "num_updates",
    "valid_num_updates",
    "trainer_global_step",
    "step_num",
)
_DATA: Final = ("split", "phase", "mode", "subset", "stage", "set", "dataset", "partition")
_SAID: Final = ("event", "type", "_type", "tag", "kind", "msg", "message")
"""Where the programs that write records say which data set they are about, in their own words."""
_PART: Final = re.compile(r"[_-](?:iter|batch)$", re.IGNORECASE)
_MESSAGE: Final = re.compile(
    r"\"(?:message|msg|event|log)\"\s?:\s?\"(?P<text>(?:[^\"\\]|\\.){1,2000})\"", re.IGNORECASE
)
"""What a logger that writes JSON was given: a line of free text."""
_RANKS: Final = frozenset({"rank", "local_rank", "global_rank", "process_index"})
_MAX_RANK_DIGITS: Final = 7
_BRACE: Final = re.compile(r"[{}]")
_MAX_WORDS: Final = 48
_OF_BEST: Final = re.compile(
    r"(?<![a-z])(?:(?<!new )best|prev(?:ious)?|initial|baseline|target|goal)(?:\s[a-z]{1,12}){0,2}\W{0,4}$",
    re.IGNORECASE,
)
"""Before a dictionary: `best: {...}`, whose values are not of this epoch."""
_ESCAPED: Final = re.compile(r"\\(?:[nrt]|u[0-9a-fA-F]{4})")
SDK_RECORD: Final = '{"autotuner"'
"""The start of a line of `autotuner.sdk`."""
_CONFIG: Final = re.compile(r"config|args|arguments|hparams|hyper|param|setting|target", re.IGNORECASE)

_NOT_MEASURED: Final = re.compile(
    rf"{_CONFIG.pattern}|(?<![a-z])(?:best|prev(?:ious)?|history|initial|baseline|goals?|max|min)(?![a-z])",
    re.IGNORECASE,
)
"""Keys above values that are not of this step."""

Items = list[tuple[str, str]]


def items_of(text: str) -> Items:
    """Return the innermost names with their values as text."""
    return [
        (_unescaped(match["name"]), match["text"] if match["text"] is not None else match["bare"])
        for match in _ITEM.finditer(text)
        if match["opens"] is None
    ]


def _unescaped(name: str) -> str:
    r"""Return a name with its letters: JSON writes one outside ASCII as `\u00e9`."""
    if "\\u" not in name:
        return name
    try:
        return str(json.loads(f'"{name}"'))
    except ValueError:
        return name


def value_of(text: str) -> tuple[float, bool, int] | None:
    """Return a number, whether a percent sign follows, and its decimals."""
    match = _NUMBER.fullmatch(text.strip().rstrip("]}").lstrip("["))
    return (to_number(match["value"]), bool(match["percent"]), digits_of(match["value"])) if match else None


def _position(items: Items, metric: Metric) -> Position:
    named = {name.lower(): text for name, text in reversed(items) if not metric.is_named(name)}
    return Position(_first(named, _EPOCHS), _first(named, _STEPS))


def _first(named: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    for name in names:
        number = value_of(named.get(name, ""))
        if number is not None and abs(number[0]) < 1e15:  # noqa: PLR2004 (no NaN either)
            return number[0]
    return None


def _data_of(items: Items, names: tuple[str, ...] = _DATA) -> Label:
    """Return the label in the first of these fields that has one."""
    found = (label_in(value) for name, value in items if name.lower() in names)
    return next((label for label in found if label), Label.UNKNOWN)


def _is_of_part(items: Items) -> bool:
    """Return whether a record is of a batch of an evaluation: `"_type": "val_iter"`."""
    return any(_PART.search(value) for name, value in items if name.lower() in _DATA + _SAID)


def _data_named(items: Items) -> Label:
    """Return the label of a record with the name of a data set: `"name": "validation"`."""
    found = (label_in(value) for name, value in items if name.lower() == "name" and value.isalpha())
    return next((label for label in found if label), Label.UNKNOWN)


def _dictionaries(text: str, start: int) -> Iterator[tuple[str, Items]]:
    """Yield the dictionaries of a line, each with the words before it."""
    depth, end, opened = 0, 0, start
    for brace in _BRACE.finditer(text, start):
        if brace[0] == "{":
            opened = brace.start() if depth == 0 else opened
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0:
                yield text[end:opened], items_of(text[opened : brace.end()])
                end = brace.end()
    if depth > 0:
        yield text[end:opened], items_of(text[opened:])


class DictionaryReader:
    """Reads `{...}` of JSON or Python anywhere on a line."""

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._text = TextReader(metric)
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values in the line's dictionaries."""
        text = line.text
        # A bar without a line end may stand before the SDK's record, and says nothing about it.
        text = text[max(text.find(SDK_RECORD), 0) :]
        start = text.find("{")
        if start < 0 or ":" not in text[start:]:
            return None
        if _CONFIG.search(text[:start]):
            is_inside = next(self._finder.find(text[:start]), None) is None
            return [] if is_inside and next(self._finder.find(text[start:]), None) else None
        items = items_of(text[start:])
        if not items or next(self._finder.find(text[text.rfind("}") + 1 :]), None) is not None:
            return None
        lead = text[:start]
        position = _position(items, self._metric).or_else(position_in(lead)).or_else(context)
        if any(name.lower() in (*_SAID, "summary") and value.lower() == "best" for name, value in items):
            return []
        uses_step = any(name == "autotuner" for name, _ in items)
        ranked = next((value for name, value in items if name.lower() in _RANKS), "")
        rank = int(ranked) if ranked.isdecimal() and len(ranked) < _MAX_RANK_DIGITS else None
        named: list[Reading] = []
        for before, own in _dictionaries(text, start):
            values = [value_of(value) for name, value in own if self._metric.is_named(name)]
            if not any(values) or _OF_BEST.search(before[-_MAX_WORDS:]):
                continue
            label = self._label(own, before)  # once: its cost grows with the dictionary
            is_part = label in {Label.VALIDATION, Label.TEST} and _is_of_part(own)
            named += [
                Reading(
                    value=number[0],
                    position=position,
                    label=label,
                    line=line.raw,
                    is_percent=number[1],
                    is_definite=True,
                    uses_step=uses_step,
                    digits=number[2],
                    rank=rank,
                    progress=0.0 if is_part else None,
                )
                for number in values
                if number is not None
            ]
        message = None if named else _MESSAGE.search(text, start)
        if message is not None and self._finder.mentions(message["text"]):
            lead, said = _ESCAPED.sub(" ", message["text"]), self._label(items, lead)
        elif named or not self._finder.mentions(lead):
            return named
        else:
            said = Label.UNKNOWN
        of_text = self._text.read(replace(line, text=lead), position) or []
        return [replace(reading, label=reading.label or said) for reading in of_text]

    def _label(self, items: Items, lead: str) -> Label:
        if self._metric.label is not Label.UNKNOWN:
            return self._metric.label
        if label := _data_of(items) or label_in(lead) or _data_of(items, _SAID) or _data_named(items):
            return label
        # {"train": {"accuracy": 0.9}, "val": {"accuracy": 0.8}} needs the nesting, which a label cannot
        # express.
        names = {key(name) for name, _ in items}
        own = key(self._metric.name)
        has_sibling = any(f"{word}_{own}" in names for word in ("val", "valid", "eval", "test", "validation"))
        return Label.TRAIN if has_sibling else Label.UNKNOWN


class NestedReader:
    """Reads JSON with metrics below the name of a data set, such as `{"val": {"accuracy": 0.8}}`."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values with the label of the key above them."""
        start = line.text.find("{")
        if start < 0 or line.text.count("{") < 2 or _CONFIG.search(line.text[:start]):  # noqa: PLR2004
            return None
        record = _load(line.text[start:].strip().removesuffix(","))  # an item of a list
        if record is None:
            return None
        flat = list(_flatten(record, ""))
        items = [(name, text) for _, name, text in flat]
        position = _position(items, self._metric).or_else(context)
        readings = []
        is_left_out = False
        numbered = {parents for parents, _, _ in flat if parents.rpartition("/")[2].isdecimal()}
        for parents, name, text in flat:
            number = value_of(text)
            is_named = self._metric.is_named(name) or self._metric.is_named(f"{parents}/{name}")
            above, _, last = parents.rpartition("/")
            is_above = not is_named and bool(label_in(name)) and self._metric.is_named(last)
            path = f"{above}/{name}" if is_above else parents  # {"acc": {"train": 0.9, "val": 0.8}}
            if number is None or not (is_named or is_above):
                continue
            if _NOT_MEASURED.search(path) or (len(numbered) > 1 and parents in numbered):
                is_left_out = True  # `{1: {"acc": 0.3}, 2: {"acc": 0.4}}` is the history
                continue
            said = _data_of(items) or _data_of(items, _SAID) or _data_named(items)
            label = self._metric.label or label_in(path) or said
            readings.append(
                Reading(
                    value=number[0],
                    position=position,
                    label=label,
                    line=line.raw,
                    is_percent=number[1],
                    is_definite=True,
                    digits=number[2],
                    variant="" if label else path,
                )
            )
        return readings or ([] if is_left_out else None)


def _load(text: str) -> object:
    if len(text) > 16_384:  # noqa: PLR2004 (nested records are short; the parsers are recursive)
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _flatten(record: object, path: str, depth: int = 0) -> Iterator[tuple[str, str, str]]:
    if not isinstance(record, dict) or depth > 4:  # noqa: PLR2004
        return
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}/{name}"[-200:] if path else str(name)[:200], depth + 1)
        elif isinstance(value, int | float | str) and not isinstance(value, bool):
            yield path, str(name), str(value)


_MLLOG: Final = re.compile(
    r".{0,20}:::(?:MLL(?:OG)?\b|MLPv\d[\w.]{0,9}\s[^{]{0,200}\)\s(?P<key>\w{1,80}):\s\{)"
)
"""With the key in the record, or before it: `:::MLPv0.6.0 resnet 1559.1 (a.py:84) eval_accuracy: {`."""


class MLPerfReader:
    """Reads MLPerf's `:::MLLOG {...}`: the record's `key` names the metric, `value` is its value."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the value of a record with the metric's key."""
        head = _MLLOG.match(line.text)
        if head is None:
            return None
        items = items_of(line.text)
        named = dict(reversed(items))
        number = value_of(named.get("value", ""))
        if not self._metric.is_named(head["key"] or named.get("key", "")) or number is None:
            return []
        # The target quality is logged under other names; `metadata` holds the epoch.
        position = _position(items, self._metric).or_else(context)
        return [Reading(number[0], position, Label.VALIDATION, line.raw, is_definite=True, digits=number[2])]


_DLLL: Final = re.compile(r"\s{0,4}DLLL\s")
_DLL_STEP: Final = re.compile(
    r"\"step\"\s?:\s?(?:\[(?P<list>[\d\s,]{0,60})\]|\"(?P<summary>[^\"]{0,40})\"|(?P<one>\d{1,15}))"
)


class DLLoggerReader:
    """Reads NVIDIA DLLogger's `DLLL {"step": [epoch, iteration], "data": {...}}`."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric of the record's data."""
        if not _DLLL.match(line.text):
            return None
        items = items_of(line.text)
        step = _DLL_STEP.search(line.text)
        numbers = [
            float(n) for n in ((step["list"] or step["one"] or "") if step else "").split(",") if n.strip()
        ]
        position = Position(numbers[0] if numbers else None, numbers[1] if len(numbers) > 1 else None)
        readings = [
            Reading(
                number[0],
                position.or_else(context),
                self._metric.label or label_in(name),
                line.raw,
                is_percent=number[1],
                is_definite=True,
                digits=number[2],
            )
            for name, value in items
            if self._metric.is_named(name) and (number := value_of(value)) is not None
        ]
        # The summary at the end repeats the values of the last or best epoch, and has no step.
        return [] if step and not numbers and not position.epoch else readings


_KATIB: Final = re.compile(
    rf"\{{\s{{0,4}}metricName:\s{{0,4}}(?P<name>[^;,{{}}]{{1,100}}),\s{{0,4}}metricValue:\s{{0,4}}(?P<value>{NUMBER})\s{{0,4}}\}}",
    re.IGNORECASE,
)


class KatibReader:
    """Reads `{metricName: accuracy, metricValue: 0.93}`, which Katib's examples print."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values."""
        if "metricName" not in line.text:
            return None
        position = position_in(line.text[: line.text.find("{")]).or_else(context)
        return [
            Reading(
                to_number(match["value"]),
                position,
                self._metric.label or Label.UNKNOWN,
                line.raw,
                is_definite=True,
                digits=digits_of(match["value"]),
            )
            for match in _KATIB.finditer(line.text)
            if self._metric.is_named(match["name"])
        ]


MLPERF: Final = Format(
    "mlperf", 'MLPerf logging: `:::MLLOG {"key": "eval_accuracy", "value": 0.72, ...}`', MLPerfReader
)
DLLOGGER: Final = Format(
    "dllogger", 'NVIDIA DLLogger: `DLLL {"step": [3, 100], "data": {...}}`', DLLoggerReader
)
KATIB: Final = Format("katib", "Katib's examples: `{metricName: accuracy, metricValue: 0.93}`", KatibReader)
NESTED: Final = Format(
    "nested-json", 'JSON with a data set above the metrics: `{"val": {"accuracy": 0.9}}`', NestedReader
)
DICTIONARY: Final = Format(
    "json",
    "JSON and Python dictionaries on a line, as the SDK, Hugging Face's Trainer and Accelerate print",
    DictionaryReader,
)
