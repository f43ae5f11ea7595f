"""Classify scikit-learn's digits with a network that is hard to train with large batches.

It has six layers and no normalisation. At a batch of 64, plain SGD trains it. At 512 the run has 78 steps
instead of 631; each would have to be larger, and then the first steps, from random weights, make the training
diverge. Warm-up and layer-wise rates (LARS, LAMB) are made for this case. Recipe and rates come from the
environment.

    autotuner tune deploy/examples/large_batch/job.yaml
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from autotuner import sdk, train


def learn(
    hp: Mapping[str, Any],
    processes: train.Processes,
    report: Callable[[int, float, train.NoiseScale, train.Throughput], None],
) -> None:
    """Train with these hyperparameters, and report after each epoch."""
    # The split is the same in every run; only the training is seeded.
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        torch.tensor(digits.data, dtype=torch.float32) / 6 - 0.8,  # mean about zero, deviation about one
        torch.tensor(digits.target),
        test_size=0.25,
        random_state=0,
        stratify=digits.target,
    )
    torch.manual_seed(hp["seed"])
    hidden = [layer for _ in range(4) for layer in (nn.Linear(128, 128), nn.ReLU())]
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), *hidden, nn.Linear(128, 10))

    # Over all processes of the job, if there are more than one: DDP or FSDP, gradients compressed or not.
    meter, throughput = train.NoiseScale(every=5), train.Throughput()
    model = train.distribute(network, hp, processes, meter=meter)
    # `optimizer`, `learning_rate`, `momentum`, `weight_decay`, `trust_coefficient`
    optimizer = train.make_optimizer(model, hp)

    # Each process takes its share of every global batch, in micro-batches if memory requires it.
    batches = train.GlobalBatches(len(train_x), hp["batch_size"], processes, seed=hp["seed"])
    micro_batches = train.MicroBatches(model, loss, hp.get("micro_batch_size"), meter=meter)
    # `schedule` and `warmup`, as fractions of the run, because its number of steps depends on the batch size.
    schedule = train.make_schedule(optimizer, train.make_curve(hp), steps=batches.steps(hp["epochs"]))

    for epoch in range(hp["epochs"]):
        batches.set_epoch(epoch)
        for share in batches:
            step = micro_batches.backward((train_x[share], train_y[share]))
            optimizer.step()
            schedule.step()
            throughput.add(step.samples)
        throughput.stop()
        with torch.no_grad():
            accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
        report(epoch + 1, accuracy, meter, throughput)


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the mean loss over a micro-batch."""
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets)


def main() -> None:
    """Train with the hyperparameters from the environment; by default, plain SGD at a batch of 64."""
    torch.set_num_threads(1)
    hp = sdk.hyperparameters(
        batch_size=64,
        learning_rate=0.05,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=1e-4,
        trust_coefficient=0.2,  # so that LARS needs rates as large as SGD's, and one range suits both
        warmup=0.0,
        schedule="constant",
        epochs=30,
        seed=0,
    )

    def report(epoch: int, accuracy: float, meter: train.NoiseScale, throughput: train.Throughput) -> None:
        sdk.report(
            epoch,
            accuracy=accuracy,
            # Quantities that the tuner keeps with the metric: the noise of the gradients, and the throughput.
            noise_scale=meter.value,
            samples_per_second=throughput.samples_per_second,
        )

    learn(hp, train.join(), report)


if __name__ == "__main__":
    main()
