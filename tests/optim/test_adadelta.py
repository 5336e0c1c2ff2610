"""AdaDelta against a transcription of its Algorithm 1, and what its settings mean."""

import numpy as np
import pytest
import torch

from stepsize import FieldError
from stepsize.optim import AdaDelta

DOUBLE = torch.float64
H = np.array([1.0, 10.0, 0.01])


def transcribed(x, steps, rho=0.95, eps=1e-6):
    """Algorithm 1, in numpy."""
    squares, moves = np.zeros_like(x), np.zeros_like(x)
    for _ in range(steps):
        g = H * x
        squares = rho * squares + (1 - rho) * g**2
        move = -np.sqrt(moves + eps) / np.sqrt(squares + eps) * g
        moves = rho * moves + (1 - rho) * move**2
        x = x + move
        yield x, np.sqrt(moves + eps) / np.sqrt(squares + eps)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("fields", [{}, {"rho": 0.9, "eps": 1e-2}])
def test_it_is_the_transcription(foreach, fields):
    x = torch.tensor([1.0, -1.0, 3.0], dtype=DOUBLE, requires_grad=True)
    optimizer = AdaDelta([x], foreach=foreach, **fields)
    for place, rate in transcribed(x.detach().numpy().copy(), 20, **fields):
        x.grad = torch.tensor(H) * x.detach()
        optimizer.step()
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-12)
        np.testing.assert_allclose(optimizer.sizes_of(x).numpy(), rate, rtol=1e-12)


def moved(optimizer, x, gradient):
    before = x.detach().clone()
    x.grad = gradient
    optimizer.step()
    return (x.detach() - before).abs()


@pytest.mark.parametrize("size", [1.0, 1e3, 1e-1])
def test_the_first_step_is_what_eps_says(size):
    x = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    first = moved(AdaDelta([x]), x, torch.full((1,), size, dtype=DOUBLE))
    assert first.item() == pytest.approx((1e-6 / 0.05) ** 0.5, rel=1e-2)


def test_steps_grow_slowly_under_a_constant_gradient():
    x = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
    optimizer = AdaDelta([x])
    for _ in range(2000):
        last = moved(optimizer, x, torch.ones(1, dtype=DOUBLE))
    assert last.item() == pytest.approx((1e-6 * (1 + 0.05 * 2000)) ** 0.5, rel=0.15)


def test_torchs_own_default_is_another():
    x = torch.zeros(1, requires_grad=True)
    assert torch.optim.Adadelta([x]).defaults["rho"] == 0.9
    assert AdaDelta([x]).defaults["rho"] == 0.95


def test_the_rate_is_outside_of_what_is_remembered():
    found = []
    for lr in (1.0, 0.001):
        x = torch.zeros(1, dtype=DOUBLE, requires_grad=True)
        optimizer = AdaDelta([x], lr=lr)
        moves = [moved(optimizer, x, torch.ones(1, dtype=DOUBLE)).item() for _ in range(50)]
        found.append(np.array(moves) / lr)
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rho": 1.0}, "rho must be a finite number >= 0 and < 1"),
        ({"eps": 0}, "eps must be a finite number > 0"),
        ({"lr": -1.0}, "lr must be a finite number >= 0"),
        ({"maximize": 1}, "maximize must be True or False"),
    ],
)
def test_wrong_settings(fields, words):
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(FieldError, match=words):
        AdaDelta([x], **fields)
    with pytest.raises(FieldError, match=words):
        AdaDelta([{"params": [x], **fields}])


def test_complex_parameters_are_refused():
    with pytest.raises(FieldError, match="view_as_real"):
        AdaDelta([torch.zeros(1, dtype=torch.complex64, requires_grad=True)])
