"""Tables: a header with the metric's name, and rows of numbers below it.

Columns are separated by bars (detectron2, PrettyTable, Lightning's box), commas (CSV) or spaces (fastai,
skorch, Ultralytics). A row counts if it has as many cells as the header. Of rows per class, only the overall
row counts. Between bars, the names of metrics may also stand below each other, beside their values or with a
column for each data set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autotuner.study.formats.line import NUMBER, Line, to_number
from autotuner.study.formats.reading import Format, Label, Metric, Position, Reading, digits_of, key, label_in

_BARS: Final = re.compile(r"[|\u2502\u2503]")
_RULE: Final = re.compile(r"[\s|:+\-=\u2500-\u257f]{3,}$")
_CELL: Final = re.compile(rf"(?P<value>{NUMBER})(?P<percent>\s?%)?", re.IGNORECASE)
_IN_BRACKETS: Final = re.compile(rf"\[\s?({NUMBER})\s?\]", re.IGNORECASE)
"""A cell with a list of one value: `[0.0321]`."""
_PROGRESS: Final = re.compile(r":?\s{0,4}\d{1,3}%(?:\||\s[\u2501\u2578\u257a\u2500]).{0,400}$")
_TASK: Final = re.compile(
    r"(?:Evaluation results for|copypaste: Task:|IoU metric:|Evaluate annotation type|Evaluating)"
    r"\s{1,4}\W?(?P<task>bbox|segm|keypoints|proposal)",
    re.IGNORECASE,
)
_COPY: Final = re.compile(r"\s{0,4}copypaste:\s{1,4}(?=[\w.-]{1,20},)")
_FIELDS: Final = re.compile(r"[:=]\s?[\d'\"]")
"""Characters of lines that have their own names, which rows of a table do not contain."""
_EPOCHS: Final = frozenset({"epoch", "ep", "epochs", "e"})
_STEPS: Final = frozenset({"step", "steps", "iteration", "iter", "iterations", "global_step", "#"})
_CLASSES: Final = frozenset({"category", "class", "classes", "label", "name"})
_SPLITS: Final = frozenset({"split", "phase", "mode", "subset", "stage", "set", "dataset", "partition"})
_SPLIT: Final = re.compile(
    r"(?:train(?:ing)?|trn|val(?:id(?:ation)?|i)?|eval(?:uation)?|test(?:ing)?|tst|dev|holdout)"
    r"(?:[ _-]?(?:set|data|split))?",
    re.IGNORECASE,
)
_NAMED_VALUES: Final = frozenset({"metric", "value"})
_MIN_SPLITS: Final = 2
_OVERALL: Final = frozenset({"all", "mean", "overall", "average", "avg", "total", "micro"})
_WORD: Final = re.compile(r"\S+")
_LETTER: Final = re.compile(r"[^\W\d_]")
_WIDE: Final = re.compile(r"\s{0,40}[|\u2502\u2503]\s{0,40}|\s{2,}")
_GAP: Final = re.compile(r"\s{2,80}")
_MIN_SPACED: Final = 4
_UNIT: Final = re.compile(r"\s?[(\[]\s?%\s?[)\]]$")
_OVERLAP: Final = re.compile(r"\.\d{1,2}")
"""`AP .5` is a name: programs print values with the zero."""
_MAX_CELLS: Final = 64
_MAX_CELL: Final = 64
_MAX_LEAD: Final = 300
"""Characters of a header that distinguish its table from another one."""


@dataclass(slots=True)
class _Header:
    kind: str
    names: list[str]
    wide: list[str]
    task: str = ""
    text: str = ""
    above: str = ""

    @property
    def has_values(self) -> bool:
        """Whether a column has the names of metrics and another one their values, as lm-eval prints them."""
        return self.kind == "bars" and _has_values(self.names)

    @property
    def has_splits(self) -> bool:
        """Whether the columns are data sets, and the rows metrics: `|  | train | validation |`."""
        is_of_rows = self.kind == "bars" and key(self.names[0]) not in _EPOCHS | _STEPS
        return is_of_rows and sum(bool(_split_in(name)) for name in self.names[1:]) >= _MIN_SPLITS

    def row(self, cells: list[str], text: str) -> tuple[list[str], list[str]] | None:
        """Return the names and the cells of a row; None if they do not belong together."""
        if len(cells) in {len(self.names), len(self.wide)}:
            return (self.names if len(cells) == len(self.names) else self.wide), cells
        if self.is_indexed_by(cells):
            return self.names, cells[1:]
        if self.names[0] == "#" and len(cells) == len(self.names) - 1:
            return self.names[1:], cells  # it marks the header as a comment
        is_shorter = self.kind == "blanks" and 2 < len(cells) < len(self.names)  # noqa: PLR2004
        aligned = self._aligned(text) if is_shorter else None
        return None if aligned is None else (self.names, aligned)

    def _aligned(self, text: str) -> list[str] | None:
        """Return a row's cells below the names, empty where the row has none; None if they are not aligned.

        Programs leave cells empty, such as skorch where it saves no checkpoint, but not the first one.
        """
        columns = [match.span() for match in _WORD.finditer(self.text)]
        if len(columns) != len(self.names):
            return None  # bars stand between groups of columns
        row: list[str] = [""] * len(columns)
        for cell in _WORD.finditer(text):
            below = [i for i, (start, end) in enumerate(columns) if cell.start() < end and start < cell.end()]
            if len(below) != 1 or row[below[0]]:
                return None
            row[below[0]] = cell[0]
        return row if row[0] else None

    def is_replaced_by(self, kind: str, cells: list[str]) -> bool:
        """Return whether words may be the header of another table, rather than a message between rows."""
        is_as_long = kind != "blanks" or len(cells) in {len(self.names), len(self.wide)}
        return kind == self.kind and is_as_long

    def is_indexed_by(self, cells: list[str]) -> bool:
        """Return whether a row begins with an index that has no name, as pandas prints it."""
        is_longer = self.kind == "blanks" and len(cells) == len(self.names) + 1
        is_of_steps = any(key(name) in _EPOCHS | _STEPS for name in self.names)
        return is_longer and is_of_steps and cells[0].isdigit() and all(map(_CELL.fullmatch, cells))


class TableReader:
    """Reads rows below a header; remembers one header, and the last epoch of a row."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._header: _Header | None = None
        self._task = ""
        self._group = ""
        self._epoch: float | None = None
        self._place = Position()
        self.sibling = ""
        """The column of the metric on validation data, such as `val_acc` for `acc`, beside that of epochs."""

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's cell of a row; an empty list for other lines of the table."""
        text = line.text
        if task := _TASK.search(text):
            self._task = task["task"].lower()
        kind, cells = _cells(_PROGRESS.sub("", text))
        if _RULE.match(text.strip()):
            self._place = Position()
            return [] if kind == "bars" else None
        if len(cells) < 2 or len(cells) > _MAX_CELLS:  # noqa: PLR2004
            self._group = ""
            return None
        if self._opens_group(kind, cells):
            return []
        self._note_place(kind, cells)
        header = self._header
        if header is not None and kind == header.kind and _has_number(cells):
            row = header.row(cells, _PROGRESS.sub("", text))
            if row is not None:
                return self._row(header, *row, line, context)
        if kind == "bars" and len(cells) == 2 and self._is_named(cells[0]) and _has_number(cells):  # noqa: PLR2004
            return self._pair(cells, line, self._place.or_else(context))
        if kind == "bars":
            cells = _filled(cells)
        if _is_header(cells) and not _is_prose(kind, cells, text):
            self._take_header(kind, cells, _PROGRESS.sub("", text))
            return [] if self._column(cells) or kind != "blanks" else None
        return None

    def _opens_group(self, kind: str, cells: list[str]) -> bool:
        """Return whether a row names a group of the rows below it, such as `| eval/ |  |`."""
        is_group = kind == "bars" and len(cells) == 2 and cells[0].endswith("/") and not cells[1]  # noqa: PLR2004
        if is_group:
            self._group = cells[0][:_MAX_CELL]
        return is_group

    def _note_place(self, kind: str, cells: list[str]) -> None:
        """Remember the epoch or the step in a row of its own, for the rows below it in the same table."""
        if kind != "bars" or len(cells) != 2:  # noqa: PLR2004
            return
        name, number = key(cells[0]), _number(cells[1])
        if number is not None and name in _EPOCHS:
            self._place = Position(number, self._place.step)
        elif number is not None and name in _STEPS:
            self._place = Position(self._place.epoch, number)

    def _is_named(self, name: str) -> bool:
        """Return whether a row has the metric's name, perhaps without the group above it: `eval/`."""
        return self._metric.is_named(name) or bool(self._group and self._metric.is_named(self._group + name))

    def _take_header(self, kind: str, cells: list[str], text: str) -> None:
        has_metric = bool(self._column(cells))
        is_known = any(key(cell) in _EPOCHS for cell in cells)
        if is_known and not has_metric and not self._metric.label:
            name = key(self._metric.name)
            own = {f"{word}_{name}" for word in ("val", "valid", "validation", "eval", "dev")}
            self.sibling = next((cell for cell in cells if key(cell) in own), self.sibling)
        wide = list(filter(None, _WIDE.split(text.strip()))) if kind == "blanks" else cells
        header = _Header(kind, cells, wide, self._task, text.rstrip())
        if has_metric or is_known or header.has_values or header.has_splits:
            self._header = header
        elif self._header is not None and self._header.is_replaced_by(kind, cells):
            self._header = None

    def _column(self, names: Sequence[str]) -> list[int]:
        return [i for i, name in enumerate(names) if self._metric.is_named(_bare(name))]

    def _row(
        self, header: _Header, names: list[str], cells: list[str], line: Line, context: Position
    ) -> list[Reading] | None:
        if (header.has_values or header.has_splits) and not self._column(header.names):
            return self._named_rows(header, cells, line, context)
        named = {key(name): cell for name, cell in zip(names, cells, strict=True)}
        epoch = _number(next((named[n] for n in named if n in _EPOCHS), "").split("/")[0])
        step = _number(next((named[n] for n in named if n in _STEPS), "").split("/")[0])
        self._epoch = epoch if epoch is not None else self._epoch
        classes = [named[n].strip().lower() for n in named if n in _CLASSES]
        if classes and classes[0] not in _OVERALL and not _split_in(classes[0]):
            return []
        row_label = label_in(next((named[n] for n in named if n in _SPLITS), "") or _split_in(cells[0]))
        if step is not None and (context.epoch or 0.0) % 1:
            context = Position()  # the part of an epoch is a bar's, which stands still below its table
        position = Position(epoch, step).or_else(context).or_else(Position(self._epoch))
        readings = []
        has_sibling = any(
            key(n) == f"{word}_{key(self._metric.name)}"
            for n in names
            for word in ("val", "valid", "test", "eval")
        )
        columns = self._column(names)
        # A table without epochs and steps of its own is about the data set that a heading names.
        is_definite = epoch is not None or step is not None
        for index in columns:
            cell = _CELL.fullmatch(_IN_BRACKETS.sub(r"\1", cells[index].strip()))
            if cell is None:
                continue
            label = row_label or (Label.TRAIN if has_sibling and not self._metric.label else Label.UNKNOWN)
            readings.append(
                Reading(
                    to_number(cell["value"]),
                    position,
                    self._metric.label or label,
                    line.raw,
                    is_percent=bool(cell["percent"]),
                    is_definite=is_definite and len(columns) == 1 and not header.task and not row_label,
                    variant=header.task or (f"column {index + 1}" if len(columns) > 1 else ""),
                    lead=" ".join(key(name) for name in header.names)[:_MAX_LEAD],
                    digits=digits_of(cell["value"]),
                )
            )
        return readings or (None if header.kind == "blanks" else [])

    def _named_rows(self, header: _Header, cells: list[str], line: Line, context: Position) -> list[Reading]:
        """Return the values of a row that begins with the metric's name, or has it in a column."""
        names = [key(name) for name in header.names]
        if header.has_values:
            name, columns = cells[names.index("metric")], [names.index("value")]
            # The task stands in the first of its rows alone, and a row of it may have another filter.
            header.above = cells[0] or header.above
            kind = " ".join([header.above, *(cells[i] for i, n in enumerate(names) if n == "filter")])
        else:
            name, kind = cells[0], ""
            columns = [i for i, split in enumerate(header.names) if i and _split_in(split)]
        readings = []
        for index in columns:
            split = _split_in(header.names[index])
            cell = _CELL.fullmatch(cells[index].strip())
            is_named = self._metric.is_named(name) or (split and self._metric.is_named(f"{split} {name}"))
            if cell is None or not is_named:
                continue
            readings.append(
                Reading(
                    to_number(cell["value"]),
                    context,
                    label_in(split) or self._metric.label,
                    line.raw,
                    is_percent=bool(cell["percent"]),
                    variant=kind[:_MAX_CELL],
                    digits=digits_of(cell["value"]),
                )
            )
        return readings

    def _pair(self, cells: list[str], line: Line, context: Position) -> list[Reading] | None:
        cell = _CELL.fullmatch(cells[1].strip())
        if cell is None:
            return None
        return [
            Reading(
                to_number(cell["value"]),
                context,
                self._metric.label or label_in(self._group + cells[0]),
                line.raw,
                is_percent=bool(cell["percent"]),
                is_definite=bool(self._group),
                digits=digits_of(cell["value"]),
            )
        ]


