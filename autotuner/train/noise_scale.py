"""The gradient noise scale: the batch size up to which a larger one saves steps.

McCandlish, Kaplan and Amodei 2018, "An Empirical Model of Large-Batch Training" (arXiv:1812.06162): with the
true gradient G and the covariance of one sample's gradient, B_simple = tr(covariance) / |G|**2. Well below it
doubling the batch halves the steps; well above it doubling the batch doubles the cost. It grows severalfold
during a run.

Both unknowns follow from the squared norms of gradients over a small and a large batch (their appendix A.1).
Training provides such pairs: one process's gradient before it is averaged with the others, or the gradient of
the first micro-batch and of the whole batch. A single pair contains almost no information, so the two
unknowns are averaged over steps, separately, because the mean of a ratio is biased. The means change slowly,
so measuring every tenth step loses nothing and costs a tenth.

With PowerSGD or top k (`autotuner.train.compression`) there is no noise scale: after their exchange no
process has the mean gradient, and the norm of what it has does not describe the noise.
"""

# No postponed annotations here: DDP checks the declared types of its hooks.

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket  # untyped in torch.distributed
from torch.futures import Future

from autotuner.train import foreach

__all__ = ["NoiseScale", "square_norm"]


def square_norm(gradients: Iterable[Tensor | None]) -> Tensor:
    """Return the squared 2-norm of all gradients together, in at least float32, on their device.

    Raises:
        ValueError: There is no gradient.
    """
    present = [_real(gradient) for gradient in gradients if gradient is not None]
    if not present:
        raise ValueError("there are no gradients to measure: call this after backward")
    kind = reduce(torch.promote_types, (gradient.dtype for gradient in present), torch.float32)
    return torch.stack(foreach.norm(present, 2, dtype=kind)).square().sum()


def _real(gradient: Tensor) -> Tensor:
    """Return the values that a gradient consists of, as real numbers: a sparse one has rows only of some."""
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return torch.view_as_real(values) if values.is_complex() else values


class NoiseScale:
    """Measures the gradient noise scale during a run.

    `MicroBatches` accepts a meter and updates it. In your own loop, with gradients that are *means* over
    their samples, a step is

        if meter.is_due:
            meter.small(gradients of a part of the batch, samples in it)
            meter.large(gradients of the whole batch, samples in it)
        meter.next_step()

    Under DDP without accumulation, a hook measures the small gradient if `distribute` gets the meter; then
    `large` needs the number of this process's samples.

    Nothing here waits for the device until `value` is read.

    Args:
        every: Measure every so many steps.
        smoothing: Weight of the past in the running means, at each measurement.
    """

    def __init__(self, *, every: int = 10, smoothing: float = 0.95) -> None:
        if every < 1 or not 0 <= smoothing < 1:
            raise ValueError(
                f"every is {every} and smoothing is {smoothing}: must be at least 1, and in [0, 1)"
            )
        self.every = every
        self.smoothing = smoothing
        self._step = 0
        self._small: Tensor | None = None
        self._small_batch = 1.0
        self._hooked: Tensor | None = None
        self._is_hooked = False
        self._means: Tensor | None = None

    @property
    def is_due(self) -> bool:
        """Whether this step is to be measured; the same on every process."""
        return self._step % self.every == 0

    @property
    def is_hooked(self) -> bool:
        """Whether a DDP hook measures the small gradients (see `before`), so that a step needs no parts."""
        return self._is_hooked

    def small(self, gradients: Iterable[Tensor | None], samples: float, *, scale: float = 1.0) -> None:
        """Measure the gradient over a part of the batch, before any exchange.

        Args:
            gradients: The gradients of all parameters.
            samples: The number of samples of the gradient.
            scale: The factor that makes the gradients a mean over those samples, such as the number of
                accumulation steps that the loss was divided by.
        """
        self._small = square_norm(gradients) * scale**2
        self._small_batch = samples

    def large(
        self,
        gradients: Iterable[Tensor | None],
        samples: float,
        *,
        part: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        """Measure the gradient over the whole batch, after the exchange, and update the means.

        Collective if there are several processes: their small gradients are averaged, which reduces the
        variance by the number of processes. A process without a small gradient also takes part.

        Args:
            gradients: The gradients of all parameters.
            samples: The number of samples of the gradient, over all processes.
            part: The number of this process's samples, if a hook measured the small gradient (`is_hooked`).
            scale: The factor that makes the hook's gradient a mean over that part, as in `small`.
        """
        small, batch = self._small, self._small_batch
        if self._hooked is not None and part > 0:
            small, batch = self._hooked * scale**2, part
        mean_large = square_norm(gradients)
        sums = torch.zeros(3, dtype=mean_large.dtype, device=mean_large.device)
        if small is not None:
            sums = torch.stack([small, torch.full_like(small, 1 / batch), torch.ones_like(small)])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(sums)
        # E|g|**2 = |G|**2 + tr(covariance) / batch, for the small and for the large: two equations.
        mean_small, inverse = sums[0] / sums[2], sums[1] / sums[2]
        noise = (mean_small - mean_large) / (inverse - 1 / samples)
        found = torch.stack([noise, mean_large - noise / samples])
        if self._means is None:
            self._means = torch.zeros_like(found)
        # The means start at zero and are too small by the same factor, which cancels in their ratio. A step
        # is left out if no process had a smaller batch than all together, or if its gradients overflowed: the
        # script may skip it, and the means would not recover. The condition is evaluated on the device, so
        # that the host need not wait.
        was_measured = (sums[2] > 0) & (inverse > 1 / samples) & found.isfinite().all()
        self._means = torch.where(was_measured, torch.lerp(found, self._means, self.smoothing), self._means)

    def next_step(self) -> None:
        """Mark the end of a step."""
        self._step += 1
        self._small = self._hooked = None

    def before(self, hook: Callable[[Any, GradBucket], Future[Tensor]]) -> Any:  # noqa: ANN401 (a DDP hook)
        """Return a DDP communication hook that reads each bucket's local gradient and then calls `hook`."""
        self._is_hooked = True

        def reading_hook(state: object, bucket: GradBucket) -> Future[Tensor]:
            if self.is_due:
                square = square_norm([bucket.buffer()])
                self._hooked = square if self._hooked is None else self._hooked + square
            return hook(state, bucket)

        return reading_hook

    @property
    def value(self) -> float | None:
        """The noise scale in samples; None while it cannot be estimated: noise may hide the signal."""
        if self._means is None:
            return None
        noise, signal = self._means.tolist()
        return noise / signal if noise > 0 and signal > 0 else None
