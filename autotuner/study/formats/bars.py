"""Progress bars: tqdm's (Lightning, NeMo, Accelerate), rich's (Lightning), Keras's.

A bar prints the same values many times, and continues to show those of the epoch before. So its value counts
when its epoch is over: the last value of the full bar.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from autotuner.study.formats.finder import Finder, skeleton
from autotuner.study.formats.line import Line
from autotuner.study.formats.reading import Format, Label, Metric, Position, Reading, label_in, position_in

_TQDM: Final = re.compile(
    r"(?P<percent>\d{1,3})%\|(?P<bar>[^|]{0,400})\|\s{0,8}(?P<count>[\d.]{1,15}[kMG]?)/(?P<total>[\d.]{1,15}[kMG]?|\?)\s\[(?=\d|\?)"
    r"|:\s{0,4}\|\s{0,400}\|\s{0,8}(?P<many>\d{1,15})/\?\s\[(?=\d)"
)
"""`30%|###   | 3/10 [00:01<00:03, 2.1it/s, accuracy=0.5]`."""
_EPOCHS: Final = re.compile(r"(?:^|\s)epochs?\s{0,4}:?\s{0,4}$", re.IGNORECASE)
_DASHED: Final = re.compile(r"(?<=\w) - (?=[\d.]{1,20}[],])")
"""`iou_score - 0.71` of segmentation_models.pytorch."""
_TORCHTUNE: Final = re.compile(r"\s{0,8}(?P<epoch>\d{1,9})\|(?P<step>\d{1,12})\|(?=[A-Za-z])")


class TqdmReader:
    """Reads tqdm's bars.

    A bar without an epoch counts when it is full, as one step. Bars of different lengths, as of training and
    validation, are kept separate. A value that names its data set, such as `val_acc`, counts when it changes
    on a bar of the training, which shows it unchanged until the next evaluation. Where the evaluations have
    bars of their own, a value without one since the last is no measurement, however often it is shown. On the
    validation's own bar it is an average so far, which changes from the first refresh on: it counts when the
    bar is full.

    A bar whose words name the epoch may count the epochs itself: `Epoch 3: 0%| | 3/1000`. It is known for one
    when its second epoch begins, and the values of the first one wait until then.
    """

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric
        self._begun: tuple[float, float, float] | None = None
        self._of_epochs = 0.0
        self._first: Reading | None = None
        self._count = 0.0
        self._before = 0.0
        self._bars = 0.0
        self._is_within = False
        self._shown: float | None = None
        self._bar: tuple[float | None, float] = (None, 0.0)
        self._at = 0.0
        self._is_steady = False
        self._is_running = False
        self._was_redrawn = False
        self._shows_evaluations = False
        self._is_evaluated = False
        self._is_counted = False
        self._drawn: tuple[float, float | None] = (0.0, None)

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values on a bar."""
        bar = _TQDM.search(line.text)
        if bar is None:
            return None
        text = line.text[: bar.end()] + _DASHED.sub("=", line.text[bar.end() :])
        found = list(self._finder.find(text))
        lead = line.text[: bar.start()]
        count, total = _number(bar["count"] or bar["many"]), _number(bar["total"] or "?")
        epoch = position_in(lead).epoch
        is_of_data = label_in(lead) in {Label.VALIDATION, Label.TEST}
        is_message = bool(found) and "]" in text[bar.end() : found[-1].start]  # printed behind the bar
        shown = found[-1].value if found and not is_message else None
        self._follow((epoch, total), count, shown, is_of_data=is_of_data)
        is_running = (self._is_running or is_of_data) and not is_message
        # `Validation Dice score: 0.91` behind the training's bar names its data set, too.
        is_named = self._names_its_data or (is_message and found[-1].label in {Label.VALIDATION, Label.TEST})
        is_validated = epoch is not None and is_named and not is_running
        counted = self._counted(lead, epoch, count, total)
        if not found:
            return None
        each = found[-1]
        is_still = (counted or epoch) is not None and self._is_still(count, total, each.value)
        if is_still if counted is not None else is_validated and self._is_old(each.value):
            return self._with_first([], epoch, counted)
        of_bar = label_in(lead)
        label = self._metric.label or (is_message and each.label) or of_bar or each.label
        share = 1.0 if bar["percent"] == "100" or not total else min(count / total, 1.0)
        progress: float | None = share
        variant = each.variant
        is_new_bar = self._names_its_data and each.value != self._shown and not self._was_redrawn
        self._was_redrawn = line.is_redrawn
        if tuned := _TORCHTUNE.match(line.text):
            position, progress = Position(float(tuned["epoch"]), float(tuned["step"])), 1.0
        elif counted is not None:
            position, progress = counted, 1.0
        elif is_validated:
            position, progress = self._validated(Position(epoch, count, total or None), each.value, share)
        elif epoch is not None:
            position = Position(epoch)
        elif context.epoch is not None and not self._is_counted:
            position, progress = Position(context.epoch), None if is_message else share
        else:
            named = label if is_running or not self._names_its_data else None
            step = self._advanced(count, is_new=is_new_bar and count == total)
            place = self._unplaced(each.value, step, total, share, named)
            if place is None:
                return []
            position, progress, of_total = place
            variant = variant or of_total
        reading = Reading(
            each.value,
            position,
            label,
            line.raw,
            is_percent=each.is_percent,
            progress=progress,
            variant=variant,
            digits=each.digits,
            lead=skeleton(lead) if of_bar and not is_message else "",
        )
        return self._with_first([reading], epoch, counted)

    def _unplaced(
        self, value: float, step: float, total: float, share: float, label: Label | None
    ) -> tuple[Position, float, str] | None:
        """Return place, progress and kind of a value without an epoch; None if it is an old one.

        `label` is None for a value that names its data set and stands on the training's bar.
        """
        self._is_counted = self._names_its_data  # also below lines that name an epoch later on
        is_shown, self._shown = value == self._shown and self._names_its_data, value
        if total and label is not None:
            return Position(None, self._bars + 1), share, "" if label else f"bar of {total:g}"
        return None if is_shown else (Position(None, step), 1.0, "")

    @property
    def _names_its_data(self) -> bool:
        return self._metric.label not in {Label.UNKNOWN, Label.TRAIN}

    def _counted(self, lead: str, epoch: float | None, count: float, total: float) -> Position | None:
        """Return the epoch of a bar that counts them: it says so, or its words and its count go on alike."""
        if epoch is None:
            return Position(count) if _EPOCHS.search(lead[:80].rstrip()) else None
        if self._begun is None or epoch != self._begun[0]:
            known, self._begun = self._begun or (epoch, count, total), (epoch, count, total)
            gone = (epoch - known[0], count - known[1], total - known[2])
            is_one = gone[0] == gone[1] > 0 and not gone[2] and abs(count - epoch) <= 1
            self._of_epochs = total if is_one else 0.0
        return Position(epoch) if total and self._of_epochs == total else None

    def _with_first(
        self, readings: list[Reading], epoch: float | None, counted: Position | None
    ) -> list[Reading]:
        """Return readings behind that of the first epoch, if the bar turns out to count epochs."""
        if counted is None:
            self._first = next(iter(readings), self._first) if epoch is not None else None
            return readings
        first, self._first = self._first, None
        before = (
            [] if first is None else [replace(first, position=Position(first.position.epoch), progress=1.0)]
        )
        return [*before, *readings]

    def _follow(
        self, bar: tuple[float | None, float], count: float, value: float | None, *, is_of_data: bool
    ) -> None:
        """Note whether a value changes with the bar, rather than with an evaluation in between."""
        if is_of_data and value is None:
            self._shows_evaluations = self._is_evaluated = True
            return  # the bar of an evaluation that interrupts the training's
        if bar != self._bar or count < self._at:
            self._bar, self._is_steady = bar, False
        self._at = count
        is_new = value is not None and value != self._shown
        if is_new and not self._is_steady and count < bar[1] and self._names_its_data:
            self._is_running = True
        self._is_steady = not is_new and count > 0

    def _advanced(self, count: float, *, is_new: bool) -> float:
        """Return the count of this bar and of those before it."""
        if count < self._count or (count == self._count and is_new):
            self._before += self._count
            self._bars += 1
        self._count = count
        return self._before + count

    def _is_old(self, value: float) -> bool:
        """Return whether a value is still that of the last evaluation, which had a bar of its own."""
        is_old = self._shows_evaluations and not self._is_evaluated and value == self._shown
        self._is_evaluated = False
        return is_old

    def _is_still(self, count: float, total: float, value: float) -> bool:
        """Return whether a bar that counts epochs shows the value of the epoch before.

        It does until the epoch's own is set. That redraws the bar, so an equal one is shown twice there.
        """
        drawn, self._drawn = self._drawn, (count, value)
        return drawn[1] == value and (count != drawn[0] or count == total)

    def _validated(self, at: Position, value: float, progress: float) -> tuple[Position, float | None]:
        """Return the position of a validation value; one that changes within the epoch is a measurement."""
        is_new, self._shown = value != self._shown, value
        if is_new and progress < 1 and at.total:
            self._is_within = True
            return at, None
        return (at if self._is_within else Position(at.epoch)), progress


