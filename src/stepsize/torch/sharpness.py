r"""Sharpness: the largest eigenvalue of the Hessian of a loss.

Gradient descent with a rate above 2 / sharpness overshoots along the sharpest direction, further at
every step, until the loss is no longer what it was there: `stability_limit` says how large a rate
may be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Module

from stepsize.errors import FieldError
from stepsize.schedules.fields import Bounds
from stepsize.torch.hessian import Hessian, Loss, weighted
from stepsize.torch.lanczos import Vector, largest


@dataclass(frozen=True)
class Sharpness:
    """The largest eigenvalue of a Hessian, as it was found.

    Attributes:
        value: the estimate; the true one is never below it, but for rounding. `float` gives it.
        bound: the norm of the residual: an eigenvalue lies within so much of `value`. The error
            itself is smaller: about bound² over the distance to the next eigenvalue.
        least: the smallest eigenvalue that was seen; the true one is never above it.
        products: how many products of the Hessian with a vector it took.
        passes: how many backward passes that was.
        vector: the eigenvector, in the shapes of the parameters, where it was asked for.
    """

    value: float
    bound: float
    least: float
    products: int
    passes: int
    vector: tuple[Tensor, ...] | None = field(default=None, repr=False, compare=False)

    def __float__(self) -> float:
        """Give the value."""
        return self.value


def sharpness(
    loss: Loss,
    params: Iterable[Tensor] | Module,
    *,
    weights: Sequence[float] | None = None,
    preconditioner: Sequence[Tensor | float] | None = None,
    tolerance: float = 0.01,
    most: int = 28,
    seed: int = 0,
    vector: bool = False,
) -> Sharpness:
    r"""Find the largest eigenvalue of the Hessian, by Lanczos on products with vectors.

    Each product is one more backward pass through the gradient. It stops when the residual is
    `tolerance` of the value, or after `most` products: then `bound` says what is known. The largest
    eigenvalue is meant, not the largest in size; it is negative where the loss bends down in every
    direction, and 0 where it is linear.

    It works where the parameters are, in their dtype (in float32 for narrower ones), and holds
    three vectors of their size. Nothing is written: not to `.grad`, and no random number is taken
    from torch's own generators. The parameters that need no gradient are taken as constants.

    Args:
        loss: a number with a graph, which is kept; or a function that evaluates it afresh for each
            product, in less memory (two backward passes for each); or several of those, for batches
            of which the loss is the mean. A function has to give the same loss each time.
        params: where to differentiate, such as `model.parameters()` or the model; whole tensors, no
            DTensors.
        weights: how much each of several functions counts, such as the sizes of their batches.
        preconditioner: P⁻¹, for the largest eigenvalue of P⁻¹H: what the step of each element is
            multiplied with, for each parameter a number or a tensor of its shape, not negative.
        tolerance: what part of the value the residual may be.
        most: how many products there may be.
        seed: of the vector that is begun with.
        vector: give the eigenvector; then as many vectors as products are held. With a
            preconditioner it is that of P^(-1/2) H P^(-1/2).

    Raises:
        FieldError: for a loss without a graph or that parameters have no part in, for derivatives
            that are not finite, for DTensors, and for numbers that make no sense.

    Source: Lanczos 1950 was not read; the recurrence, and the bound, are in every textbook.

    >>> w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> found = sharpness(3 * w[0] ** 2 - w[1] ** 2, [w])
    >>> round(found.value, 12), round(found.least, 12), found.products, found.passes
    (6.0, -2.0, 2, 3)
    """
    closeness = float(Bounds(gt=0).admit("sharpness: tolerance", tolerance))
    products = int(Bounds(ge=1, whole=True).admit("sharpness: most", most))
    given = params.parameters() if isinstance(params, Module) else params
    params = list(given)
    free = _free(params)
    roots = _roots(preconditioner, params)
    hessian = Hessian(weighted(loss, weights), free)

    def product(along: Vector) -> Vector:
        return _scaled(hessian.times(_scaled(along, roots)), roots)

    start = _drawn(free, roots, seed)
    found = largest(product, start, tolerance=closeness, most=products, keep=vector)
    whole = None if found.vector is None else tuple(_among(params, found.vector))
    return Sharpness(found.value, found.bound, found.least, found.products, hessian.passes, whole)


def _free(params: Sequence[Tensor]) -> Vector:
    """Give the parameters that need a gradient, each checked."""
    free = [p for p in params if p.requires_grad]
    if not free:
        raise FieldError("params must be tensors of which one at least needs a gradient")
    if len({id(p) for p in params}) < len(params):
        raise FieldError("params must be different tensors; one is there twice")
    for p in free:
        if hasattr(p, "device_mesh"):
            cure = (
                "measure a copy with whole ones, loaded from "
                "torch.distributed.checkpoint.state_dict.get_model_state_dict with "
                "StateDictOptions(full_state_dict=True)"
            )
            raise FieldError.of("params", "whole tensors", "a DTensor", cure)
        if not p.is_floating_point():
            raise FieldError.of(
                "params", "real numbers", p.dtype, "give both parts of complex ones"
            )
    return free


def _roots(given: Sequence[Tensor | float] | None, params: Sequence[Tensor]) -> list[Tensor] | None:
    """Give the roots of the preconditioner, in the dtype of the vectors."""
    if given is None:
        return None
    if len(given) != len(params):
        rule = f"a number or tensor for each of the {len(params)} parameters"
        raise FieldError.of("preconditioner", rule, f"{len(given)} of them")
    return [_root(each, p) for each, p in zip(given, params, strict=True) if p.requires_grad]


def _root(each: Tensor | float, p: Tensor) -> Tensor:
    told = torch.as_tensor(each, device=p.device).detach()
    if told.dim() and told.shape != p.shape:
        rule = f"a number, or of the parameter's shape {tuple(p.shape)}"
        raise FieldError.of("preconditioner", rule, tuple(told.shape))
    if not bool((told >= 0).all() & told.isfinite().all()):
        raise FieldError.of("preconditioner", "finite and not negative", told)
    return told.sqrt().to(_wide(p))


def _scaled(vector: Vector, roots: list[Tensor] | None) -> Vector:
    return vector if roots is None else [x * r for x, r in zip(vector, roots, strict=True)]


def _wide(p: Tensor) -> torch.dtype:
    return torch.promote_types(p.dtype, torch.float32)


def _drawn(free: Vector, roots: list[Tensor] | None, seed: int) -> Vector:
    """Draw where to begin, the same on every device: it has a part of every eigenvector."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(p.shape, generator=generator, dtype=_wide(p)) for p in free)
    start = [x.to(p.device) for x, p in zip(drawn, free, strict=True)]
    if roots is None:
        return start
    if not any(r.any() for r in roots):
        raise FieldError("preconditioner must not be 0 everywhere")
    return [x * (r != 0) for x, r in zip(start, roots, strict=True)]  # nothing that stays in place


def _among(params: Sequence[Tensor], vector: Vector) -> Vector:
    """Put zeros where parameters are constants."""
    parts = iter(vector)
    return [next(parts) if p.requires_grad else torch.zeros_like(p) for p in params]
