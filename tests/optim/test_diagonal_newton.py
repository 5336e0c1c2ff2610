"""Diagonal Newton against a transcription; what 1/h does in one dimension and does not in more."""

import copy

import numpy as np
import pytest
import torch
from tests.optim.cases import Problem, train
from torch import nn
from torch.nn.functional import cross_entropy

from stepsize import FieldError
from stepsize.optim import DiagonalNewton, told
from stepsize.optim.differenced import Signs
from stepsize.torch.curvature import hessian_diagonal, hutchinson

DOUBLE = torch.float64


def wide(*numbers):
    return torch.tensor(numbers, dtype=DOUBLE, requires_grad=True)


def observed(params, **fields):
    return DiagonalNewton(params, **{"curvature": "observed", "damping": 0.0, **fields})


def correlated(n, by=0.95):
    return torch.full((n, n), by, dtype=DOUBLE).fill_diagonal_(1.0)


# The rule ---------------------------------------------------------------------------------------


def transcribed(x, curvatures, steps, *, lr, beta, damping, decay, average, every):
    """The rule of the docstring in numpy, on sum(c x^4) / 4: gradient c x^3, curvature 3 c x^2."""
    held, seen = None, 0
    for t in range(steps):
        g, h = curvatures * x**3 + decay * x, 3 * curvatures * x**2
        if t % every == 0:
            value = {"absolute": np.abs(h), "signed": h, "squared": h**2}[average]
            share = max(1 - beta, 1 / (seen + 1))
            held = value if held is None else (1 - share) * held + share * value
            seen += 1
        size = np.sqrt(held) if average == "squared" else np.abs(held)
        rate = 1 / (size + decay + damping)
        x = x - lr * rate * g
        yield rate, x


@pytest.mark.parametrize("average", ["absolute", "signed", "squared"])
@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("every", [1, 3])
def test_it_is_the_transcription(average, foreach, every):
    curvatures = np.array([1.0, 10.0, -0.5])  # the last one bends downwards
    fields = {"lr": 0.4, "damping": 0.3, "beta": 0.6, "average": average, "every": every}
    x = wide(1.0, 1.5, -0.2)
    optimizer = observed([x], weight_decay=0.05, foreach=foreach, **fields)
    told = transcribed(x.detach().numpy().copy(), curvatures, 20, decay=0.05, **fields)
    for t, (rate, place) in enumerate(told):
        optimizer.zero_grad()
        loss = (0.25 * torch.tensor(curvatures) * x**4).sum()
        assert optimizer.due == (t % every == 0)
        if optimizer.due:
            optimizer.observe(hessian_diagonal(loss, [x]))
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(optimizer.sizes_of(x).numpy(), rate, rtol=1e-12)
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-12, atol=1e-15)


def test_in_one_dimension_one_step_goes_to_the_minimum():
    for curvature in (0.01, 1.0, 250.0):
        for way in ("observed", "hutchinson"):
            x = wide(3.0)
            optimizer = DiagonalNewton([x], curvature=way, damping=0.0)

            def closure(optimizer=optimizer, x=x, curvature=curvature):
                optimizer.zero_grad()
                loss = 0.5 * curvature * (x - 2) ** 2
                loss.backward()
                return loss

            if way == "observed":
                optimizer.observe([torch.tensor([curvature])])
            optimizer.step(closure)
            assert x.item() == pytest.approx(2.0, abs=1e-6)
            assert optimizer.sizes_of(x).item() == pytest.approx(1 / curvature, rel=1e-6)


def test_where_the_curvature_is_negative_it_still_descends():
    for average in ("absolute", "signed"):
        x = wide(0.5)
        optimizer = observed([x], average=average)
        optimizer.observe([torch.tensor([-4.0])])
        (-2 * x**2).sum().backward()
        optimizer.step()
        assert x.item() == 1.0  # away from the maximum at 0, which Newton's method would go to


def test_coupled_decay_adds_its_own_curvature_and_decoupled_does_not():
    for decoupled, rate in ((False, 1 / 3), (True, 1 / 2)):
        x = wide(1.0)
        optimizer = observed([x], weight_decay=1.0, decoupled_weight_decay=decoupled)
        optimizer.observe([torch.tensor([2.0])])
        (x - 4).square().sum().backward()  # curvature 2; with the penalty 3, minimum at 8/3
        optimizer.step()
        assert optimizer.sizes_of(x).item() == pytest.approx(rate)
        assert x.item() == pytest.approx(8 / 3 if not decoupled else 1 - rate * (-6 + 1))


