"""Figures of a study: matplotlib figures, and their SVG for a page.

Figures are made without pyplot, so that no global state changes and threads do not interfere. Text is drawn
literally: names and messages are untrusted input, and a dollar sign does not start a formula.
"""

from __future__ import annotations

import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from autotuner.decide.decision import Answer
from autotuner.spec import TuningSpec
from autotuner.trial import Measurement, Outcome, Purpose, Trial
from autotuner.wording import COMPARED, IN_DOUBT, STOPPED_SHORT, outcome_now

SIZE: Final = (5.4, 3.7)
"""Inches; small enough that text stays readable when a phone shows the figure 360 pixels wide."""

RUNNING: Final = "running"
LOOKS: Final[dict[str, tuple[str, str]]] = {
    RUNNING: ("#2563eb", ">"),
    Outcome.REACHED: ("#15803d", "o"),
    Outcome.PROMISING: ("#65a30d", "^"),
    Outcome.MISSED: ("#c2410c", "X"),
    Outcome.HOPELESS: ("#f59e0b", "v"),
    Outcome.DOMINATED: ("#94a3b8", "s"),
    Outcome.OUT_OF_MEMORY: ("#7c3aed", "P"),
    Outcome.DIVERGED: ("#db2777", "*"),
    Outcome.FAILED: ("#b91c1c", "D"),
    Outcome.LOST: ("#475569", "d"),
    COMPARED: ("#cbd5e1", "."),
    STOPPED_SHORT: ("#0891b2", "p"),
    IN_DOUBT: ("#a16207", "h"),
}
"""Colour and marker of each state of a trial: distinguishable without colour, too."""
_DRAWABLE: Final = 1e100
_FEW_STEPS: Final = 3
"""Below it, ticks at whole steps only would be too few."""
_INK: Final = "#0f172a"
_TARGET: Final = "#1d4ed8"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#64748b",
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
}


def state(trial: Trial, spec: TuningSpec) -> str:
    """Return how a trial ended, by the current target, or that it runs: a key of `LOOKS`."""
    return RUNNING if trial.is_running else outcome_now(trial, spec)


def frontier(spec: TuningSpec, trials: Sequence[Trial], answer: Answer | None) -> Figure:
    """Draw each trial's best value over its batch size, the target, and the attainable values.

    The line is the best value of all trials whose batch size is at least as large.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("global batch size", f"best {spec.target.metric}")
        _log2_axis(axes, spec)
        shown = [(trial, best) for trial in trials if (best := _best(spec, trial)) is not None]
        _draw_envelope(axes, spec, shown)
        for outcome, (colour, marker) in LOOKS.items():
            points = [(t.suggestion.batch_size, best) for t, best in shown if state(t, spec) == outcome]
            if points:
                sizes, values = zip(*points, strict=True)
                axes.scatter(sizes, values, c=colour, marker=marker, s=34, zorder=3, alpha=0.85)
        _target_line(axes, spec)
        if answer is not None:
            axes.axvline(answer.batch_size, color=_INK, linewidth=1.1, linestyle=(0, (1, 2)))
            axes.axvspan(
                spec.batch_size.minimum * 0.9, answer.batch_size, color="#dcfce7", alpha=0.5, zorder=0
            )
            axes.annotate(
                f"answer: {answer.batch_size}",
                (answer.batch_size, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-4, 3),
                textcoords="offset points",
                ha="right",
                fontweight="bold",
            )
        _focus(axes, spec, [best for _, best in shown])
        _legend(figure, {state(trial, spec) for trial, _ in shown})
    return figure


def curves(spec: TuningSpec, trials: Sequence[Trial]) -> Figure:
    """Draw every learning curve, coloured by the state of its trial; confirmation runs are thicker."""
    with mpl.rc_context(_STYLE):
        units = {trial.unit for trial in trials if trial.measurements and trial.unit}
        of_steps = next(iter(units)) if len(units) == 1 else "step, in the script's unit"
        figure, axes = _axes(of_steps, spec.target.metric)
        drawn: set[str] = set()
        for trial in trials:
            points = [(m.step, m.value) for m in trial.measurements if _is_drawable(m)]
            if not points:
                continue
            colour, marker = LOOKS[state(trial, spec)]
            wide = trial.suggestion.purpose is Purpose.CONFIRM
            steps, metric = zip(*points, strict=True)
            axes.plot(steps, metric, color=colour, linewidth=1.8 if wide else 0.9, alpha=0.9 if wide else 0.6)
            axes.plot(steps[-1], metric[-1], marker=marker, color=colour, markersize=4)
            drawn.add(state(trial, spec))
        axes.xaxis.set_major_locator(MaxNLocator(integer=axes.get_xlim()[1] >= _FEW_STEPS))
        _target_line(axes, spec)
        _legend(figure, drawn)
    return figure


def costs(spec: TuningSpec, trials: Sequence[Trial]) -> Figure:
    """Draw the cost of each trial, in GPU-minutes, in the order of the trials."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("trial", "GPU-minutes")
        for trial in trials:
            if trial.outcome is not None and trial.ended_at is not None:
                colour, _ = LOOKS[state(trial, spec)]
                axes.bar(trial.number, 60 * trial.gpu_hours(trial.ended_at), color=colour, width=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        _legend(figure, {state(trial, spec) for trial in trials if not trial.is_running})
    return figure


def scaling(spec: TuningSpec, trials: Sequence[Trial]) -> Figure | None:
    """Draw the throughput of one process over the batch size; None if no trial reported it.

    There is one line per number of processes, through the medians of the trials at each batch size. If more
    processes have a lower throughput at the same share of the batch, they wait for one another.
    """
    reported: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        total = trial.extras.get("samples_per_second", 0)
        if 0 < total <= _DRAWABLE:
            reported[trial.devices][trial.suggestion.batch_size].append(total / trial.devices)
    if not reported:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("global batch size", "samples per second and process")
        _log2_axis(axes, spec)
        for devices, at_size in sorted(reported.items()):
            sizes = sorted(at_size)
            medians = [statistics.median(at_size[size]) for size in sizes]
            label = f"{devices} process{'es' if devices > 1 else ''}"
            (line,) = axes.plot(sizes, medians, linewidth=1.2, label=label)
            points = [(size, value) for size in sizes for value in at_size[size]]
            axes.plot(*zip(*points, strict=True), "o", color=line.get_color(), markersize=4, alpha=0.7)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=min(4, len(reported)))
    return figure


