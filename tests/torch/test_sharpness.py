"""Sharpness against whole Hessians, laws, and the stability limits against torch's optimizers."""

import copy
import math

import pytest
import torch
from curvlinops import HessianLinearOperator
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from stepsize import FieldError, optim
from stepsize.torch.limits import preconditioned_sharpness, preconditioner_of, stability_limit
from stepsize.torch.sharpness import sharpness

DOUBLE = torch.float64


class Attention(nn.Module):
    """One head, by torch's own fused function."""

    def __init__(self):
        super().__init__()
        self.three, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        parts = self.three(x.unflatten(1, (1, 2, 4))).chunk(3, dim=3)
        return self.out(nn.functional.scaled_dot_product_attention(*parts).mean((1, 2)))


NETWORKS = {
    "attention": Attention,
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)
    ),
    "relu": lambda: nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)),
    "tanh": lambda: nn.Sequential(
        nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
    ),
}


def squares(outputs, y):
    return mse_loss(outputs, one_hot(y, 3).to(outputs.dtype))


LOSSES = {"cross entropy": cross_entropy, "squares": squares}


def data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 8, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (24,), generator=generator)


def network(name, dtype=torch.float32):
    torch.manual_seed(0)
    return NETWORKS[name]().to(dtype)


def whole_hessian(model, criterion, x, y):
    """Give it by torch.func.hessian over one flat vector."""
    names = dict(model.named_parameters())
    sizes = [p.numel() for p in names.values()]

    def at(vector):
        parts = zip(vector.split(sizes), names.items(), strict=True)
        given = {name: part.view_as(p) for part, (name, p) in parts}
        return criterion(torch.func.functional_call(model, given, (x,)), y)

    flat = torch.cat([p.detach().reshape(-1) for p in names.values()])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return torch.func.hessian(at)(flat)


def trained(model, criterion, x, y, steps=200):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    return model


def quadratic(matrix):
    w = torch.ones(len(matrix), dtype=matrix.dtype, requires_grad=True)
    return w, 0.5 * w @ matrix @ w


