"""The largest eigenvalue of a symmetric matrix that is known by its products alone: Lanczos.

Only the recurrence is written here, on lists of tensors where they are; the small tridiagonal
matrix is solved by torch.linalg. Refused alternatives:

- scipy.sparse.linalg.eigsh takes every vector to the host and back, cannot be stopped after a
  number of products, and looks whether it is done only when it has filled its basis: for networks
  of a million weights it took 21 products trained and 31 at the start, where this took 5 to 8 and
  16 to 28. With a basis of 6 it took 7, and 24 to 28.
- curvlinops has operators for models with their data, and hands them to eigsh; a loss alone, or an
  optimizer's scaling, is not what it takes. The tests compare with it.
- torch.lobpcg takes a matrix, not its products.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stepsize.errors import FieldError

Vector = list[Tensor]
_FLOOR = 1e-7  # of the largest eigenvalue seen: what float32 can tell from 0


class NotFiniteError(FieldError):
    """A product was NaN or infinite."""


class Ritz(NamedTuple):
    """What is known of the largest eigenvalue after so many products."""

    value: float
    bound: float
    least: float
    products: int
    vector: Vector | None


def largest(
    product: Callable[[Vector], Vector],
    start: Vector,
    *,
    tolerance: float,
    most: int,
    keep: bool = False,
) -> Ritz:
    """Find the largest eigenvalue, until the residual is `tolerance` of it.

    Three vectors are held; with `keep` all of them, made orthogonal to each other again at every
    step, and the eigenvector is given. Without that, copies of eigenvalues that were found already
    may appear among the others, but the largest stays what it is.
    """
    chain = _Chain(start, keep=keep)
    while len(chain.diagonal) < most and not chain.settled(tolerance):
        chain.grow(product)
    return chain.found()


class _Chain:
    """Orthogonal vectors that span the products so far, and the matrix as they see it."""

    def __init__(self, start: Vector, *, keep: bool) -> None:
        self.diagonal: list[float] = []
        self._beside: list[float] = []
        self._before: Vector | None = None
        self._now = _scaled(start, 1 / _norm(start))
        self._kept: list[Vector] | None = [] if keep else None
        self._values = self._weights = torch.zeros(0)

    def grow(self, product: Callable[[Vector], Vector]) -> None:
        """Take one product."""
        found = product(self._now)
        along = _dot(found, self._now)
        rest = [w - along * q for w, q in zip(found, self._now, strict=True)]
        if self._before is not None:
            _subtract(rest, self._before, self._beside[-1])
        if self._kept is not None:
            self._kept.append(self._now)
            for vector in self._kept:
                _subtract(rest, vector, _dot(rest, vector))
        length = _norm(rest)
        if not math.isfinite(along + length):
            cure = "its derivatives are not: look for NaN in the weights, the data or the loss"
            told = along + length
            raise NotFiniteError.of("loss", "one whose curvature is finite", told, cure)
        self._enter(along, length)
        self._before, self._now = self._now, _scaled(rest, 1 / length if length else 0.0)

    def _enter(self, along: float, length: float) -> None:
        """Solve the tridiagonal matrix with one more row."""
        self.diagonal.append(along)
        beside = torch.tensor(self._beside, dtype=torch.float64)
        matrix = torch.diag(torch.tensor(self.diagonal, dtype=torch.float64))
        matrix += torch.diag(beside, 1) + torch.diag(beside, -1)
        self._values, vectors = torch.linalg.eigh(matrix)
        self._weights = vectors[:, -1]
        self._beside.append(length)

    def settled(self, tolerance: float) -> bool:
        """Tell whether the residual is small, or as small as rounding lets it be."""
        if not self.diagonal:
            return False
        value, bound, *_ = self.found()
        return bound <= max(tolerance * abs(value), _FLOOR * float(self._values.abs().max()))

    def found(self) -> Ritz:
        """Give the pair: its residual has the norm of what is left, times the last weight."""
        value, least = float(self._values[-1]), float(self._values[0])
        bound = self._beside[-1] * abs(float(self._weights[-1]))
        return Ritz(value, bound, least, len(self.diagonal), self._vector())

    def _vector(self) -> Vector | None:
        if self._kept is None:
            return None
        weights = self._weights.tolist()
        sums = [torch.zeros_like(q) for q in self._now]
        for weight, vector in zip(weights, self._kept, strict=True):
            _subtract(sums, vector, -weight)
        return _scaled(sums, 1 / _norm(sums))


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Give the inner product; the only reading of a step, of one number for each device."""
    parts = [torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(one, other, strict=True)]
    first = parts[0].device
    return math.fsum(torch.stack([part.to(first) for part in parts]).tolist())


def _norm(vector: Vector) -> float:
    squares = _dot(vector, vector)
    return math.sqrt(squares) if squares >= 0 else math.nan


def _scaled(vector: Vector, factor: float) -> Vector:
    return [x * factor for x in vector]


def _subtract(vector: Vector, other: Vector, weight: float) -> None:
    for x, y in zip(vector, other, strict=True):
        x.sub_(y, alpha=weight)
