"""The gradient noise scale where it is known, and samples a second."""

import pytest
import torch
from torch import nn

from autotuner.train.micro_batches import MicroBatches
from autotuner.train.noise_scale import NoiseScale, square_norm
from autotuner.train.processes import Processes, distribute
from autotuner.train.throughput import Throughput

ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))
SIZE = 200
NOISE = 0.5
"""Standard deviation of one sample's gradient, in each of SIZE directions, about a gradient of norm 1."""
TRUE_SCALE = SIZE * NOISE**2


class Noisy(nn.Module):
    """A model of which sample x has gradient x, so that its noise scale is what the samples make it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE))

    def forward(self, samples):
        return samples @ self.weight


def mean_output(model, samples):
    return model(samples).mean()


def samples(count, generator):
    signal = torch.zeros(SIZE)
    signal[0] = 1.0
    return signal + NOISE * torch.randn(count, SIZE, generator=generator)


def _measured(processes, sizes, micro_batch, hooked, steps=240):
    meter = NoiseScale(every=2, smoothing=0.99)
    hyperparameters = {"compression": "none"}
    model = distribute(Noisy(), hyperparameters, processes, meter=meter if hooked else None)
    micro_batches = MicroBatches(model, mean_output, micro_batch, meter=meter)
    generator = torch.Generator().manual_seed(processes.rank)
    turns = set()
    for _ in range(steps):
        turns.add(micro_batches.backward(samples(sizes[processes.rank], generator)).accumulation)
    return meter.value, sorted(turns)


@pytest.mark.parametrize(("micro_batch", "turns"), [(None, [1, 2]), (8, [4])])
def test_one_process_measures_the_noise_scale(micro_batch, turns):
    value, found = _measured(ALONE, (32,), micro_batch, hooked=False)
    assert value == pytest.approx(TRUE_SCALE, rel=0.15)
    assert found == turns


@pytest.mark.parametrize(
    ("sizes", "micro_batch", "hooked", "turns"),
    [
        ((16, 16), None, True, [1]),
        ((16, 16), None, False, [1, 2]),
        ((24, 8), None, True, [1]),
        ((24, 8), 8, False, [3]),
        ((24, 8), 8, True, [3]),
        ((31, 1), None, False, [1, 2]),
    ],
)
def test_two_processes_measure_the_same_noise_scale(two_processes, sizes, micro_batch, hooked, turns):
    (one, found), (other, _) = two_processes.run(_measured, sizes, micro_batch, hooked)
    assert one == other == pytest.approx(TRUE_SCALE, rel=0.15)
    assert found == turns


def _own_loop(processes, steps):
    """A script with its own loop: DDP, a hook, and no micro-batches."""
    meter = NoiseScale(every=3, smoothing=0.99)
    model = distribute(Noisy(), {"compression": "bf16"}, processes, meter=meter)
    generator = torch.Generator().manual_seed(processes.rank)
    for _ in range(steps):
        model.zero_grad()
        mean_output(model, samples(16, generator)).backward()
        if meter.is_due:
            meter.large([parameter.grad for parameter in model.parameters()], 32, part=16)
        meter.next_step()
    return meter.value


def test_a_loop_of_ones_own_measures_through_the_hook(two_processes):
    one, other = two_processes.run(_own_loop, 360)
    assert one == other == pytest.approx(TRUE_SCALE, rel=0.15)


def _compressed(processes, compression):
    meter = NoiseScale(every=1)
    model = distribute(Noisy(), {"compression": compression}, processes, meter=meter)
    micro_batches = MicroBatches(model, mean_output, meter=meter)
    generator = torch.Generator().manual_seed(processes.rank)
    for _ in range(6):
        micro_batches.backward(samples(16, generator))
    return meter.value


@pytest.mark.parametrize("compression", ["powersgd", "topk"])
def test_there_is_no_noise_scale_where_the_exchange_yields_no_mean_gradient(two_processes, compression):
    assert two_processes.run(_compressed, compression) == [None, None]


def test_there_is_no_noise_scale_before_a_measurement_or_without_noise():
    meter = NoiseScale(every=1)
    assert meter.value is None
    gradient = [torch.ones(3)]
    meter.large(gradient, 8)  # nothing to compare with
    assert meter.value is None
    meter.small(gradient, 4)
    meter.large(gradient, 8)
    assert meter.value is None  # no noise at all
    meter.next_step()
    meter.small(gradient, 8)
    meter.large(gradient, 8)  # no smaller batch
    assert meter.value is None


def test_a_step_whose_gradients_overflowed_is_no_measurement():
    generator = torch.Generator().manual_seed(0)
    values = []
    for overflow in (False, True):
        meter = NoiseScale(every=1)
        generator.manual_seed(0)
        for _ in range(20):
            meter.small([samples(4, generator).mean(0)], 4)
            meter.large([samples(32, generator).mean(0)], 32)
            if overflow:
                meter.small([torch.full((SIZE,), torch.inf)], 4)
                meter.large([torch.full((SIZE,), torch.inf)], 32)
            meter.next_step()
        values.append(meter.value)
    assert values[0] == values[1] is not None


def test_norms_are_over_all_gradients_and_do_not_overflow():
    gradients = [
        torch.full((1000,), 100.0, dtype=torch.float16),
        None,
        torch.tensor(2.0, dtype=torch.float16),
    ]
    assert square_norm(gradients).item() == 1e7 + 4
    with pytest.raises(ValueError, match="after backward"):
        square_norm([None])


def test_a_norm_is_over_gradients_of_every_kind():
    rows = torch.sparse_coo_tensor([[1, 1]], [[3.0], [1.0]], (9, 1), check_invariants=True)
    gradients = [
        torch.tensor([1.0]),
        torch.tensor([2.0], dtype=torch.float64),
        torch.tensor([3.0 + 1.0j]),
        torch.tensor([2.0], dtype=torch.bfloat16),
        rows,  # the same row twice: 3 + 1
    ]
    assert square_norm(gradients).item() == 1 + 4 + 9 + 1 + 4 + 16
    assert square_norm(gradients).dtype == torch.float64


@pytest.mark.parametrize("bad", [{"every": 0}, {"smoothing": 1.0}])
def test_a_meter_that_could_not_measure_is_refused(bad):
    with pytest.raises(ValueError, match="must be at least 1"):
        NoiseScale(**bad)


def test_throughput_counts_training_and_nothing_else():
    now = iter([0, 1, 3, 4, 50, 51, 52.5])
    meter = Throughput(skip=2, clock=lambda: next(now))
    meter.add(64)  # the first steps, slow for reasons of their own
    meter.add(64)
    assert meter.samples_per_second is None
    meter.add(64)  # 2 s
    assert meter.samples_per_second == 32
    meter.add(32)  # 1 s
    meter.stop()  # an evaluation, which ends in mid-step at 50
    meter.add(64)
    assert meter.samples_per_second == 32
    meter.add(64)  # 1 s
    meter.add(64)  # 1.5 s
    assert meter.samples_per_second == pytest.approx((64 + 32 + 64 + 64) / 5.5)
