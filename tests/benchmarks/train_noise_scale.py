"""Does the gradient noise scale tell, before the search, how large a batch the large-batch example bears?

    python tests/benchmarks/train_noise_scale.py      # half a minute on one core

The noise scale (arXiv:1812.06162) of the job unchanged, by seed, as `autotuner.train`'s meter has it during
the run, beside the largest batch size at which each recipe of the example's sweep holds the target.
"""

# Run as a script, without an installation: the path comes first; and it prints, being a benchmark.
# ruff: noqa: E402, T201

import math
import statistics
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy" / "examples" / "large_batch"
sys.path[:0] = [str(ROOT), str(EXAMPLE)]

from sweep import TARGET, best_rates
from train import learn

from autotuner.train import Processes

BASELINE = {
    "batch_size": 64,
    "learning_rate": 0.05,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "trust_coefficient": 0.2,
    "warmup": 0.0,
    "schedule": "constant",
    "epochs": 30,
}
"""The job unchanged: job.yaml's environment, and the script's defaults."""
SEEDS = range(10)
EPOCHS = (1, 2, 5, 10, 20, 30)


def noise_scales(seed: int) -> list[float | None]:
    """Return the meter's value after each epoch of a run."""
    seen: list[float | None] = []
    alone = Processes(rank=0, count=1, device=torch.device("cpu"))
    learn({**BASELINE, "seed": seed}, alone, lambda _epoch, _accuracy, meter, _: seen.append(meter.value))
    return seen


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    runs = [noise_scales(seed) for seed in SEEDS]
    print("epoch  noise scale of the job unchanged: median (range) of the seeds that have one")
    for epoch in EPOCHS:
        values = sorted(value for run in runs if (value := run[epoch - 1]) is not None)
        spread = (
            f"{statistics.median(values):6.0f} ({values[0]:.0f} to {values[-1]:.0f})" if values else "none"
        )
        print(f"{epoch:5}  {spread}, {len(values)} of {len(runs)}")
    for recipe, results in best_rates(EXAMPLE / "sweep.csv").items():
        held = [size for size, seen in results.items() if math.fsum(seen) / len(seen) >= TARGET]
        print(f"{recipe}: holds {TARGET:.0%} up to a batch of {max(held)}")


if __name__ == "__main__":
    main()
