"""Curvatures that an optimizer is told: checked, and the same on every rank."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from stepsize.errors import FieldError
from stepsize.optim.whole import split_of
from stepsize.torch.ranks import ranks


def told(
    diagonals: Sequence[Tensor | None], params: Sequence[Tensor], *, reduce: bool
) -> list[Tensor | None]:
    """Check what was observed, and give its means over the ranks. Raises `FieldError`."""
    if len(diagonals) != len(params):
        rule = f"one tensor, or None, for each of {len(params)} parameters"
        raise FieldError.of("diagonals", rule, f"{len(diagonals)} of them")
    for n, (p, found) in enumerate(zip(params, diagonals, strict=True)):
        if found is not None and (found.shape, split_of(found)) != (p.shape, split_of(p)):
            rule = f"of shape {tuple(p.shape)}, and split over the ranks as the parameter is"
            raise FieldError.of(f"diagonals[{n}]", rule, tuple(found.shape))
    return [_mean(found) if reduce else found for found in diagonals]


@torch.no_grad()
def _mean(tensor: Tensor | None) -> Tensor | None:
    """Give the mean over the ranks of what is whole on each; collective."""
    if tensor is None or split_of(tensor) is not None or ranks() == 1:
        return tensor
    mean = tensor.detach() / ranks()
    distributed.all_reduce(mean)
    return mean
