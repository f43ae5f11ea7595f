"""The live table of `autotuner tune` on a terminal: redrawn in place, and never larger than the terminal.

On a terminal with few lines, the list of ended trials shrinks first. Running trials, the incumbent and the
message stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotuner.decide.decision import Decision
from autotuner.reconcile import Reconciliation
from autotuner.report.terminal import answer_line, best_value, cost, has_met, layout, parameters, shown
from autotuner.spec import TuningSpec
from autotuner.trial import Outcome, Trial
from autotuner.wording import COMPARED, IN_DOUBT, STOPPED_SHORT, message, outcome_now, reads, warnings

_MOST_ROWS: Final = 14
"""Trials shown on a terminal of any height."""
_LOW: Final = 16
"""Lines of a terminal below which each text has one line."""
_NARROW: Final = 72
"""Columns of a terminal below which there is no room for the purpose."""
_WIDE: Final = 100
"""Columns of a terminal from which there is room for layout and progress."""
_WIDEST_LAYOUT: Final = 34
_STYLES: Final[dict[str, str]] = {
    Outcome.REACHED: "green",
    Outcome.PROMISING: "green",
    Outcome.MISSED: "yellow",
    Outcome.HOPELESS: "yellow",
    Outcome.DOMINATED: "dim",
    Outcome.OUT_OF_MEMORY: "magenta",
    Outcome.DIVERGED: "magenta",
    Outcome.FAILED: "red",
    Outcome.LOST: "red",
    COMPARED: "dim",
    STOPPED_SHORT: "yellow",
    IN_DOUBT: "yellow",
}


class LiveView:
    """A table that is redrawn in place: the newest trials, the incumbent and the cost."""

    def __init__(self, console: Console, title: str, now: Callable[[], datetime]) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._title = title
        self._now = now
        self._notices: set[str] = set()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        self._live.stop()

    def show(self, seen: Reconciliation, spec: TuningSpec) -> None:
        """Redraw the table."""
        for notice in seen.notices:
            if notice not in self._notices:
                # It stays above the table.
                self._notices.add(notice)
                self._live.console.print(Text(f"warning: {notice}", style="yellow"), soft_wrap=True)
        if seen.decision is not None:
            self._live.update(LiveTable(self._title, spec, seen.decision, seen.trials, self._now()))


@dataclass(frozen=True)
class LiveTable:
    """The view of a running study, laid out for the size of the terminal."""

    title: str
    spec: TuningSpec
    decision: Decision
    trials: tuple[Trial, ...]
    now: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield head, table, incumbent, what is read, and message, at most as high as the terminal."""
        width, height = options.max_width, console.size.height
        most = 1 if height < _LOW else 3
        head = _cropped(console, self._head(), width, min(most, 2))
        incumbent = _cropped(console, self._incumbent(), width, min(most, 2))
        said = _cropped(console, Text(message(self.decision, self.spec), style="dim"), width, most)
        first = reads(self.trials, self.spec) if height >= _LOW else ""
        warned = warnings(self.decision, self.trials, self.spec)
        read = _cropped(console, Text(f"reads {first}", style="dim"), width, 1) if first else []
        if warned and height >= _LOW:
            read += _cropped(console, Text(f"warning: {'; '.join(warned)}", style="yellow"), width, 2)
        texts = (head, incumbent, read, said)
        # One line for the table's own head, one for what is not shown, one for the cursor.
        rows = self._rows(min(_MOST_ROWS, max(1, height - sum(map(len, texts)) - 3)))
        lines: list[RenderableType] = [*head, self._table(rows, width)]
        hidden = len(self.trials) - len(rows)
        if hidden:
            lines.append(Text(f"{hidden} more trials: autotuner trials", style="dim italic"))
        lines += [*incumbent, *read, *said]
        # Only a terminal of some six lines has no room for all of these: what is last says the most.
        yield from lines if height > sum(map(bool, texts)) + 3 else lines[-max(1, height - 1) :]

    def _rows(self, count: int) -> list[Trial]:
        """Return the trials to show, by number: all running ones, then those that ended last."""
        by_need = sorted(self.trials, key=lambda trial: (not trial.is_running, -trial.number))
        return sorted(by_need[:count], key=lambda trial: trial.number)

    def _head(self) -> Text:
        hours = sum(trial.gpu_hours(self.now) for trial in self.trials)
        used = cost(hours, self.spec.gpu_hour_price)
        return Text.assemble(
            (self.title, "bold"),
            f"  {self.spec.target}  batch size {self.spec.batch_size}  ",
            (str(self.decision.phase), "bold cyan"),
            f"  {len(self.trials)} of at most {self.spec.max_trials} trials  {used}",
        )

    def _incumbent(self) -> Text:
        if self.decision.answer is None:
            return Text("no batch size is known to meet the target yet", style="dim")
        return Text(answer_line(self.decision.answer), style="green")

    def _table(self, rows: list[Trial], width: int) -> Table:
        """Return one line per row; the hyperparameters get the columns that the others leave."""
        laid_out = max((len(layout(trial)) for trial in rows), default=0) if width >= _WIDE else 0
        is_wide = width >= _NARROW
        columns: dict[str, tuple[int, Callable[[Trial], RenderableType]]] = {
            "trial": (5, lambda trial: str(trial.number)),
            **({"purpose": (8, lambda trial: str(trial.suggestion.purpose))} if is_wide else {}),
            "batch size": (10, lambda trial: str(trial.suggestion.batch_size)),
            **({"layout": (min(laid_out, _WIDEST_LAYOUT), layout)} if laid_out else {}),
            "hyperparameters": (0, lambda trial: Text(parameters(trial.suggestion.parameters))),
            **({"progress": (8, self._progress)} if width >= _WIDE else {}),
            self.spec.target.metric: (8, lambda trial: _metric(trial, self.spec)),
            "outcome": (13, lambda trial: _outcome(trial, self.spec, self.now)),
        }
        taken = sum(columns[name][0] for name in columns) + 2 * (len(columns) - 1)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, (size, _) in columns.items():
            table.add_column(
                Text(name, overflow="ellipsis"),
                justify="right" if name in {"trial", "batch size"} else "left",
                width=size or max(1, width - taken),
                no_wrap=True,
                overflow="ellipsis",
            )
        for trial in rows:
            table.add_row(*(cell(trial) for _, cell in columns.values()))
        return table

    def _progress(self, trial: Trial) -> RenderableType:
        last = trial.measurements[-1].step if trial.measurements else 0.0
        steps = [m.step for t in self.trials for m in t.measurements[-1:]]
        length = self.spec.run_length or max(steps, default=0.0)
        if length <= 0:
            return Text("")
        return ProgressBar(total=length, completed=min(last, length), width=8)


def _cropped(console: Console, text: Text, width: int, most: int) -> list[Text]:
    """Wrap a text to the terminal's width; beyond `most` lines it is cut, and the last line shows that."""
    lines = list(text.wrap(console, width))
    if len(lines) > most:
        lines = lines[:most]
        lines[-1].truncate(max(1, width - 1))
        lines[-1].rstrip()
        lines[-1].append("…")
    return lines


def _metric(trial: Trial, spec: TuningSpec) -> Text:
    best = best_value(trial, spec)
    if best is None:
        return Text("")
    return Text(shown(best, spec.target), style="green" if has_met(trial, spec) else "")


def _outcome(trial: Trial, spec: TuningSpec, now: datetime) -> Text:
    if trial.outcome is None:
        if trial.started_at is None:
            return Text("waits", style="dim")
        seconds = (now - trial.started_at).total_seconds()
        return Text(f"runs, {seconds:.0f} s", style="cyan")
    outcome = outcome_now(trial, spec)
    return Text(outcome, style=_STYLES[outcome])
