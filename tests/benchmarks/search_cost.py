#!/usr/bin/env python3
"""What a decision costs at 100 trials with curves of 1,000 points.

    python tests/benchmarks/search_cost.py

Prints the first suggestion of a fresh process, which fits the model, with and without the record of where
the runs were stopped; a suggestion after one more trial has ended; and `decide` without a free place while a
trial runs. Each in milliseconds on one core.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import torch

from autotuner.decide import decide
from autotuner.search.replay import replayed
from autotuner.spec import TuningSpec
from autotuner.study.history import History
from autotuner.trial import Judged, Measurement, Outcome, Purpose, Suggestion, Trial

TRIALS, POINTS, REPEATS = 100, 1000, 20
NOW = datetime(2030, 1, 1, tzinfo=UTC)
SPACE = """
learning_rate: {min: 0.001, max: 10, log: true}
momentum: {min: 0, max: 0.99}
weight_decay: {min: 1.0e-6, max: 0.1, log: true}
dropout: {min: 0, max: 1}
"""
BASELINE = {"batch_size": 32, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "dropout": 0.1}


def spec(**changed: str) -> TuningSpec:
    asked = {
        "target": "accuracy >= 0.9",
        "batch-size": "16..8192",
        "search-space": SPACE,
        "run-length": str(POINTS),
        "max-trials": "1000",
        **changed,
    }
    return TuningSpec.from_annotations(
        {f"autotuner.dev/{key}": value for key, value in asked.items()}, baseline=BASELINE
    )


def trial(number: int, points: int, outcome: Outcome | None) -> Trial:
    rng = np.random.default_rng(number)
    size = 32 if number == 0 else int(2 ** rng.uniform(4, 13))
    parameters = dict(BASELINE)
    del parameters["batch_size"]
    if number:
        parameters = {
            "learning_rate": float(10 ** rng.uniform(-3, 1)),
            "momentum": float(rng.uniform(0, 0.99)),
            "weight_decay": float(10 ** rng.uniform(-6, -1)),
            "dropout": float(rng.uniform(0, 1)),
        }
    off = np.log(parameters["learning_rate"] / (0.1 * size / 32)) ** 2
    best = max(0.93 - 0.01 * max(np.log2(size / 128), 0) - 0.02 * off - 0.05 * parameters["dropout"], 0.1)
    step = np.arange(1, points + 1)
    values = best * (1 - np.exp(-4 * step / POINTS)) + rng.normal(0, 0.002, points)
    measured = tuple(Measurement(float(s), float(v)) for s, v in zip(step, values, strict=True))
    purpose = Purpose.BASELINE if number == 0 else Purpose.SEARCH
    return Trial(Suggestion(number, size, parameters, number, purpose), measured, outcome)


def recorded(trials: list[Trial]) -> list[Trial]:
    """Return the trials as the controller that ran them has recorded them."""
    found = replayed(History.of(spec(), trials))
    return [
        replace(one, outcome=verdict.outcome, judged=Judged(verdict.step, found.study))
        if (verdict := found.verdicts.get(one.number))
        else one
        for one in trials
    ]


def first_suggestion(trials: list[Trial]) -> float:
    """Return the cost of the first suggestion of a process, in milliseconds."""
    torch.set_num_threads(1)
    decide(spec(), [], NOW)
    return milliseconds(lambda: decide(spec(), trials, NOW))


def milliseconds(work) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def main() -> None:
    trials = [trial(0, POINTS, Outcome.REACHED)]
    trials += [trial(n, POINTS, Outcome.MISSED) for n in range(1, TRIALS)]
    with ProcessPoolExecutor(1) as other:
        ledger = other.submit(recorded, trials).result()
    with ProcessPoolExecutor(1) as other:
        print(f"first suggestion, nothing recorded {other.submit(first_suggestion, trials).result():7.0f} ms")
    print(f"first suggestion, model fitted    {first_suggestion(ledger):8.0f} ms")
    trials = ledger
    more = [*trials, trial(TRIALS, POINTS, Outcome.MISSED)]
    print(f"suggestion after one more trial   {milliseconds(lambda: decide(spec(), more, NOW)):8.0f} ms")
    costs, still = [], trials[0].suggestion
    for seen in range(REPEATS):
        # A repetition of the baseline: neither hopeless nor promising before its end.
        running = [*more, replace(trial(0, 600 + seen, None), suggestion=replace(still, number=TRIALS + 1))]
        costs.append(milliseconds(lambda running=running: decide(spec(), running, NOW)))
    print(f"no place free, a trial runs       {np.median(costs):8.1f} ms (first {costs[0]:.0f} ms)")


if __name__ == "__main__":
    main()
