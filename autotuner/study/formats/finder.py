"""Find the values of the metric on a line: its name, a separator or "is", and a number.

Several formats use this search within their own lines. Words before a name tell the data set that a value is
of, or that it is no measurement (`autotuner.study.formats.not_measured`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from autotuner.study.formats.line import NUMBER, NUMBER_END, percent, to_number
from autotuner.study.formats.not_measured import (
    MAX_BACK,
    NOT_MEASURED,
    is_not_measured,
    is_of_best,
    is_old,
    is_pair_of_record,
    words_before,
    words_from,
)
from autotuner.study.formats.reading import (
    AVERAGE,
    VALUE,
    Label,
    Metric,
    digits_of,
    evaluated,
    label_in,
    position_in,
)

_IS: Final = (
    r"[\"'`*\])]{0,2}\.?(?:\s?\((?P<suffix>[A-Za-z][\w@ .%-]{0,24})\)"
    r"|\s?\[(?P<set>train(?:ing)?|val(?:id(?:ation)?)?|eval|test|dev)\]"
    r"|\s(?P<of_set>train(?:ing)?|val(?:id(?:ation)?)?|eval|test|dev)(?=\s{0,4}[:=]))?(?P<unit>\s?[(\[]\s?%\s?[)\]])?"
    r"(?:\s{0,80}(?::=|==?|:(?!:)|->|=>|\u2192)\s{0,80}[\"']?"
    r"|\s[-\u2013\u2014]\s(?=\d{1,6}\.\d)"
    r"|(?P<paired>(?<=[\"']),\s)"
    r"|\s{1,80}[\u2502\u2503|]\s{1,80}"
    r"|\s{1,4}(?:is(?:\snow)?|was|reached|at)\s{1,4}:?\s{0,4}"
    r"|\s{1,4}(?:of|on|for|over|after|at|in)\s(?P<of_what>(?:\d{1,9}\s)?[A-Za-z][\w ,()-]{0,60}?)"
    r"(?:\s?[:=]|\sis)\s{0,4}"
    rf"|(?P<blank>\s{{1,12}}|\s{{13,60}}(?={NUMBER}\s{{0,4}}(?:\s{{4,12}}\d{{1,9}}\s{{0,4}})?$)))"
)
"""What may separate a name from its number: many blanks only in a row of its own, as Lightning's, or with the
number of samples behind it, as in scikit-learn's report."""
_VARIANT: Final = re.compile(
    r"(?<![A-Za-z])(?:running|moving|smooth(?:ed)?|ema|batch|swa|teacher|student|local)(?![A-Za-z])",
    re.IGNORECASE,
)
_KIND: Final = re.compile(
    r"(?:\[(?![A-Za-z]{1,2}\d{1,9}\])(?P<square>[A-Za-z][\w-]{0,24})\]|\((?P<round>[A-Za-z][\w-]{0,24})\))(?:[\[(]\d{1,12}[\])])?[\s:]{0,3}$"
)
"""`[lfw][2000]Accuracy`, `Validation (clean) EPE`: which of several data sets the value is of."""
_GOVERNS: Final = re.compile(
    r"(?<![A-Za-z_/.])[A-Za-z]{2,10}(?:_\d{1,2}(?='s)|_(?:step|epoch|loop|phase|set|metrics|results|stats))?(?![\w/]|\.\w)"
)
_AFTER: Final = re.compile(r"\s?%?\s{0,3}(?:[(\[]\s?|on |for )(?:the )?(?P<word>[A-Za-z]{3,10})(?![\w/.:=])")
_OTHER_SET: Final = re.compile(
    r"\s?%?\s{0,3}[(\[](?P<before>[A-Za-z]{3,10})[)\]]\s?[,;/|]?\s{0,3}"
    rf"(?P<value>{NUMBER})(?P<percent>\s?%)?\s{{0,3}}[(\[](?P<word>[A-Za-z]{{3,10}})[)\]]",
    re.IGNORECASE,
)
"""Behind a value: its data set, and another value with another one."""
_FIELD_OF: Final = re.compile(
    r"[\s_]{1,2}(?:(?:steps|samples|batches|size|examples|images|tokens|time|iters|epochs)\s?[:=]?|every)\s?\d",
    re.IGNORECASE,
)
"""Behind the name of a data set: `Val steps: 20`, `valid tokens 4096` are not about the values after them."""
_DATA_FIELD: Final = re.compile(
    r"(?<![\w.])(?:split|phase|mode|subset|stage|set|dataset|partition)\s?[=:]\s?[\"']?(?P<data>[A-Za-z]{2,12})",
    re.IGNORECASE,
)
"""`split=val`, which structured loggers put behind the values."""
_NEXT_DATA: Final = re.compile(
    r"\s?%?[\s,;|/]{1,6}(?:val(?:id(?:ation)?)?|dev|eval|test)\s{0,2}[:=]?\s{0,2}\d{0,6}\.\d{1,20}(?![\w.]|\s?(?:s|ms|min)\b)",
    re.IGNORECASE,
)
"""`loss 0.5 | val 2.1`: the value of a data set alone, so the one before it is the training's."""
_JOINT: Final = r"(?:\s?[,/&|]\s?|\sand\s)"
_ITEM: Final = r"[A-Za-z][\w@.-]{0,24}(?: [A-Za-z][\w@.-]{0,24}){0,2}"
_NAMES_BEFORE: Final = re.compile(
    rf"(?<![\w.=:@/-])(?P<names>(?:{_ITEM}{_JOINT}){{1,5}})(?:[A-Za-z][\w-]{{0,24}} ){{0,2}}$", re.IGNORECASE
)
"""Names that are listed before the metric's own: `Train/Val Acc: 0.97, 0.81`, `P, R, F1 = 95, 61, 71`."""
_MAX_NAMES: Final = 160
_SLASHED: Final = re.compile(
    r"(?<![\w./@-])(?P<name>[A-Za-z][\w@.-]{0,24}(?:/[A-Za-z][\w@.-]{0,24}){1,5})(?P<suffix>)(?P<set>)(?P<of_set>)(?P<of_what>)"
    rf":?\s{{1,4}}(?P<values>{NUMBER}(?:/{NUMBER}){{1,5}})(?![\w/]|\.\d)",
    re.IGNORECASE,
)
"""`mIoU/mAcc/allAcc 0.77/0.85/0.95`: as many values as names."""
_AT_STEP: Final = re.compile(rf"(?!100:)[1-9]\d{{2,8}}:\s{{1,4}}(?={NUMBER})")
"""Between the name of a loss and its value: `Validation loss 1000:  0.412345`."""
_LISTED: Final = re.compile(
    rf"\s{{0,4}}[\[(]?(?P<values>{NUMBER}(?:\s?%)?"
    rf"(?:(?:{_JOINT}|\s{{1,4}}){NUMBER}(?![\w.]|\s?[=:])(?:\s?%)?){{1,6}})",
    re.IGNORECASE,
)
_VALUE: Final = re.compile(rf"(?P<value>{NUMBER})(?P<percent>\s?%)?", re.IGNORECASE)
_SPLIT_NAMES: Final = re.compile(_JOINT, re.IGNORECASE)
_JOINED: Final = re.compile(r"[,/&|]\s?[\d.+-]|\sand\s")
"""Between values that are joined by more than blanks."""
_DATA_SET: Final = re.compile(
    r"(?:train(?:ing)?|trn|val(?:id(?:ation)?|i)?|dev|eval(?:uation)?|test(?:ing)?)\.?", re.IGNORECASE
)
_LIST: Final = re.compile(rf"(?:(?:\s?[,|]\s{{0,2}}|\s{{1,12}}){NUMBER}(?![\w.:/%-])){{2}}", re.IGNORECASE)
"""What follows the first of several values under one name: `dice: 0.95, 0.71, 0.6` of three classes."""
_SECOND: Final = re.compile(
    rf"(?:\s?[,|]\s{{0,2}}|\s-\s(?=[\d.]{{1,40}}\])|\s{{1,12}})(?P<value>{NUMBER})(?![\w.:/%-]|\s?(?:s|secs?|seconds|ms|m|mins?|minutes|h|hours?|epochs?)\b)",
    re.IGNORECASE,
)
"""A second number behind a value; with as many decimals it is of the same kind: `dice: 0.95, 0.71`."""
_MIN_DECIMALS: Final = 2
_PLACE: Final = re.compile(r"\sat\s{1,4}:?\s{0,4}$", re.IGNORECASE)
_PART_OF_NAME: Final = re.compile(
    rf"0?\.(?:5|50|75|95)\s{{0,2}}[:=]\s{{0,4}}{NUMBER}|\.(?:5|50|75|95)\s{{0,4}}\|", re.IGNORECASE
)
"""`AP .5: 0.80` and `| AP | AP .5 |` name an overlap; `acc 0.5 | loss 0.3` is a value."""
_OF_OVERLAPS: Final = re.compile(r"(?:ap|ar|iou|precision|recall)$", re.IGNORECASE)
_COLON: Final = re.compile(r"\s{0,4}[:=]")
_WHOLE_SET: Final = re.compile(
    r"(?<![a-z])(?:network|model|net|tests?|testing|val\w{0,8}|train\w{0,3}|eval\w{0,6}|dev|sets?|data\w{0,5}|images?|samples|batches|epoch|steps?|iteration|overall)(?![a-z])",
    re.IGNORECASE,
)
_NEXT_CELL: Final = re.compile(
    rf"\s{{0,40}}[|\u2502\u2503]\s{{0,40}}{NUMBER}\s{{0,40}}(?:[|\u2502\u2503]|$)", re.IGNORECASE
)
_COUNTED: Final = re.compile(r"\s{0,4}\(\s{0,4}\d{1,15}\s?/\s?(?P<total>\d{1,15})\s{0,4}\)")
_WHOLE: Final = re.compile(r"\s{0,4}(?:$|[|,;)\]%(])")
MAX_LEAD: Final = 300
"""Characters before a name that tell which kind of line it is."""
_PADDED: Final = re.compile(r"(?<=epoch[:=])\s{1,8}(?=\d)", re.IGNORECASE)
_MAX_FOUND: Final = 200
"""Occurrences of the name on a line that are read; a line with more is a dump."""
_IOU: Final = frozenset({".95", "0.95", "95"})
_NO_WORDS: Final = frozenset({"am", "pm", "nan", "inf"})
_BECOMES: Final = re.compile(
    rf"\s{{0,4}}(?:-{{1,2}}>|=>|[\u2192\u21d2\u2794\u2799-\u27be\u27f6\u27f9])\s{{0,4}}{NUMBER}|\s\d{{3}}(?![\d%/])",
    re.IGNORECASE,
)
"""What follows a number that is only a part of a value: `0.80 -> 0.95`, `1 234`."""


