"""Readings of a log format: values of the metric on a line, and their position in the run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Final, Protocol

from autotuner.study.formats.line import BAR, NUMBER, NUMBER_END, Line, clean, to_number


class Label(StrEnum):
    """The data set that a value was measured on, as far as the log says."""

    TRAIN = "training"
    VALIDATION = "validation"
    TEST = "test"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a line in the run; None for what the line does not say.

    `step` counts within the epoch if `total`, the number of steps of an epoch, is given.
    """

    epoch: float | None = None
    step: float | None = None
    total: float | None = None

    def or_else(self, other: Position) -> Position:
        """Return this position, completed from an earlier one of the same epoch."""
        if self.epoch is None:
            if self.step is None:
                return other
            return replace(self, epoch=other.epoch)
        return self

    @property
    def is_empty(self) -> bool:
        """Whether the line has no position."""
        return self.epoch is None and self.step is None


@lru_cache(maxsize=1024)  # asked again with each line that follows, until the metric is known
def _without_prefixes(line: str) -> str:
    return clean(line).text


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of the metric on one line.

    `is_percent`: a percent sign follows, or the value was computed from a count and a total (then it is 100
    times the fraction). `is_definite`: the format is unambiguous, so the value counts at once. `progress`,
    from 0 to 1, marks a value that the next line of the same kind replaces (a progress bar, a running
    average); it counts when complete. `variant` distinguishes readings with the same name and label, such as
    an evaluation of averaged weights; without a label, the format and `lead`, the words before the name, do.
    `alternative` is another number on the line that might be meant instead. `part` names the run that it
    belongs to where a log has several, such as `fold 2`. `is_bare` says that the line has little but the name
    and the value, as that of a setting. `is_tentative` marks a value with progress 1 that was the training's
    if another one of the epoch follows.
    """

    value: float
    position: Position
    label: Label
    line: str
    format: str = ""
    is_percent: bool = False
    is_definite: bool = False
    progress: float | None = None
    variant: str = ""
    alternative: float | None = None
    uses_step: bool = False
    digits: int = 4
    rank: int | None = None
    lead: str = ""
    part: str = ""
    is_bare: bool = False
    is_tentative: bool = False

    @property
    def stream(self) -> tuple[Label, str]:
        """A key that readings of the same kind share."""
        return self.label, self.variant or ("" if self.label else f"{self.format} {self.lead}".strip())

    @property
    def text(self) -> str:
        """The line without the prefixes of launchers and loggers, which may hide how it begins."""
        return _without_prefixes(self.line)


class Metric:
    """The metric's name, for comparison with the names in a log.

    Case is ignored, and so is the character that joins words (space, `_`, `-`, `/` or `.`): `val_loss` is
    also printed as `val loss`, and `Acc@1` as `acc1`. A name with one word more or less is another metric.
    """

    def __init__(self, name: str, threshold: float) -> None:
        self.name = name
        self.threshold = threshold
        self._key = key(name)
        self.label = label_in(name)

    def is_named(self, name: str) -> bool:
        """Return whether a name is this metric's."""
        return key(name) == self._key

    @property
    def first_word(self) -> str:
        """A lower-case text that every line with the metric contains."""
        return re.split(r"[@\d]", self._words[0])[0].lower()

    @property
    def _words(self) -> list[str]:
        return [word for word in _JOINTS.split(self.name) if word] or [self.name]

    @cached_property
    def pattern(self) -> str:
        """A regular expression for the name within a line."""
        first, *others = (_spelled(word) for word in self._words)
        if not others:
            return first
        joint = r"[\s_/.-]{1,2}"
        # Behind the name of a data set: `[val] acc`, `validation: acc`.
        own = rf"(?:{joint}|\]\s?|:\s{{1,2}})" if label_in(self._words[0]) else joint
        return first + own + joint.join(others)

    @cached_property
    def is_share(self) -> bool:
        """Whether values are known to lie between 0 and 1, or 0 and 100."""
        words = _HUMP.sub("_", self.name)  # of `valAcc`
        is_named = _SHARE.search(self.name) or _SHARE.search(words)
        return bool(is_named) and not _LOSS.search(self.name)

    @cached_property
    def is_rate(self) -> bool:
        """Whether values are usually between 0 and 1 or 0 and 100, though the name is not as clear."""
        return self.is_share or bool(_RATE.search(self.name))

    @cached_property
    def is_loss(self) -> bool:
        """Whether the name is that of a loss, which no training brings to exactly 0."""
        return bool(_LOSS.search(self.name))

    @cached_property
    def is_error_rate(self) -> bool:
        """Whether the name is that of an error rate, in percent or as a fraction."""
        return bool(_ERROR.search(self.name))


