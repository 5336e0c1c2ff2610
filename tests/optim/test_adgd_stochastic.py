"""AdGD on minibatches: two evaluations of the same one, and what happens with two of different."""

import functools
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from stepsize.optim import AdGD


def test_known_step_sizes_of_a_parabola():
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdGD([w], stochastic=True, eps=1e-8)
    sizes = []

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (w[0] ** 2 + 10 * w[1] ** 2)
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
        sizes.append(optimizer.sizes_of(w))
    assert sizes == pytest.approx([0.2019901, 0.10049374, 0.10030258, 0.10129876], abs=5e-9)


def shares(seed=0):
    data = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 6, generator=data, dtype=torch.float64)
    return x, torch.sign(x @ torch.randn(6, generator=data, dtype=torch.float64))


def loss_on(w, x, y):
    return torch.nn.functional.softplus(-y * (x @ w)).mean()


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("decay", "alpha", "max_norm"), [(0.0, 1.0, None), (0.2, 0.5, 0.1)])
@pytest.mark.parametrize("lr", [1.0, 0.5])
def test_it_is_the_transcription(decoupled, decay, alpha, max_norm, lr):
    """Decoupled weight decay is added after the measurement, as the authors do."""
    x, y = shares()
    w = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    options = {"weight_decay": decay, "decoupled_weight_decay": decoupled, "max_norm": max_norm}
    optimizer = AdGD([w], lr, stochastic=True, alpha=alpha, amplifier=0.1, eps=1e-3, **options)
    size, theta, place, before = 0.2, 1.0, w.detach().clone(), None
    for k in range(20):
        batch = slice(k % 5 * 8, k % 5 * 8 + 8)

        def gradient(at, batch=batch):
            found = torch.func.grad(loss_on)(at, x[batch], y[batch])
            return found if decoupled else found + decay * at

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = loss_on(w, x[batch], y[batch])
            loss.backward()
            return loss

        new = math.sqrt(1 + 0.1 * theta) * size
        if before is not None:
            change = (gradient(place) - gradient(before)).norm().item()
            new = min(new, alpha * (place - before).norm().item() / change) + 1e-3
        theta, size = new / size, new
        step = gradient(place) + (decay * place if decoupled else 0)
        length = step.norm().item()
        share = 1.0 if max_norm is None else min(1.0, max_norm / length)
        before, place = place, place - lr * size * share * step
        optimizer.step(closure)
        assert optimizer.sizes_of(w) == pytest.approx(size, rel=1e-12)
        torch.testing.assert_close(w.detach(), place, rtol=1e-12, atol=1e-13)