@dataclass(frozen=True, slots=True)
class Found:
    """The metric's name with a number on a line; `is_of_kind` if a word behind the name says which."""

    start: int
    end: int
    value: float
    digits: int
    is_percent: bool
    average: float | None
    label: Label
    variant: str
    lead: str = ""
    is_changed: bool = False
    is_of_kind: bool = False


class Finder:
    """Finds the metric's name with a number in free text."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._word = metric.first_word
        self._named = re.compile(
            rf"(?<![\w./@?&-])[\"'`*(\[]{{0,2}}(?P<name>{metric.pattern}){_IS}(?={NUMBER}|\[)", re.IGNORECASE
        )
        short = r"v_?|" if metric.is_share else ""  # `v_loss` may be that of a value function
        self._sibling = re.compile(
            rf"(?<![A-Za-z])(?P<sibling>(?:{short}(?:val(?:id(?:ation)?)?|eval|test|dev)[_/.-]){metric.pattern}"
            rf"|(?<!\w){metric.pattern}[_/.@-](?:val(?:id(?:ation)?)?|eval|test|dev))(?![\w@])"
            rf"(?:[\"']?\s{{0,4}}[:=]?\s{{0,4}}(?P<value>{NUMBER})(?P<percent>\s?%)?{NUMBER_END})?",
            re.IGNORECASE,
        )

    def mentions(self, text: str) -> bool:
        """Return whether a line contains the metric's first word: a fast check."""
        return self._word in text.lower()

    def find(self, text: str) -> Iterator[Found]:
        """Yield the metric's occurrences on a line, from left to right."""
        if not self.mentions(text):
            return
        yield from self._slashed(text)
        for match in islice(self._named.finditer(text), _MAX_FOUND):
            if names := _names_before(match, text):
                several = _LISTED.match(text, match.end())
                listed = list(self._of_list(match, names, several, text)) if several else []
                if listed or (several and _JOINED.search(several["values"])):
                    yield from listed
                    continue
            start = match.end()
            if match["blank"] and self.metric.is_loss and (step := _AT_STEP.match(text, start)):
                start = step.end()
            number = VALUE.match(text, start)
            if number is not None and self._is_value(match, number, text):
                found = self._found(match, number, text)
                if found is not None:
                    yield found
                    yield from self._of_other_sets(found, text)

    def _of_other_sets(self, found: Found, text: str) -> Iterator[Found]:
        """Yield the values behind one with its data set, as in `0.97 (train), 0.81 (val)`."""
        if self.metric.label is not Label.UNKNOWN:
            return
        while other := _OTHER_SET.match(text, found.end):
            label = label_in(other["word"])
            if not label or not label_in(other["before"]):
                return
            found = replace(
                found,
                end=other.end("value"),
                value=to_number(other["value"]),
                digits=digits_of(other["value"]),
                is_percent=bool(other["percent"]),
                average=None,
                label=label,
            )
            yield found

    def _slashed(self, text: str) -> Iterator[Found]:
        """Yield the metric's values in lists of names and of values with slashes between them."""
        for match in islice(_SLASHED.finditer(text), _MAX_FOUND):
            names, values = match["name"].split("/"), match["values"].split("/")
            at = next((i for i, name in enumerate(names) if self.metric.is_named(name)), None)
            if at is None or len(names) != len(values) or is_not_measured(match, text):
                continue
            label = self._label(text, match, match.end())
            yield Found(
                start=match.start("name"),
                end=match.end(),
                value=to_number(values[at]),
                digits=digits_of(values[at]),
                is_percent=False,
                average=None,
                label=label,
                variant="",
                lead=skeleton(text[: match.start()]) if not label else "",
            )

    def _of_list(
        self, match: re.Match[str], names: list[str], several: re.Match[str], text: str
    ) -> Iterator[Found]:
        """Yield the values of a list of names before a list of as many values."""
        numbers = list(_VALUE.finditer(several["values"]))
        is_known = len(numbers) == len(names) + 1 and "/" not in several["values"]
        if not is_known or is_not_measured(match, text):
            return
        own = self._label(text, match, several.end())
        labels = [label_in(name) if _DATA_SET.fullmatch(name) else None for name in names]
        for label, number in zip([*labels, own], numbers, strict=True):
            if label is None or (label is not own and self.metric.label is not Label.UNKNOWN):
                continue
            yield Found(
                start=match.start("name"),
                end=several.start("values") + number.end(),
                value=to_number(number["value"]),
                digits=digits_of(number["value"]),
                is_percent=bool(number["percent"]),
                average=None,
                label=label,
                variant="",
                lead=skeleton(text[: match.start()]) if not label else "",
            )

    def sibling(self, text: str) -> re.Match[str] | None:
        """Return the name on validation data, such as `val_acc` for `acc`, and its value if it has one."""
        if self.metric.label is not Label.UNKNOWN or not self.mentions(text):
            return None
        return self._sibling.search(text)

    def _is_value(self, match: re.Match[str], number: re.Match[str], text: str) -> bool:
        """Return whether a number is the metric's value, rather than an old value or a part of something."""
        after = number.end()
        if match["name"][-1].isdigit() and number["value"] in _IOU and text[match.end() - 1] == ":":
            return False  # `mAP@.5:.95` is a name
        if _LIST.match(text, after) or _is_pair(number, text):
            return False
        if match["paired"] and not is_pair_of_record(match, text, after):
            return False
        if _PLACE.search(match[0]) and _COLON.match(text, after):
            return False  # `mAP at 0.5: 0.41` names the 0.5
        if match["blank"] and (not _is_number_after_blank(number, text) or _is_overlap(match, number, text)):
            return False
        change = _BECOMES.match(text, after)
        if change and (not change[0].strip().isdigit() or "." not in number["value"]):
            return False
        if is_old(match, text) or _is_cell(match, text, after):
            return False
        of_what = match["of_what"]
        if of_what and (not _WHOLE_SET.search(of_what) or NOT_MEASURED.search(of_what)):
            return False  # `Accuracy of plane: 60 %` is of one class, `acc at best val: 0.9` of another epoch
        if of_what and of_what[0].isdigit() and not self._label(text, match, after):
            return False  # `loss of 8 batches`, but not of which data
        return not is_not_measured(match, text)

    def _found(self, match: re.Match[str], number: re.Match[str], text: str) -> Found | None:
        after = number.end()
        average = AVERAGE.match(text, after)
        value, is_percent = to_number(number["value"]), bool(number["percent"] or match["unit"])
        total = number["of"] or ((shown := _COUNTED.match(text, after)) and shown["total"])
        if number["of"]:
            if float(number["of"]) <= 0:
                return None
            value, is_percent, average = percent(value, float(number["of"])), True, None
        label = self._label(text, match, after)
        said = _VARIANT.search(f"{words_before(match, text)} {match['suffix'] or ''}")
        variant = said[0].lower() if said else _kind_before(match, text)
        kind = "" if variant else _kind_in(match["suffix"] or "")
        return Found(
            start=match.start("name"),
            end=after,
            value=value,
            digits=6 if number["of"] else digits_of(number["value"]),
            is_percent=is_percent,
            average=to_number(average["average"]) if average else None,
            is_changed=average is not None and _is_change(average["average"], value, self.metric),
            label=label,
            variant=variant or kind or (f"of {total}" if total and not label else ""),
            is_of_kind=bool(kind),
            lead=skeleton(text[: match.start()]) if not label else "",
        )

    def _label(self, text: str, match: re.Match[str], after: int) -> Label:
        said = next(
            (
                label
                for part in (match["suffix"], match["set"], match["of_set"], match["of_what"])
                if (label := label_in(part or ""))
            ),
            None,
        )
        if self.metric.label is not Label.UNKNOWN:
            return Label.TRAIN if said is Label.TRAIN else self.metric.label
        if said is not None:
            return said
        if (word := _AFTER.match(text, after)) and (label := label_in(word["word"])):
            return label
        sibling = self._sibling.search(text, words_from(match), match.end() + MAX_BACK)
        for word in reversed(list(_GOVERNS.finditer(text, words_from(match), match.start("name")))):
            label = label_in(word[0])
            if not label or _FIELD_OF.match(text, word.end()):
                continue
            if sibling and label_in(sibling["sibling"]) is label and not is_of_best(sibling, text):
                return Label.UNKNOWN  # `Val 2.1s acc=0.97 val_acc=0.81` has another name for that
            return evaluated(word[0], text, word.start()) or label
        if (field := _DATA_FIELD.search(text, after)) and (label := label_in(field["data"])):
            return label
        return Label.TRAIN if sibling or _NEXT_DATA.match(text, after) else Label.UNKNOWN