def _number(text: str) -> float:
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1:], 1.0)
    try:
        return float(text.rstrip("kMG")) * scale
    except ValueError:
        return 0.0


_RICH: Final = re.compile(
    r"[\u2501\u2578\u257a\u2500]{2,400}\s{0,4}(?:\d{1,3}%\s{0,4})?(?P<count>\d{1,12})/(?P<total>\d{1,12})\s{1,4}[\d-]{1,4}:"
)
_FAR: Final = 20
"""Leading spaces of a line that continues a bar."""
_MAX_BAR: Final = 2000


class RichBarReader:
    """Reads rich's bars, as Lightning prints them: `Epoch 3/3 ━━━━ 4/4 0:00:00 • 0:00:00 6.5it/s`.

    Where the metrics do not fit into the line, they go on below it, far to the right, and a value may be
    separated from its name.

    Where it redraws them, as on a terminal, a bar of the training shows the value of the validation before,
    and the first bar of an epoch may be the first one with the value of the epoch before. So a value counts
    when it changes, or when a bar of the validation was seen since. One that does not name its data set may
    be the training's, which changes with the batches: of those within an epoch the last one counts.
    """

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric
        self._bar = ""
        self._position = Position()
        self._before = Position()
        self._is_start = True
        self._is_next = False
        self._is_evaluated = False
        self._is_within = False
        self._is_moving = False
        self._shown: float | None = None
        self._progress = 0.0
        self._label = Label.UNKNOWN

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values on a bar, or on the lines that continue it."""
        bar = _RICH.search(line.text)
        if bar is not None:
            lead = line.text[: bar.start()]
            count, total = float(bar["count"]), float(bar["total"])
            self._label = label_in(lead)
            self._follow(Position(position_in(lead).or_else(context).epoch, count, total))
            self._progress = min(count / total, 1.0) if total else 1.0
            self._bar, known = line.text.rstrip(), 0
        elif self._bar and line.indent >= _FAR and len(self._bar) < _MAX_BAR:
            known = len(self._bar)
            self._bar += " " + line.text.strip()
        else:
            self._bar = ""
            return None
        each = next(iter(list(self._finder.find(self._bar))[-1:]), None)
        if each is None or each.end <= known:
            return []
        position = Position(self._position.epoch)
        progress: float | None = self._progress
        if not self._label:
            is_new = each.value != self._shown or (self._is_evaluated and self._is_next)
            is_before = self._shown is None and not (self._progress or self._is_next)
            self._shown = each.value
            if is_before or not (is_new or self._is_moving):
                return []  # of Lightning's check before the training, or of an evaluation that counted
            self._is_evaluated = False
            position, progress = self._validated()
        return [
            Reading(
                each.value,
                position,
                self._metric.label or self._label or each.label,
                self._bar if known else line.raw,
                is_percent=each.is_percent,
                progress=progress,
                variant=each.variant,
                digits=each.digits,
            )
        ]

    def _follow(self, position: Position) -> None:
        """Note whether a bar is the first one of the next epoch, and whether an evaluation has begun."""
        if self._label:
            self._is_evaluated = True
            return
        known = self._position
        self._is_start = known.epoch is None
        self._is_next = not self._is_start and position.epoch != known.epoch
        if self._is_next:
            self._before, self._is_moving = replace(known, step=known.total), False
        self._position = position

    def _validated(self) -> tuple[Position, float | None]:
        """Return the position of a validation value, and its progress."""
        names_its_data = self._metric.label not in {Label.UNKNOWN, Label.TRAIN}
        # A first bar that is full is the only one of its epoch, whose value it shows.
        is_first = self._is_next and self._progress < 1
        is_of_last = is_first and (names_its_data or not self._progress)
        at = self._before if is_of_last else self._position
        progress: float | None = 1.0 if is_of_last else self._progress
        if not is_of_last and not self._is_start and self._progress < 1:
            self._is_within, self._is_moving = names_its_data, not names_its_data
            progress = None if names_its_data else self._progress
        return (at if self._is_within else Position(at.epoch)), progress


_MAX_LEAD: Final = 400
_KERAS: Final = re.compile(
    r"(?:^\s{0,4}(?:step )?|(?<=\s)(?:step )?(?=\d{1,12}/\d{1,12}\s{1,4}(?:\[[=>.]{10}|\u2501{3})))"
    r"(?P<count>\d{1,12})/(?P<total>\d{1,12}|Unknown)\s{1,4}"
    r"(?:\[[=>.\s]{1,80}\]|[\u2501 ]{1,80}|-)\s?(?=-|\d)"
)


class KerasReader:
    """Reads Keras's bar, `469/469 ━━━ 3s 5ms/step - accuracy: 0.88 - val_accuracy: 0.91`.

    A bar below a line `Epoch 1/2` belongs to `fit`: its metrics without `val_` are those of the training. The
    next bar without such a line belongs to `evaluate`.
    """

    def __init__(self, metric: Metric) -> None:
        self._finder = Finder(metric)
        self._metric = metric
        self._epoch: float | None = None
        self._is_evaluated = False
        self._count = 0.0

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the metric's values on a bar."""
        bar = _KERAS.search(line.text[:_MAX_LEAD])
        if bar is None:
            return None
        count = float(bar["count"])
        total = float(bar["total"]) if bar["total"] != "Unknown" else 0.0
        if context.epoch is not None and context.epoch != self._epoch:
            self._epoch, self._is_evaluated = context.epoch, False
        elif count < self._count or context.epoch is None:
            self._is_evaluated = True
        self._count = count
        label = self._metric.label or (Label.TEST if self._is_evaluated else Label.TRAIN)
        return [
            Reading(
                each.value,
                Position(context.epoch),
                label,
                line.raw,
                is_percent=each.is_percent,
                progress=count / total if total else 1.0,
                digits=each.digits,
            )
            for each in self._finder.find(line.text)
        ]


