"""Read measurements of the target metric from a growing log, or report a doubt.

The text comes in pieces of any size, and the result does not depend on where it was cut. Input is untrusted:
lines are bounded, the work is linear, and a run keeps a bounded number of measurements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import re2

from autotuner.spec.values import Target
from autotuner.study import formats
from autotuner.study.formats.finder import Finder
from autotuner.study.formats.line import Line, clean, messages_of
from autotuner.study.formats.reading import (
    Label,
    Metric,
    Position,
    Reader,
    Reading,
    epochs_in,
    part_in,
    position_in,
)
from autotuner.study.formats.records import value_of
from autotuner.study.formats.tables import TableReader
from autotuner.study.logs.batch_words import BatchWords
from autotuner.study.logs.choice import MOST
from autotuner.study.logs.doubt import Doubt, bounded
from autotuner.study.logs.extras import Extras
from autotuner.study.logs.heading import Heading
from autotuner.study.logs.loops import LoopLengths
from autotuner.study.logs.losses import FirstLosses
from autotuner.study.logs.near_misses import NearMisses
from autotuner.study.logs.readings import Readings
from autotuner.trial import Measurement, Trial

MAX_LINE: Final = 65_536
"""Characters of a line that are read; a longer line is a dump, and is passed over whole."""

_LINE_END: Final = re.compile(r"\r\n|[\r\n]")
_MAX_KEPT: Final = 1000
"""Characters of a line that are kept with a reading."""
_MAX_SHARED: Final = 256
"""Measurements of a rotated log that are compared with the earlier ones."""
_MAX_BLOCK: Final = 400
"""Maximum lines of one dictionary that is printed over several lines."""
_RESULT: Final = re.compile(r"(?:Result for|Trial status update for) \S{1,160}:$")
"""The first line of a result that RLlib prints over several lines, the metric before its iteration."""
_BARE: Final = 16
"""Characters, in addition to the name, of a line that only repeats a setting."""
_POSITIONED: Final = re.compile(
    r"epoch|step|iter|batch|update|train:|\]\t|(?<![a-z])ep(?![a-z])", re.IGNORECASE
)
_LOADED: Final = re.compile(
    r"(?<![a-z])(?:re)?(?:load|restor)\w{0,4}\s.{0,80}?(?:model|checkpoint|ckpt|weights|state|snapshot)"
    r".{0,200}?epoch",
    re.IGNORECASE,
)
"""`loaded the best checkpoint (epoch 4)`: where the checkpoint is from, which is not where the run is."""


_FIRST_WORD: Final = re.compile(r"\s{0,8}(?P<word>[A-Za-z]{4,20})(?=[\s:=\[#])")
_BLANK: Final = re.compile(r"\s")
_GLUED_TIME: Final = re.compile(r"(?<=\d)(?=\d{4}-\d\d-\d\d[ T]\d\d:\d\d)")


class LogReader:
    """Reads one run's log.

    Args:
        target: The target of the run; its threshold distinguishes fractions from percentages.
        log_format: One of `formats.NAMES`.
        pattern: The user's own RE2 pattern, with one group or with groups `value` and, optionally, `step`; it
            replaces the formats.
        earlier: Measurements of the same run by an earlier reader, which new ones extend.
        is_one_process: Whether no other process can contradict a first value that meets the target.

    Raises:
        ValueError: If the format is unknown.
    """

    def __init__(
        self,
        target: Target,
        *,
        log_format: str = formats.AUTO,
        pattern: str | None = None,
        earlier: Sequence[Measurement] = (),
        is_one_process: bool = False,
    ) -> None:
        self._target = target
        self._metric = Metric(target.metric, target.threshold)
        self._pattern = None if pattern is None else _compiled(pattern)
        self._log_format = log_format
        self._first = self._now = self._process()
        self._rank: int | None = None
        self._others: dict[int, _Process] = {}
        readers = self._first.readers
        self._table = next((each for _, each in readers if isinstance(each, TableReader)), None)
        self._readings = Readings(
            self._metric, target, is_pattern=pattern is not None, is_one_process=is_one_process
        )
        self._finder = Finder(self._metric)
        self._earlier = tuple(earlier)
        self._parts: list[str] = []
        self._length = 0
        self._is_cut = False
        self._ended_with_return = False
        self._extras, self._loops, self._losses = Extras(), LoopLengths(), FirstLosses()
        self._near = NearMisses(target, self._finder)
        self._is_empty = True
        self._is_unended = False
        self._block: list[Line] = []
        self._block_length = 0
        self._depth = 0
        self._is_result = False
        self._batch_words = BatchWords()

    def _process(self) -> _Process:
        return _Process(formats.readers(self._metric, self._log_format), Heading(self._metric.label))

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measurements so far, in the order of the log; empty while the log is in doubt."""
        if self.doubt is not None:
            return ()
        return _extended(self._earlier, self._readings.measurements, is_counted=self._readings.is_counted)

    @property
    def doubt(self) -> Doubt | None:
        """Why no measurement counts, and what to do about it."""
        return self._readings.doubt

    @property
    def format(self) -> str | None:
        """The name of the format that the first measurement was read from."""
        return self._readings.format

    @property
    def first_line(self) -> str:
        """The line of the first measurement, for people."""
        return self._readings.first_line

    @property
    def unit(self) -> str:
        """What the steps count, `epoch` or `step`; empty where they count the measurements."""
        return self._readings.unit

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the reading, for the user."""
        said = self._batch_words.warning(len(self._readings.measurements))
        return (said, *self._readings.warnings) if said else self._readings.warnings

    @property
    def loops(self) -> tuple[int, ...]:
        """The lengths of the loops whose progress the log shows."""
        return self._loops.lengths

    @property
    def losses(self) -> tuple[float, ...]:
        """The first losses in the log."""
        return self._losses.values

    @property
    def extras(self) -> dict[str, float]:
        """The last value of each other name in the log; see `autotuner.study.logs.extras`."""
        return dict(self._extras.values)

    @property
    def variables(self) -> tuple[str, ...] | None:
        """The hyperparameters that the script has read through the SDK; None if it has not reported them."""
        return self._extras.variables

    @property
    def uncounted(self) -> str:
        """A line with a value that stands for no evaluation, if the log has no other value; else empty."""
        return self._readings.uncounted

    @property
    def near_misses(self) -> tuple[str, ...]:
        """If nothing was read: the lines that come closest to the metric, and a remedy; else empty.

        A log without lines has none.
        """
        if self._readings.measurements or self.doubt is not None or self._is_empty:
            return ()
        return self._near.messages()

    def feed(self, text: str) -> None:
        """Process the next piece of the log, of any size."""
        self._is_empty = self._is_empty and not text.strip()
        start = 0
        for end in _LINE_END.finditer(text):
            piece = text[start : end.start()]
            if self._ended_with_return and not piece and end[0] == "\n" and not start:
                # "\r" ended the last piece, and its "\n" comes only now.
                self._ended_with_return = False
                self._end_line(is_redrawn=False)
                start = end.end()
                continue
            self._flush_return()
            self._append(piece)
            start = end.end()
            if end[0] == "\r" and start == len(text):
                self._ended_with_return = True
            else:
                self._end_line(is_redrawn=end[0] == "\r")
        if start < len(text):
            self._flush_return()
            self._append(text[start:])

    def close(self) -> None:
        """Process the last line, which may have no line end: the run is over."""
        self._is_unended = bool(self._parts) and not self._ended_with_return
        self._ended_with_return = False
        self._end_line(is_redrawn=False)
        self._end_block(is_whole=False)
        self._readings.close()

    def _flush_return(self) -> None:
        if self._ended_with_return:
            self._ended_with_return = False
            self._end_line(is_redrawn=True)

    def _append(self, piece: str) -> None:
        self._length += len(piece)
        if self._length > MAX_LINE:
            self._is_cut = True
            self._parts.clear()
        elif piece:
            self._parts.append(piece)

    def _end_line(self, *, is_redrawn: bool) -> None:
        parts, self._parts = self._parts, []
        is_cut, self._is_cut, self._length = self._is_cut, False, 0
        if not is_cut and parts:
            *glued, last = _GLUED_TIME.split("".join(parts))
            whole = [*map(clean, glued), clean(last, is_redrawn=is_redrawn)]
            for line in (each for record in whole for each in self._said(record)):
                parts = _unglued(line.text)
                for part in parts:
                    self._take(line if len(parts) == 1 else replace(line, text=part, raw=part.strip()))

    def _said(self, line: Line) -> list[Line]:
        """Return the lines in a logger's own record; with the user's format or pattern the record itself."""
        if self._log_format != formats.AUTO or self._pattern is not None:
            return [line]
        messages = messages_of(line.text)
        if messages == [line.text]:
            return [line]
        said = map(clean, messages)
        return [replace(each, rank=line.rank if each.rank is None else each.rank) for each in said]

    def _take(self, line: Line) -> None:
        """Process a line, or keep it until the dictionary that it opens or continues is complete."""
        text = line.text.strip()
        if self._is_result:
            self._block_length += len(text)
            if line.indent and len(self._block) <= _MAX_BLOCK and self._block_length <= MAX_LINE:
                self._block.append(line)
                return
            self._end_block(is_whole=False)
        if _RESULT.match(text):
            self._end_block(is_whole=False)
            self._block, self._block_length, self._is_result = [line], len(text), True
            return
        if self._block:
            if line.rank is not None and self._block[0].rank is None and text.startswith("{"):
                # A key of the dictionary, ` 2: {`, which looks like the label of a process.
                text = f"{line.rank}: {text}"
                line = replace(line, text=text, rank=None)
            self._block.append(line)
            self._depth += text.count("{") - text.count("}")
            self._block_length += len(text)
            is_item = text[:1] in {'"', "'", "}", "{", "[", "]", ""} or text[:1].isdigit()
            if self._depth <= 0 and is_item:
                self._end_block(is_whole=True)
            elif not is_item or len(self._block) > _MAX_BLOCK or self._block_length > MAX_LINE:
                self._end_block(is_whole=False)
            return
        opened = text.count("{") - text.count("}")
        if opened > 0 and (text.endswith(("{", ",")) and (text[0] == "{" or text.endswith("{"))):
            self._block, self._depth, self._block_length = [line], opened, len(text)
            return
        self._take_line(line)

    def _end_block(self, *, is_whole: bool) -> None:
        block, self._block = self._block, []
        if self._is_result:
            block.sort(key=lambda line: "training_iteration:" not in line.text)
        self._is_result = False
        if is_whole and self._pattern is None:
            joined = " ".join(each.text.strip() for each in block)
            self._take_line(replace(block[0], text=joined, raw=bounded(joined)))
            return
        for line in block:
            self._take_line(line)

    def _take_line(self, line: Line) -> None:
        text = line.text
        if not text.strip():
            return
        if self._extras.note(text):
            return
        self._loops.note(text)
        self._losses.note(line)
        self._now = self._process_of(line.rank)
        self._follow(line)
        readings = self._match(line) if self._pattern is not None else self._read(line)
        if self._pattern is None and (sibling := self._finder.sibling(text)):
            self._readings.note_sibling(sibling, line.rank)
        if self._table is not None and self._table.sibling:
            self._readings.note_column(self._table.sibling)
        for reading in readings:
            if not (self._is_unended and self._readings.is_cut_off(reading)):
                self._readings.add(replace(reading, line=reading.line[:_MAX_KEPT]))
        if not readings:
            self._batch_words.note(text, len(self._readings.measurements))
            self._now.heading.note(text)
            if not self._readings.measurements:
                self._near.note(line)

    def _read(self, line: Line) -> list[Reading]:
        now = self._now
        heading = now.heading if now.heading.is_known else self._first.heading
        for name, reader in now.readers:
            found = reader.read(line, now.context)
            if found is None:
                continue
            is_bare = len(line.text.strip()) <= len(self._metric.name) + _BARE
            return [
                replace(
                    heading.labelled(each, line),
                    format=name,
                    rank=each.rank if line.rank is None else line.rank,
                    part=now.part,
                    is_bare=is_bare,
                )
                for each in found
            ]
        return []

    def _match(self, line: Line) -> list[Reading]:
        if self._pattern is None:
            return []
        # A user copies a whole line, as it stands in the log, or from somewhere within its prefix on.
        start = max(line.raw.find(line.text.strip()), 0)
        blanks = _BLANK.finditer(line.raw, 0, start)
        texts = (line.text, line.raw, *(line.raw[blank.start() :] for blank in blanks))
        match = next((found for text in texts if (found := self._pattern.search(text))), None)
        if match is None:
            return []
        named = match.re.groupindex
        found = value_of((match.group("value" if "value" in named else 1) or "").strip(" ,;:|'\""))
        if found is None:
            return []
        position, uses_step = position_in(line.text).or_else(self._now.context), False
        step = value_of((match.group("step") or "").strip(" ,;:|[]")) if "step" in named else None
        if step is not None and math.isfinite(step[0]):
            position, uses_step = Position(None, step[0]), True
        reading = Reading(
            found[0],
            position,
            Label.UNKNOWN,
            line.raw,
            is_percent=found[1],
            uses_step=uses_step,
            digits=found[2],
        )
        return [replace(reading, format="metric-pattern", rank=line.rank, is_definite=uses_step)]

    def _process_of(self, rank: int | None) -> _Process:
        """Return what is known of the process that prints a line; one without a rank is of the first process.

        The lines of several processes mix: each has headings, tables and bars of its own.
        """
        self._rank = rank if self._rank is None else self._rank
        if rank is None or rank == self._rank or (rank not in self._others and len(self._others) >= MOST):
            return self._first
        process = self._others.get(rank) or self._others.setdefault(rank, self._process())
        if not process.is_placed:
            process.context, process.part = self._first.context, self._first.part
        return process

    def _follow(self, line: Line) -> None:
        """Remember the epoch and the step that a process has reached."""
        now = self._now
        now.heading.pass_line()
        now.part = part_in(line.text) or now.part
        if not _POSITIONED.search(line.text) or _LOADED.search(line.text[:_MAX_KEPT]):
            return
        position = position_in(line.text)
        if position.is_empty:
            return
        now.is_placed = True
        known = now.context
        if now is self._first:
            if (epochs := epochs_in(line.text)) is not None:
                self._readings.note_epochs(*epochs)
            if position.epoch is not None and position.epoch != known.epoch:
                self._readings.settle()
        now.heading.follow(known, position, has_value=self._finder.mentions(line.text))
        if position.epoch is None:
            position = replace(position, epoch=known.epoch)
        elif position.step is None and position.epoch == known.epoch:
            position = known
        now.context = position


@dataclass(slots=True)
class _Process:
    """What the lines of one process have shown: its place in the run, and what its next lines belong to."""

    readers: Sequence[tuple[str, Reader]]
    heading: Heading
    context: Position = field(default_factory=Position)
    part: str = ""
    is_placed: bool = False


def _unglued(text: str) -> list[str]:
    """Return the lines that two processes wrote into one: `Epoch 1 acc 0.81Epoch 1 acc 0.82`.

    Only the last value would have nothing behind it that makes it doubtful.
    """
    first = _FIRST_WORD.match(text)
    if first is None:
        return [text]
    word = first["word"]
    return re.split(rf"(?<=[\d%)])(?={word}[\s:=\[#])", text) if text.count(word) > 1 else [text]


def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _extended(
    earlier: tuple[Measurement, ...], new: Sequence[Measurement], *, is_counted: bool
) -> tuple[Measurement, ...]:
    """Return earlier measurements extended by new ones; a log that is read again adds nothing.

    If steps only count measurements and the beginning of the log is gone, the values show where it continues.
    """
    if not earlier or not new:
        return earlier or tuple(new)
    if not is_counted or _values(new[: len(earlier)]) == _values(earlier[: len(new)]):
        kept = [m for m in earlier if m.step < new[0].step]
        return (*kept, *new) if not is_counted or len(new) > len(earlier) else earlier
    shared = next(
        (
            n
            for n in range(min(len(earlier), len(new), _MAX_SHARED), 0, -1)
            if _values(earlier[-n:]) == _values(new[:n])
        ),
        0,
    )
    last = earlier[-1].step
    added = [Measurement(last + 1 + at, m.value) for at, m in enumerate(new[shared:])]
    return (*earlier, *added)


def _values(measurements: Sequence[Measurement]) -> list[str]:
    return [repr(m.value) for m in measurements]


def with_reading(trial: Trial, reader: LogReader | None) -> Trial:
    """Return a trial with the results of its log: measurements, extras, the line that is read, and doubt."""
    if reader is None:
        return trial
    return replace(
        trial,
        measurements=reader.measurements,
        extras=reader.extras,
        doubt="" if reader.doubt is None else reader.doubt.message,
        reads=reader.first_line,
        unit=reader.unit,
        warnings=reader.warnings,
        variables=reader.variables,
        loops=reader.loops,
        losses=reader.losses,
    )