def _spelled(word: str) -> str:
    """Return an expression for a word whose number may be separated: `acc1`, `Acc@1`."""
    parts = re.findall(r"@?\d+|@|[^\d@]+", word)
    return "".join(
        (r"[@_-]?" if part[0] in "@0123456789" and at else "") + re.escape(part.lstrip("@"))
        for at, part in enumerate(parts)
    )


def key(name: str) -> str:
    """Return a name in the form used for comparison."""
    return _JOINTS.sub("_", name.strip().strip("\"'`*:").casefold()).strip("_").replace("@", "")


_JOINTS: Final = re.compile(r"[\s_\-/.]+")
_HUMP: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SHARE: Final = re.compile(
    r"(?<![a-z])(?:(?:m|a|pix|b)?acc(?:uracy)?\d*|top.?[15]|auc|auroc|f1|f.?score|precision|recall|m?ap(?:\W?\d[\d-]*)?"
    r"|(?:m|fw)?iou|m?dice|ndcg|mrr|exact_match)(?![a-z])|accurac(?:y|ies)",
    re.IGNORECASE,
)
_RATE: Final = re.compile(
    r"(?<![a-z])(?:s?bleu(?:\W?\d)?|rouge(?:\W?(?:\d|l|lsum))?|(?:r|p|hits?|hr|pass|rank|cmc|recall|precision)\W?\d{1,3}"
    r"|em|mcc|kappa|spearman\w?|pearson\w?|jaccard|specificity|sensitivity|ents_[fpr]|pq|pck|pckh|[ul]as|chrf|meteor|correct"
    r"|score|rates?|ratio)(?![a-z])",
    re.IGNORECASE,
)
_LOSS: Final = re.compile(r"loss|perplexity|ppl", re.IGNORECASE)
_ERROR: Final = re.compile(
    r"(?<![a-z])(?:err(?:or)?(?:_?rate)?\d?|top.?[15]_?err(?:or)?|[wc]er|s?mape|(?:eer|hter|fpr|fnr)(?:\W?\d{1,2})?)"
    r"(?![a-z])|(?<![a-z])[pt]er$",
    re.IGNORECASE,
)

_LABEL: Final = re.compile(
    r"(?<![A-Za-z])(?:(?P<train>train(?:ing|er|set)?|trn)|(?P<val>val(?:id(?:ation|ate|ating)?|i)?|(?:val|valid|dev)set|dev(?:elopment)?|cv"
    r"|eval(?:uat(?:ion|e|ing))?)|(?P<test>test(?:ing|s|set)?|tst|holdout))(?![A-Za-z])",
    re.IGNORECASE,
)
_EVALUATED: Final = re.compile(
    r"(?<![A-Za-z])(?:train(?:ing)?|(?P<test>test))"
    r"(?:(?:[ _-](?:set|data(?:set)?|split))?[ _-]|[ _-](?:accuracy|results|metrics):\s{1,3})$",
    re.IGNORECASE,
)
"""Before `evaluation`: an evaluation of the training set, or of the test set."""


