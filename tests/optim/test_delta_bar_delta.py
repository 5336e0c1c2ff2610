"""Delta-Bar-Delta against a transcription of its rule."""

import numpy as np
import pytest
import torch

from stepsize import FieldError
from stepsize.optim import DeltaBarDelta


def transcribed(gradient, x, steps, *, rate, delta, epsilon, beta, decrease):
    """The rule, as in the docstring, in numpy; the rate first."""
    rates, bar = np.full_like(x, rate), np.zeros_like(x)
    for _ in range(steps):
        g = gradient(x)
        agrees = np.sign(bar) * np.sign(g)
        less = (1 - epsilon) * rates if decrease == "subtract" else epsilon * rates
        rates = np.where(agrees > 0, rates + delta, np.where(agrees < 0, less, rates))
        x = x - rates * g
        bar = (1 - beta) * g + beta * bar
        yield rates, x


CURVATURES = np.array([1.0, 10.0, 3.0])


@pytest.mark.parametrize("decrease", ["subtract", "multiply"])
@pytest.mark.parametrize("foreach", [True, False])
def test_it_is_the_transcription(decrease, foreach):
    fields = {"delta": 0.013, "epsilon": 0.45, "beta": 0.7}
    x = torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = DeltaBarDelta([x], initial_step=0.05, decrease=decrease, foreach=foreach, **fields)
    start = x.detach().numpy().copy()
    told = transcribed(lambda x: CURVATURES * x, start, 20, rate=0.05, decrease=decrease, **fields)
    falls = 0
    for rates, place in told:
        before = optimizer.sizes_of(x)
        before = None if before is None else before.clone()
        optimizer.zero_grad()
        (0.5 * torch.tensor(CURVATURES) * x * x).sum().backward()
        optimizer.step()
        falls += before is not None and bool((optimizer.sizes_of(x) < before).any())
        np.testing.assert_allclose(optimizer.sizes_of(x).numpy(), rates, rtol=1e-12)
        np.testing.assert_allclose(x.detach().numpy(), place, rtol=1e-12, atol=1e-15)
    assert falls > 2


def test_rates_stay_within_their_bounds():
    x = torch.ones(4, dtype=torch.float64, requires_grad=True)
    optimizer = DeltaBarDelta([x], initial_step=0.1, delta=0.3, bounds=(0.05, 0.5))
    for sign in [1, 1, 1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1]:
        x.grad = torch.full_like(x, sign)
        optimizer.step()
        assert 0.05 <= optimizer.sizes_of(x).min() <= optimizer.sizes_of(x).max() <= 0.5


def test_tiny_gradients_have_signs():
    x = torch.ones(1, requires_grad=True)
    optimizer = DeltaBarDelta([x], initial_step=0.1, delta=0.01)
    for _ in range(3):
        x.grad = torch.full_like(x, 1e-30)  # whose product is 0 in float32
        optimizer.step()
    assert optimizer.sizes_of(x).item() == pytest.approx(0.12)


def test_a_large_tensor_is_cut_and_any_order_in_memory_is_the_same():
    shape = (3, 64, 40, 40)
    gradients = [torch.randn(shape) for _ in range(4)]
    found = []
    for way in (torch.contiguous_format, torch.channels_last):
        for foreach in (True, False):
            x = torch.zeros(shape).contiguous(memory_format=way).requires_grad_()
            optimizer = DeltaBarDelta([x], foreach=foreach)
            for g in gradients:
                x.grad = g.contiguous(memory_format=way)
                optimizer.step()
            found.append(x.detach())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_gradient_laid_out_otherwise_than_its_parameter():
    x = torch.zeros(700, 700, requires_grad=True)
    y = torch.zeros(700, 700, requires_grad=True)
    g = torch.randn(700, 700)
    for p, grad in ((x, g.t().contiguous().t()), (y, g)):
        p.grad = grad
        DeltaBarDelta([p]).step()
    assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"initial_step": 0}, "initial_step must be a finite number > 0"),
        ({"epsilon": 1}, "epsilon must be a finite number > 0 and < 1"),
        ({"beta": 1}, "beta must be a finite number >= 0 and < 1"),
        ({"decrease": "divide"}, "decrease must be one of 'subtract', 'multiply'"),
        ({"bounds": (1, 0)}, "bounds must be two numbers"),
        ({"foreach": 1}, "foreach must be True or False"),
    ],
)
def test_wrong_settings(fields, words):
    with pytest.raises(FieldError, match=words):
        DeltaBarDelta([torch.zeros(1, requires_grad=True)], **fields)
