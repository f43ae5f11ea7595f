"""Find by brute force what the generated jobs' largest batch sizes are, and write the data files.

    python -m tests.benchmarks.generated.truth --set development    # makes development.json
    python -m tests.benchmarks.generated.truth --set final --only 1003 --again

Jobs that the file has are kept, so that it can be stopped and started. For each job: a pilot at the
known-good batch size places the range of learning rates; the best setting is searched for at every doubling
of the batch size, starting from the best of the size before; the target is set where the owner's share of the
doublings says; the quarter doublings near it are searched with more effort; and a known-good setting is drawn
among those that meet the target in nine runs of ten. The best setting a quarter of a doubling below the
answer meets it as reliably: what its own runs cannot confirm is no answer, not even for one who knows it. A
job without an answer to find is drawn again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tests.benchmarks.generated import jobs
from tests.benchmarks.generated.blueprint import RATES, Blueprint, draw
from tests.benchmarks.generated.jobs import TRUTH_SEEDS, deviation, gains
from tests.benchmarks.generated.training import Job, Parameters
from tests.benchmarks.search.settings import drawn, near

Draw = np.random.Generator
LEARNING_RATE = "learning_rate"
MEETS = 0.9
"""Share of its runs in which a known-good setting meets the target at least, and the best one a quarter of a
doubling below the answer."""
FRESH_SEEDS = 60
"""Number of these runs."""
FLAT = 3.0
"""Deviations between seeds by which the best value falls over the whole range at least."""

TRIES, SHARES = 5, 24
"""Targets for which a known-good setting and an answer are sought, of so many that are thought of."""
LEARNT = 0.3
"""Minimum of a target, as a share of the distance from chance to perfect: jobs that learn are tuned."""
SPARE = 2.0
"""Deviations between seeds by which the best known-good setting beats the target at least."""
SHARP = 1.0
"""The same of the best setting `BELOW` the answer, between the sizes that were searched."""
BELOW = 0.25
"""Doublings below the answer at which it can be confirmed."""


# --- settings ----------------------------------------------------------------------------------------------


def scaled(space: Mapping[str, Any], parameters: Parameters, times: float) -> dict[str, Any]:
    """Return a setting with another learning rate."""
    one = space[LEARNING_RATE]
    rate = min(max(parameters[LEARNING_RATE] * times, one["min"]), one["max"])
    return {**parameters, LEARNING_RATE: float(f"{rate:.4g}")}


# --- the best setting at a batch size ----------------------------------------------------------------------


@dataclass(frozen=True)
class Peak:
    """The best that was found at a batch size."""

    batch_size: int
    gain: float
    """Median over the seeds by which the truth is measured."""
    spread: float
    """Deviation between seeds."""
    best: tuple[Parameters, ...]
    """The best settings, the best one first."""


def peak(
    job: Job, space: Mapping[str, Any], size: int, known: Sequence[Parameters], rng: Draw, effort: float = 1.0
) -> Peak:
    """Search random settings, known ones with other learning rates, and ever closer neighbours."""

    def score(settings: Sequence[Parameters]) -> list[tuple[float, Parameters]]:
        seeds = rng.integers(2**31, size=len(settings)).tolist()
        return list(zip(gains(job, size, settings, seeds).tolist(), settings, strict=True))

    def count(number: int) -> int:
        return round(number * effort)

    first = [drawn(space, rng) for _ in range(count(16 + 8 * len(space)))]
    first += [scaled(space, parameters, times) for parameters in known for times in (0.7, 1.0, 1.4, 2.0, 2.8)]
    scored = score(first)
    for width in (0.12, 0.05):
        scored.sort(key=lambda s: -s[0])
        scored += score([near(space, p, width, rng) for _, p in scored[:6] for _ in range(count(4))])
    # The best of so many is lucky. So more seeds for some, and for the best of these those of the truth.
    some = [parameters for _, parameters in sorted(scored, key=lambda s: -s[0])[: count(10)]]
    seeds = rng.integers(2**31, size=3).tolist()
    again = gains(job, size, [p for p in some for _ in seeds], seeds * len(some)).reshape(len(some), -1)
    order = np.argsort(-again.mean(1))
    finalists = [some[i] for i in order[: count(3)]]
    repeated = [p for p in finalists for _ in TRUTH_SEEDS]
    values = gains(job, size, repeated, TRUTH_SEEDS * len(finalists)).reshape(len(finalists), -1)
    medians = np.median(values, axis=1)
    top = int(medians.argmax())
    kept = [finalists[top], *(some[i] for i in order[:2]), *best_of_each(scored)]
    return Peak(size, float(medians[top]), deviation(values[top]), tuple(kept))


def best_of_each(scored: Sequence[tuple[float, Parameters]]) -> list[Parameters]:
    """Return the best setting of each optimizer that was tried: another one may be best at the next size."""
    found: dict[str, tuple[float, Parameters]] = {}
    for gain, parameters in scored:
        optimizer = parameters.get("optimizer", "")
        if optimizer not in found or gain > found[optimizer][0]:
            found[optimizer] = gain, parameters
    return [parameters for _, parameters in found.values()]


def falling(peaks: Sequence[Peak]) -> np.ndarray:
    """Return the best gain of the peaks at a batch size or a larger one: some frontiers rise again."""
    return np.asarray(np.maximum.accumulate([p.gain for p in peaks][::-1])[::-1])


def least(job: Job) -> float:
    """Return the gain of a model that has learnt the commonest outcome and a share of the rest."""
    examples = job.examples
    if not examples.classes:
        left = 1 - LEARNT
        values = {"r2": LEARNT, "rmse": examples.unit * math.sqrt(left), "loss": left}
        return job.sign * values[job.metric]
    if job.metric == "loss":
        return -(1 - LEARNT) * math.log(examples.classes)
    chance = float(examples.test_y.bincount().max()) / len(examples.test_y)
    right = chance + LEARNT * (1 - chance)
    percent = 100 if job.metric.endswith("%") else 1
    return percent * (right if job.metric.startswith("accuracy") else right - 1)


# --- the job's ranges, target and known-good setting -------------------------------------------------------


def search_space(plan: Blueprint, rng: Draw) -> tuple[dict[str, Any], Sequence[Parameters]]:
    """Return what is tuned, with a range of learning rates that a pilot at the known-good batch size places.

    And the pilot's best setting of each optimizer.
    """
    best: list[float] = []
    pilot: list[Parameters] = []
    for optimizer in plan.optimizers:
        low, high = RATES[optimizer]
        space = {**plan.space, LEARNING_RATE: {"min": low, "max": high, "log": True}}
        if "optimizer" in space:
            space["optimizer"] = [optimizer]
        settings = [drawn(space, rng) for _ in range(40)]
        values = gains(plan.job, plan.start, settings, rng.integers(2**31, size=40).tolist())
        top = np.argsort(-values)[:4]
        pilot.append(settings[int(top[0])])
        best.append(math.exp(np.mean([math.log(settings[i][LEARNING_RATE]) for i in top])))
    owner = plan.owner
    low = min(best) / 10 ** (owner.width * owner.place)
    high = max(best) * 10 ** (owner.width * (1 - owner.place)) * owner.room
    rates = {"min": _plain(low), "max": max(_plain(high), _plain(low) * 5), "log": True}
    space = {LEARNING_RATE: rates, **plan.space}
    inside = [scaled(space, p, 1.0) for p in pilot]
    return space, inside


def _plain(value: float) -> float:
    """Return the nearest of 1, 2, 3 and 5 times a power of ten, as one writes it."""
    power = 10 ** math.floor(math.log10(value))
    return float(f"{min((1, 2, 3, 5, 10), key=lambda m: abs(math.log(value / power / m))) * power:.1g}")


def rounded(plan: Blueprint, gain: float, spread: float) -> float:
    """Return a target as an owner writes it: no finer than half a deviation between seeds, and not above."""
    unit = 10 ** math.floor(math.log10(max(spread, 1e-6)))
    unit *= max((m for m in (1, 2, 5) if m * unit <= spread / 2), default=0.5)
    return float(f"{plan.job.sign * unit * math.floor(gain / unit):.6g}")


def targets(plan: Blueprint, peaks: Sequence[Peak], spread: float) -> list[float]:
    """Return gains that an owner could ask for, those nearest to the owner's share of the doublings first.

    The best known-good setting has to beat a target clearly, and so has the best setting a little below the
    answer; and the answer is the largest batch size allowed only where the owner is to have that.
    """
    gain, top = falling(peaks), plan.batch_sizes[1]
    most, share = peaks[0].gain - SPARE * max(peaks[0].spread, spread), plan.owner.doublings
    if share >= 1:
        asked = min(most, peaks[-1].gain - peaks[-1].spread)
        return [asked] if asked >= least(plan.job) else []
    sizes = [math.log2(p.batch_size / plan.start) for p in peaks]
    found = []
    for at in sorted(np.linspace(0.05, 0.97, SHARES), key=lambda at: abs(at - share)):
        asked = min(float(np.interp(at * sizes[-1], sizes, gain)), most)
        largest = crossing(peaks, gain, asked)
        if least(plan.job) <= asked and largest < top and is_sharp(peaks, gain, asked):
            found.append(asked)
    return found


def known_good(
    plan: Blueprint, space: Mapping[str, Any], wanted: float, pool: Sequence[Parameters], rng: Draw
) -> dict[str, Any] | None:
    """Return a setting of the owner's quality that meets a target reliably at the known-good batch size."""
    settings = [drawn(space, rng) for _ in range(60)]
    settings += [near(space, p, width, rng) for p in pool for width in (0.03, 0.08, 0.15) for _ in range(3)]
    settings += [dict(p) for p in pool]
    values = gains(plan.job, plan.start, settings, rng.integers(2**31, size=len(settings)).tolist())
    order = [int(i) for i in np.argsort(-values) if values[i] >= wanted]
    if plan.owner.quality == "usual":
        order = order[len(order) // 4 :] + order[: len(order) // 4]
    elif plan.owner.quality == "any":
        order = [order[i] for i in rng.permutation(len(order))]
    for i in order[:12]:
        if is_reliable(plan.job, plan.start, settings[i], wanted, rng):
            return settings[i]
    return None


def is_reliable(job: Job, size: int, parameters: Parameters, wanted: float, rng: Draw) -> bool:
    """Return whether fresh runs of a setting meet the target nearly always."""
    seeds = rng.integers(2**31, size=FRESH_SEEDS).tolist()
    return bool((gains(job, size, [parameters] * FRESH_SEEDS, seeds) >= wanted).mean() >= MEETS)


# --- one job -----------------------------------------------------------------------------------------------


def solve(plan: Blueprint, rng: Draw) -> dict[str, Any] | None:
    """Return the entry of a drawn job; None where it leaves nothing to find, or no setting is reliable."""
    job, top = plan.job, plan.batch_sizes[1]
    space, pilot = search_space(plan, rng)
    base = peak(job, space, plan.start, pilot, rng)
    if base.gain - SPARE * base.spread < least(job):
        return None
    last = peak(job, space, top, [scaled(space, p, 4.0) for p in base.best[:3]], rng, effort=0.6)
    if base.gain - last.gain < FLAT * max(base.spread, 1e-9):
        return None
    doublings = math.ceil(math.log2(top / plan.start) - 0.25)
    peaks = [base]
    for i in range(1, doublings + 1):
        size = top if i == doublings else plan.start * 2**i
        known = [*peaks[-1].best, *(last.best if i == doublings else ())]
        peaks.append(peak(job, space, size, known, rng))
    spread = float(np.median([p.spread for p in peaks]))
    for wanted in targets(plan, peaks, spread)[:TRIES]:
        target = rounded(plan, wanted, spread)
        baseline = known_good(plan, space, job.sign * target, base.best, rng)
        if baseline is None:
            continue
        answer = answered(plan, space, peaks, job.sign * target, rng)
        if answer is not None:
            found, largest = answer
            tolerance = spread_at(found, largest) / math.sqrt(3)
            return {
                "job": asdict(job),
                "space": space,
                "batch_sizes": list(plan.batch_sizes),
                "baseline": {"batch_size": plan.start, **baseline},
                "quality": plan.owner.quality,
                "target": target,
                "largest": largest,
                "tolerance": float(f"{tolerance:.4g}"),
                "within": crossing(found, falling(found), job.sign * target - tolerance),
                "peaks": [[p.batch_size, float(f"{job.sign * p.gain:.5g}"), dict(p.best[0])] for p in found],
            }
    return None


def answered(
    plan: Blueprint, space: Mapping[str, Any], peaks: Sequence[Peak], wanted: float, rng: Draw
) -> tuple[list[Peak], int] | None:
    """Return the peaks, searched with more effort near the answer, and the answer.

    None where the best setting a little below it does not meet the target reliably.
    """
    found = sharpened(plan, space, peaks, wanted, rng)
    largest = crossing(found, falling(found), wanted)
    below = round(largest * 2**-BELOW)
    if below > plan.start:
        found = searched(plan, space, found, [below], rng)
        largest = crossing(found, falling(found), wanted)
        best = next(p for p in found if p.batch_size == below).best[0]
        if not is_reliable(plan.job, below, best, wanted, rng):
            return None
    return found, largest


def is_sharp(peaks: Sequence[Peak], gain: np.ndarray, wanted: float) -> bool:
    """Return whether the best setting a little below the answer is clear of the noise."""
    largest = crossing(peaks, gain, wanted)
    sizes = [math.log2(p.batch_size) for p in peaks]
    below = float(np.interp(math.log2(largest) - BELOW, sizes, gain))
    return below - wanted >= SHARP * spread_at(peaks, largest)


def spread_at(peaks: Sequence[Peak], size: int) -> float:
    """Return the deviation between seeds of the best settings near a batch size."""
    nearby = sorted(peaks, key=lambda p: abs(math.log(p.batch_size / size)))[:4]
    return float(np.median([p.spread for p in nearby]))


def sharpened(
    plan: Blueprint, space: Mapping[str, Any], peaks: Sequence[Peak], wanted: float, rng: Draw
) -> list[Peak]:
    """Return the peaks, with more effort near the target, and the quarter doublings there."""
    middle = crossing(peaks, falling(peaks), wanted)
    sizes = {round(middle * 2 ** (i / 4)) for i in (-2, -1, 0, 1)}
    return searched(plan, space, peaks, sorted(s for s in sizes if s > plan.start), rng)


def searched(
    plan: Blueprint, space: Mapping[str, Any], peaks: Sequence[Peak], sizes: Sequence[int], rng: Draw
) -> list[Peak]:
    """Return the peaks with those of more sizes, searched with more effort around the best ones nearby."""
    found = {p.batch_size: p for p in peaks}
    for size in (s for s in sizes if s <= plan.batch_sizes[1]):
        closest = sorted(found.values(), key=lambda p: abs(math.log(p.batch_size / size)))[:3]
        known = [parameters for p in closest for parameters in (*p.best[:2], *p.best[3:])]
        new = peak(plan.job, space, size, known, rng, effort=1.3)
        old = found.get(size)
        found[size] = old if old is not None and old.gain > new.gain else new
    return [found[size] for size in sorted(found)]


def crossing(peaks: Sequence[Peak], gain: np.ndarray, wanted: float) -> int:
    """Return the largest batch size whose best setting meets the target, between those that were searched."""
    meets = [i for i in range(len(peaks)) if gain[i] >= wanted]
    if not meets:
        return peaks[0].batch_size
    i = meets[-1]
    if i == len(peaks) - 1:
        return peaks[i].batch_size
    low, high = peaks[i].batch_size, peaks[i + 1].batch_size
    share = float((gain[i] - wanted) / (gain[i] - gain[i + 1]))
    return int(low * (high / low) ** share + 1e-6)


def make(seed: int) -> dict[str, Any]:
    """Return the entry of a seed."""
    attempt = 0
    while True:
        plan = draw(seed, attempt)
        # Its own owner stays the seed's: else what is drawn again would be what was easy.
        plan = replace(plan, owner=replace(plan.owner, doublings=draw(seed).owner.doublings))
        entry = solve(plan, np.random.default_rng([17, seed, attempt]))
        if entry is not None:
            kind = "linear" if not plan.job.network.depth else plan.job.network.kind
            return {"name": f"{seed}-{plan.job.data}-{kind}", "seed": seed, "attempt": attempt, **entry}
        attempt += 1


def main() -> None:
    """Make what is missing of a data file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", choices=jobs.SEEDS, default=jobs.DEVELOPMENT, dest="which")
    parser.add_argument("--only", type=int, nargs="+", help="seeds")
    parser.add_argument("--again", action="store_true", help="compute those again that the file has")
    args = parser.parse_args()
    for seed in args.only or jobs.SEEDS[args.which]:
        entries = {entry["seed"]: entry for entry in jobs.read(args.which)}
        if seed in entries and not args.again:
            continue
        began = time.process_time()
        entry = entries[seed] = make(seed)
        text = ",\n".join(json.dumps(entries[s]) for s in sorted(entries))
        jobs.path(args.which).write_text(f"[\n{text}\n]\n")
        low, high = entry["baseline"]["batch_size"], entry["largest"]
        print(
            f"{entry['name']}: attempt {entry['attempt']}, {low} to {high} of {entry['batch_sizes'][1]},"
            f" {entry['job']['metric']} {entry['target']:g} +- {entry['tolerance']:g},"
            f" {time.process_time() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
