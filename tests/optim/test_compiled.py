"""The compiled form of the elementwise optimizers: the same numbers, one graph."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from stepsize import Constant, Cosine, FieldError
from stepsize.optim import DeltaBarDelta
from stepsize.torch import Scheduler

pytestmark = pytest.mark.slow

COMPILED = [
    ("plain", lambda params, **fields: DeltaBarDelta(params, initial_step=0.02, **fields)),
    (
        "with decay",
        lambda params, **fields: DeltaBarDelta(
            params, initial_step=0.02, weight_decay=0.1, maximize=True, **fields
        ),
    ),
    (
        "decoupled",
        lambda params, **fields: DeltaBarDelta(
            params, weight_decay=0.1, decoupled_weight_decay=True, decrease="multiply", **fields
        ),
    ),
]
EACH = pytest.mark.parametrize("make", [m for _, m in COMPILED], ids=[n for n, _ in COMPILED])


def parameters(count, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(3, 4 + i % 5, requires_grad=True) for i in range(count)]


def trained(optimizer, params, steps):
    for step in steps:
        torch.manual_seed(100 + step)
        for p in params:
            p.grad = torch.randn_like(p) + 0.3
        optimizer.step()
    return [p.detach().clone() for p in params]


def close(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=3e-6, atol=3e-7)


@EACH
@pytest.mark.parametrize("count", [1, 2, 40])
def test_it_is_the_plain_form(make, count):
    one, other = parameters(count), parameters(count)
    plain, fast = make(one), make(other, compiled=True)
    close(trained(plain, one, range(10)), trained(fast, other, range(10)))
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(plain.sizes_of(p), fast.sizes_of(q), rtol=3e-6, atol=1e-9)


@EACH
def test_it_resumes_to_the_bit(make):
    params = parameters(5)
    optimizer = make(params, compiled=True)
    trained(optimizer, params, range(4))
    others = [p.detach().clone().requires_grad_() for p in params]
    again = make(others, compiled=True)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    one, other = trained(optimizer, params, range(4, 9)), trained(again, others, range(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_rates_and_decays_change_without_another_graph():
    params = parameters(7)
    optimizer = DeltaBarDelta(params, compiled=True, weight_decay=0.1)
    scheduler = Scheduler(optimizer, lr=Cosine(20), weight_decay=Cosine(20, stop=0.5), follow=True)
    trained(optimizer, params, range(2))
    counters.clear()
    trained(optimizer, params, range(2, 12))
    assert scheduler.last_epoch == 12
    assert counters["stats"]["unique_graphs"] == 0


def test_other_tensors_take_the_same_graph():
    params = parameters(9)
    optimizer = DeltaBarDelta(params, compiled=True)
    trained(optimizer, params, range(2))
    counters.clear()
    held = optimizer.sizes_of(params[4]).clone()
    for p in params[:4]:
        p.requires_grad_(False)
        p.grad = None
    trained(optimizer, params[4:], range(2, 4))
    assert counters["stats"]["unique_graphs"] == 0
    assert not torch.equal(held, optimizer.sizes_of(params[4]))


def test_many_settings_in_one_process():
    for number in range(10):  # torch keeps eight graphs of one function
        params = parameters(2)
        optimizer = DeltaBarDelta(params, compiled=True, delta=1e-3 * (number + 1), initial_step=1)
        trained(optimizer, params, range(2))
        assert optimizer._kernel is not None


def test_groups_of_their_own():
    one, other = parameters(4), parameters(4)
    made = []
    for params, compiled in ((one, False), (other, True)):
        groups = [{"params": params[:2], "delta": 0.01}, {"params": params[2:], "lr": 0.5}]
        optimizer = DeltaBarDelta(groups, compiled=compiled)
        scheduler = Scheduler(optimizer, lr=Constant(value=0.7), follow=True)
        made.append(trained(optimizer, params, range(6)))
        assert scheduler.last_epoch == 6
    close(*made)


def test_mixed_dtypes_are_refused():
    params = [
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.float64).requires_grad_(),
    ]
    optimizer = DeltaBarDelta(params, compiled=True)
    with pytest.raises(FieldError, match="params of a compiled group must be alike"):
        trained(optimizer, params, range(1))
