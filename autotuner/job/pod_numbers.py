"""Evaluate the numbers in the commands of a pod, with those of its operator and of its GPUs.

A command may take numbers from variables that the operator sets, or count the GPUs. Markers stand for them in
the words, so that it shows whether a number follows the pods of the job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from autotuner.job.accelerators import Accelerators
from autotuner.job.arithmetic import computed
from autotuner.job.gpu_counts import GPUS, LISTED

PODS: Final = "\0PET_NNODES\0"
WORLD: Final = "\0WORLD_SIZE\0"
MOST: Final = 100_000
"""Maximum number of processes of a pod; a larger number counts as unknown."""
_DEVICES: Final = re.compile(
    r"(?:[0-9]{1,4}|(?:GPU|MIG)-[\w/-]{1,80})(?:,(?:[0-9]{1,4}|(?:GPU|MIG)-[\w/-]{1,80})){0,63}"
)


@dataclass(frozen=True, slots=True)
class PodNumbers:
    """The numbers that markers stand for in the commands of a pod.

    Args:
        pods: Pods of the job, of all kinds.
        world: WORLD_SIZE as the operator sets it.
        gpus: Accelerators of the pod.
    """

    pods: int
    world: int
    gpus: Accelerators

    @property
    def known(self) -> Mapping[str, str]:
        """The values of the markers, without the unknown ones."""
        found = {PODS: str(self.pods), WORLD: str(self.world)}
        if self.gpus.auto is not None:
            found[GPUS] = str(self.gpus.auto)
            if not self.gpus.slices:
                # How many GPUs have the slices is not in the manifest.
                found[LISTED] = str(self.gpus.auto)
        return found

    def evaluated(self, text: str) -> int | None:
        """Return the value of an option: a literal, or a product with the operator's variables."""
        value = computed(self._calculation(text)) or 0
        return value if 1 <= value <= MOST else None

    def size(self, text: str) -> int | None:
        """Return the value of an option that has a part in the size of a batch, as a shell computes it."""
        return computed(self._calculation(text), rounds=True)

    def _calculation(self, text: str) -> str:
        """Return what a shell computes, with numbers in place of the markers."""
        known = self.known
        for marker in (PODS, WORLD, GPUS, LISTED):
            text = text.replace(marker, known.get(marker, "?"))
        return text.replace("$((", "((")


def follows(text: str) -> bool:
    """Return whether a number follows the pods of the job."""
    return PODS in text or WORLD in text


def plain(text: str) -> str:
    """Return a text for people, with the names of variables in place of markers."""
    return re.sub(r"\0(\w+)\0", r"$\1", text)


def whole_number(text: str) -> int | None:
    """Return the number of processes that a text is; None if it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text.strip()) and 0 < int(text) <= MOST else None


def visible(text: str, gpus: int) -> int:
    """Return how many GPUs a value of CUDA_VISIBLE_DEVICES and the like shows; 0 if unknown."""
    if not _DEVICES.fullmatch(text):
        return 0
    # CUDA stops at the first that does not exist.
    shown = takewhile(lambda each: not each.isdecimal() or int(each) < gpus, text.split(","))
    return min(gpus, sum(1 for _ in shown))