def label_in(text: str) -> Label:
    """Return the label of the last word of a text that names a data set."""
    found = Label.UNKNOWN
    for match in _LABEL.finditer(text):
        own = Label.TRAIN if match["train"] else Label.VALIDATION if match["val"] else Label.TEST
        found = evaluated(match[0], text, match.start()) or own
    return found


def evaluated(word: str, text: str, start: int) -> Label:
    """Return what a word at a place of a text evaluates, if the one before it says so, as in `Test eval`."""
    said = _EVALUATED.search(text, max(0, start - 24), start) if word[:4].lower() == "eval" else None
    if said is None:
        return Label.UNKNOWN
    return Label.TEST if said["test"] else Label.TRAIN


# --- positions ----------------------------------------------------------------------------------------

_LEADING_PAIR: Final = re.compile(r"\s{0,4}[\[(]\d{1,5}/\d{1,5}[\])]:?\s{1,4}(?=epoch)", re.IGNORECASE)
"""`(0/4) Epoch 1`: the process and their number, as icefall prints them, or the number of the epoch."""
_WHOLE: Final = r"(?:\d{1,3}(?:,\d{3}){1,5}(?!\d)|\d{1,15})"
_EPOCH: Final = re.compile(
    r"(?<![A-Za-z])(?:epoch|ep\.?)(?:_?(?:num|idx|index|number))?(?:\s?\((?:train|val|test|eval)\))?(?:\s?\.{3})?"
    rf"(?P<quote>[\"']?)\s{{0,24}}(?:[=:#]|->)?\s{{0,8}}[\"'\[(]{{0,2}}\s{{0,8}}(?P<epoch>{_WHOLE}(?:\.\d{{1,20}})?(?:e[-+]\d{{1,2}})?)"
    r"(?:\s?(?:/|of)\s?(?P<epochs>\d{1,9})\s?)?(?![\w%]|\.\d|\s?(?:s|sec|seconds|min|ms)\b)"
    r"(?:\]\s?\[\s{0,8}(?P<inner>\d{1,12})\s?/\s?(?P<total>\d{1,12})"
    r"|,\s{1,8}(?P<batch>\d{1,12})\s?/\s{0,8}(?P<batches>\d{1,12})(?=[;,|]\s))?",
    re.IGNORECASE,
)
_STEP: Final = re.compile(
    r"(?<![A-Za-z])(?:global[_ ]steps?|steps?|iter(?:ation)?s?|num_updates|updates?|up\.(?=\s\d)|batch)"
    rf"(?:\(train\)|\s?\.{{3}})?[\"']?\s{{0,24}}[=:#]?\s{{0,8}}[\"'\[(]{{0,2}}\s{{0,8}}(?P<step>{_WHOLE}(?:\.\d{{1,20}}e\+?\d{{1,2}})?)(?![\w%]|\.\d)"
    r"(?:\s{0,8}(?:/|of)\s{0,8}(?P<total>\d{1,15}))?",
    re.IGNORECASE,
)
_PAIR: Final = re.compile(r"[\[(]\s{0,8}(?P<step>\d{1,12})\s?/\s?(?P<total>\d{1,12})[\s\])]")
_TIMM: Final = re.compile(
    r"\s{0,4}Train: (?P<epoch>\d{1,9})\s{1,4}\[\s{0,8}(?P<step>\d{1,12})/(?P<total>\d{1,12})\s"
)
_PAIRS: Final = re.compile(
    r"\s{0,4}(?:Train:\s{0,4})?\[\s{0,8}(?P<epoch>\d{1,9})/\d{1,9}\]\s?\[\s{0,8}(?P<step>\d{1,12})/(?P<total>\d{1,12})\]"
)
"""`[3/300][50/1251]`: the epoch, and the batch within it."""
_EPOCH_AFTER: Final = re.compile(
    r"(?<![\w/.-])(?P<epoch>\d{1,6})(?:/\d{1,6})?epoch(?::|\s(?:results|started)(?![a-z]))", re.IGNORECASE
)
"""`18epoch results: [train] ...` of ESPnet."""
_NUMBERED: Final = re.compile(
    r"\s{0,8}(?P<number>\d{1,12}) (?:(?P<epoch>epoch)|iterations?|steps?)[,:]\s", re.IGNORECASE
)
"""`5000 iteration, {...}`, `3 epoch, EER 5.1%`: the number before its word, at the start of a line."""
_OF_EPOCH: Final = re.compile(
    r"(?<![\w./])(?P<step>\d{1,12})/(?P<total>\d{1,12}) of (?=epoch \d)", re.IGNORECASE
)
"""`Testing at - 1000/2000 of epoch 0`."""
_NUMBERED_SET: Final = re.compile(
    r"\s{0,4}(?:train|val(?:id)?|eval|test)\s(?P<epoch>\d{1,6}),\s(?=[A-Za-z])", re.IGNORECASE
)
"""`Test 158, loss: 1.4, test acc: 0.94`: the epoch behind the name of the data set."""
_BOOSTED: Final = re.compile(r"\s{0,8}\[(?P<step>\d{1,9})\]\t")
"""`[10]\tvalid-auc:0.71` of XGBoost and LightGBM."""
_CONFIGURED: Final = re.compile(
    r"(?<![A-Za-z])(?:(?:num|max|total|n|nb|warmup|min|save|log|best|from|last|per|every)[_ -]?"
    r"|eval[_-]?|time[/_])$",
    re.IGNORECASE,
)
_OF_BEST: Final = re.compile(
    r"(?<![A-Za-z])best(?![A-Za-z])[^|;\])]{0,60}(?:@|(?<![A-Za-z])(?:at|of|in|from|on))\s{0,2}$",
    re.IGNORECASE,
)
"""`(best: 0.81 at epoch 1)`: where the best value was, which is not where the line is."""
_CONFIGURED_STEPS: Final = re.compile(
    _CONFIGURED.pattern + r"|(?<![A-Za-z])(?:eval |episode[ _])$", re.IGNORECASE
)
"""`episode steps: 13` is the length of an episode."""


