"""Tools for training at large batches in PyTorch.

The tuner can only find a batch size that the script is able to train. This package has what large batches
need. Each part works alone, and is controlled by the hyperparameters that the tuner sets, so that a search
can choose it:

    from autotuner import sdk, train

    hp = sdk.hyperparameters(batch_size=256, learning_rate=0.1, optimizer="sgd", warmup=0.05, epochs=30)
    processes = train.join()
    meter, throughput = train.NoiseScale(), train.Throughput()
    model = train.distribute(Network(), hp, processes, meter=meter)         # layout, compression
    optimizer = train.make_optimizer(model, hp)                             # optimizer, learning_rate, ...
    batches = train.GlobalBatches(len(data), hp.batch_size, processes, seed=hp.get("seed", 0))
    loader = DataLoader(data, batch_sampler=batches)
    schedule = train.make_schedule(                                         # schedule, warmup, collapse
        optimizer, train.make_curve(hp), steps=batches.steps(hp.epochs)
    )
    micro_batches = train.MicroBatches(model, loss, hp.get("micro_batch_size"), meter=meter)

    for epoch in range(hp.epochs):
        batches.set_epoch(epoch)
        for share in loader:
            step = micro_batches.backward(share)
            optimizer.step()
            schedule.step()
            throughput.add(step.samples)
        throughput.stop()
        sdk.report(
            epoch + 1,
            accuracy=evaluate(model),
            noise_scale=meter.value,
            samples_per_second=throughput.samples_per_second,
        )

Nothing here needs the tuner; only `autotuner.sdk` is imported from it.
"""

from autotuner.train.compression import COMPRESSIONS, register_compression
from autotuner.train.global_batches import GlobalBatches
from autotuner.train.micro_batches import MicroBatches, Step, is_out_of_memory
from autotuner.train.noise_scale import NoiseScale
from autotuner.train.optimizers import OPTIMIZERS, Lamb, Lans, Lars, make_optimizer, parameter_groups
from autotuner.train.processes import LAYOUTS, Processes, distribute, join
from autotuner.train.scaling import AdamSettings, linear_rate, malladi, square_root_rate
from autotuner.train.schedules import (
    SCHEDULES,
    Curve,
    constant,
    cosine,
    final_collapse,
    make_curve,
    make_schedule,
    polynomial,
    warmup,
)
from autotuner.train.throughput import Throughput

__all__ = [
    "COMPRESSIONS",
    "LAYOUTS",
    "OPTIMIZERS",
    "SCHEDULES",
    "AdamSettings",
    "Curve",
    "GlobalBatches",
    "Lamb",
    "Lans",
    "Lars",
    "MicroBatches",
    "NoiseScale",
    "Processes",
    "Step",
    "Throughput",
    "constant",
    "cosine",
    "distribute",
    "final_collapse",
    "is_out_of_memory",
    "join",
    "linear_rate",
    "make_curve",
    "make_optimizer",
    "make_schedule",
    "malladi",
    "parameter_groups",
    "polynomial",
    "register_compression",
    "square_root_rate",
    "warmup",
]