def test_no_rate_is_above_max_step_whatever_was_seen():
    x = wide(1.0, 1.0, 1.0)
    optimizer = observed([x], max_step=20.0)
    optimizer.observe([torch.tensor([0.0, 1e-300, 0.5], dtype=DOUBLE)])
    x.grad = torch.zeros_like(x)
    optimizer.step()
    assert optimizer.sizes_of(x).tolist() == [20, 20, 2]
    assert x.isfinite().all()


# Where parameters are correlated ----------------------------------------------------------------


def descended(matrix, steps, **fields):
    """Go down 1/2 x' H x; tell how far from the minimum it ends, on its scale at the start."""
    torch.manual_seed(0)
    x = torch.randn(len(matrix), dtype=DOUBLE).requires_grad_()
    start = x.norm().item()
    optimizer = observed([x], **fields)
    for _ in range(steps):
        optimizer.zero_grad()
        optimizer.observe([matrix.diagonal()])
        (0.5 * x @ matrix @ x).backward()
        optimizer.step()
    return x.norm().item() / start


@pytest.mark.parametrize(("n", "top"), [(3, 2.9), (10, 9.55)])
def test_a_unit_step_diverges_where_parameters_are_correlated(n, top):
    matrix = correlated(n)
    assert torch.linalg.eigvalsh(matrix).max().item() == pytest.approx(top)
    assert descended(matrix, 40) > 1e6
    assert descended(matrix, 900, lr=1.9 / top) < 1e-3  # below 2 / top
    assert descended(matrix, 40, lr=2.1 / top) > 5
    assert descended(matrix, 900, damping=top / 2) < 1e-3  # (1 + damping) > top / 2
    assert descended(matrix, 400, damping=top / 2 - 1.2) > 1e3


def test_dividing_by_the_diagonal_sometimes_makes_it_worse():
    generator = np.random.default_rng(0)
    worse, most, count = 0, 1.0, 4000
    for _ in range(count):
        a = generator.standard_normal((3, 3))
        h = a @ a.T
        scale = 1 / np.sqrt(np.diag(h))
        ratio = np.linalg.cond(h * np.outer(scale, scale)) / np.linalg.cond(h)
        worse += ratio > 1 + 1e-9
        most = max(most, ratio)
    assert 0.03 < worse / count < 0.07
    assert 1.1 < most < 2


# Observing --------------------------------------------------------------------------------------


def test_the_first_observations_count_alike_and_then_the_old_are_forgotten():
    x = wide(0.0)
    optimizer = observed([x], beta=0.75, average="signed")
    seen = [3.0, 5.0, 1.0, 7.0, -2.0, 4.0]
    for n, h in enumerate(seen):
        optimizer.observe([torch.tensor([h])])
        held = optimizer.state[x]["curvature"].item()
        if n < 4:
            assert held == pytest.approx(np.mean(seen[: n + 1]))
    right = np.mean(seen[:4])
    for h in seen[4:]:
        right = 0.75 * right + 0.25 * h
    assert held == pytest.approx(right)


def test_one_step_behind_by_observing_after_the_step():
    x = wide(1.0)
    optimizer = observed([x], beta=0.0, initial_step=0.05, every=1)
    rates = []
    for h in (2.0, 4.0, 8.0):
        x.grad = torch.ones_like(x)
        optimizer.step()
        rates.append(optimizer.sizes_of(x).item())
        assert optimizer.due
        optimizer.observe([torch.tensor([h])])
    assert rates == pytest.approx([0.05, 1 / 2, 1 / 4])


def test_a_step_before_anything_was_observed_is_refused_without_an_initial_step():
    x = wide(1.0)
    x.grad = torch.ones_like(x)
    optimizer = observed([x])
    assert optimizer.sizes_of(x) is None
    with pytest.raises(FieldError, match=r"has observed nothing yet: call optimizer.observe"):
        optimizer.step()
    optimizer.observe([torch.tensor([2.0])])
    assert optimizer.sizes_of(x) is None
    optimizer.step()
    assert x.item() == 0.5


def test_a_parameter_about_which_nothing_is_known_waits():
    x, y = wide(1.0), wide(1.0)
    optimizer = observed([x, y])
    optimizer.observe([torch.tensor([2.0]), None])
    for p in (x, y):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert (x.item(), y.item()) == (0.5, 1.0)
    optimizer.observe([torch.tensor([2.0]), torch.tensor([4.0])])
    optimizer.step()
    assert (x.item(), y.item()) == (0.0, 0.75)


def test_what_is_observed_has_the_shapes_of_the_parameters():
    x, y = wide(1.0), wide(1.0, 2.0)
    optimizer = observed([x, y])
    with pytest.raises(FieldError, match="diagonals must be one tensor, or None, for each of 2"):
        optimizer.observe([torch.ones(1)])
    with pytest.raises(FieldError, match=r"diagonals\[1\] must be of shape \(2,\)"):
        optimizer.observe([torch.ones(1), torch.ones(3)])