def _is_size(step: re.Match[str]) -> bool:
    """Return whether a match may be a batch's size: `batch=32`, without an epoch or a total.

    `batch 1000: rmse = 0.4` begins with the number of one.
    """
    is_head = step.string[step.end() : step.end() + 1] == ":" and not re.search("[=:#]", step[0])
    return step[0][:5].lower() == "batch" and not step["total"] and not is_head


def _is_elsewhere(match: re.Match[str], text: str) -> bool:
    """Return whether a number is a setting, or the place of the best value."""
    start = match.start()
    is_set = _CONFIGURED.search(text, max(0, start - 12), start)
    return bool(is_set or _OF_BEST.search(text, max(0, start - 80), start))


@lru_cache(maxsize=8)  # several readers ask for that of the same line, some for each of its values
def position_in(text: str) -> Position:
    """Return the epoch and the step that a line names."""
    epoch = step = total = None
    text = _LEADING_PAIR.sub("", text, count=1) if text.lstrip()[:1] in {"[", "("} else text
    if head := _TIMM.match(text) or _PAIRS.match(text):
        return Position(float(head["epoch"]), float(head["step"]), float(head["total"]))
    if head := _BOOSTED.match(text):
        return Position(None, float(head["step"]))
    if head := _NUMBERED_SET.match(text) or _EPOCH_AFTER.search(text):
        return Position(float(head["epoch"]))
    for match in _EPOCH.finditer(text):
        if _is_elsewhere(match, text):
            continue
        epoch = to_number(match["epoch"])
        if inner := match["inner"] or match["batch"]:
            step, total = float(inner), float(match["total"] or match["batches"])
        break
    if step is None:
        for pattern in (_OF_EPOCH, _STEP, _PAIR) if epoch is not None else (_STEP,):
            found = next(
                (
                    m
                    for m in pattern.finditer(text)
                    if not _CONFIGURED_STEPS.search(text, max(0, m.start() - 12), m.start())
                    and not _is_elsewhere(m, text)
                    and not (epoch is None and _is_size(m))
                ),
                None,
            )
            if found:
                step = to_number(found["step"])
                total = float(found["total"]) if found["total"] else None
                break
    position = Position(epoch, step, total)
    return _numbered(text) if position.is_empty else position


