"""Times that can be compared: alternating, after a warm-up, with the device's work waited for."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Times:
    """Milliseconds that one call took, round by round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile."""
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return low, high

    def over(self, other: "Times") -> float:
        """Return the median over the rounds of this one's time by the other's in the same round.

        What slows the machine down for a while slows down both, and falls out.
        """
        return statistics.median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


def alternate(
    calls: Mapping[str, Callable[[], object]], *, device: torch.device, rounds: int, warmup: int = 3
) -> dict[str, Times]:
    """Time every call once a round, so that whatever else the machine does befalls all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + rounds):
        for name, call in calls.items():
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            if turn >= warmup:
                taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: Times(tuple(times)) for name, times in taken.items()}


def describe(device: torch.device) -> str:
    """Return what the times were taken on."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{torch.get_num_threads()} CPU thread(s)"
    )
    return f"torch {torch.__version__}, {name}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