class Noisy(nn.Module):
    """Draws masks and keeps running means; remembers both."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(5, 7), nn.BatchNorm1d(7)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(7, 1)
        self.masks = []

    def forward(self, x):
        hidden = self.norm(self.first(x))
        ones = self.drop(torch.ones_like(hidden))
        self.masks.append(ones)
        return self.last(hidden * ones)


@pytest.mark.parametrize("to_none", [True, False])
def test_both_evaluations_draw_alike_and_leave_the_first_one_s_traces(to_none):
    torch.manual_seed(0)
    model, twin = Noisy(), Noisy()
    twin.load_state_dict(model.state_dict())
    optimizer = AdGD(model.parameters(), stochastic=True)
    for k in range(4):
        x = torch.randn(8, 5)
        twin.load_state_dict(model.state_dict())
        drawn = torch.get_rng_state()
        twin(x)  # once
        after = torch.get_rng_state()
        torch.set_rng_state(drawn)
        model.masks.clear()
        places = []

        def closure(x=x, places=places):
            optimizer.zero_grad(set_to_none=to_none)
            places.append([p.detach().clone() for p in model.parameters()])
            loss = model(x).square().mean()
            loss.backward()
            return loss

        held = [p.detach().clone() for p in model.parameters()]
        optimizer.step(closure)
        assert len(model.masks) == (2 if k else 1)
        assert all(torch.equal(mask, model.masks[0]) for mask in model.masks)
        assert torch.equal(torch.get_rng_state(), after)
        for one, other in zip(model.buffers(), twin.buffers(), strict=True):
            assert torch.equal(one, other)
        assert all(map(torch.equal, held, places[0]))
        if k:
            assert not all(map(torch.equal, held, places[1]))


def test_the_gradients_and_the_places_are_those_of_the_first_evaluation():
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = AdGD([w], stochastic=True)
    for _ in range(5):

        def closure():
            optimizer.zero_grad()
            loss = w.cosh().log().sum()
            loss.backward()
            return loss

        at = w.detach().clone()
        loss = optimizer.step(closure)
        assert loss.item() == at.cosh().log().sum().item()
        torch.testing.assert_close(w.grad, at.tanh())
        moved = at - optimizer.sizes_of(w) * w.grad
        torch.testing.assert_close(w.detach(), moved)


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_in_shared_memory_are_copied(parts):
    def sizes(write):
        params = [torch.full((2,), float(k + 1), requires_grad=True) for k in range(parts)]
        optimizer = AdGD(params, stochastic=True)
        bucket = torch.zeros(2 * parts)

        def closure():
            optimizer.zero_grad()
            found = torch.cat([p.detach().tanh() for p in params])
            if write:
                bucket.copy_(found)
                found = bucket
            for p, piece in zip(params, found.split(2), strict=True):
                p.grad = piece if write else piece.clone()
            return torch.tensor(0.0)

        for _ in range(6):
            optimizer.step(closure)
            yield optimizer.sizes_of(params[0]), params[0].tolist()

    assert [*sizes(write=True)] == [*sizes(write=False)]


def test_memory_that_is_used_again_later_is_found_out():
    """As where gradients become those of a captured graph in the middle of a training."""
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = AdGD([w], stochastic=True)
    buffer, calls = torch.zeros(2), []
    for k in range(8):

        def closure(k=k):
            calls.append(k)
            optimizer.zero_grad()
            found = w.detach().tanh()
            w.grad = buffer.copy_(found).view(2) if k > 3 else found
            return torch.tensor(0.0)

        at = w.detach().clone()
        optimizer.step(closure)
        torch.testing.assert_close(w.detach(), at - optimizer.sizes_of(w) * at.tanh())
    assert [calls.count(k) for k in range(8)] == [1, 2, 2, 2, 3, 2, 2, 2]


def test_an_error_in_the_second_evaluation_leaves_everything_in_place():
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = AdGD([w], stochastic=True)
    calls = []

    def closure():
        calls.append(None)
        if len(calls) == 3:
            raise RuntimeError
        optimizer.zero_grad()
        loss = w.cosh().log().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    at = w.detach().clone()
    with pytest.raises(RuntimeError):
        optimizer.step(closure)
    assert torch.equal(w.detach(), at)
    torch.testing.assert_close(w.grad, at.tanh())
    optimizer.step(closure)
    assert not torch.equal(w.detach(), at)


def test_a_rate_of_zero_holds_the_step_size():
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = AdGD([w], lr=0.0, stochastic=True)

    def closure():
        optimizer.zero_grad()
        loss = w.cosh().log().sum()
        loss.backward()
        return loss

    for _ in range(300):
        optimizer.step(closure)
    assert optimizer.sizes_of(w) < 0.203


def test_groups_that_join_are_measured_from_their_second_step():
    one, late = (torch.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    optimizer = AdGD([one], stochastic=True, norms="group")
    sizes = []
    for k in range(4):
        if k == 2:
            optimizer.add_param_group({"params": [late]})

        def closure():
            optimizer.zero_grad()
            loss = one.cosh().log().sum() + 9 * late.cosh().log().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        sizes.append((optimizer.sizes_of(one), optimizer.sizes_of(late)))
    assert sizes[1][1] is None
    assert sizes[2][1] == pytest.approx(0.2 * math.sqrt(1.02))
    assert sizes[3][1] < sizes[2][1]


def test_a_parameter_that_had_no_gradient_before_holds_the_step_size():
    one, other = (torch.tensor([1.0, -2.0], requires_grad=True) for _ in range(2))
    optimizer = AdGD([one, other], stochastic=True)
    sizes = []
    for used in (one, other, other):

        def closure(used=used):
            optimizer.zero_grad()
            loss = used.cosh().log().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        sizes.append(optimizer.sizes_of(one))
    assert sizes[1] == sizes[0]
    assert sizes[2] != sizes[1]


def test_on_two_minibatches_the_step_size_collapses():
    """A closure that draws its minibatch gives two, and noise passes for curvature."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16 - 0.3).float(), torch.tensor(y)
    sizes = {same: collected(x, y, same=same) for same in (True, False)}
    medians = {same: sorted(found[-50:])[25] for same, found in sizes.items()}
    assert medians[False] < 1e-3 * medians[True]


def collected(x, y, *, same):
    """Give the step sizes of a training whose closure keeps its minibatch, or draws one."""
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    optimizer = AdGD(model.parameters(), stochastic=True, eps=0.0)
    batches = torch.randint(len(x), (300, 16))
    taken = iter(batches)

    def closure(batch):
        rows = batch if same else next(taken)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        return loss

    sizes = []
    for batch in batches[:150]:
        optimizer.step(functools.partial(closure, batch))
        sizes.append(optimizer.sizes_of(model.weight))
    return sizes