def _numbered(text: str) -> Position:
    head = _NUMBERED.match(text)
    if head is None:
        return Position()
    number = float(head["number"])
    return Position(number) if head["epoch"] else Position(None, number)


def epochs_in(text: str) -> tuple[float, float] | None:
    """Return the epoch that a line names and their number if it has both, `Epoch 3/20`; else None."""
    matches = (match for match in _EPOCH.finditer(text) if not _is_elsewhere(match, text))
    match = next(matches, None)
    return (
        None if match is None or not match["epochs"] else (to_number(match["epoch"]), float(match["epochs"]))
    )


_PART: Final = re.compile(
    r"(?<![\w/.-])(?P<part>fold|k-?fold|seed|repeat|repetition|split|cv|cross.?validation)(?:\s?[:=#_-]\s?|\s|(?<=fold))"
    r"(?P<number>\d{1,9})(?![\w.])|(?<![\w.])(?P<before>\d{1,3})-fold(?![\w-])|\u7b2c\s?(?P<chinese>\d{1,3})\s?\u6298"
    r"|[\W_]{0,12}(?P<run>run|trial|replica|experiment)\s?[:=#]?\s?(?P<index>\d{1,6})(?:\s?/\s?\d{1,6})?(?:\s?[:|=*,-]|\s{0,4}$)"
    r"|[\W_]{0,12}(?P<phase>phase|stage)\s?[:=#]?\s?(?P<which>\d{1,3})(?:\s?/\s?\d{1,3})?(?:\s?[:|=*,(-]|\s{0,4}$)",
    re.IGNORECASE,
)


def part_in(text: str) -> str:
    """Return the run that a line names where a log has several, such as `fold 2`; empty for none."""
    match = _PART.search(text)
    if match is None:
        return ""
    word = match["part"] or match["run"] or match["phase"] or "fold"
    number = match["number"] or match["index"] or match["which"] or match["before"] or match["chinese"]
    return f"{word.lower()} {int(number)}"


# --- values -------------------------------------------------------------------------------------------

VALUE: Final = re.compile(
    rf"(?P<open>\[\s{{0,4}})?(?P<value>{NUMBER})(?P<percent>\s?(?!{BAR})%)?"
    rf"(?:\s?/\s?(?P<of>\d{{1,15}})(?![\w.]))?{NUMBER_END}(?!\s?/\s?\.?\d)(?(open)\s{{0,4}}\])",
    re.IGNORECASE,
)
"""A value after its name: a number, perhaps in percent, perhaps a count of a total, perhaps in brackets."""
AVERAGE: Final = re.compile(rf"\s{{0,4}}\(\s{{0,8}}(?P<average>{NUMBER})\s?%?\s{{0,4}}\)", re.IGNORECASE)
"""What a meter writes after a value: its average, in parentheses."""


def digits_of(text: str) -> int:
    """Return the decimals of a number as it was printed, at most 12."""
    mantissa = text.lower().split("e")[0]
    return min(len(mantissa.partition(".")[2]), 12) if "e" not in text.lower() else 6


# --- the protocol of a format -------------------------------------------------------------------------


class Reader(Protocol):
    """Reads the lines of one log; may remember earlier lines, such as a table's header."""

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values on a line; None if the line is not of this format."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """A log format: its name, its description, and its reader."""

    name: str
    description: str
    reader: Callable[[Metric], Reader]
