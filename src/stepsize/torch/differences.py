"""The curvature along a direction, from two gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def finite_difference(
    closure: Callable[[], Any],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    *,
    again: Callable[[], Any] | None = None,
    least: float = 1e-2,
) -> list[Tensor]:
    r"""Estimate curvatures by $|\nabla_i(\theta+v)-\nabla_i(\theta)|\,/\,|v_i|$.

    This is $|\sum_j H_{ij} v_j / v_i|$, a mix of a whole row of the Hessian: the diagonal only if
    the Hessian is diagonal. Where v_i is near 0 the rest of the row is divided by nearly nothing,
    so |v_i| counts as no less than `least` times the root mean square of v in its tensor. A tensor
    whose v is 0 everywhere gets 0: nothing was asked about it.

    Parameters and gradients are left as they were, but not the graphs of the caller: call it before
    the loss is computed or after `backward()`.

    Args:
        closure: evaluates the model on a minibatch: zeroes the gradients and calls `backward()`.
        params: the parameters.
        direction: v, a tensor for each parameter; vSGD-fd takes the averaged gradient.
        again: the second evaluation. It has to see the same minibatch with the same random numbers
            (dropout) as the first, or what they change is taken for curvature: give
            `stepsize.optim.again.Repeatable(closure, params)`'s `first` and `again`. None: the
            closure itself, for a model that draws nothing.
        least: where |v_i| is held up, as a share of the root mean square of v.

    >>> w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    >>> def closure():
    ...     w.grad = None
    ...     (w[0] ** 2 + 3 * w[1] ** 2).backward()
    >>> finite_difference(closure, [w], [torch.tensor([0.5, 0.25])])
    [tensor([2., 6.], dtype=torch.float64)]
    """
    with _gradients_kept(params):
        first = _evaluated(closure, params)
        with _moved(params, direction):
            second = _evaluated(closure if again is None else again, params)
    found = []
    for one, other, v in zip(first, second, direction, strict=True):
        size = v.abs().clamp_min(least * v.square().mean().sqrt())
        found.append(torch.where(size > 0, (other - one).abs() / size, 0.0))
    return found


def _evaluated(closure: Callable[[], Any], params: Sequence[Tensor]) -> list[Tensor]:
    with torch.enable_grad():
        closure()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]


@contextmanager
def _gradients_kept(params: Sequence[Tensor]) -> Iterator[None]:
    kept = [p.grad for p in params]
    for p in params:
        p.grad = None  # so that the closure writes into others
    try:
        yield
    finally:
        for p, gradient in zip(params, kept, strict=True):
            p.grad = gradient


@contextmanager
def _moved(params: Sequence[Tensor], by: Sequence[Tensor]) -> Iterator[None]:
    """Move the parameters, and put them back to the bit."""
    kept = [p.clone() for p in params]
    for p, step in zip(params, by, strict=True):
        p.add_(step)
    try:
        yield
    finally:
        for p, value in zip(params, kept, strict=True):
            p.copy_(value)
