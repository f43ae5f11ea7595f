"""Train a global batch as micro-batches that fit into memory, with the exact gradient.

    batch size = micro-batch x accumulation x processes

`MicroBatches.backward` takes this process's share of a global batch, and sets `.grad` to the gradient of the
mean loss over the *whole* batch. This needs more than accumulation: DDP averages over processes, so if shares
are unequal (the last batch of an epoch), each process must weight its own by those of the others.

When memory runs out, the micro-batch is halved, the batch size is kept, and the run continues. The difficulty
is that processes must agree: one that fails during an exchange leaves the others waiting forever. So a step
is *careful* until its micro-batch has proved to fit: it computes all micro-batches without exchange, then
agrees with the other processes whether all succeeded, and only then exchanges. Later steps exchange during
the last backward, as DDP does, at no extra cost. Processes communicate over gloo on the host, which neither
waits for the device nor fails with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from autotuner.train.compression import exchanges_gradients
from autotuner.train.noise_scale import NoiseScale

__all__ = ["MicroBatches", "Step", "is_out_of_memory"]

_CAREFUL_STEPS: Final = 3
"""Steps until a micro-batch has proved to fit: the optimizer's state exists after the first step, and the
memory that the second needs for its gradients is allocated at the third."""

_OUT_OF_MEMORY: Final = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)
"""Texts of errors that mean the same as `torch.OutOfMemoryError` but have another type."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step; the gradients are in the parameters' `.grad`.

    `loss` is the mean over this process's own share, on the device and without gradient. `samples` counts the
    samples of all processes; each forward took at most `micro_batch` of them, in `accumulation` turns.
    """

    loss: Tensor
    samples: int
    micro_batch: int
    accumulation: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """The values that all processes agree on before a step."""

    samples: int
    weight: float
    own_weight: float
    largest_share: int
    accumulation: int
    careful: bool


class MicroBatches:
    """Computes the gradient of a global batch, one micro-batch at a time.

        micro_batches = MicroBatches(model, loss, hp.get("micro_batch_size"))
        for share in loader:                  # this process's share, for example from `GlobalBatches`
            step = micro_batches.backward(share)
            optimizer.step()

    Gradients start from zero at each step, because a step that ran out of memory starts again: `zero_grad` is
    not needed, and adding to earlier gradients is not possible.

    Batch normalisation sees micro-batches, as with any accumulation. `SyncBatchNorm` communicates in the
    forward, so it cannot recover from running out of memory there. When a step starts again, dropout and
    other randomness are drawn again, and running statistics keep what the failed attempt added.

    Args:
        model: As `distribute` returned it. Under FSDP2 each micro-batch is exchanged, which keeps gradients
            sharded; and running out of memory is an error, because every forward communicates.
        loss: Called with the model and a micro-batch; returns the *mean* loss over it. Use autocast inside of
            it. Gradient scaling of float16 is not supported; use bfloat16.
        micro_batch: Maximum number of samples at once on one process; None: the whole share.
        count: Returns what a mean is taken over if that is not samples, for example the tokens that count.
        meter: A gradient-noise meter, which is updated at the steps when it is due. Unless a hook reads local
            gradients for it (see `distribute`), those steps have at least two micro-batches. Under FSDP2 and
            with PowerSGD or top-k compression there is nothing to compare, and it has no value.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        micro_batch: int | None = None,
        *,
        count: Callable[[Any], float] | None = None,
        meter: NoiseScale | None = None,
    ) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch is {micro_batch}: must be at least 1, or None for no limit")
        self.model = model
        self.micro_batch = micro_batch
        self._loss = loss
        self._count = count or _length
        self._is_sharded = isinstance(model, FSDPModule)
        self._meter = meter if exchanges_gradients(model) and not self._is_sharded else None
        self._processes = dist.get_world_size() if dist.is_initialized() else 1
        self._host_group = _make_host_group() if self._processes > 1 else None
        self._careful_steps = _CAREFUL_STEPS
        self._proved = 0
        self._spare: Any = None

    def backward(self, share: Any) -> Step:  # noqa: ANN401 (whatever the loader yields)
        """Compute the gradient of the mean loss over the global batch, from this process's share.

        Collective: every process calls it once per step.

        Args:
            share: Tensors, nested in tuples, lists and dicts, whose first dimension counts samples, and lists
                of as many texts. It may be empty if other processes' shares are not.

        Raises:
            ValueError: Nothing in the shares of all processes counts, or in one in its very first step.
            torch.OutOfMemoryError: One sample alone does not fit, or memory ran out while the processes
                cannot agree on a smaller micro-batch.
        """
        while True:
            plan = self._agree(share)
            for parameter in self.model.parameters():
                parameter.grad = None
            failure: BaseException | None = None
            loss = None
            try:
                loss = self._accumulate(share, plan)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self._may_start_over(plan):
                    raise
                # The traceback references the frames, and these the activations, which must be freed.
                failure = error.with_traceback(None)
            if plan.careful and self._any(failure is not None) and failure is None:
                failure = torch.OutOfMemoryError("another process ran out of memory")
            if failure is None and loss is not None:
                break
            loss = None
            self._shrink(plan, failure)
        if plan.careful:
            self._exchange()
        self._prove(share, plan)
        self._measure(plan)
        return Step(loss, plan.samples, -(-plan.largest_share // plan.accumulation), plan.accumulation)

    def _agree(self, share: Any) -> _Plan:  # noqa: ANN401
        """Exchange the sizes of the shares between processes, so that all take the same number of turns."""
        length = _length(share)
        is_new = self._processes > 1 and (self._careful_steps > 0 or _elements(share) > self._proved)
        own_weight = float(self._count(share)) if length else 0.0
        is_stuck = not own_weight and self._spare is None
        mine = torch.tensor([length, own_weight, is_stuck, is_new], dtype=torch.float64)
        everyones = [mine]
        if self._host_group is not None:
            everyones = [torch.empty_like(mine) for _ in range(self._processes)]
            dist.all_gather(everyones, mine, group=self._host_group)
        table = torch.stack(everyones)
        samples, weight, stuck, new = table.sum(0).tolist()
        if not weight > 0 or stuck:
            raise ValueError(
                "a share of the batch is empty, or `count` is 0 for all of it: each process needs a sample"
                " that counts, at least in its first step"
            )
        largest = int(table[:, 0].max())
        turns = 1 if self.micro_batch is None else -(-largest // self.micro_batch)
        if self._takes_parts() and largest > 1:
            turns = max(turns, 2)
        is_careful = bool(new) and not self._is_sharded
        return _Plan(int(samples), weight, own_weight, largest, turns, is_careful)

    def _accumulate(self, share: Any, plan: _Plan) -> Tensor:  # noqa: ANN401
        total = torch.zeros(())
        if self._spare is None:
            self._spare = self._find_spare(share, plan)
        for turn in range(plan.accumulation):
            chunk = _turn(share, turn, plan.accumulation)
            weight = float(self._count(chunk)) if _length(chunk) else 0.0
            if not weight:
                # Every process takes part in every exchange; this one contributes nothing to it. (The mean
                # over nothing is NaN, also with a weight of zero.)
                chunk = self._spare
            is_last = turn == plan.accumulation - 1
            effects = nullcontext() if weight else _without_effects(self.model)
            with effects, self._exchanging(is_last and not plan.careful):
                loss = self._loss(self.model, chunk)
                # DDP and FSDP take the unweighted mean over processes: the weight corrects for that.
                torch.autograd.backward(loss * (weight * self._processes / plan.weight))
            total = loss.detach() * weight + total
            if turn == 0 and not is_last and weight > 0 and self._meter is not None and self._takes_parts():
                self._meter.small(
                    (parameter.grad for parameter in self.model.parameters()),
                    weight,
                    scale=plan.weight / (weight * self._processes),
                )
        return total / plan.own_weight if plan.own_weight > 0 else total

    def _find_spare(self, share: Any, plan: _Plan) -> Any:  # noqa: ANN401
        """Return a copy of a few samples that count; a view would keep the whole share in memory."""
        for turn in range(plan.accumulation):
            chunk = _turn(share, turn, plan.accumulation)
            for candidate in (_slice(chunk, 0, 2), chunk):
                if _length(candidate) and self._count(candidate):
                    return _map(torch.clone, candidate)
        raise ValueError("no micro-batch has anything that counts, although the whole share has")

    def _takes_parts(self) -> bool:
        """Return whether this step is measured, with its first micro-batch as the small gradient."""
        return self._meter is not None and self._meter.is_due and not self._meter.is_hooked

    def _exchanging(self, exchanges: bool) -> AbstractContextManager[Any]:
        if isinstance(self.model, DistributedDataParallel) and not exchanges:
            return self.model.no_sync()
        return nullcontext()

    def _exchange(self) -> None:
        """Average gradients that were accumulated without exchange, by a backward that adds zero."""
        with _without_effects(self.model):
            torch.autograd.backward(self._loss(self.model, self._spare) * 0.0)

    def _may_start_over(self, plan: _Plan) -> bool:
        """Return whether the other processes will certainly be informed that this one failed."""
        return self._processes == 1 or plan.careful

    def _any(self, failed: bool) -> bool:
        mine = torch.tensor([int(failed)])
        dist.all_reduce(mine, op=dist.ReduceOp.MAX, group=self._host_group)
        return bool(mine.item())

    def _shrink(self, plan: _Plan, failure: BaseException | None) -> None:
        size = -(-plan.largest_share // plan.accumulation)
        if size <= 1:
            raise torch.OutOfMemoryError("one sample alone does not fit into memory") from failure
        self.micro_batch = size // 2
        self._careful_steps = _CAREFUL_STEPS
        self._proved = 0
        for parameter in self.model.parameters():
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if isinstance(self.model, DistributedDataParallel):
            # After a failed forward, DDP would broadcast buffers on this process only.
            self.model.require_forward_param_sync = True
        _logger.warning(
            "a micro-batch of %d did not fit into memory; continuing with %d and the same global batch of %d",
            size,
            self.micro_batch,
            plan.samples,
        )

    def _prove(self, share: Any, plan: _Plan) -> None:  # noqa: ANN401
        if plan.careful and self._careful_steps > 0:
            self._careful_steps -= 1
        self._proved = max(self._proved, _elements(share))

    def _measure(self, plan: _Plan) -> None:
        if self._meter is None:
            return
        if self._meter.is_due:
            self._meter.large(
                (parameter.grad for parameter in self.model.parameters()),
                plan.weight,
                part=plan.own_weight,
                scale=plan.weight / (self._processes * plan.own_weight) if plan.own_weight > 0 else 1.0,
            )
        self._meter.next_step()


@contextmanager
def _without_effects(model: nn.Module) -> Iterator[None]:
    """Make forward and backward passes change neither buffers nor gradients, for samples that do not count.

    The loss of a few samples may be NaN or infinite, which a weight of zero would not remove. (Under FSDP2
    the hooks do not run, and only the weight does.)
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [each.register_hook(torch.zeros_like) for each in trained]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in before:
                buffer.copy_(before[name])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory of the device or the host ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def _make_host_group() -> dist.ProcessGroup | None:
    """Return a group in which processes communicate over the host: the default one if that is gloo."""
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    group = dist.new_group(backend="gloo")
    return group if isinstance(group, dist.ProcessGroup) else None


def _map(
    function: Callable[[Tensor], Tensor],
    tree: Any,  # noqa: ANN401
    texts: Callable[[Any], Any] = lambda members: members,
) -> Any:  # noqa: ANN401
    """Return the same nested tuples, lists and mappings with each tensor replaced, and each list of texts.

    Other values are kept.
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: _map(function, value, texts) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        if tree and not hasattr(tree, "_fields") and all(isinstance(member, (str, bytes)) for member in tree):
            return texts(tree)
        members = [_map(function, member, texts) for member in tree]
        return type(tree)(*members) if hasattr(tree, "_fields") else type(tree)(members)  # a named tuple
    return tree


def _slice(tree: Any, start: int, end: int) -> Any:  # noqa: ANN401
    length = _length(tree)

    def texts(members: list[str] | tuple[str, ...]) -> list[str] | tuple[str, ...]:
        # One for each sample, as a DataLoader collates them: they must stay with their samples.
        return members[start:end] if len(members) == length else members

    return _map(lambda tensor: tensor[start:end], tree, texts)


def _turn(share: Any, turn: int, turns: int) -> Any:  # noqa: ANN401
    """Return the micro-batch of a turn; all are as equal as possible.

    Otherwise the last one might be a single sample, which batch normalisation refuses.
    """
    length = _length(share)
    return _slice(share, length * turn // turns, length * (turn + 1) // turns)


def _tensors(tree: Any) -> list[Tensor]:  # noqa: ANN401
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _map(collect, tree)
    return found


def _length(tree: Any) -> int:  # noqa: ANN401
    """Return the number of samples.

    Raises:
        ValueError: There is no tensor, or their first dimensions differ.
    """
    lengths = {tensor.shape[0] if tensor.ndim else -1 for tensor in _tensors(tree)}
    if len(lengths) != 1 or -1 in lengths:
        raise ValueError("a batch must consist of tensors whose first dimension counts the same samples")
    return lengths.pop()


def _elements(tree: Any) -> int:  # noqa: ANN401
    """Return the number of values of a batch: longer sequences need more memory for as many samples."""
    return sum(tensor.numel() for tensor in _tensors(tree))
