"""Data sets that scikit-learn ships or that are computed, small enough to train on in milliseconds.

Every data set is a function of its name, its sizes and a seed. Inputs are floats: a row of features, an image
as rows of pixels, or a sequence of one-hot tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from sklearn import datasets

FEATURES, IMAGE, TOKENS = "features", "image", "tokens"
SIDE = 8
"""Pixels along the side of an image."""


@dataclass(frozen=True)
class Data:
    """Training and test examples on one scale."""

    train_x: torch.Tensor
    """Shape (examples, features), (examples, 8, 8), or (examples, positions, tokens)."""
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: int
    """Number of classes; 0 for a regression, whose targets are standardised."""
    unit: float = 1.0
    """Standard deviation of a regression's targets as they were given."""


Arrays = tuple[np.ndarray, np.ndarray]
Source = Callable[[int, np.random.Generator], Arrays]


def _digits(count: int, rng: np.random.Generator) -> Arrays:
    x, y = datasets.load_digits(return_X_y=True)
    chosen = rng.permutation(len(x))[:count]
    return x[chosen].reshape(-1, SIDE, SIDE), y[chosen]


def _bars(count: int, rng: np.random.Generator) -> Arrays:
    """Noisy images of a grating in one of six directions, at any phase."""
    y = rng.integers(6, size=count)
    row, column = np.mgrid[:SIDE, :SIDE]
    angle = (np.pi / 6 * y)[:, None, None]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    grating = np.sin(1.6 * (np.cos(angle) * row + np.sin(angle) * column) + phase)
    return grating + rng.normal(0, 0.7, (count, SIDE, SIDE)), y


