"""The drawn trainings of the search benchmark: they train as PyTorch does, and the same every time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from autotuner.spec import TuningSpec
from tests.benchmarks.generated import jobs, truth
from tests.benchmarks.generated.blueprint import FEWEST_STEPS, FIXED, draw
from tests.benchmarks.generated.data import SOURCES, load
from tests.benchmarks.generated.networks import Network
from tests.benchmarks.generated.optimizers import OPTIMIZERS, State
from tests.benchmarks.generated.training import Job, curves

JOB = Job(
    data="spirals",
    train=96,
    test=60,
    label_noise=0.0,
    network=Network("perceptron", 8),
    metric="accuracy",
    epochs=4,
    drop_last=False,
    measurements=4,
    clip=None,
    from_checkpoint=False,
    seed=1,
    fixed={**FIXED, "optimizer": "sgd", "schedule": "cosine", "warmup": 0.1, "learning_rate": 0.1},
)
NETWORKS = [
    ("spirals", Network("perceptron", 8, 2, "gelu", "batch")),
    ("spirals", Network("perceptron", 8, 1, "relu", "layer")),
    ("spirals", Network("perceptron", depth=0)),
    ("bars", Network("convolution", 4)),
    ("recall", Network("embedding", 8)),
    ("recall", Network("recurrent", 8)),
    ("recall", Network("attention", 8, 1, "relu", "layer")),
    ("recall", Network("attention", 8)),
]


def peak(size: int, gain: float) -> truth.Peak:
    return truth.Peak(size, gain, 1.0, ())


@pytest.mark.parametrize("data", SOURCES)
def test_a_data_set_is_the_same_every_time_and_has_the_sizes_asked_for(data):
    first = load(data, 60, 40, 0.1, 3)
    load.cache_clear()
    second = load(data, 60, 40, 0.1, 3)

    assert torch.equal(first.train_x, second.train_x)
    assert torch.equal(first.train_y, second.train_y)
    assert (len(first.train_x), len(first.test_y)) == (60, 40)
    assert first.train_x.isfinite().all()


@pytest.mark.parametrize(("data", "network"), NETWORKS)
def test_a_member_of_an_ensemble_trains_as_it_does_alone(data, network):
    job = replace(JOB, data=data, network=network, metric="loss")
    rates = [{"learning_rate": rate} for rate in (0.01, 0.1, 0.3)]

    together = curves(job, 8, rates, [5, 6, 7])
    alone = np.concatenate(
        [curves(job, 8, [rate], [seed]) for rate, seed in zip(rates, (5, 6, 7), strict=True)]
    )

    assert together == pytest.approx(alone, rel=1e-3)


def test_one_seed_trains_the_same_twice_and_another_one_does_not():
    settings = [{"dropout": 0.2}]

    assert np.array_equal(curves(JOB, 8, settings, [5]), curves(JOB, 8, settings, [5]))
    assert not np.array_equal(curves(JOB, 8, settings, [5]), curves(JOB, 8, settings, [6]))


def test_a_run_that_diverges_shows_no_finite_loss_and_spoils_no_other():
    job = replace(JOB, metric="loss", fixed={**JOB.fixed, "schedule": "constant", "warmup": 0.0})
    settings = [{"learning_rate": 0.1}, {"learning_rate": 1e30}]

    found = curves(job, 8, settings, [5, 5])

    assert not np.isfinite(found[1, -1])
    assert found[0] == pytest.approx(curves(job, 8, settings[:1], [5])[0], rel=1e-3)


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 4 * 2), (False, 4 * 96 // 40)])
def test_examples_that_fill_no_batch_are_left_out_or_go_to_the_next_epoch(drop_last, steps):
    job = replace(JOB, drop_last=drop_last)

    assert job.steps(40) == steps
    assert curves(job, 40, [{}], [0]).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.1)),
        ("nesterov", lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=0.1, nesterov=True)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.99), weight_decay=0.1)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.99), weight_decay=0.1)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.8, weight_decay=0.1)),
    ],
)
def test_an_optimizer_takes_the_steps_of_pytorchs(name, reference):
    column = torch.ones(1, 1)
    state = State(0.8 * column, 0.1 * column, 0.99 * column)
    flat = torch.tensor([[1.0, -2.0, 0.5]])
    theirs = torch.nn.Parameter(flat[0].clone())
    optimizer = reference([theirs])

    for step in range(5):
        gradient = torch.tensor([[0.3, -0.1, 0.2]]) * (step - 1)
        OPTIMIZERS[name](state, flat, gradient, 0.1 * column)
        theirs.grad = gradient[0].clone()
        optimizer.step()

    assert flat[0].tolist() == pytest.approx(theirs.tolist(), rel=1e-4)


def test_lion_steps_by_the_sign_of_its_interpolated_momentum():
    column = torch.ones(1, 1)
    state, flat = State(0.9 * column, 0 * column, column), torch.tensor([[1.0, 1.0]])

    OPTIMIZERS["lion"](state, flat, torch.tensor([[0.3, -4.0]]), 0.1 * column)

    assert flat.tolist() == [pytest.approx([0.9, 1.1])]


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_job_is_the_seeds_and_its_range_holds_three_doublings(seed):
    plan = draw(seed)

    assert plan == draw(seed)
    assert plan.batch_sizes[0] <= plan.start <= plan.batch_sizes[1] / 8
    assert plan.job.steps(plan.batch_sizes[1]) >= FEWEST_STEPS


def test_the_answer_lies_between_the_sizes_that_were_searched():
    peaks = [peak(8, 3.0), peak(16, 1.0), peak(32, -1.0)]

    assert truth.crossing(peaks, truth.falling(peaks), 0.0) == int(16 * math.sqrt(2))
    assert truth.crossing(peaks, truth.falling(peaks), -2.0) == 32
    assert truth.crossing(peaks, truth.falling(peaks), 4.0) == 8


def test_an_answer_may_lie_beyond_batch_sizes_that_do_not_meet_the_target():
    peaks = [peak(8, 3.0), peak(16, -1.0), peak(32, 1.0), peak(64, -1.0)]

    assert truth.falling(peaks).tolist() == [3.0, 1.0, 1.0, -1.0]
    assert truth.crossing(peaks, truth.falling(peaks), 0.0) == int(32 * math.sqrt(2))


def test_a_setting_is_reliable_if_nine_of_ten_fresh_runs_meet_the_target():
    values = truth.gains(JOB, 8, [{}] * 60, range(60))
    rng = np.random.default_rng(0)

    assert truth.is_reliable(JOB, 8, {}, float(np.quantile(values, 0.02)), rng)
    assert not truth.is_reliable(JOB, 8, {}, float(np.quantile(values, 0.3)), rng)


@pytest.mark.parametrize("which", jobs.SEEDS)
def test_every_stored_job_is_one_that_an_owner_could_register(which):
    found = jobs.problems(which)

    assert {entry["seed"] for entry in jobs.read(which)} == set(jobs.SEEDS[which])
    for problem in found:
        spec = TuningSpec.from_annotations(problem.annotations, baseline=problem.baseline)
        assert spec.target.threshold == problem.target
        assert problem.baseline["batch_size"] <= problem.largest <= problem.batch_sizes[1]
    assert len({problem.name for problem in found}) == len(found)


def test_half_a_doubling_below_the_answer_some_setting_is_feasible():
    for problem in jobs.problems()[::8]:
        size = max(round(problem.largest / math.sqrt(2)), problem.baseline["batch_size"])
        assert problem.is_feasible(size, {**problem.baseline, **problem.known_best(size)})


def test_known_good_settings_meet_their_targets_and_the_truth_knows_it():
    for problem in jobs.problems()[::8]:
        start = problem.baseline["batch_size"]
        assert problem.is_feasible(start, problem.baseline)
        met = [max(problem.job.sign * v for v in problem.run(start, problem.baseline, s)) for s in range(5)]
        assert np.median(met) >= problem.job.sign * problem.target