def _cells(text: str) -> tuple[str, list[str]]:
    stripped = text.strip()
    if stripped.startswith("&"):  # a row for LaTeX: `& 0.115 & 0.903 \\\\`
        return "inner bars", [cell.strip() for cell in stripped.rstrip("\\ ").split("&")[1:]]
    if copied := _COPY.match(text):
        return "commas", text[copied.end() :].strip().split(",")
    if len(_BARS.findall(stripped)) >= 2 and _BARS.match(stripped) and _BARS.match(stripped[-1]):  # noqa: PLR2004
        cells = [cell.strip() for cell in _BARS.split(stripped)[1:-1]]
        return "bars", _GAP.split(cells[0]) if len(cells) == 1 else cells  # a name and its value in a box
    if len(_BARS.findall(stripped)) >= 2 and not _FIELDS.search(stripped):  # noqa: PLR2004
        cells = [cell.strip() for cell in _BARS.split(stripped.rstrip("| "))]
        if any(_GAP.search(cell) for cell in cells):
            return "blanks", " ".join(cells).split()  # the bars separate groups of columns
        return "inner bars", cells
    for kind, mark in (("commas", ","), ("tabs", "\t"), ("semicolons", ";")):
        if stripped.count(mark) >= 1 and not _FIELDS.search(stripped):
            cells = [cell.strip().strip('"') for cell in stripped.split(mark)]
            if kind == "tabs" and " " in stripped:
                cells = [cell for cell in cells if cell]  # two tabs where one is too narrow
            # A row may leave cells empty, as of the training in a line of the validation.
            if (all(cells) or (" " not in stripped and len(cells) > 2)) and all(  # noqa: PLR2004
                len(cell) <= _MAX_CELL and (kind == "tabs" or " " not in cell) for cell in cells
            ):
                return kind, cells
    return "blanks", stripped.split()