def test_under_torch_distributed_the_mean_over_the_ranks_is_taken(monkeypatch):
    """As if another rank had seen 6 (tests/distributed has real ones)."""
    monkeypatch.setattr(told, "ranks", lambda: 2)
    monkeypatch.setattr(told.distributed, "all_reduce", lambda half: half.add_(6.0 / 2))
    for reduce, held in ((True, 4.0), (False, 2.0)):
        x, y = wide(1.0), wide(1.0)
        optimizer = observed([x, y])
        given = torch.tensor([2.0])
        optimizer.observe([given, None], reduce=reduce)
        assert optimizer.state[x]["curvature"].item() == held
        assert given.item() == 2.0
        assert not optimizer.state[y]


# Measuring --------------------------------------------------------------------------------------


def softmax():
    """Give a linear model in double, a closure, and its loss."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 4, dtype=DOUBLE), torch.randint(0, 3, (40,))
    model = nn.Linear(4, 3).to(DOUBLE)

    def loss():
        return cross_entropy(model(x), y)

    def closure():
        model.zero_grad()
        value = loss()
        value.backward()
        return value

    return model, closure, loss


class Counted(Problem):
    def __init__(self, *args, **fields):
        super().__init__(*args, **fields)
        self.model = nn.Sequential(self.model, nn.Dropout(0.1))
        self.calls = 0

    def loss(self, step):
        self.calls += 1
        return super().loss(step)


def trained(problem, steps=4, **fields):
    optimizer = DiagonalNewton(problem.model.parameters(), **{"lr": 0.2, "damping": 0.1, **fields})
    torch.manual_seed(0)
    train(optimizer, problem, range(steps), closure=True)
    return optimizer


def test_what_is_measured_is_hutchinsons_estimate():
    model, closure, loss = softmax()
    params = list(model.parameters())
    gradients = torch.autograd.grad(loss(), params, create_graph=True)
    signs = Signs(0)
    z = [signs.like(p) for p in params]
    products = torch.autograd.grad(gradients, params, z)
    optimizer = DiagonalNewton(params, difference=1e-6, average="signed")
    optimizer.step(closure)
    for p, each, product in zip(params, z, products, strict=True):
        held = optimizer.state[p]["curvature"]
        torch.testing.assert_close(held, each * product, rtol=1e-4, atol=1e-6)


def test_measured_often_enough_it_is_the_diagonal():
    model, closure, loss = softmax()
    params = list(model.parameters())
    exact = hessian_diagonal(loss(), params)
    held = {}
    for average in ("signed", "absolute"):
        optimizer = DiagonalNewton(params, lr=0.0, every=1, beta=0.999, average=average)
        for _ in range(150):
            optimizer.step(closure)
        held[average] = [optimizer.state[p]["curvature"] for p in params]
    for h, signed, absolute in zip(exact, *held.values(), strict=True):
        torch.testing.assert_close(signed, h, rtol=0, atol=0.07)
        assert (absolute > h).float().mean() > 0.8  # |h| has the noise in it


def test_a_measurement_is_one_more_evaluation_every_so_often():
    for every, calls in ((1, 12), (2, 9), (10, 7)):
        problem = Counted()
        trained(problem, 6, every=every)
        assert problem.calls == calls


@pytest.mark.parametrize("to_none", [True, False])
def test_a_measurement_leaves_gradients_parameters_and_random_numbers(to_none):
    one, other = Counted(DOUBLE), Counted(DOUBLE)
    optimizer = DiagonalNewton(one.model.parameters(), lr=0.0, every=1)

    def closure():
        optimizer.zero_grad(set_to_none=to_none)
        loss = one.loss(0)
        loss.backward()
        return loss

    before = one.weights()
    for problem, take in ((one, lambda: optimizer.step(closure)), (other, None)):
        torch.manual_seed(4)
        for _ in range(2):
            if take is None:
                problem.model.zero_grad()
                loss = problem.loss(0)
                loss.backward()
            else:
                seen = take()
        drawn = torch.rand(1)
        if take is not None:
            first = drawn
    assert torch.equal(first, drawn)
    assert torch.equal(seen, loss)
    for a, p, q in zip(before, one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, p)
        assert torch.equal(p.grad, q.grad)


def test_signs_are_drawn_anew_and_follow_the_seed():
    found = {}
    for name, fields in {"one": {}, "same": {}, "other": {"seed": 1}}.items():
        problem = Problem()
        trained(problem, 5, every=1, **fields)
        found[name] = problem.weights()[0]
    assert torch.equal(found["one"], found["same"])
    assert not torch.equal(found["one"], found["other"])
    p = torch.zeros(20)
    drawn = [Signs(number).like(p) for number in range(3)]
    assert not torch.equal(drawn[0], drawn[1])
    assert set(drawn[2].tolist()) == {1.0, -1.0}


def test_behind_steps_with_the_measurement_before():
    ahead, behind = Problem(DOUBLE), Problem(DOUBLE)
    fields = {"lr": 0.0, "every": 1, "beta": 0.0, "damping": 0.5}
    seen = []
    for problem, extra in ((ahead, {}), (behind, {"behind": True, "initial_step": 0.25})):
        optimizer = DiagonalNewton(problem.model.parameters(), **fields, **extra)
        p = problem.model[0].weight
        sizes = []
        for step in range(4):
            train(optimizer, problem, [step], closure=True)
            sizes.append(optimizer.sizes_of(p).clone())
        seen.append(sizes)
    assert (seen[1][0] == 0.25).all()
    for early, late in zip(seen[0][:3], seen[1][1:], strict=True):
        assert torch.equal(early, late)


def test_groups_that_measure_beside_groups_that_are_told():
    problem = Problem(DOUBLE)
    groups = problem.groups(curvature="observed", initial_step=0.1)
    optimizer = DiagonalNewton(groups, lr=0.2, damping=0.1, every=1)
    assert optimizer.needs_closure
    train(optimizer, problem, range(3), closure=True)
    first, _, last = problem.model
    assert "curvature" in optimizer.state[first.weight]
    assert optimizer.sizes_of(first.weight).std() > 0
    torch.testing.assert_close(optimizer.sizes_of(last.weight), torch.full_like(last.weight, 0.1))


def test_with_hutchinson_by_hand():
    problem = Problem(DOUBLE)
    params = list(problem.model.parameters())
    optimizer = observed(params, lr=0.3, damping=0.1, every=3)
    before = sum(problem.loss(step).item() for step in range(8))
    generator, seen = torch.Generator().manual_seed(0), 0
    for step in range(40):
        optimizer.zero_grad()
        loss = problem.loss(step)
        if optimizer.due:
            optimizer.observe(hutchinson(loss, params, generator=generator))
            seen += 1
        loss.backward()
        optimizer.step()
    assert seen == 14
    assert sum(problem.loss(step).item() for step in range(8)) < 0.99 * before


# Forms and settings -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("average", ["absolute", "squared"])
def test_the_compiled_form_is_the_plain_one(average):
    one, other = Problem(), Problem()
    for problem, compiled in ((one, False), (other, True)):
        trained(
            problem, 8, compiled=compiled, average=average, weight_decay=0.01, every=2, damping=1.0
        )
    for a, b in zip(one.weights(), other.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_narrow_parameters_are_told_and_do_not_measure():
    x = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    with pytest.raises(FieldError, match="params must be float32 or float64 for curvature='hutch"):
        DiagonalNewton([x])
    optimizer = observed([x])
    optimizer.observe([torch.tensor([2.0, 4.0])])
    x.grad = torch.ones_like(x)
    optimizer.step()
    assert optimizer.state[x]["curvature"].dtype == torch.float32
    assert x.tolist() == [0.5, 0.75]


def test_a_copy_goes_on_with_the_same_signs():
    problem = Problem()
    optimizer = trained(problem, 3, every=1)
    other, twin = copy.deepcopy((problem, optimizer))
    for p, o in ((problem, optimizer), (other, twin)):
        train(o, p, range(3, 6), closure=True)
    assert torch.equal(problem.weights()[0], other.weights()[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"curvature": "exact"}, "curvature must be one of 'hutchinson', 'observed'"),
        ({"curvature": lambda: None}, "curvature must be one of 'hutchinson', 'observed'"),
        ({"average": "mean"}, "average must be one of 'absolute', 'signed', 'squared'"),
        ({"damping": -0.1}, "damping must be a finite number >= 0"),
        ({"beta": 1.0}, "beta must be a finite number >= 0 and < 1"),
        ({"every": 0}, "every must be a whole number >= 1"),
        ({"every": 1.5}, "every must be a whole number >= 1"),
        ({"initial_step": -1}, "initial_step must be a finite number >= 0"),
        ({"max_step": 0}, "max_step must be a finite number > 0"),
        ({"difference": 0}, "difference must be a finite number > 0"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"curvature": "observed", "behind": True}, "behind must be False, got True; with curv"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        DiagonalNewton([torch.zeros(1, requires_grad=True)], **fields)


def test_a_wrong_group_does_not_join():
    optimizer = observed([wide(1.0)])
    with pytest.raises(FieldError, match="behind must be False"):
        optimizer.add_param_group({"params": [wide(2.0)], "behind": True})
    assert len(optimizer.param_groups) == 1