def _is_number_after_blank(number: re.Match[str], text: str) -> bool:
    """Return whether a number after a space is a value: `auc 0.79`, not `top 5 of`."""
    text_of = number["value"]
    return bool(
        "." in text_of or "e" in text_of.lower() or number["percent"] or _WHOLE.match(text, number.end())
    )


def _is_overlap(match: re.Match[str], number: re.Match[str], text: str) -> bool:
    """Return whether a number behind a name is a part of it, as metrics of overlaps have one."""
    is_of_overlaps = _OF_OVERLAPS.search(match["name"]) is not None
    return is_of_overlaps and _PART_OF_NAME.match(text, number.start()) is not None


def _is_change(shown: str, value: float, metric: Metric) -> bool:
    """Return whether a number in parentheses is the change since the last value: `0.61 (-0.02)`.

    A loss may fall by more than what is left of it.
    """
    return shown[0] == "+" or (
        shown[0] == "-" and value > 0 and (metric.is_loss or value > -to_number(shown))
    )


def _is_pair(number: re.Match[str], text: str) -> bool:
    """Return whether a value is the first of two of one kind: of two classes, of training and validation."""
    second = _SECOND.match(text, number.end())
    if second is None:
        return False
    decimals = [len(value.partition(".")[2]) for value in (number["value"], second["value"])]
    return decimals[0] == decimals[1] >= _MIN_DECIMALS


