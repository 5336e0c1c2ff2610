"""Losses whose second derivatives in the outputs of a network are known."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from stepsize.errors import FieldError


class Criterion(NamedTuple):
    """A loss that is a mean over samples, and its Hessian in the outputs of one sample."""

    mean: Callable[[Tensor, Tensor], Tensor]
    diagonal: Callable[[Tensor], Tensor]
    """The diagonal of each sample's Hessian, of the shape of the outputs."""
    root: Callable[[Tensor], Tensor]
    """S with H = S S^T for each sample, of shape (samples, outputs, columns)."""


def _softmax_diagonal(outputs: Tensor) -> Tensor:
    shares = outputs.softmax(1)
    return shares * (1 - shares)


def _softmax_root(outputs: Tensor) -> Tensor:
    """Give (e_c - p) sqrt(p_c) as columns: their outer products add up to diag(p) - p p^T."""
    shares = outputs.softmax(1)
    return (torch.diag_embed(torch.ones_like(shares)) - shares[:, :, None]) * shares.sqrt()[:, None]


def _half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum() / len(outputs)


def _mse_diagonal(outputs: Tensor) -> Tensor:
    return torch.full_like(outputs, 2 / outputs.shape[1])


def _root_of_diagonal(diagonal: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda outputs: torch.diag_embed(diagonal(outputs).sqrt())


_CRITERIA = {
    "cross_entropy": Criterion(cross_entropy, _softmax_diagonal, _softmax_root),
    "mse": Criterion(mse_loss, _mse_diagonal, _root_of_diagonal(_mse_diagonal)),
    "half_squares": Criterion(_half_squares, torch.ones_like, _root_of_diagonal(torch.ones_like)),
}


def criterion(name: str) -> Criterion:
    """Give what is known of a loss. Raises `FieldError`."""
    if name not in _CRITERIA:
        cure = "for another loss use hutchinson, which takes the loss itself"
        raise FieldError.of("loss", "one of " + ", ".join(map(repr, _CRITERIA)), name, cure)
    return _CRITERIA[name]
