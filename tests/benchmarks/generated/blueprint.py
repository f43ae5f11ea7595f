"""Draw a job by a seed: what is trained, what is tuned, and what kind of owner it has.

Nothing here looks at a training. What depends on how the job trains (where the best learning rate lies, which
targets can be met) is drawn as a share, and `truth` turns it into numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.generated.data import FEATURES, IMAGE, REGRESSIONS, SOURCES, TOKENS
from tests.benchmarks.generated.networks import Network
from tests.benchmarks.generated.training import Job

Draw = np.random.Generator
FEWEST_STEPS = 4
"""Steps of a run at the largest batch size that an owner allows."""
FEWEST_LONG = 12
"""The same where a long run is measured at fixed numbers of examples: two may fall on the same step."""
DOUBLINGS = 3
"""A range of batch sizes has at least so many above the known-good one."""
RATES: Mapping[str, tuple[float, float]] = {
    # Where a best learning rate is looked for.
    "sgd": (1e-3, 3.0),
    "nesterov": (1e-3, 3.0),
    "adam": (1e-4, 0.3),
    "adamw": (1e-4, 0.3),
    "rmsprop": (1e-4, 0.1),
    "lion": (3e-5, 0.03),
}
FORMS = {
    # Kind of network: its share, the forms of data it takes, and how many examples a run may see in all, so
    # that it takes some ten milliseconds.
    "linear": (0.1, (FEATURES, IMAGE), 6000),
    "perceptron": (0.34, (FEATURES, FEATURES, IMAGE), 5000),
    "convolution": (0.14, (IMAGE,), 3000),
    "embedding": (0.14, (TOKENS,), 5000),
    "attention": (0.14, (TOKENS, TOKENS, IMAGE), 1200),
    "recurrent": (0.14, (TOKENS, TOKENS, IMAGE), 2400),
}
EVERY = 8
"""One seed of so many is kept for attention and one for long runs, with twice the examples: with fewer there
is seldom an answer to find, and they would be drawn again as something else."""
ATTENTION_SEED, LONG_SEED = 7, 3
LENGTHS = {1: 0.3, 5: 0.25, 10: 0.15, 20: 0.15, 50: 0.15}
LONG = 50
ROOM = 0.6
"""Share of the owners who leave room for larger learning rates than the known-good batch size wants."""
FIXED = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "beta2": 0.999,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "label_smoothing": 0.0,
}


@dataclass(frozen=True)
class Owner:
    """What an owner wants, in shares of what the job can do."""

    width: float
    """Decades of the range of learning rates."""
    place: float
    """Where in that range the best learning rate of the known-good batch size lies."""
    room: float
    """Times which that range goes further up, for a larger batch size wants a larger learning rate."""
    doublings: float
    """At which share of the doublings available the target stops holding; 1 and more: nowhere."""
    quality: str
    """How good the known-good setting is among those that meet the target: `best`, `usual` or `any`."""


@dataclass(frozen=True)
class Blueprint:
    """A job and its owner, as drawn."""

    job: Job
    start: int
    """The known-good batch size."""
    batch_sizes: tuple[int, int]
    space: Mapping[str, Any]
    """What is tuned besides the learning rate."""
    owner: Owner

    @property
    def optimizers(self) -> Sequence[str]:
        """Those that the search may choose."""
        choices: Sequence[str] = self.space.get("optimizer", [self.job.fixed["optimizer"]])
        return choices


def draw(seed: int, attempt: int = 0) -> Blueprint:
    """Return the job of a seed; an attempt is another draw, where the one before leaves nothing to find."""
    rng = np.random.default_rng([16, seed, attempt])
    while True:
        found = _draw(rng, seed)
        if found is not None:
            return found


def _draw(rng: Draw, seed: int) -> Blueprint | None:
    kind = _pick(rng, {kind: form[0] for kind, form in FORMS.items()})
    kind = "attention" if seed % EVERY == ATTENTION_SEED else kind
    form = rng.choice(FORMS[kind][1])
    name = str(rng.choice(sorted(n for n, source in SOURCES.items() if source[0] == form)))
    measurements = int(_pick(rng, LENGTHS))
    is_long = seed % EVERY == LONG_SEED
    measurements = LONG if is_long else measurements
    is_reserved = is_long or seed % EVERY == ATTENTION_SEED
    most, available = FORMS[kind][2] * (2 if is_reserved else 1), SOURCES[name][2]
    start = int(rng.choice([4, 8, 8, 16, 16, 32]))
    steps = float(np.exp(rng.uniform(np.log(60), np.log(320))))
    if measurements == LONG:
        start, steps = 8, float(rng.uniform(200, 400) if is_long else rng.uniform(450, 800))
    seen = int(start * steps)
    test = int(rng.choice([100, 200, 300, 500]))
    test = min(test, available // 3)
    epochs = int(rng.choice([1, 2, 4, 6, 10, 20, 50]))
    train = seen // epochs
    seen = train * epochs
    if seen > most or not 48 <= train <= min(available - test, 6000):
        return None
    drop_last = bool(rng.random() < 0.3)
    fewest = FEWEST_LONG if is_long else max(measurements, FEWEST_STEPS)
    largest = min(train, seen // fewest)
    if drop_last and fewest > epochs:
        largest = min(largest, train // math.ceil(fewest / epochs))
    top = int(largest * rng.choice([1.0, 1.0, rng.uniform(0.5, 1)]))
    if rng.random() < 0.5:
        top = 2 ** int(math.log2(top))
    if top < start * 2**DOUBLINGS:
        return None
    network = _network(rng, kind)
    optimizer = str(rng.choice(["sgd", "sgd", "nesterov", "adam", "adamw", "adamw", "rmsprop", "lion"]))
    warmup, schedule = float(rng.choice([0, 0, 0.1, 0.2])), _schedule(rng)
    job = Job(
        data=name,
        train=train,
        test=test,
        label_noise=float(rng.choice([0, 0, 0.05, 0.15])),
        network=network,
        metric=_metric(rng, name),
        epochs=epochs,
        drop_last=drop_last,
        measurements=measurements,
        clip=1.0 if rng.random() < (0.5 if kind in {"recurrent", "attention"} else 0.1) else None,
        from_checkpoint=bool(rng.random() < 0.35),
        seed=seed,
        fixed={**FIXED, "optimizer": optimizer, "schedule": schedule, "warmup": warmup},
    )
    low = max(2, start // int(rng.choice([1, 1, 2, 4])))
    return Blueprint(job, start, (low, top), _space(rng, job), _owner(rng, seed))


def _network(rng: Draw, kind: str) -> Network:
    if kind == "linear":
        return Network("perceptron", depth=0)
    normalisation = str(rng.choice(["none", "none", "layer", "batch"]))
    if kind == "attention":
        normalisation = str(rng.choice(["none", "layer", "layer"]))
    if kind == "recurrent":
        normalisation = "none"
    return Network(
        kind,
        width=int(rng.choice({"convolution": [4, 6, 8], "attention": [8, 12]}.get(kind, [8, 12, 16, 24]))),
        depth=1 if kind in {"attention", "recurrent", "convolution"} else int(rng.choice([1, 1, 2, 3])),
        activation="tanh" if kind == "recurrent" else str(rng.choice(["relu", "relu", "tanh", "gelu"])),
        normalisation=normalisation,
    )


def _metric(rng: Draw, data: str) -> str:
    if data in REGRESSIONS:
        return str(rng.choice(["loss", "loss", "rmse", "r2"]))
    return str(rng.choice(["accuracy", "accuracy", "accuracy%", "loss", "loss", "error", "error%"]))


def _schedule(rng: Draw) -> str:
    return str(rng.choice(["constant", "cosine", "cosine", "linear", "step"]))


def _space(rng: Draw, job: Job) -> dict[str, Any]:
    wanted = int(rng.choice([0, 1, 2, 3], p=[0.22, 0.3, 0.28, 0.2]))
    adaptive = job.fixed["optimizer"] in {"adam", "adamw", "lion"}
    offered: dict[str, Any] = {
        "beta1" if adaptive else "momentum": _one(rng, [(0.0, 0.99), (0.5, 0.98), (0.8, 0.99)]),
        "weight_decay": _one(rng, [(1e-6, 1e-2), (1e-5, 0.1), (1e-4, 1.0)], log=True),
        "warmup": [0.0, 0.1, 0.3] if rng.random() < 0.4 else _one(rng, [(0.0, 0.3), (0.0, 0.6)]),
        "schedule": sorted({"constant", "cosine", _schedule(rng)}),
    }
    if job.network.kind in {"perceptron", "embedding", "convolution"} and job.network.depth:
        offered["dropout"] = _one(rng, [(0.0, 0.5), (0.0, 0.8)])
    if job.data not in REGRESSIONS:
        offered["label_smoothing"] = _one(rng, [(0.0, 0.2), (0.0, 0.4)])
    if adaptive and job.fixed["optimizer"] != "lion":
        offered["beta2"] = [0.9, 0.99, 0.999]
    names = [str(n) for n in rng.permutation(sorted(offered))[:wanted]]
    space = {n: offered[n] for n in names}
    if wanted and rng.random() < 0.3:
        # In place of one of the others: a choice that changes what a learning rate means.
        space.pop(names[0])
        space.pop("beta1", None)
        others = [o for o in RATES if o != job.fixed["optimizer"]]
        some = [str(o) for o in rng.choice(others, int(rng.choice([1, 2])), replace=False)]
        space["optimizer"] = sorted([job.fixed["optimizer"], *some])
    return space


def _one(rng: Draw, ranges: Sequence[tuple[float, float]], *, log: bool = False) -> dict[str, Any]:
    low, high = ranges[int(rng.integers(len(ranges)))]
    return {"min": low, "max": high, "log": True} if log else {"min": low, "max": high}


def _owner(rng: Draw, seed: int) -> Owner:
    trivial = rng.random()
    return Owner(
        width=float(rng.choice([1.0, 1.5, 2.0, 3.0, 4.0])),
        place=float(rng.choice([0.15, 0.35, 0.5, 0.65, 0.85])),
        room=4.0 if np.random.default_rng([18, seed]).random() < ROOM else 1.0,
        doublings=0.0 if trivial < 0.05 else 1.0 if trivial < 0.13 else float(rng.uniform(0.12, 0.95)),
        quality=str(rng.choice(["best", "usual", "any"])),
    )


def _pick(rng: Draw, shares: Mapping[Any, float]) -> Any:
    names = list(shares)
    chances = np.array([shares[name] for name in names])
    return names[int(rng.choice(len(names), p=chances / chances.sum()))]