def _has_values(cells: list[str]) -> bool:
    return {key(cell) for cell in cells} >= _NAMED_VALUES


def _filled(cells: list[str]) -> list[str]:
    """Return the names of a header with one for the corner above the names of the rows, and for signs."""
    if _has_values(cells):
        return [cell or "sign" for cell in cells]  # above `±` and an arrow
    return [cells[0] or "class", *cells[1:]]


def _is_header(cells: list[str]) -> bool:
    """Return whether cells are names: they contain no number as a word."""
    if not all(0 < len(cell) <= _MAX_CELL and (_LETTER.search(cell) or "#" in cell) for cell in cells):
        return False
    words = (word for cell in cells for word in cell.split())
    return not any(_CELL.fullmatch(word) and not _OVERLAP.fullmatch(word) for word in words)


def _is_prose(kind: str, cells: list[str], text: str) -> bool:
    """Return whether words between rows are a message rather than the header of another table.

    Names of columns may be cut off, `LOSS TRANS...`, but blanks separate them.
    """
    is_spaced = len(_GAP.split(text.strip())) >= _MIN_SPACED
    return kind == "blanks" and not is_spaced and any(cell[-1] in ":,.!" for cell in cells)


def _split_in(cell: str) -> str:
    return cell if _SPLIT.fullmatch(cell.strip()) else ""


