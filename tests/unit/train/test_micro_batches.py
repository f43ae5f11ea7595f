"""Global batches in micro-batches: exact gradients, and memory that runs out."""

import logging

import pytest
import torch
from torch import nn

from autotuner.train.global_batches import GlobalBatches
from autotuner.train.micro_batches import MicroBatches, is_out_of_memory
from autotuner.train.processes import Processes, distribute

ALONE = Processes(rank=0, count=1, device=torch.device("cpu"))


class Network(nn.Module):
    """A small network that runs out of memory at more than `room` samples at once."""

    def __init__(self, room=None, buffers=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
        self.room = room
        self.seen = []
        if buffers:
            self.register_buffer("calls", torch.zeros(1, dtype=torch.float64))

    def forward(self, inputs):
        hidden = self.layers[0](inputs)
        if self.room is not None and len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.seen.append(len(inputs))
        return self.layers[2](self.layers[1](hidden))


def loss(model, batch):
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets)


def batch(size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, 5, generator=generator, dtype=torch.float64),
        torch.randint(0, 3, (size,), generator=generator),
    )


def gradient(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def assert_same(found, expected):
    """Equal but for the order of additions, in float64."""
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-10, atol=1e-12)


def whole_gradient(size, seed=1):
    model = Network()
    loss(model, batch(size, seed)).backward()
    return gradient(model)


@pytest.mark.parametrize(
    ("size", "micro_batch", "turns"), [(12, None, 1), (12, 4, 3), (13, 4, 4), (3, 8, 1), (5, 1, 5)]
)
def test_the_gradient_is_that_of_the_whole_batch(size, micro_batch, turns):
    model = Network()
    step = MicroBatches(model, loss, micro_batch).backward(batch(size))
    assert_same(gradient(model), whole_gradient(size))
    assert_same(step.loss, loss(Network(), batch(size)).detach())
    assert (step.samples, step.accumulation, len(model.seen)) == (size, turns, turns)
    assert max(model.seen) == step.micro_batch <= (micro_batch or size)


def test_gradients_start_from_zero_at_each_step():
    model = Network()
    micro_batches = MicroBatches(model, loss, 4)
    micro_batches.backward(batch(10, seed=1))
    micro_batches.backward(batch(10, seed=2))
    assert_same(gradient(model), whole_gradient(10, seed=2))


def test_batches_may_be_nested_and_means_taken_over_tokens():
    def token_loss(model, tree):
        logits = model(tree["in"][0])
        kept = tree["keep"]
        return (nn.functional.cross_entropy(logits, tree["out"], reduction="none") * kept).sum() / kept.sum()

    inputs, targets = batch(9)
    # Of the micro-batches of two, the first and another have nothing that counts: their means are 0/0.
    keep = torch.tensor([0, 0, 1, 0, 0, 0, 1, 1, 1], dtype=torch.float64)
    share = {"in": [inputs], "out": targets, "keep": keep, "name": "train"}
    model, whole = Network(), Network()
    step = MicroBatches(model, token_loss, 2, count=lambda tree: tree["keep"].sum()).backward(share)
    token_loss(whole, share).backward()
    assert_same(gradient(model), gradient(whole))
    assert_same(step.loss, token_loss(whole, share).detach())


def test_texts_stay_with_their_samples():
    inputs, targets = batch(6)
    names = [f"{float(row[0]):.6f}" for row in inputs]
    seen = []

    def named_loss(model, share):
        seen.extend(zip(share["in"][:, 0].tolist(), share["name"], strict=True))
        assert share["size"] == ("224", "224")  # not one for each sample
        return loss(model, (share["in"], share["out"]))

    share = {"in": inputs, "out": targets, "name": names, "size": ("224", "224")}
    MicroBatches(Network(), named_loss, 2).backward(share)
    assert [name for _, name in seen] == names == [f"{value:.6f}" for value, _ in seen]


def test_a_batch_of_which_nothing_counts_is_refused():
    with pytest.raises(ValueError, match="`count` is 0 for all of it"):
        MicroBatches(Network(), loss, count=lambda _: 0).backward(batch(4))


@pytest.mark.parametrize("bad", [torch.zeros(()), (torch.zeros(2, 5), torch.zeros(3)), {"text": "none"}])
def test_a_batch_without_a_common_first_dimension_is_refused(bad):
    with pytest.raises(ValueError, match="first dimension"):
        MicroBatches(Network(), loss).backward(bad)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty"):
        MicroBatches(Network(), loss).backward(batch(0))


