"""Curvature: the diagonal of the Hessian, four things used in its place, and its sharpness.

| function | what it gives | cost |
| --- | --- | --- |
| `hessian_diagonal` | the diagonal itself | a backward pass for every element |
| `hutchinson` | an unbiased, noisy estimate of it | about two backward passes a sample |
| `gauss_newton_diagonal` | that of the Gauss-Newton matrix | a pass for each sample and output |
| `bbprop` | an approximation of that, layer by layer | about one backward pass |
| `finite_difference` | a mix of each row of the Hessian | one more evaluation |
| `sharpness` | the largest eigenvalue of the Hessian | ten to thirty backward passes |
| `preconditioned_sharpness` | the same, as the optimizer scales it | the same |

One more backward pass through the gradient gives one product of the Hessian with a vector, not its
diagonal: that takes as many passes as there are elements, or chance, or an approximation.

Not here: what AdaHessian divides by is the root of the averaged *squares* of z * (Hz). The mean of
these squares is the sum of the squares of a whole row, so without averaging over blocks it tends to
the norms of the rows (equilibration), not to the diagonal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stepsize.errors import FieldError
from stepsize.torch.bbprop import Beside, bbprop
from stepsize.torch.criteria import criterion
from stepsize.torch.differences import finite_difference
from stepsize.torch.limits import preconditioned_sharpness, stability_limit
from stepsize.torch.sharpness import Sharpness, sharpness

__all__ = [
    "Beside",
    "Sharpness",
    "bbprop",
    "finite_difference",
    "gauss_newton_diagonal",
    "hessian_diagonal",
    "hutchinson",
    "preconditioned_sharpness",
    "sharpness",
    "stability_limit",
]


def hessian_diagonal(loss: Tensor, params: Sequence[Tensor], *, most: int = 10_000) -> list[Tensor]:
    """Give the exact diagonal of the Hessian of a loss, by one backward pass for every element.

    Args:
        loss: a number with a graph; the graph is kept, so that `loss.backward()` still works.
        params: where to differentiate.
        most: how many elements there may be; a network of a million weights would take a million
            passes.

    Raises:
        FieldError: for a loss without a graph, and for more elements than `most`.

    >>> w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> hessian_diagonal((w[0] * w[1]) ** 2, [w])
    [tensor([8., 2.], dtype=torch.float64)]
    """
    count = sum(p.numel() for p in params)
    if count > most:
        cure = "use hutchinson or bbprop, or raise most= and wait"
        raise FieldError.of("params", f"{most} elements at most", count, cure)
    return [
        _own_derivatives(gradient, p)
        for p, gradient in zip(params, _gradients(loss, params), strict=True)
    ]


def _own_derivatives(gradient: Tensor, p: Tensor) -> Tensor:
    found = torch.zeros_like(p)
    if not gradient.requires_grad:  # the loss is linear in it
        return found
    for i in range(p.numel()):
        one = torch.zeros_like(p)
        one.view(-1)[i] = 1
        (row,) = torch.autograd.grad(gradient, p, one, retain_graph=True, materialize_grads=True)
        found.addcmul_(row, one)
    return found


def hutchinson(
    loss: Tensor,
    params: Sequence[Tensor],
    *,
    samples: int = 1,
    distribution: str = "rademacher",
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    r"""Estimate the diagonal of the Hessian by $z \odot (Hz)$ with random $z$; unbiased.

    Its variance, divided by `samples`: $\sum_{j \ne i} H_{ij}^2$ for signs ("rademacher"), which is
    0 if H is diagonal; $\sum_{j} H_{ij}^2 + H_{ii}^2$ for "gaussian". So an element is lost in
    noise where the rest of its row is large, and the noise falls as the root of the samples.

    Args:
        loss: a number with a graph that can be differentiated twice; the graph is kept, so that
            `loss.backward()` still works.
        params: where to differentiate; whole tensors, no DTensors.
        samples: how many z are averaged; each takes a backward pass through the gradient.
        distribution: "rademacher": 1 or -1; "gaussian".
        generator: draws z, on its own device. None: torch's own.

    Raises:
        FieldError: for a loss without a graph, other words and numbers, and DTensors.

    Source: Hutchinson 1990, A stochastic estimator of the trace of the influence matrix, was not
    read; the estimate and both variances are derived in two lines and checked in the tests.

    >>> w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    >>> hutchinson(w[0] ** 2 + 3 * w[1] ** 2, [w])  # exact: nothing off the diagonal
    [tensor([2., 6.], dtype=torch.float64)]
    """
    if distribution not in ("rademacher", "gaussian"):
        raise FieldError.of("distribution", "'rademacher' or 'gaussian'", distribution)
    if samples < 1:
        raise FieldError.of("samples", "a whole number >= 1", samples)
    if any(hasattr(p, "device_mesh") for p in params):
        cure = "optim.DiagonalNewton(curvature='hutchinson') differences gradients instead"
        raise FieldError.of("params", "whole tensors", "a DTensor", cure)
    pairs = zip(params, _gradients(loss, params), strict=True)
    found = [torch.zeros_like(p) for p in params]
    curved = [(p, g, sums) for (p, g), sums in zip(pairs, found, strict=True) if g.requires_grad]
    if not curved:
        return found
    places, gradients, sums = (list(column) for column in zip(*curved, strict=True))
    for _ in range(samples):
        z = [_drawn(p, distribution, generator) for p in places]
        products = torch.autograd.grad(
            gradients, places, z, retain_graph=True, materialize_grads=True
        )
        for total, each, product in zip(sums, z, products, strict=True):
            total.addcmul_(each, product, value=1 / samples)
    return found


def _drawn(like: Tensor, distribution: str, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    room = torch.empty(like.shape, dtype=like.dtype, device=device)
    if distribution == "gaussian":
        return room.normal_(generator=generator).to(like.device)
    return room.bernoulli_(0.5, generator=generator).mul_(2).sub_(1).to(like.device)


def gauss_newton_diagonal(
    outputs: Tensor,
    params: Sequence[Tensor],
    *,
    loss: str = "cross_entropy",
    most: int = 10_000,
) -> list[Tensor]:
    r"""Give the exact diagonal of the Gauss-Newton matrix, by many backward passes.

    $\frac1N\sum_n J_n^\top H_n J_n$ with J_n the derivatives of the outputs of sample n and H_n the
    Hessian of the loss in these outputs. It is the Hessian without the curvature of the network
    itself, never negative, and for these losses the Fisher information. `bbprop` approximates it.

    Args:
        outputs: what the network gave, with its graph, of shape (samples, outputs).
        params: where to differentiate.
        loss: "cross_entropy" or "mse", as torch.nn.functional has them with their defaults (means);
            "half_squares": the mean over samples of half the sum of squares.
        most: how many passes there may be: samples * outputs.

    Raises:
        FieldError: for other losses or shapes, and for more passes than `most`.

    >>> w = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    >>> x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    >>> gauss_newton_diagonal(x @ w.T, [w], loss="half_squares")
    [tensor([[1., 9.]], dtype=torch.float64)]
    """
    roots = criterion(loss).root(_checked(outputs).detach())
    if outputs.numel() > most:
        cure = "take fewer samples, use bbprop, or raise most= and wait"
        raise FieldError.of("outputs", f"{most} elements at most", outputs.numel(), cure)
    found = [torch.zeros_like(p) for p in params]
    for n, root in enumerate(roots):
        for column in root.unbind(1):
            weights = torch.zeros_like(outputs)
            weights[n] = column
            slopes = torch.autograd.grad(
                outputs, params, weights, retain_graph=True, materialize_grads=True
            )
            for total, slope in zip(found, slopes, strict=True):
                total.addcmul_(slope, slope, value=1 / len(outputs))
    return found


def _checked(outputs: Tensor) -> Tensor:
    if outputs.dim() != 2:  # noqa: PLR2004 (samples and outputs)
        raise FieldError.of("outputs", "of shape (samples, outputs)", tuple(outputs.shape))
    if not outputs.requires_grad:
        raise FieldError("outputs must have a graph; evaluate the model with gradients enabled")
    return outputs


def _gradients(loss: Tensor, params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if loss.numel() != 1 or not loss.requires_grad:
        cure = "give it before loss.backward(), from a model evaluated with gradients enabled"
        raise FieldError.of("loss", "one number with a graph", loss, cure)
    return torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