def svg(figure: Figure, name: str) -> str:
    """Return a figure as deterministic SVG to embed in an HTML page.

    `name` distinguishes the identifiers of several figures on one page.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _log2_axis(axes: Axes, spec: TuningSpec) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(spec.batch_size.minimum * 0.9, spec.batch_size.maximum * 1.1)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def _draw_envelope(axes: Axes, spec: TuningSpec, shown: Sequence[tuple[Trial, float]]) -> None:
    best = None
    corners: list[tuple[int, float]] = []
    for trial, value in sorted(shown, key=lambda pair: -pair[0].suggestion.batch_size):
        if best is None or spec.target.margin(value) > spec.target.margin(best):
            best = value
            corners.append((trial.suggestion.batch_size, value))
    if corners:
        corners.append((spec.batch_size.minimum, corners[-1][1]))
        axes.step(*zip(*corners, strict=True), where="pre", color="#64748b", linewidth=1.0, zorder=2)


def _target_line(axes: Axes, spec: TuningSpec) -> None:
    # On the left, where few curves are near the target yet.
    axes.axhline(spec.target.threshold, color=_TARGET, linewidth=1.2, linestyle="--")
    axes.annotate(
        f"target {spec.target.comparison} {spec.target.threshold:g}",
        (0.0, spec.target.threshold),
        xycoords=("axes fraction", "data"),
        xytext=(3, -11 if spec.target.sign > 0 else 4),
        textcoords="offset points",
        ha="left",
        color=_TARGET,
        fontsize=8.5,
    )


def _focus(axes: Axes, spec: TuningSpec, values: Sequence[float]) -> None:
    """Limit the metric's axis to the range around the target, so that far misses do not flatten the rest."""
    if not values:
        return
    threshold = spec.target.threshold
    ordered = sorted([*values, threshold], key=spec.target.margin)
    quartile, best = ordered[len(ordered) // 4], ordered[-1]
    low, high = min(quartile, best, threshold), max(quartile, best, threshold)
    margin = 0.1 * (high - low) or abs(high) * 0.01 or 0.01
    axes.set_ylim(low - margin, high + margin)
    hidden = sum(not low - margin <= value <= high + margin for value in values)
    if hidden:
        axes.annotate(
            f"{hidden} point{'s' if hidden > 1 else ''} outside",
            # On the right: the label of the target is on the left.
            (0.99, 0.02 if spec.target.sign > 0 else 0.95),
            xycoords="axes fraction",
            ha="right",
            fontsize=8,
            color="#64748b",
        )


def _legend(figure: Figure, outcomes: set[str]) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle="",
            markersize=5,
            label=outcome.replace("_", " "),
        )
        for outcome, (colour, marker) in LOOKS.items()
        if outcome in outcomes
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)))


def _best(spec: TuningSpec, trial: Trial) -> float | None:
    values = [m.value for m in trial.measurements if _is_drawable(m)]
    return max(values, key=spec.target.margin) if values else None


def _is_drawable(measurement: Measurement) -> bool:
    """Return whether an axis can show the point; beyond, the width of the axis overflows."""
    return abs(measurement.step) <= _DRAWABLE and abs(measurement.value) <= _DRAWABLE
