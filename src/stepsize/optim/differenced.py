"""The diagonal of the Hessian from a difference of two gradients along random signs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stepsize.optim.again import Repeatable
from stepsize.optim.base import with_gradients
from stepsize.optim.whole import Totals, local, split_of


class Signs:
    """Random signs, the same on every rank whatever part of a tensor it holds."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def like(self, p: Tensor) -> Tensor:
        """Draw 1 or -1 for every element; of a split tensor this rank's part."""
        device = local(p).device
        generator = self._generators.get(device)
        if generator is None:
            generator = self._generators[device] = torch.Generator(device)
            generator.manual_seed(self._seed)
        whole = torch.empty(p.shape, dtype=p.dtype, device=device)
        whole.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
        split = split_of(p)
        if split is None:
            return whole
        from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 (not in every build)

        return (
            whole if split is None else local(distribute_tensor(whole, *split, src_data_rank=None))
        )


@torch.no_grad()
def sampled_diagonal(
    repeat: Repeatable, first: Mapping[Tensor, Tensor], signs: Signs, difference: float
) -> dict[Tensor, Tensor]:
    """Give z * (gradient at p + e z - gradient at p) / e for the parameters.

    `first` are the gradients at p; `grad` is written over. A forward difference is enough: what it
    is wrong by in second order has as many signs + as -, and vanishes on average.
    """
    if not first:
        return {}
    by = {p: signs.like(p) for p in first}
    size = difference * _scale(list(first))
    with _moved(by, size):
        repeat.again()
    found = {}
    for p in with_gradients(by):
        found[p] = p.grad.clone()  # type: ignore[union-attr]  # it has one
        local(found[p]).sub_(local(first[p])).mul_(by[p]).div_(size)
    return found


def _scale(params: Sequence[Tensor]) -> float:
    """Give the root mean square of all elements; 1 if they are all 0."""
    totals = Totals()
    for p in params:
        totals.add_squares("squares", [local(p)], split_of(p))
    count = sum(p.numel() for p in params)
    return (totals.read()["squares"] / count) ** 0.5 or 1.0


@contextmanager
def _moved(by: dict[Tensor, Tensor], size: float) -> Iterator[None]:
    """Move the parameters, and put them back to the bit."""
    kept = {p: local(p).clone() for p in by}
    for p, z in by.items():
        local(p).add_(z, alpha=size)
    try:
        yield
    finally:
        for p, value in kept.items():
            local(p).copy_(value)


@contextmanager
def gradients_kept(params: Sequence[Tensor]) -> Iterator[dict[Tensor, Tensor]]:
    """Give copies of the gradients, since a wrapper may write over them, and put these back."""
    kept = {p: p.grad.clone() for p in params if p.grad is not None}
    try:
        yield kept
    finally:
        for p in params:
            p.grad = kept.get(p)