def _crosses(count: int, rng: np.random.Generator) -> Arrays:
    """Noisy images that hold one of five small shapes somewhere."""
    shapes = np.array(
        [
            [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
            [[1, 0, 1], [0, 1, 0], [1, 0, 1]],
            [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
            [[1, 0, 0], [1, 0, 0], [1, 1, 1]],
            [[1, 1, 1], [0, 1, 0], [0, 1, 0]],
        ]
    )
    y = rng.integers(len(shapes), size=count)
    x = rng.normal(0, 0.2, (count, SIDE, SIDE))
    places = rng.integers(SIDE - 2, size=(count, 2))
    for image, kind, (row, column) in zip(x, y, places, strict=True):
        image[row : row + 3, column : column + 3] += shapes[kind]
    return x, y


def _table(load: Callable[..., Arrays]) -> Source:
    def source(count: int, rng: np.random.Generator) -> Arrays:
        x, y = load(return_X_y=True)
        chosen = rng.permutation(len(x))[:count]
        return x[chosen], y[chosen]

    return source


def _clusters(count: int, rng: np.random.Generator) -> Arrays:
    state = int(rng.integers(2**31))
    x, y = datasets.make_classification(
        count, 16, n_informative=8, n_classes=4, n_clusters_per_class=3, class_sep=1.4, random_state=state
    )
    return x, y


def _blobs(count: int, rng: np.random.Generator) -> Arrays:
    state = int(rng.integers(2**31))
    x, y = datasets.make_classification(
        count, 20, n_informative=6, n_classes=3, flip_y=0.05, random_state=state
    )
    return x, y


def _friedman(kind: int) -> Source:
    make = (datasets.make_friedman1, datasets.make_friedman2, datasets.make_friedman3)[kind - 1]
    noise = (1.0, 100.0, 0.1)[kind - 1]

    def source(count: int, rng: np.random.Generator) -> Arrays:
        x, y = make(count, noise=noise, random_state=int(rng.integers(2**31)))
        return x, y

    return source


def _waves(count: int, rng: np.random.Generator) -> Arrays:
    """A smooth function of eight inputs with a few frequencies."""
    x = rng.uniform(-1, 1, (count, 8))
    y = sum(np.sin(f * np.pi * x[:, i] + x[:, i + 1]) / f for i, f in enumerate((0.5, 1, 1.5, 2)))
    return x, y + rng.normal(0, 0.1, count)


def _linear(count: int, rng: np.random.Generator) -> Arrays:
    """A linear function whose inputs have scales from 1 to 10, so that it is badly conditioned."""
    x = rng.normal(size=(count, 12)) * np.geomspace(1, 10, 12)
    mixed = x @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
    return mixed, mixed @ rng.normal(size=12) + rng.normal(0, 3.0, count)


def _spirals(count: int, rng: np.random.Generator) -> Arrays:
    y = rng.integers(3, size=count)
    radius = rng.uniform(0.1, 1, count)
    angle = 4.5 * radius + 2 * np.pi / 3 * y + rng.normal(0, 0.15, count)
    plane = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    return np.column_stack([plane, plane**2, plane[:, :1] * plane[:, 1:]]), y


def _parity(count: int, rng: np.random.Generator) -> Arrays:
    bits = rng.integers(2, size=(count, 8))
    return bits + rng.normal(0, 0.1, bits.shape), bits[:, :3].sum(1) % 2


def _language(count: int, rng: np.random.Generator) -> Arrays:
    """The next token of a language in which each token depends on the two before it."""
    tokens, positions = 10, 6
    table = rng.dirichlet(np.full(tokens, 0.1), (tokens, tokens)).cumsum(-1)
    text = rng.integers(tokens, size=(count, positions + 1))
    for at in range(2, positions + 1):
        chances = table[text[:, at - 2], text[:, at - 1]]
        text[:, at] = np.minimum((chances < rng.random((count, 1))).sum(1), tokens - 1)
    return np.eye(tokens)[text[:, :-1]], text[:, -1]


def _sums(count: int, rng: np.random.Generator) -> Arrays:
    """The sum of two digits in base 8, modulo 8, among four: the first token says which two."""
    tokens = 8
    text = rng.integers(tokens, size=(count, 5))
    text[:, 0] %= 2
    y = np.where(text[:, 0] == 0, text[:, 1] + text[:, 2] // 4, text[:, 3] + text[:, 4] // 4) % tokens
    return np.eye(tokens)[text], y


def _majority(count: int, rng: np.random.Generator) -> Arrays:
    """Which of four tokens is the most frequent in a sequence."""
    weights = rng.dirichlet(np.full(4, 1.5), count).cumsum(1)
    text = np.minimum((weights[:, None] < rng.random((count, 8, 1))).sum(-1), 3)
    counts = (text[..., None] == np.arange(4)).sum(1) + np.arange(4) * 0.01
    return np.eye(4)[text], counts.argmax(1)


def _recall(count: int, rng: np.random.Generator) -> Arrays:
    """The token that followed the last one when it last came before."""
    tokens = 6
    text = rng.integers(tokens, size=(count, 7))
    place = rng.integers(5, size=count)
    text[:, -1] = text[np.arange(count), place]
    return np.eye(tokens)[text], text[np.arange(count), place + 1]


SOURCES: Mapping[str, tuple[str, Source, int]] = {
    # name: form, source, how many examples there are at most
    "digits": (IMAGE, _digits, 1797),
    "bars": (IMAGE, _bars, 8000),
    "crosses": (IMAGE, _crosses, 8000),
    "wine": (FEATURES, _table(datasets.load_wine), 178),
    "cancer": (FEATURES, _table(datasets.load_breast_cancer), 569),
    "diabetes": (FEATURES, _table(datasets.load_diabetes), 442),
    "clusters": (FEATURES, _clusters, 8000),
    "blobs": (FEATURES, _blobs, 8000),
    "friedman1": (FEATURES, _friedman(1), 8000),
    "friedman2": (FEATURES, _friedman(2), 8000),
    "friedman3": (FEATURES, _friedman(3), 8000),
    "waves": (FEATURES, _waves, 8000),
    "linear": (FEATURES, _linear, 8000),
    "spirals": (FEATURES, _spirals, 8000),
    "parity": (FEATURES, _parity, 8000),
    "language": (TOKENS, _language, 8000),
    "sums": (TOKENS, _sums, 8000),
    "majority": (TOKENS, _majority, 8000),
    "recall": (TOKENS, _recall, 8000),
}
REGRESSIONS = frozenset({"diabetes", "friedman1", "friedman2", "friedman3", "waves", "linear"})


@lru_cache(maxsize=8)
def load(name: str, train: int, test: int, label_noise: float, seed: int) -> Data:
    """Return a data set; `label_noise` is the share of training labels that are drawn at random."""
    form, source, _ = SOURCES[name]
    rng = np.random.default_rng([seed, sorted(SOURCES).index(name)])
    x, y = source(train + test, rng)
    if form == FEATURES:
        x = (x - x[:train].mean(0)) / (x[:train].std(0) + 1e-9)
    elif form == IMAGE:
        x = (x - x[:train].mean()) / x[:train].std()
    unit, classes = 1.0, 0
    if name in REGRESSIONS:
        unit = float(y[:train].std())
        y = ((y - y[:train].mean()) / unit).astype(np.float32)
    else:
        classes = int(y.max()) + 1
        wrong = rng.random(train) < label_noise
        y = y.astype(np.int64)
        y[:train][wrong] = rng.integers(classes, size=int(wrong.sum()))
    inputs, outputs = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return Data(inputs[:train], outputs[:train], inputs[train:], outputs[train:], classes, unit)