_REACHED: Final = re.compile(
    r"\s{0,4}Epoch (?P<epoch>\d{1,9}), global step (?P<step>\d{1,12}): "
    r"['\"]?(?P<name>[^'\"\n]{1,160}?)['\"]? reached (?P<value>\S{1,40}) \(best"
)


class CheckpointReader:
    """Reads lines of Lightning's ModelCheckpoint, `Epoch 2, global step 12: 'val_acc' reached 0.98`.

    Its lines, and EarlyStopping's, also contain the best value, which is not a measurement.
    """

    _SAYS = re.compile(r"\s{0,4}(?:Metric \S{1,160} improved|Epoch \d{1,9}, global step \d|Monitored metric)")

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def read(self, line: Line, context: Position) -> list[Reading] | None:
        """Return the value that was reached."""
        del context
        if not self._SAYS.match(line.text):
            return None
        match = _REACHED.match(line.text)
        if match is None or not self._metric.is_named(match["name"]):
            return []
        try:
            value = float(match["value"])
        except ValueError:
            return []
        digits = min(len(match["value"].partition(".")[2]), 12)
        position = Position(float(match["epoch"]), float(match["step"]))
        label = self._metric.label or Label.VALIDATION
        return [Reading(value, position, label, line.raw, digits=digits)]


TQDM: Final = Format(
    "tqdm", "tqdm's progress bar: `Epoch 3: 100%|##| 16/16 [00:01<00:00, val_acc=0.93]`", TqdmReader
)
RICH: Final = Format(
    "rich", "rich's progress bar: `Epoch 3/3 ━━━ 4/4 0:00:00 • 0:00:00 6.5it/s val_acc: 0.98`", RichBarReader
)
KERAS: Final = Format("keras", "Keras: `469/469 - 3s - accuracy: 0.88 - val_accuracy: 0.91`", KerasReader)
CHECKPOINT: Final = Format(
    "model-checkpoint",
    "Lightning's ModelCheckpoint: `Epoch 2, global step 12: 'val_acc' reached 0.98 (best ...)`",
    CheckpointReader,
)
