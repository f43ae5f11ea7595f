"""Optimizers against their papers, against torch, and by name."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from autotuner.train.optimizers import OPTIMIZERS, Lamb, Lans, Lars, make_optimizer, parameter_groups
from tests.unit.train import optimizers_reference as reference

SHAPES = [(4, 3), (7,), (2, 3, 2, 2), (), (5, 1)]
STEPS = 12

SETTINGS = {
    "lars": (Lars, reference.lars, {"momentum": 0.9, "weight_decay": 1e-2, "trust_coefficient": 0.01}),
    "lars, no decay": (
        Lars,
        reference.lars,
        {"momentum": 0.5, "weight_decay": 0.0, "trust_coefficient": 0.1},
    ),
    "lamb": (Lamb, reference.lamb, {"betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.01}),
    "lamb, no decay": (Lamb, reference.lamb, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.0}),
    "lans": (Lans, reference.lans, {"betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.01}),
    "lans, no decay": (Lans, reference.lans, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.0}),
}


def rates(constant=None):
    return (
        [constant] * STEPS
        if constant
        else [0.1 * (step + 1) for step in range(STEPS // 2)] + [0.3] * (STEPS // 2)
    )


def trajectory(make, weights, gradients, learning_rates, dtype):
    """The weights after each step of a torch optimizer, block by block."""
    parameters = [nn.Parameter(torch.tensor(w, dtype=dtype)) for w in weights]
    optimizer = make(parameters, learning_rates[0])
    seen = []
    for step, rate in enumerate(learning_rates):
        optimizer.param_groups[0]["lr"] = rate
        for parameter, grads in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(grads[step], dtype=dtype)
        optimizer.step()
        seen.append([parameter.detach().double().numpy().copy() for parameter in parameters])
    return seen


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_every_step_is_that_of_the_paper(setting, dtype, tolerance):
    kind, expected, options = SETTINGS[setting]
    random = np.random.default_rng(3)
    weights = [random.normal(size=shape) for shape in SHAPES]
    weights[0][:] = 0.0  # a block of zeros must start to move
    gradients = [
        [random.normal(size=w.shape) * 10 ** random.uniform(-3, 1) for _ in range(STEPS)] for w in weights
    ]
    gradients[1][4][:] = 0.0  # a gradient of zeros must not divide by zero
    found = trajectory(lambda p, lr: kind(p, lr, **options), weights, gradients, rates(), dtype)
    for block, (w, grads) in enumerate(zip(weights, gradients, strict=True)):
        for step, right in enumerate(expected(w, grads, lr=rates(), **options)):
            np.testing.assert_allclose(found[step][block], right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (
            lambda p, lr: Lars([{"params": p, "adapt": False}], lr, momentum=0.8, weight_decay=0.1),
            lambda p, lr: torch.optim.SGD(p, lr, momentum=0.8, weight_decay=0.1),
        ),
        (
            lambda p, lr: Lamb(
                [{"params": p, "adapt": False}], lr, betas=(0.8, 0.9), eps=1e-5, weight_decay=0.1
            ),
            lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.8, 0.9), eps=1e-5, weight_decay=0.1),
        ),
    ],
    ids=["lars", "lamb"],
)
def test_a_block_that_is_not_adapted_takes_torchs_steps(ours, torchs):
    random = np.random.default_rng(5)
    weights = [random.normal(size=shape) for shape in SHAPES]
    gradients = [[random.normal(size=w.shape) for _ in range(STEPS)] for w in weights]
    mine = trajectory(ours, weights, gradients, rates(0.05), torch.float64)
    theirs = trajectory(torchs, weights, gradients, rates(0.05), torch.float64)
    for step in range(STEPS):
        for block in range(len(SHAPES)):
            np.testing.assert_allclose(mine[step][block], theirs[step][block], rtol=1e-11)


@pytest.mark.parametrize("kind", [Lars, Lamb, Lans])
def test_a_block_without_a_gradient_waits_and_then_starts_from_its_own_beginning(kind):
    early, late = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = kind([early, late], 0.1)
    gradient = torch.linspace(-1, 1, 6).reshape(3, 2)
    early.grad = gradient.clone()
    optimizer.step()
    assert torch.equal(late, torch.ones(3, 2))
    first = early.detach().clone()
    early.grad, late.grad = None, gradient.clone()
    optimizer.step()
    assert torch.equal(late, first)


@pytest.mark.parametrize(("kind", "lr"), [(Lars, 50.0), (Lamb, 0.05), (Lans, 0.05)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_half_precision_parameters_do_not_overflow(kind, lr, dtype):
    """|w|**2 of this block is 1e8, and the largest float16 is 65504."""
    parameter = nn.Parameter(torch.full((100, 100), 100.0, dtype=dtype))
    parameter.grad = torch.full_like(parameter, 10.0)
    kind([parameter], lr).step()
    assert (parameter == 95.0).all()  # a step of a twentieth of the norm


@pytest.mark.parametrize("kind", [Lars, Lamb, Lans])
def test_a_diverged_gradient_shows_in_the_weights(kind):
    parameter = nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.full((3, 2), float("nan"))
    kind([parameter], 0.01).step()
    assert torch.isnan(parameter).all()


@pytest.mark.parametrize("kind", [Lars, Lamb, Lans])
def test_complex_parameters_are_pairs_of_real_ones(kind):
    generator = torch.Generator().manual_seed(0)
    pairs = nn.Parameter(torch.randn(3, 4, 2, dtype=torch.float64, generator=generator))
    numbers = nn.Parameter(torch.view_as_complex(pairs.detach().clone()))
    optimizers = [kind([parameter], 0.1, weight_decay=0.01) for parameter in (pairs, numbers)]
    for _ in range(5):
        pairs.grad = torch.randn(3, 4, 2, dtype=torch.float64, generator=generator)
        numbers.grad = torch.view_as_complex(pairs.grad.clone())
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(torch.view_as_real(numbers), pairs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_resumes_from_its_state(name):
    def run(model, optimizer, steps, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 4, generator=generator)).square().mean().backward()
            optimizer.step()

    hp = {"optimizer": name, "learning_rate": 0.01, "weight_decay": 0.1}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    optimizer = make_optimizer(model, hp)
    run(model, optimizer, 3, seed=1)
    resumed = copy.deepcopy(model)
    other = make_optimizer(resumed, hp)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(model, optimizer, 3, seed=2)
    run(resumed, other, 3, seed=2)
    for parameter, again in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(parameter, again)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_makes_an_optimizer_that_learns(name):
    lr = {"sgd": 0.1, "adamw": 0.05, "lars": 0.1, "lamb": 0.05, "lans": 0.05}[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    inputs = torch.randn(64, 6)
    targets = inputs.sum(1, keepdim=True).sin()
    optimizer = make_optimizer(model, {"optimizer": name, "lr": lr, "trust_coefficient": 0.1})
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_biases_and_normalisations_neither_decay_nor_adapt():
    class ScaledRMSNorm(nn.Module):  # a library's own, with two-dimensional weights
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 3))

    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 8, 3),
            "batch": nn.BatchNorm2d(8),
            "layer": nn.LayerNorm((4, 4)),
            "group": nn.GroupNorm(2, 8),
            "theirs": ScaledRMSNorm(),
            "embedding": nn.Embedding(10, 4),
            "linear": nn.Linear(4, 10),
        }
    )
    model["linear"].weight = model["embedding"].weight  # tied
    model["conv"].bias.requires_grad_(requires_grad=False)
    decaying, exempt = parameter_groups(model, 0.1)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [names[p] for p in decaying["params"]] == ["conv.weight", "embedding.weight"]
    assert {names[p] for p in exempt["params"]} == {
        f"{module}.{name}" for module in ("batch", "layer", "group") for name in ("weight", "bias")
    } | {"theirs.weight", "linear.bias"}
    assert (decaying["weight_decay"], decaying["adapt"]) == (0.1, True)
    assert (exempt["weight_decay"], exempt["adapt"]) == (0.0, False)


def test_an_optimizer_made_by_name_has_the_hyperparameters_it_was_given():
    model = nn.Linear(2, 2)
    hp = {
        "optimizer": "lamb",
        "learning_rate": 0.3,
        "weight_decay": 0.2,
        "beta1": 0.7,
        "beta2": 0.8,
        "epsilon": 0.1,
    }
    decaying, exempt = make_optimizer(model, hp).param_groups
    assert (decaying["lr"], decaying["betas"], decaying["eps"]) == (0.3, (0.7, 0.8), 0.1)
    assert (decaying["weight_decay"], exempt["weight_decay"], exempt["adapt"]) == (0.2, 0.0, False)
    lars = make_optimizer(model, {"optimizer": "lars", "lr": 1.0, "momentum": 0.5, "trust_coefficient": 0.02})
    assert (lars.param_groups[0]["momentum"], lars.param_groups[0]["trust_coefficient"]) == (0.5, 0.02)
    assert make_optimizer(model, {"lr": 1.0, "momentum": 0.5}).param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"optimizer": "adagrad", "lr": 0.1}, "one of sgd, adamw, lars, lamb, lans"),
        ({"optimizer": "sgd"}, "no learning rate"),
        ({"optimizer": "lars", "lr": -1.0}, "lr is -1.0"),
        ({"optimizer": "lars", "lr": float("nan")}, "lr is nan"),
        ({"optimizer": "lars", "lr": float("inf")}, "lr is inf"),
        ({"optimizer": "sgd", "lr": 1.0, "weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"optimizer": "lamb", "lr": 1.0, "weight_decay": float("inf")}, "weight_decay is inf"),
        ({"optimizer": "lars", "lr": 1.0, "momentum": 1.0}, "momentum is 1.0"),
        ({"optimizer": "lans", "lr": 1.0, "beta2": 1.5}, "beta2 is 1.5"),
    ],
)
def test_a_wrong_hyperparameter_is_named(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(nn.Linear(2, 2), hyperparameters)


def test_a_sparse_gradient_is_refused():
    embedding = nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense gradients"):
        Lars(embedding.parameters(), 0.1).step()


def test_a_closure_is_evaluated_with_gradients_on():
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = Lars([parameter], 1.0)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 4.0
    assert (parameter < 1).all()