def _has_number(cells: list[str]) -> bool:
    return any(_CELL.fullmatch(cell) for cell in cells)


def _number(text: str) -> float | None:
    cell = _CELL.fullmatch(text.strip())
    return to_number(cell["value"]) if cell and abs(to_number(cell["value"])) < 1e15 else None  # noqa: PLR2004


def _bare(name: str) -> str:
    """Return a column's name without its unit, `Accuracy (%)`, or a group's parenthesis: `Box(P`."""
    name = _UNIT.sub("", name)
    if name.count("(") == name.count(")"):
        return name
    return name.rpartition("(")[2].rstrip(")")


_COCO: Final = re.compile(
    r"\s{0,4}Average (?P<kind>Precision|Recall)\s{1,4}\(A[PR]\) @\[ IoU=(?P<iou>[\d.:]{3,9})\s{0,12}"
    r"\| area=\s{0,8}(?P<area>\w{1,8})"
    rf"\s{{0,4}}\| maxDets=\s{{0,4}}(?P<detections>\d{{1,6}})\s{{0,4}}\] = (?P<value>{NUMBER})"
)
_COCO_NAMES: Final = {
    "0.50:0.95": frozenset(
        {"ap", "map", "average_precision", "map50_95", "map_50_95", "ap50_95", "coco_ap", "coco_map"}
    ),
    "0.50": frozenset({"ap50", "ap_50", "map50", "map_50"}),
    "0.75": frozenset({"ap75", "ap_75", "map75", "map_75"}),
    "small": frozenset({"aps", "ap_s", "map_s", "ap_small"}),
    "medium": frozenset({"apm", "ap_m", "map_m", "ap_medium"}),
    "large": frozenset({"apl", "ap_l", "map_l", "ap_large"}),
}
_RECALLS: Final = frozenset({"ar", "average_recall", "ar100", "mar", "ar_100"})
_COCO_PREFIX: Final = re.compile(r"^(?:(?:coco|val|eval|test|bbox|segm|box|mask|metrics)_){1,4}")


