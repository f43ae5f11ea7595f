"""Share the GPUs of this machine among trials that run at once.

On a cluster the device plug-in gives every pod GPUs of its own, and a process sees them as 0, 1, ... On one
machine all processes see all GPUs, and two trials would train on the same one. So each pod of a trial gets
its GPUs by CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from autotuner.backends.local.pods import LOOPBACK
from autotuner.job.accelerators import accelerators
from autotuner.job.job import Job
from autotuner.job.kind import PodPlan
from autotuner.job.trial_manifest import trial_manifest
from autotuner.spec import TuningSpec
from autotuner.spec.tuning_spec import MOST_AUTO_TRIALS
from autotuner.trial import Suggestion

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def machine_gpus(shell: Mapping[str, str], devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the NVIDIA GPUs that processes of this shell see, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in shell:
        named = [part.strip() for part in shell[VISIBLE].split(",")]
        return tuple(part for part in named if part and not part.startswith("-"))
    found = (re.fullmatch(r"nvidia(\d+)", file.name) for file in devices.glob("nvidia*"))
    return tuple(map(str, sorted(int(match[1]) for match in found if match)))


def trials_at_once(job: Job, spec: TuningSpec, gpus: Sequence[str]) -> int:
    """Return how many trials the GPUs allow at once; 1 if a trial requests no GPUs."""
    workers = None if spec.workers is None else spec.workers.maximum
    largest = Suggestion(0, spec.baseline_batch_size, spec.baseline_parameters, seed=0, workers=workers)
    plans = job.kind.pod_plans(trial_manifest(job, largest), LOOPBACK, 0)
    needed = sum(map(_asked, plans))
    return max(1, min(MOST_AUTO_TRIALS, len(gpus) // needed)) if needed else 1


class GpuShares:
    """Which trial has which GPUs."""

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = tuple(gpus)
        self._taken: dict[int, tuple[str, ...]] = {}

    def take(self, trial: int, plans: Sequence[PodPlan]) -> list[PodPlan]:
        """Return a trial's pods with GPUs of their own; unchanged if they request more than are free."""
        self.release(trial)
        taken = {gpu for gpus in self._taken.values() for gpu in gpus}
        free = [gpu for gpu in self._gpus if gpu not in taken]
        needed = sum(map(_asked, plans))
        if not 0 < needed <= len(free):
            return list(plans)
        self._taken[trial] = tuple(free[:needed])
        given = iter(free)
        return [_with_gpus(plan, [next(given) for _ in range(_asked(plan))]) for plan in plans]

    def release(self, trial: int) -> None:
        """Free the GPUs of a trial, if it has any."""
        self._taken.pop(trial, None)


def _asked(plan: PodPlan) -> int:
    return accelerators(plan.container).devices


def _with_gpus(plan: PodPlan, gpus: Sequence[str]) -> PodPlan:
    return replace(plan, environment={**plan.environment, VISIBLE: ",".join(gpus)})