def test_running_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(caplog):
    model = Network(room=5)
    micro_batches = MicroBatches(model, loss, 24)
    with caplog.at_level(logging.WARNING, logger="autotuner"):
        step = micro_batches.backward(batch(24))
    assert_same(gradient(model), whole_gradient(24))
    assert (step.samples, step.micro_batch, step.accumulation) == (24, 3, 8)
    assert [record.message for record in caplog.records] == [
        f"a micro-batch of {size} did not fit into memory;"
        f" continuing with {half} and the same global batch of 24"
        for size, half in ((24, 12), (12, 6), (6, 3))
    ]
    micro_batches.backward(batch(24, seed=2))
    assert set(model.seen) == {3}


def test_one_sample_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError, match="one sample alone"):
        MicroBatches(Network(room=0), loss).backward(batch(4))


def test_another_error_is_not_taken_for_out_of_memory():
    def broken(_model, _batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        MicroBatches(Network(), broken, 2).backward(batch(4))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA to enable ..."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)"), True),
        (RuntimeError("out of range"), False),
        (ValueError("CUBLAS_STATUS_ALLOC_FAILED"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) == expected


def weighted_loss(model, batch):
    inputs, targets, weights = batch
    losses = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_the_mean_loss_is_right_where_the_weights_sum_below_one(micro_batch):
    weights = torch.tensor([0.1, 0.05, 0.2, 0.1], dtype=torch.float64)
    weighted = (*batch(4), weights)
    model = Network()
    step = MicroBatches(model, weighted_loss, micro_batch, count=lambda b: float(b[2].sum())).backward(
        weighted
    )
    expected = Network()
    whole = weighted_loss(expected, weighted)
    whole.backward()
    assert_same(step.loss, whole.detach())
    assert_same(gradient(model), gradient(expected))


# --- two processes -------------------------------------------------------------------------------------


def _share(processes, sizes, seed=1):
    """This process's part of a global batch with these sizes of shares."""
    start = sum(sizes[: processes.rank])
    return tuple(tensor[start : start + sizes[processes.rank]] for tensor in batch(sum(sizes), seed))


def _unequal_shares(processes, all_sizes, micro_batch, layout):
    model = distribute(Network(), {"layout": layout}, processes)
    micro_batches = MicroBatches(model, loss, micro_batch)
    found = []
    for seed, sizes in enumerate(all_sizes):
        step = micro_batches.backward(_share(processes, sizes, seed))
        grads = [parameter.grad for parameter in model.parameters()]
        full = [grad.full_tensor() if layout == "fsdp" else grad for grad in grads]
        flat = torch.cat([grad.flatten() for grad in full]).numpy().copy()
        found.append((step.samples, step.accumulation, flat))
    return found


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_unequal_shares_weigh_what_they_are(two_processes, layout, micro_batch):
    sizes = [(8, 8), (7, 4), (1, 6), (5, 0), (0, 3), (8, 8)]
    for results in two_processes.run(_unequal_shares, sizes, micro_batch, layout):
        for seed, (pair, (samples, turns, found)) in enumerate(zip(sizes, results, strict=True)):
            assert samples == sum(pair)
            assert turns == (-(-max(pair) // micro_batch) if micro_batch else 1)
            assert_same(found, whole_gradient(sum(pair), seed))


def _one_runs_out_of_memory(processes, failing, room):
    network = Network(room=room if processes.rank == failing else None, buffers=True)
    model = distribute(network, {}, processes)
    micro_batches = MicroBatches(model, loss, 16)
    steps = []
    for seed in range(6):  # past the careful steps, too
        step = micro_batches.backward(_share(processes, (16, 15), seed))
        steps.append((step.micro_batch, step.accumulation, gradient(model).numpy().copy()))
    return steps


@pytest.mark.parametrize("failing", [0, 1])
def test_all_processes_halve_the_micro_batch_when_one_runs_out_of_memory(two_processes, failing):
    for steps in two_processes.run(_one_runs_out_of_memory, failing, 5):
        for seed, (micro_batch, accumulation, found) in enumerate(steps):
            assert (micro_batch, accumulation) == (4, 4)
            assert_same(found, whole_gradient(31, seed))


def _runs_out_late(processes):
    network = Network()
    model = distribute(network, {}, processes)
    micro_batches = MicroBatches(model, loss, 4)
    for seed in range(4):
        micro_batches.backward(_share(processes, (4, 4), seed))
    network.room = 4
    # A longer batch than any so far is careful again, and so may start over.
    micro_batches.micro_batch = None
    step = micro_batches.backward(_share(processes, (8, 8), 9))
    return step.micro_batch, gradient(model).numpy().copy()


def test_a_batch_larger_than_any_before_may_start_over(two_processes):
    for micro_batch, found in two_processes.run(_runs_out_late):
        assert micro_batch == 4
        assert_same(found, whole_gradient(16, 9))


def _trained(processes, samples, batch_size, epochs):
    inputs, targets = batch(samples)
    model = distribute(Network(), {}, processes)
    sgd = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    micro_batches = MicroBatches(model, loss, 3)
    batches = GlobalBatches(samples, batch_size, processes, seed=4)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for indices in batches:
            micro_batches.backward((inputs[indices], targets[indices]))
            sgd.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy().copy()


def test_a_run_goes_the_same_way_on_one_process_and_on_two(two_processes):
    """37 samples in batches of 11: shares of 6 and 5, and batches across epochs."""
    alone = _trained(ALONE, 37, 11, 3)
    for together in two_processes.run(_trained, 37, 11, 3):
        assert_same(together, alone)


# --- global batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "batch_size", "count"), [(100, 32, 4), (7, 7, 7), (33, 32, 4), (10, 40, 3), (5, 2, 1)]
)
def test_every_batch_is_full_and_every_sample_is_taken_once_an_epoch(samples, batch_size, count):
    epochs = 12
    places = [Processes(rank, count, torch.device("cpu")) for rank in range(count)]
    members = [GlobalBatches(samples, batch_size, place) for place in places]
    stream = []
    for epoch in range(epochs):
        for member in members:
            member.set_epoch(epoch)
        steps = list(zip(*members, strict=True))
        assert len(steps) == len(members[0])
        for shares in steps:
            assert sum(map(len, shares)) == batch_size
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            stream += [index for share in shares for index in share]
    assert len(stream) == batch_size * members[0].steps(epochs)
    assert 0 <= epochs * samples - len(stream) < batch_size
    # Epochs follow one another: any sample has been taken as often as any other, or once more.
    taken = [stream.count(index) for index in range(samples)]
    assert max(taken) - min(taken) <= -(-batch_size // samples)


def test_what_an_epoch_leaves_begins_the_next_ones_first_batch():
    batches = GlobalBatches(10, 4, ALONE, seed=2)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
    assert [len(epoch) for epoch in epochs] == [2, 3]
    stream = [index for epoch in epochs for batch in epoch for index in batch]
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))


def test_epochs_and_seeds_have_orders_of_their_own():
    def order(seed, epoch):
        batches = GlobalBatches(50, 50, ALONE, seed=seed)
        batches.set_epoch(epoch)
        return next(iter(batches))

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_a_batch_smaller_than_the_number_of_processes_is_refused():
    with pytest.raises(ValueError, match="one at least for each process"):
        GlobalBatches(10, 3, Processes(0, 4, torch.device("cpu")))


class Normalised(nn.Module):
    """A network whose batch normalisation counts the forwards that changed its statistics."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 3)
        self.double()

    def forward(self, inputs):
        return self.last(self.norm(inputs))


def _statistics(processes, sizes, steps):
    model = distribute(Normalised(), {}, processes)
    micro_batches = MicroBatches(model, loss)
    for seed in range(steps):
        micro_batches.backward(_share(processes, sizes[seed], seed))
    norm = model.module.norm
    return int(norm.num_batches_tracked), norm.running_mean.tolist()


def test_an_exchange_is_no_forward_to_batch_normalisation(two_processes):
    sizes = [(4, 4)] * 3
    (count, mean), _ = two_processes.run(_statistics, sizes, 3)
    assert count == 3
    expected = nn.BatchNorm1d(5).double()
    for seed in range(3):
        expected(batch(8, seed)[0][:4])
    assert_same(torch.tensor(mean, dtype=torch.float64), expected.running_mean)


def _gradients_of_masked(processes, sizes):
    def masked_loss(model, share):
        inputs, keep = share
        return (model(inputs)[:, 0] * keep).sum() / keep.sum()

    model = distribute(Network(), {}, processes)
    micro_batches = MicroBatches(model, masked_loss)
    found = []
    for seed, pair in enumerate(sizes):
        # The mean of the first two samples alone is 0/0.
        keep = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)[: pair[processes.rank]]
        micro_batches.backward((_share(processes, pair, seed)[0], keep))
        found.append(bool(gradient(model).isfinite().all()))
    return found


def test_samples_that_only_keep_an_exchange_company_add_nothing(two_processes):
    assert two_processes.run(_gradients_of_masked, [(4, 4), (4, 4), (4, 0)]) == [[True] * 3] * 2


def test_a_process_with_nothing_to_say_keeps_its_statistics(two_processes):
    _, (count, _) = two_processes.run(_statistics, [(4, 4), (4, 0)], 2)
    assert count == 1
