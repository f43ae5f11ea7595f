"""The HTML report of a study: the answer, then the evidence, then every trial.

It is one file without scripts or external resources, so that it can be mailed, archived and opened anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from markupsafe import Markup

from autotuner import keys
from autotuner.backends.base import Study
from autotuner.decide.decision import Answer
from autotuner.report import figures
from autotuner.report.html import fill
from autotuner.report.overview import phase_of
from autotuner.report.terminal import (
    answer_setting,
    best_value,
    cost,
    has_met,
    larger_batch,
    largest,
    layout,
    parameters,
    shown,
)
from autotuner.spec import TuningSpec
from autotuner.trial import Outcome, Purpose, Trial
from autotuner.wording import ending, why_it_ended


def render(study: Study, now: datetime, *, refresh: int | None = None, home: str = "") -> str:
    """Return the page as HTML.

    Args:
        study: The study; its trials may run.
        now: The current time.
        refresh: Seconds after which a browser loads the page again; None: never.
        home: The address of the list of all studies, to link to; empty without one.

    Raises:
        InvalidJob: If the job's annotations do not parse.
    """
    job, trials = study.job, study.trials
    spec = job.spec()
    answer = Answer.from_text(job.annotations.get(keys.ANSWER, ""))
    pictures = [
        ("How large can the batch be?", figures.frontier(spec, trials, answer)),
        ("Learning curves", figures.curves(spec, trials)),
        ("What each trial cost", figures.costs(spec, trials)),
        ("Scaling efficiency", figures.scaling(spec, trials)),
    ]
    return fill(
        "page.html",
        refresh=refresh,
        home=home,
        job=job,
        spec=spec,
        answer=answer,
        largest=largest(answer) if answer else "",
        larger_batch=larger_batch(answer, spec) if answer else "",
        answer_setting=answer_setting(answer, trials) if answer else "",
        why_ended=ending(answer.reason) if answer and answer.reason else "",
        phase=phase_of(job),
        message=job.annotations.get(keys.MESSAGE, ""),
        patch=job.annotations.get(keys.PATCH, ""),
        cost=cost(sum(trial.gpu_hours(now) for trial in trials), spec.gpu_hour_price),
        confirmations=_confirmations(trials, answer, study),
        pictures=[
            # Only matplotlib's SVG is not escaped here; matplotlib escapes text itself.
            (title, Markup(figures.svg(figure, title)))  # noqa: S704
            for title, figure in pictures
            if figure is not None
        ],
        rows=[_row(trial, spec, study.logs, now) for trial in trials],
        has_layouts=any(layout(trial) for trial in trials),
        now=now,
    )


def _row(trial: Trial, spec: TuningSpec, logs: Mapping[int, str], now: datetime) -> dict[str, object]:
    """Return the cells of a trial in the table of all trials."""
    best, state = best_value(trial, spec), figures.state(trial, spec)
    return {
        "number": trial.number,
        "purpose": str(trial.suggestion.purpose),
        "batch_size": trial.suggestion.batch_size,
        "layout": layout(trial),
        "parameters": parameters(trial.suggestion.parameters),
        "best": "" if best is None else shown(best, spec.target),
        "met": has_met(trial, spec),
        "outcome": state.replace("_", " "),
        "colour": figures.LOOKS[state][0],
        "cost": cost(trial.gpu_hours(now)),
        "message": why_it_ended(trial, spec),
        "log": "" if trial.outcome is Outcome.REACHED else logs.get(trial.number, ""),
    }


def _confirmations(trials: Sequence[Trial], answer: Answer | None, study: Study) -> list[dict[str, object]]:
    if answer is None:
        return []
    spec = study.job.spec()
    return [
        {
            "number": t.number,
            "seed": t.suggestion.seed,
            "best": None if (best := best_value(t, spec)) is None else shown(best, spec.target),
            "outcome": figures.state(t, spec),
        }
        for t in trials
        if t.suggestion.purpose is Purpose.CONFIRM
        and t.suggestion.batch_size == answer.batch_size
        and t.suggestion.parameters == answer.parameters
    ]