def symmetric(values, seed=0):
    """Give a matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    turn, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=DOUBLE))
    return turn @ torch.diag(torch.tensor(values, dtype=DOUBLE)) @ turn.T


@pytest.fixture
def backward_passes(monkeypatch):
    """Count every backward pass that anybody makes."""
    made = []
    real = torch.autograd.grad

    def counted(*args, **kwargs):
        made.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return made


# Against the whole Hessian -----------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 200], ids=["at first", "trained"])
@pytest.mark.parametrize("criterion", sorted(LOSSES))
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_it_is_within_one_per_cent_of_the_largest_eigenvalue(name, criterion, after):
    x, y = data()
    model, loss = network(name), LOSSES[criterion]
    trained(model, loss, x, y, after)
    values = torch.linalg.eigvalsh(whole_hessian(model, loss, x, y).double())
    found = sharpness(lambda: loss(model(x), y), list(model.parameters()))
    assert found.value == pytest.approx(values[-1].item(), rel=0.01)
    assert abs(values - found.value).min() <= found.bound + 1e-5 * values[-1]
    assert found.least >= values[0] - 1e-5 * values[-1]
    assert found.products <= 28


def test_a_tensor_and_a_function_give_the_same():
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    params = list(model.parameters())
    kept = sharpness(cross_entropy(model(x), y), params)
    afresh = sharpness(lambda: cross_entropy(model(x), y), params)
    assert afresh.value == pytest.approx(kept.value, rel=1e-12)
    assert (kept.passes, afresh.passes) == (kept.products + 1, 2 * afresh.products)


def test_several_batches_are_averaged_by_their_weights():
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    params = list(model.parameters())

    def part(chosen):
        return lambda: cross_entropy(model(x[chosen]), y[chosen])

    parts = [part(slice(0, 16)), part(slice(16, 24))]
    whole = sharpness(cross_entropy(model(x), y), params)
    assert sharpness(parts, params, weights=[16, 8]).value == pytest.approx(whole.value, rel=1e-10)
    assert sharpness(parts, params).value != pytest.approx(whole.value, rel=1e-3)


def test_it_agrees_with_curvlinops():
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    params = list(model.parameters())
    operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), params, [(x, y)])
    (theirs,) = eigsh(operator.to_scipy(), k=1, which="LA", return_eigenvectors=False)
    ours = sharpness(cross_entropy(model(x), y), list(model.parameters()), tolerance=1e-6, most=80)
    assert ours.value == pytest.approx(theirs, rel=1e-6)


def test_the_vector_is_an_eigenvector():
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    model[0].bias.requires_grad_(False)
    params = list(model.parameters())
    loss = cross_entropy(model(x), y)
    found = sharpness(loss, params, tolerance=1e-8, most=60, vector=True)
    assert [v.shape for v in found.vector] == [p.shape for p in params]
    assert not found.vector[1].any()
    free = [p for p in params if p.requires_grad]
    along = [v for v, p in zip(found.vector, params, strict=True) if p.requires_grad]
    slopes = torch.autograd.grad(loss, free, create_graph=True)
    product = torch.autograd.grad(slopes, free, along)
    for h, v in zip(product, along, strict=True):
        torch.testing.assert_close(h, found.value * v, rtol=1e-5, atol=1e-6)
    assert sum(v.square().sum().item() for v in found.vector) == pytest.approx(1)


# A million weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("seed", range(3))
def test_a_million_weights_take_less_than_thirty_backward_passes(activation, seed, backward_passes):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 960), activation(), nn.Linear(960, 960), activation(), nn.Linear(960, 10)
    )
    params = list(model.parameters())
    assert sum(p.numel() for p in params) > 990_000
    loss = cross_entropy(model(torch.randn(64, 64)), torch.randint(0, 10, (64,)))
    found = sharpness(loss, params, seed=seed)
    assert len(backward_passes) == found.passes < 30
    long = sharpness(loss, params, tolerance=1e-6, most=90, seed=100 + seed)
    assert found.value == pytest.approx(long.value, rel=0.01)


def test_passes_are_counted_as_they_are_made(backward_passes):
    x, y = data()
    model = network("relu")
    found = sharpness(cross_entropy(model(x), y), list(model.parameters()))
    assert found.passes == len(backward_passes)
    made = len(backward_passes)
    several = [lambda: cross_entropy(model(x), y)] * 3
    found = sharpness(several, list(model.parameters()))
    assert found.passes == len(backward_passes) - made == 6 * found.products


# Laws -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [(5.0, 1.0, 0.5), (1.0, 0.0, -9.0), (-1.0, -2.0, -3.0), (2.0,), (3.0, 3.0, 3.0), (0.0, -1.0)],
)
def test_quadratics_are_exact(values):
    w, loss = quadratic(symmetric(values))
    found = sharpness(loss, [w], tolerance=1e-10)
    assert found.value == pytest.approx(max(values), abs=1e-9)
    assert found.bound < 1e-6
    assert found.products <= len(values)
    if len(set(values)) > 1:
        assert found.least == pytest.approx(min(values), abs=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 0.5, 1e6])
def test_a_scaled_loss_has_a_scaled_sharpness(factor):
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    params = list(model.parameters())
    one = sharpness(cross_entropy(model(x), y), params)
    scaled = sharpness(factor * cross_entropy(model(x), y), params)
    assert scaled.value == pytest.approx(factor * one.value, rel=1e-9)
    assert scaled.products == one.products


def test_turning_the_space_changes_nothing():
    values = tuple(1.0 / (1 + i) for i in range(30))
    found = []
    for seed in range(4):
        w, loss = quadratic(symmetric(values, seed))
        found.append(sharpness(loss, [w]).value)
    assert found == pytest.approx([1.0] * 4, rel=0.01)


def test_the_estimate_is_from_below_and_its_bound_holds():
    matrix = symmetric(tuple(1.0 - 0.01 * i for i in range(60)))
    w, loss = quadratic(matrix)
    values = torch.linalg.eigvalsh(matrix)
    for most in (1, 2, 5, 12):
        found = sharpness(loss, [w], most=most, tolerance=1e-9)
        assert found.products == most
        assert found.value <= 1 + 1e-12
        assert abs(values - found.value).min() <= found.bound + 1e-12


def test_it_stops_as_soon_as_the_tolerance_is_kept():
    w, loss = quadratic(symmetric((100.0, *(0.01 * i for i in range(40)))))
    rough, fine = sharpness(loss, [w], tolerance=0.1), sharpness(loss, [w], tolerance=1e-6)
    assert rough.products < fine.products < 10
    assert rough.bound <= 0.1 * rough.value
    assert fine.bound <= 1e-6 * fine.value


def test_what_is_linear_has_no_curvature():
    w, v = (torch.ones(2, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    assert sharpness(w.sum() + (v**2).sum(), [w, v]).value == pytest.approx(2)
    nothing = sharpness(w.sum(), [w, v])
    assert (nothing.value, nothing.bound, nothing.passes) == (0, 0, 1)


def test_a_dtype_that_is_narrow_is_measured_in_float32():
    x, y = data()
    model = network("relu")
    exact = sharpness(cross_entropy(model(x), y), list(model.parameters())).value
    narrow = copy.deepcopy(model).bfloat16()
    loss = cross_entropy(narrow(x.bfloat16()), y)
    found = sharpness(loss, list(narrow.parameters()), tolerance=0.05, vector=True)
    assert found.value == pytest.approx(exact, rel=0.05)
    assert found.vector[0].dtype == torch.float32


def test_nothing_is_written_and_no_random_number_is_taken():
    x, y = data()
    model = network("relu")
    loss = cross_entropy(model(x), y)
    state = torch.get_rng_state()
    before = [p.detach().clone() for p in model.parameters()]
    one = sharpness(loss, list(model.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert sharpness(loss, list(model.parameters())) == one
    loss.backward()


# What is refused --------------------------------------------------------------------------------


def test_a_loss_that_cannot_be_differentiated_is_refused():
    w, loss = quadratic(symmetric((1.0, 2.0)))
    for wrong in (loss.detach(), w * 2, lambda: 3.0, lambda: loss.detach()):
        with pytest.raises(FieldError, match="loss must be one number with a graph"):
            sharpness(wrong, [w])
    for wrong in ([], 3.0, [loss, "x"]):
        with pytest.raises(FieldError, match="loss must be a tensor, a function"):
            sharpness(wrong, [w])
    with pytest.raises(FieldError, match="one tensor, or several functions"):
        sharpness([loss, loss], [w])


def test_parameters_that_the_loss_knows_nothing_of_are_refused():
    w, loss = quadratic(symmetric((1.0, 2.0)))
    other = torch.ones(2, requires_grad=True)
    with pytest.raises(FieldError, match="params must be some that the loss depends on"):
        sharpness(loss, [other])
    assert sharpness(loss, [w, other]).value == pytest.approx(2)
    with pytest.raises(FieldError, match="one at least needs a gradient"):
        sharpness(loss, [torch.ones(2)])
    with pytest.raises(FieldError, match="one is there twice"):
        sharpness(loss, [w, w])
    turning = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    with pytest.raises(FieldError, match="params must be real numbers"):
        sharpness(turning.abs().sum(), [turning])


def test_a_parameter_that_is_spread_over_ranks_is_refused():
    class Spread(torch.Tensor):
        device_mesh = "a mesh"

    w = torch.ones(2).as_subclass(Spread).requires_grad_()
    with pytest.raises(FieldError, match="params must be whole tensors, got 'a DTensor'"):
        sharpness(lambda: (w**2).sum(), [w])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value):
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(FieldError, match="loss must be one whose curvature is finite"):
        sharpness(value * (w**2).sum(), [w])


def test_dropout_is_refused():
    torch.manual_seed(0)
    x, y = data()
    model = nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), nn.Tanh(), nn.Linear(32, 3))
    with pytest.raises(FieldError, match="loss must be the same each time"):
        sharpness(lambda: cross_entropy(model(x), y), list(model.parameters()))
    model.eval()
    assert sharpness(lambda: cross_entropy(model(x), y), list(model.parameters())).value > 0


def test_attention_without_a_second_derivative_names_the_cure():
    x, y = data()
    model = network("attention")
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        loss = cross_entropy(model(x), y)
    with pytest.raises(FieldError, match="or give a function that evaluates it"):
        sharpness(loss, list(model.parameters()))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tolerance": 0}, "tolerance must be"),
        ({"most": 0}, "most must be"),
        ({"weights": [1, 2]}, "weights must be 1 numbers"),
        ({"weights": [-1]}, "weights must be 1 numbers"),
        ({"preconditioner": [1, 1]}, "preconditioner must be a number or tensor for each of the 1"),
        ({"preconditioner": [-1]}, "preconditioner must be finite and not negative"),
        ({"preconditioner": [torch.ones(3)]}, r"of the parameter's shape \(2,\)"),
        ({"preconditioner": [0]}, "preconditioner must not be 0 everywhere"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_settings_that_make_no_sense_are_refused(settings, told):
    w, loss = quadratic(symmetric((1.0, 2.0)))
    with pytest.raises(FieldError, match=told):
        sharpness(loss, [w], **settings)


# Preconditioned ---------------------------------------------------------------------------------

MAKERS = {
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01, betas=(0.9, 0.99)),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "ours, AdaDelta": lambda p: optim.AdaDelta(p),
    "ours, DeltaBarDelta": lambda p: optim.DeltaBarDelta(p, lr=0.01),
}


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_preconditioned_sharpness_is_that_of_the_exact_matrix(name):
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    params = list(model.parameters())
    optimizer = MAKERS[name](params)
    for _ in range(12):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    told = [torch.as_tensor(s).expand_as(p).reshape(-1)
            for s, p in zip(preconditioner_of(optimizer), params, strict=True)]  # fmt: skip
    scales = torch.cat(told).to(DOUBLE)
    matrix = scales[:, None] * whole_hessian(model, cross_entropy, x, y)
    exact = torch.linalg.eigvals(matrix).real.max().item()
    found = preconditioned_sharpness(cross_entropy(model(x), y), optimizer)
    assert found.value == pytest.approx(exact, rel=0.01)


def test_adams_preconditioner_is_what_divides_its_average():
    x, y = data(DOUBLE)
    model = network("tanh", DOUBLE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    for p, scale in zip(model.parameters(), preconditioner_of(optimizer), strict=True):
        state = optimizer.state[p]
        root = (state["exp_avg_sq"] / (1 - 0.999**3)).sqrt()
        torch.testing.assert_close(scale, 1 / (root + 1e-8))


def test_groups_count_in_proportion_to_the_first():
    w, v = (torch.ones(1, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [w], "lr": 0.1}, {"params": [v], "lr": 0.4}])
    loss = (w**2 + v**2).sum()
    assert preconditioned_sharpness(loss, optimizer).value == pytest.approx(8)
    assert stability_limit(8.0, optimizer) == 0.25  # of the first: the second has four times that
    for group in optimizer.param_groups:
        group.update(initial_lr=group["lr"], lr=0.0)
    assert preconditioned_sharpness((w**2 + v**2).sum(), optimizer).value == pytest.approx(8)
    for group in optimizer.param_groups:
        del group["initial_lr"]
    optimizer.param_groups[1]["initial_lr"] = 0.4
    with pytest.raises(FieldError, match="the first group must be above 0"):
        preconditioned_sharpness((w**2 + v**2).sum(), optimizer)


def test_an_element_that_never_moved_is_a_constant():
    w = torch.ones(2, dtype=DOUBLE, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1, eps=0.0)
    (3 * w[0]).backward()
    optimizer.step()
    loss = w[0] ** 2 - 2 * w[0] * w[1] - 50 * w[1] ** 2
    assert preconditioned_sharpness(loss, optimizer).value == pytest.approx(2 / 3)
    assert preconditioned_sharpness(-loss, optimizer).value == pytest.approx(-2 / 3)


@pytest.mark.parametrize("name", ["ASGD", "Muon", "Rprop"])
def test_steps_that_are_no_scaled_gradients_are_refused(name):
    w = torch.ones(2, 2, requires_grad=True)
    with pytest.raises(FieldError, match="a gradient that is scaled element by element"):
        preconditioned_sharpness((w**2).sum(), getattr(torch.optim, name)([w]))


def test_an_optimizer_that_is_not_known_or_took_no_step_is_refused():
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(FieldError, match="must be one of"):
        preconditioned_sharpness((w**2).sum(), torch.optim.LBFGS([w]))
    with pytest.raises(FieldError, match="optimizer must be one that has taken a step"):
        preconditioned_sharpness((w**2).sum(), torch.optim.Adam([w]))


# Limits -----------------------------------------------------------------------------------------

CURVATURE = 3.0
SGDS = [
    {"momentum": 0.0},
    {"momentum": 0.5},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.4},
    {"momentum": 0.5, "nesterov": True},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.99, "nesterov": True},
]


def distance_after(optimizer_of, factor, steps=6000):
    """Go down a parabola at a part of the limit; give how far from its bottom it then is."""
    w = torch.ones(1, dtype=DOUBLE, requires_grad=True)
    optimizer = optimizer_of(w)
    optimizer.param_groups[0]["lr"] = factor * stability_limit(CURVATURE, optimizer)
    for _ in range(steps):
        w.grad = CURVATURE * w.detach()
        optimizer.step()
        if abs(w.item()) > 1e6:
            break
    return abs(w.item())


@pytest.mark.parametrize("settings", SGDS, ids=str)
def test_sgd_is_stable_just_below_the_limit_and_not_just_above(settings):
    def optimizer_of(w):
        return torch.optim.SGD([w], lr=1.0, **settings)

    assert distance_after(optimizer_of, 0.99) < 1e-3
    assert distance_after(optimizer_of, 1.01) > 1e3
    limit = stability_limit(CURVATURE, **settings)
    assert limit == stability_limit(CURVATURE, optimizer_of(torch.ones(1, requires_grad=True)))


@pytest.mark.parametrize("beta", [0.5, 0.9])
@pytest.mark.parametrize("family", ["Adam", "AdamW", "NAdam"])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_adam_with_frozen_squares_is_stable_just_below_the_limit_alone(family, beta, factor):
    w = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    settings = {"betas": (beta, 0.5), "eps": 0.0, "weight_decay": 0.0}
    optimizer = getattr(torch.optim, family)([w], lr=1.0, **settings)
    w.grad = torch.zeros_like(w)
    optimizer.step()  # makes the state
    w.data.fill_(1e-9)
    for _ in range(5000):
        # gradients are tiny: 0.5 * 2 + 0.5 * g**2 is 1; at such a step all is corrected
        optimizer.state[w]["exp_avg_sq"].fill_(2.0)
        optimizer.state[w]["step"].fill_(1e6)
        optimizer.param_groups[0]["lr"] = factor * stability_limit(CURVATURE, optimizer)
        w.grad = CURVATURE * w.detach()
        optimizer.step()
        if not 1e-18 < abs(w.item()) < 1e-3:
            break
    assert (abs(w.item()) < 1e-9) == (factor < 1)


def test_the_limits_of_the_others():
    w = torch.ones(1, requires_grad=True)
    assert stability_limit(4.0, torch.optim.RMSprop([w])) == 0.5
    assert stability_limit(4.0, torch.optim.RMSprop([w], momentum=0.5)) == 0.75
    assert stability_limit(4.0, torch.optim.Adagrad([w])) == 0.5
    assert stability_limit(4.0, optim.AdaDelta([w])) == 0.5
    assert stability_limit(0.0) == stability_limit(-1.0) == math.inf
    two = [{"params": [w], "momentum": 0.9}, {"params": [torch.ones(1)], "momentum": 0.0}]
    assert stability_limit(4.0, torch.optim.SGD(two, lr=1.0)) == 0.5


def test_what_was_found_is_taken_as_it_is():
    w, loss = quadratic(symmetric((4.0, 1.0)))
    assert stability_limit(sharpness(loss, [w])) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    "settings", [{"momentum": 1.0}, {"momentum": -0.1}, {"dampening": 1.0}, {"momentum": True}]
)
def test_numbers_that_are_no_momentum_are_refused(settings):
    with pytest.raises(FieldError, match="stability_limit: "):
        stability_limit(1.0, **settings)
    with pytest.raises(FieldError, match="sharpness must be a number"):
        stability_limit(math.nan)


def test_a_model_or_its_generator_of_parameters_will_do():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), torch.randn(8, 3, dtype=torch.float64)

    def loss():
        return model(x).square().mean()

    found = sharpness(loss(), list(model.parameters()))
    assert sharpness(loss(), model) == sharpness(loss(), model.parameters()) == found


def test_momentum_is_told_once():
    w = torch.ones(1, requires_grad=True)
    with pytest.raises(FieldError, match="must be left out beside an optimizer"):
        stability_limit(1.0, torch.optim.Adam([w]), momentum=0.9)
    with pytest.raises(FieldError, match="scaled element by element, got 'Rprop'"):
        stability_limit(1.0, torch.optim.Rprop([w]))


def test_losses_of_samples_are_told_by_their_shape():
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(FieldError, match=r"one number with a graph, got \(3,\)"):
        sharpness(w**2, [w])