class CocoReader:
    """Reads the summary of the COCO tools: always fractions, however other tools print these metrics."""

    def __init__(self, metric: Metric) -> None:
        self._name = _COCO_PREFIX.sub("", key(metric.name))
        self._wanted = next((t for t in ("bbox", "segm") if t in metric.name.lower()), "")
        self._task = ""

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the row that the metric names."""
        if task := _TASK.search(line.text):
            self._task = task["task"].lower()
        row = _COCO.match(line.text)
        if row is None:
            return None
        if not self._is_row(row) or (self._wanted and self._task and self._task != self._wanted):
            return []
        value = to_number(row["value"])
        return [
            Reading(
                100 * value,
                context,
                Label.VALIDATION,
                line.raw,
                is_percent=True,
                variant="" if self._wanted else self._task,
                digits=1,
            )
        ]

    def _is_row(self, row: re.Match[str]) -> bool:
        if row["kind"] == "Recall":
            return (
                self._name in _RECALLS
                and row["iou"] == "0.50:0.95"
                and row["area"] == "all"
                and row["detections"] == "100"
            )
        name = row["iou"] if row["area"] == "all" else row["area"]
        return self._name in _COCO_NAMES.get(name, frozenset())


TABLE: Final = Format(
    "table", "tables with bars, blanks or commas: detectron2, Ultralytics, fastai, CSV", TableReader
)
COCO: Final = Format(
    "coco", "the COCO tools' summary: `Average Precision  (AP) @[ IoU=0.50:0.95 | ...] = 0.364`", CocoReader
)
