"""Measure what each recipe reaches at each batch size, at its best learning rate: the plot in this folder.

It answers by brute force the question that the tuner answers with a few dozen trials: up to which batch size
is the target met, and with which recipe? Every recipe is run at every learning rate with five seeds, and
shown at the rate with the best mean. Below are the trials of the tuner, which knows none of this.

    python sweep.py              # some minutes on one core; writes sweep.csv and sweep.svg
    python sweep.py --draw-only  # sweep.svg from sweep.csv and tuned.csv

    autotuner trials large-batch-tuning --json | python sweep.py --take-trials   # writes tuned.csv, too
"""

import argparse
import csv
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from train import learn

from autotuner.train import Processes

FOLDER = Path(__file__).parent
BATCH_SIZES = (64, 128, 256, 384, 512, 768, 1024, 1344)
LEARNING_RATES = (0.01, 0.02, 0.04, 0.08, 0.16)
SEEDS = range(5)
TARGET = 0.95
"""As in job.yaml."""
RECIPES: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": "sgd", "warmup": 0.0},
    "SGD with warm-up": {"optimizer": "sgd", "warmup": 0.2},
    "LARS with warm-up": {"optimizer": "lars", "warmup": 0.2},
    "LAMB with warm-up": {"optimizer": "lamb", "warmup": 0.2},
}
COLUMNS = ("recipe", "batch_size", "learning_rate", "seed", "accuracy")
TRIAL_COLUMNS = ("number", "purpose", "batch_size", "optimizer", "warmup", "learning_rate", "outcome", "best")
CONFIRMATIONS = 3
"""Fresh runs that must meet the target, unless the job sets another number."""
MET = {"reached", "promising"}
"""Outcomes of trials that count as having met the target."""


def best_accuracy(hyperparameters: Mapping[str, Any]) -> float:
    """Return the best accuracy of a run: like the tuner, it counts the best step."""
    seen = [0.0]
    alone = Processes(rank=0, count=1, device=torch.device("cpu"))
    learn(hyperparameters, alone, lambda _epoch, accuracy, *_: seen.append(accuracy))
    return max(seen)


def sweep(path: Path) -> None:
    """Run every recipe at every batch size and rate with every seed, and write one line per run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for batch_size in BATCH_SIZES:
            for recipe, choices in RECIPES.items():
                for rate in LEARNING_RATES:
                    for seed in SEEDS:
                        hyperparameters = {
                            "batch_size": batch_size,
                            "learning_rate": rate,
                            "momentum": 0.9,
                            "weight_decay": 1e-4,
                            "trust_coefficient": 0.2,
                            "schedule": "constant",
                            "epochs": 30,
                            "seed": seed,
                            **choices,
                        }
                        accuracy = best_accuracy(hyperparameters)
                        writer.writerow([recipe, batch_size, rate, seed, f"{accuracy:.4f}"])
                file.flush()
            print(f"batch size {batch_size} done", flush=True)


def best_rates(path: Path) -> dict[str, dict[int, list[float]]]:
    """Return the accuracies of all seeds at the best rate, by recipe and batch size."""
    by_rate: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rates = by_rate[row["recipe"], int(row["batch_size"])]
            rates[float(row["learning_rate"])].append(float(row["accuracy"]))
    found: dict[str, dict[int, list[float]]] = defaultdict(dict)
    for (recipe, batch_size), rates in by_rate.items():
        found[recipe][batch_size] = max(rates.values(), key=math.fsum)
    return found


def take_trials(source: TextIO, path: Path) -> None:
    """Write the tuner's trials and their outcomes, one line per trial."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, TRIAL_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**trial, **trial["parameters"]} for trial in json.load(source))


def draw_trials(axes: Axes, source: Path, colours: Mapping[str, Any]) -> int:
    """Mark the batch sizes of the tuner's trials, coloured by recipe; return the confirmed one."""
    with source.open(newline="") as file:
        trials = list(csv.DictReader(file))
    names = {(choices["optimizer"], choices["warmup"] > 0): name for name, choices in RECIPES.items()}
    for trial in trials:
        recipe = names.get((trial["optimizer"], float(trial["warmup"]) > 0), "")
        has_met = trial["outcome"] in MET
        # Some choices, such as LAMB without warm-up, are not recipes of the sweep.
        colour = colours.get(recipe, "grey")
        axes.plot(int(trial["batch_size"]), int(has_met), "o" if has_met else "x", markersize=4, color=colour)
    axes.set_yticks([0, 1], ["missed", "met"])
    axes.set_ylim(-0.6, 1.6)
    axes.set_ylabel("trials")
    axes.spines[["top", "right"]].set_visible(False)
    fresh = Counter(int(t["batch_size"]) for t in trials if t["purpose"] == "confirm" and t["outcome"] in MET)
    return max(size for size, met in fresh.items() if met >= CONFIRMATIONS)


def draw(source: Path, trials: Path, target: Path) -> None:
    """Draw accuracy over batch size (the mean of the seeds, and their range as a band), and the trials."""
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[7, 1])
    colours = {}
    for recipe, results in best_rates(source).items():
        sizes = sorted(results)
        means = [math.fsum(results[size]) / len(results[size]) for size in sizes]
        (line,) = axes.plot(sizes, means, marker="o", markersize=4, label=recipe)
        colours[recipe] = line.get_color()
        low, high = ([bound(results[size]) for size in sizes] for bound in (min, max))
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    answer = draw_trials(below, trials, colours)
    for each in (axes, below):
        each.axvline(answer, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"the tuner's answer: {answer}",
        (answer, 0.3),
        xytext=(4, 4),
        textcoords="offset points",
    )
    axes.axhline(TARGET, color="black", linewidth=0.8, linestyle="--")
    axes.annotate("target", (BATCH_SIZES[-1], TARGET), xytext=(0, 3), textcoords="offset points", ha="right")
    axes.set_xscale("log", base=2)
    axes.set_xticks(BATCH_SIZES, [str(size) for size in BATCH_SIZES])
    axes.minorticks_off()
    below.set_xlabel("batch size")
    axes.set_ylabel("test accuracy at the best learning rate")
    axes.set_ylim(0.3, 1.0)
    axes.legend(loc="lower left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    # Without a date and with a fixed salt, the same results draw the same file.
    with rc_context({"svg.hashsalt": "sweep"}):
        figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Sweep, unless an option says otherwise, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draw-only", action="store_true", help="draw what sweep.csv and tuned.csv have")
    parser.add_argument(
        "--take-trials", action="store_true", help="write tuned.csv from trials on stdin, and draw"
    )
    options = parser.parse_args()
    if options.take_trials:
        take_trials(sys.stdin, FOLDER / "tuned.csv")
    elif not options.draw_only:
        torch.set_num_threads(1)
        sweep(FOLDER / "sweep.csv")
    draw(FOLDER / "sweep.csv", FOLDER / "tuned.csv", FOLDER / "sweep.svg")


if __name__ == "__main__":
    main()