def skeleton(lead: str) -> str:
    """Return the words before a name, without numbers: they distinguish kinds of lines.

    Numbers are padded: the words are the same before `epoch: 99` and `epoch:100`.
    """
    parts = _PADDED.sub("", lead[-MAX_LEAD:]).split()
    words = (word for word in parts if not any(c.isdigit() for c in word))
    letters = ("".join(c for c in word.lower() if c.isalpha()) for word in words)
    return " ".join(word for word in letters if word and word not in _NO_WORDS)


def _names_before(match: re.Match[str], text: str) -> list[str]:
    """Return the names that are listed before the metric's own."""
    before = _NAMES_BEFORE.search(text, max(0, match.start() - _MAX_NAMES), match.start())
    if before is None:
        return []
    names = [name.strip() for name in _SPLIT_NAMES.split(before["names"]) if name.strip()]
    is_of_cells = "|" in before["names"] and not all(label_in(name) for name in names)
    return [] if is_of_cells else names


def _kind_before(match: re.Match[str], text: str) -> str:
    """Return the word in brackets before a name, if it does not say the same as a label or an epoch."""
    kind = _KIND.search(text, max(0, match.start() - 60), match.start())
    word = "" if kind is None else (kind["square"] or kind["round"]).lower()
    return "" if label_in(word) or not position_in(word).is_empty else word


def _kind_in(suffix: str) -> str:
    """Return what words in parentheses behind a name say, as `MRR(filter)` is another metric than `MRR`."""
    return "" if label_in(suffix) or not position_in(suffix).is_empty else skeleton(suffix)


def _is_cell(match: re.Match[str], text: str, after: int) -> bool:
    """Return whether a value is the first of several cells with an unknown header."""
    bars = "|\u2502\u2503"
    if not any(bar in match[0][len(match["name"]) :] for bar in bars):
        return False
    return _NEXT_CELL.match(text, after) is not None
