"""The diagonal of the Hessian and what is used in its place, against torch.func and by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from stepsize import FieldError
from stepsize.optim.again import Repeatable
from stepsize.torch.curvature import (
    Beside,
    bbprop,
    finite_difference,
    gauss_newton_diagonal,
    hessian_diagonal,
    hutchinson,
)

DOUBLE = torch.float64
MATRIX = torch.tensor([[2.0, -1.0, 0.5], [-1.0, 3.0, 0.25], [0.5, 0.25, -1.0]], dtype=DOUBLE)


def close(one, other, rtol=1e-10):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-12)


def quadratic(matrix=MATRIX):
    w = torch.ones(len(matrix), dtype=DOUBLE, requires_grad=True)
    return w, 0.5 * w @ matrix @ w


def network(*layers, seed=0):
    torch.manual_seed(seed)
    layers = layers or (nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return nn.Sequential(*copy.deepcopy(layers)).to(DOUBLE)


def data(*shape, samples=6, outputs=3):
    torch.manual_seed(1)
    inputs = torch.randn(samples, *(shape or (4,)), dtype=DOUBLE)
    return inputs, torch.randint(0, outputs, (samples,))


def hessian_of(model, value):
    """Give the diagonal by torch.func.hessian over one flat vector."""
    names = dict(model.named_parameters())
    sizes = [p.numel() for p in names.values()]

    def at(vector):
        parts = vector.split(sizes)
        given = {n: part.view_as(p) for part, (n, p) in zip(parts, names.items(), strict=True)}
        return value(lambda x: torch.func.functional_call(model, given, (x,)))

    flat = torch.cat([p.detach().reshape(-1) for p in names.values()])
    found = torch.func.hessian(at)(flat).diagonal().split(sizes)
    return [part.view_as(p) for part, p in zip(found, names.values(), strict=True)]


# The exact diagonal -----------------------------------------------------------------------------


def test_the_exact_diagonal_is_that_of_the_whole_hessian():
    model, (x, y) = network(), data()
    found = hessian_diagonal(cross_entropy(model(x), y), list(model.parameters()))
    close(found, hessian_of(model, lambda f: cross_entropy(f(x), y)))
    assert min(h.min() for h in found) < 0  # as a network's may be


def test_where_the_loss_is_linear_there_is_no_curvature():
    w, v = (torch.ones(2, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    assert hessian_diagonal(w.sum() + (v**2).sum(), [w, v])[0].tolist() == [0, 0]
    assert hutchinson(w.sum() + (v**2).sum(), [w, v])[0].tolist() == [0, 0]
    assert hutchinson(w.sum(), [w])[0].tolist() == [0, 0]


def test_too_many_elements_are_refused_unless_told():
    w = torch.ones(12, dtype=DOUBLE, requires_grad=True)
    with pytest.raises(FieldError, match="params must be 10 elements at most, got 12"):
        hessian_diagonal((w**2).sum(), [w], most=10)
    assert hessian_diagonal((w**2).sum(), [w], most=12)[0].tolist() == [2.0] * 12


@pytest.mark.parametrize("estimate", [hessian_diagonal, hutchinson])
def test_backward_still_works_afterwards(estimate):
    w, loss = quadratic()
    estimate(loss, [w])
    loss.backward()
    close([w.grad], [MATRIX.sum(1)])


@pytest.mark.parametrize("estimate", [hessian_diagonal, hutchinson])
def test_a_loss_without_a_graph_is_refused(estimate):
    w, loss = quadratic()
    for wrong in (loss.detach(), w * 2):
        with pytest.raises(FieldError, match="loss must be one number with a graph"):
            estimate(wrong, [w])


# Hutchinson -------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_with_the_variance_it_says(distribution):
    w, loss = quadratic()
    draws = 4000
    generator = torch.Generator().manual_seed(0)
    seen = torch.stack(
        [
            hutchinson(loss, [w], distribution=distribution, generator=generator)[0]
            for _ in range(draws)
        ]
    )
    diagonal = MATRIX.diagonal()
    variance = MATRIX.square().sum(1) - diagonal.square()
    if distribution == "gaussian":
        variance = variance + 2 * diagonal.square()
    errors = (seen.mean(0) - diagonal) / (variance / draws).sqrt()
    assert errors.abs().max() < 4
    torch.testing.assert_close(seen.var(0), variance, rtol=0.15, atol=0)


def test_more_samples_are_the_mean_of_as_many():
    w, loss = quadratic()
    both = [torch.Generator().manual_seed(5) for _ in range(2)]
    singles = [hutchinson(loss, [w], generator=both[0])[0] for _ in range(8)]
    close(hutchinson(loss, [w], samples=8, generator=both[1]), [sum(singles) / 8])


def test_the_mean_square_of_one_product_is_the_norm_of_a_row_not_the_diagonal():
    w, loss = quadratic()
    generator = torch.Generator().manual_seed(0)
    seen = [hutchinson(loss, [w], generator=generator)[0] for _ in range(2000)]
    mean = torch.stack(seen).square().mean(0).sqrt()
    torch.testing.assert_close(mean, MATRIX.norm(dim=1), rtol=0.05, atol=0)
    assert (mean / MATRIX.diagonal().abs()).max() > 1.1


def test_torchs_own_random_numbers_serve_without_a_generator():
    w, loss = quadratic()
    torch.manual_seed(3)
    one = hutchinson(loss, [w])
    other = hutchinson(loss, [w])
    torch.manual_seed(3)
    close(one, hutchinson(loss, [w]), rtol=0)
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"distribution": "uniform"}, "distribution must be 'rademacher' or 'gaussian'"),
        ({"samples": 0}, "samples must be a whole number >= 1"),
    ],
)
def test_wrong_settings_of_hutchinson(fields, words):
    w, loss = quadratic()
    with pytest.raises(FieldError, match=words):
        hutchinson(loss, [w], **fields)


# Gauss-Newton -----------------------------------------------------------------------------------


def by_jacobians(model, x, curvature):
    """Give the diagonal of J^T H J, mean over samples, from whole Jacobians."""
    found = [torch.zeros_like(p) for p in model.parameters()]
    for sample in x:
        outputs = model(sample[None])[0]
        jacobians = [
            torch.stack([torch.autograd.grad(o, p, retain_graph=True)[0] for o in outputs])
            for p in model.parameters()
        ]
        for total, j in zip(found, jacobians, strict=True):
            total.add_(torch.einsum("k...,kl,l...->...", j, curvature(outputs), j) / len(x))
    return found


LOSSES = {
    "cross_entropy": lambda o: o.softmax(0).diag() - o.softmax(0).outer(o.softmax(0)),
    "mse": lambda o: 2 / len(o) * torch.eye(len(o), dtype=DOUBLE),
    "half_squares": lambda o: torch.eye(len(o), dtype=DOUBLE),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gauss_newton_diagonal_is_that_of_whole_jacobians(loss):
    model, (x, _) = network(), data()
    found = gauss_newton_diagonal(model(x), list(model.parameters()), loss=loss)
    close(found, by_jacobians(model, x, LOSSES[loss]))


@pytest.mark.parametrize("loss", LOSSES)
def test_of_a_linear_model_all_three_are_the_hessian(loss):
    model, (x, y) = network(nn.Linear(4, 3)), data()
    params = list(model.parameters())
    targets = y if loss == "cross_entropy" else torch.randn(6, 3, dtype=DOUBLE)
    values = {
        "cross_entropy": lambda o: cross_entropy(o, targets),
        "mse": lambda o: mse_loss(o, targets),
        "half_squares": lambda o: 0.5 * (o - targets).square().sum() / 6,
    }
    exact = hessian_diagonal(values[loss](model(x)), params)
    close(gauss_newton_diagonal(model(x), params, loss=loss), exact)
    close(bbprop(model, params, x, loss=loss), exact)
    close(bbprop(model, params, x, targets, loss=loss, bends=True), exact)


def test_what_gauss_newton_refuses():
    model, (x, _) = network(), data()
    params = list(model.parameters())
    with pytest.raises(FieldError, match="loss must be one of 'cross_entropy', 'mse'"):
        gauss_newton_diagonal(model(x), params, loss="hinge")
    with pytest.raises(FieldError, match="outputs must be of shape"):
        gauss_newton_diagonal(model(x)[0], params)
    with pytest.raises(FieldError, match="outputs must have a graph"):
        gauss_newton_diagonal(model(x).detach(), params)
    with pytest.raises(FieldError, match="outputs must be 5 elements at most, got 18"):
        gauss_newton_diagonal(model(x), params, most=5)


# bbprop -----------------------------------------------------------------------------------------


def test_bbprop_is_exact_for_the_last_layer_and_near_for_those_below():
    model, (x, y) = network(), data()
    params = list(model.parameters())
    found = bbprop(model, params, x)
    newton = gauss_newton_diagonal(model(x), params)
    close(found[2:], newton[2:])
    close(found[2:], hessian_diagonal(cross_entropy(model(x), y), params)[2:])
    ratios = found[0] / newton[0]
    assert 0.3 < ratios.min() < 0.95
    assert 1.05 < ratios.max() < 5
    assert min(h.min() for h in found) >= 0


def transcribed(model, x, y, *, bends):
    """Apply the rules of the docstring to Linear, Tanh, Linear, sample after sample."""
    first, _, last = model
    found = [torch.zeros_like(p) for p in model.parameters()]
    for sample, target in zip(x, y, strict=True):
        a = first(sample)
        hidden = a.tanh()
        shares = last(hidden).softmax(0)
        d2y = shares * (1 - shares)
        slopes = shares - nn.functional.one_hot(target, len(shares))
        d2x = last.weight.square().T @ d2y
        d2a = (1 - hidden**2) ** 2 * d2x
        if bends:
            d2a = d2a - 2 * hidden * (1 - hidden**2) * (last.weight.T @ slopes)
        parts = d2a.outer(sample**2), d2a, d2y.outer(hidden**2), d2y
        for total, part in zip(found, parts, strict=True):
            total.add_(part.detach() / len(x))
    return found


@pytest.mark.parametrize("bends", [False, True])
def test_bbprop_is_its_rules(bends):
    model, (x, y) = network(), data()
    params = list(model.parameters())
    close(bbprop(model, params, x, y, bends=bends), transcribed(model, x, y, bends=bends))


def test_with_one_unit_a_layer_bends_gives_the_hessian_itself():
    """Nothing is left out there: no two units to have to do with each other."""
    model = network(nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1), nn.Sigmoid(), nn.Linear(1, 1))
    x, y = data(1)[0], torch.randn(6, 1, dtype=DOUBLE)
    params = list(model.parameters())
    exact = hessian_diagonal(mse_loss(model(x), y), params)
    close(bbprop(model, params, x, y, loss="mse", bends=True), exact)
    newton = gauss_newton_diagonal(model(x), params, loss="mse")
    close(bbprop(model, params, x, loss="mse"), newton)
    assert not torch.allclose(exact[0], newton[0], rtol=0.01)


@pytest.mark.parametrize(
    ("shape", "layer", "outputs"),
    [
        ((1, 4, 4), nn.Conv2d(1, 2, 2, stride=2), 8),
        ((2, 4), nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), 8),
        ((2, 4, 4), nn.AvgPool2d(2), 8),
        ((2, 5), nn.AvgPool1d(3, stride=1, padding=1), 10),
        ((2, 4), nn.AdaptiveAvgPool1d(2), 4),
    ],
)
def test_what_a_linear_layer_sends_down_is_that_of_its_matrix(shape, layer, outputs):
    size = torch.Size(shape).numel()
    body = nn.Unflatten(1, shape), layer, nn.Flatten()
    model = network(nn.Linear(3, size), *body, nn.Linear(outputs, 3))
    middle = nn.Sequential(*list(model)[1:-1])
    origin = torch.zeros(1, size, dtype=DOUBLE)
    matrix = torch.func.jacrev(middle)(origin)[0, :, 0]
    plain = nn.Sequential(model[0], nn.Linear(size, outputs), model[-1]).to(DOUBLE)
    with torch.no_grad():
        plain[1].weight.copy_(matrix)
        plain[1].bias.copy_(middle(origin)[0])
    x, params = data(3)[0], list(model[0].parameters())
    close(bbprop(model, params, x), bbprop(plain, params, x))


def test_the_weights_of_a_convolution():
    """With one position it is a linear layer."""
    torch.manual_seed(0)
    one = network(nn.Conv2d(2, 3, 2), nn.Flatten())
    linear = network(nn.Flatten(), nn.Linear(8, 3))
    linear[1].load_state_dict(
        {k: v.reshape(3, -1).squeeze(1) for k, v in one[0].state_dict().items()}
    )
    x = data(2, 2, 2)[0]
    found = bbprop(one, list(one.parameters()), x)
    other = bbprop(linear, list(linear.parameters()), x)
    close([h.reshape(-1) for h in found], [h.reshape(-1) for h in other])


def test_max_pooling_sends_it_to_where_the_greatest_was():
    model = network(nn.Linear(3, 4), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten())
    x = data(3)[0]
    found = bbprop(model, [model[0].bias], x, loss="half_squares")[0]
    values = model[0](x).view(6, 2, 2)
    right = (values == values.amax(2, keepdim=True)).view(6, 4).to(DOUBLE).mean(0)
    close([found], [right])


def test_dropout_has_the_mask_of_the_pass_itself():
    model, (x, _) = network(nn.Linear(4, 40), nn.Dropout(0.5), nn.Linear(40, 3)), data(samples=1)
    with Beside(model) as seen:
        outputs = model(x)
    outputs.sum().backward()
    (h,) = seen.diagonals([model[0].bias])
    assert torch.equal(h == 0, model[0].bias.grad == 0)
    assert 5 < (h == 0).sum() < 35
    model.eval()
    assert (bbprop(model, [model[0].bias], x)[0] > 0).all()


def test_an_activation_of_ones_own():
    class Sine(nn.Module):
        def forward(self, x):
            return x.sin()

    model, (x, y) = network(nn.Linear(1, 1), Sine(), nn.Linear(1, 1)), data(1)
    params, y = list(model.parameters()), y[:, None].to(DOUBLE)
    with pytest.raises(FieldError, match=r"knows no rule for Sine\(\); use hutchinson, or"):
        bbprop(model, params, x, loss="mse")
    found = bbprop(model, params, x, y, loss="mse", bends=True, elementwise=(Sine,))
    close(found, hessian_diagonal(mse_loss(model(x), y), params))


def test_beside_needs_no_other_pass_and_leaves_no_hooks():
    model, (x, y) = network(), data()
    params = list(model.parameters())
    with Beside(model, "cross_entropy", bends=True) as seen:
        loss = cross_entropy(model(x), y)
    loss.backward()
    close(seen.diagonals(params), bbprop(model, params, x, y, bends=True))
    close(seen.diagonals(params[:1]), bbprop(model, params[:1], x, y, bends=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_it_adds_no_gradients():
    model, (x, y) = network(), data()
    bbprop(model, list(model.parameters()), x, y, bends=True)
    assert all(p.grad is None for p in model.parameters())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.other(x + self.one(x))


class Ending(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 3)

    def forward(self, x):
        return self.one(x).relu()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Residual(), "between Linear.* and Linear.* there is something that is no layer"),
        (Ending(), "after the last one the model does more"),
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), r"knows no rule for LayerNorm"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)),
            "layers must be out of place, got ReLU",
        ),
        (nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))), "outputs must be of shape"),
    ],
)
def test_what_is_no_chain_of_known_layers_is_refused(model, words):
    model = model.to(DOUBLE)
    with pytest.raises(FieldError, match=words):
        bbprop(model, list(model.parameters()), data()[0])


def test_average_windows_that_differ_are_refused():
    for pool in (nn.AvgPool1d(2, padding=1, count_include_pad=False), nn.AdaptiveAvgPool1d(3)):
        model = network(nn.Unflatten(1, (1, 4)), pool, nn.Flatten())
        with pytest.raises(FieldError, match="average pooling must be over windows of one size"):
            bbprop(model, [], data()[0])


def test_other_things_that_bbprop_refuses():
    model, (x, y) = network(), data()
    stranger = torch.ones(2, dtype=DOUBLE, requires_grad=True)
    with pytest.raises(FieldError, match=r"params \[1\] belong to no layer"):
        bbprop(model, [model[0].weight, stranger], x)
    with pytest.raises(FieldError, match="targets are needed with bends=True"):
        bbprop(model, list(model.parameters()), x, bends=True)
    with pytest.raises(FieldError, match="nothing was seen"):
        Beside(model).diagonals([model[0].weight])
    with Beside(model) as seen, torch.no_grad():
        model(x)
    with pytest.raises(FieldError, match="needs a forward pass with gradients enabled"):
        seen.diagonals([model[0].weight])
    with Beside(model, bends=True) as seen:
        cross_entropy(model(x), y)
    with pytest.raises(FieldError, match=r"call backward\(\) before asking"):
        seen.diagonals([model[0].weight])


# Finite differences -----------------------------------------------------------------------------


def closure_of(w, value):
    def closure():
        w.grad = None
        value(w).backward()

    return closure


def test_a_finite_difference_mixes_a_row():
    w, _ = quadratic()
    v = torch.tensor([0.1, -0.2, 0.3], dtype=DOUBLE)
    closure = closure_of(w, lambda w: 0.5 * w @ MATRIX @ w)
    close(finite_difference(closure, [w], [v]), [(MATRIX @ v / v).abs()], rtol=1e-8)


def test_where_the_direction_is_almost_0_the_quotient_is_held():
    w, _ = quadratic()
    v = torch.tensor([0.1, 1e-9, 0.1], dtype=DOUBLE)
    closure = closure_of(w, lambda w: 0.5 * w @ MATRIX @ w)
    free = finite_difference(closure, [w], [v], least=0.0)[0]
    held = finite_difference(closure, [w], [v])[0]
    assert free[1] > 1e6
    assert held[1] == pytest.approx(0.075 / (1e-2 * v.square().mean().sqrt().item()), rel=1e-6)
    assert finite_difference(closure, [w], [torch.zeros_like(v)])[0].tolist() == [0, 0, 0]


def test_parameters_and_gradients_are_left_as_they_were():
    w, _ = quadratic()
    w.grad = torch.full_like(w, 7.0)
    before = w.detach().clone()
    finite_difference(closure_of(w, lambda w: (w**4).sum()), [w], [torch.full_like(w, 0.1)])
    assert torch.equal(w, before)
    assert w.grad.tolist() == [7.0] * 3

    def breaks():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        finite_difference(lambda: None, [w], [torch.ones_like(w)], again=breaks)
    assert torch.equal(w, before)
    assert w.grad.tolist() == [7.0] * 3


def test_the_same_dropout_twice_and_other_masks_that_would_pass_for_curvature():
    model, (x, y) = network(nn.Linear(4, 20), nn.Dropout(0.5), nn.Linear(20, 3)), data()
    params = list(model.parameters())
    v = [1e-6 * torch.ones_like(p) for p in params]

    def closure():
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    repeat = Repeatable(closure, params)
    sound = finite_difference(repeat.first, params, v, again=repeat.again)
    wrong = finite_difference(closure, params, v)
    assert max(h.max() for h in sound) < 50
    assert max(h.max() for h in wrong) > 1000
