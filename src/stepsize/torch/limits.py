r"""How large a rate may be: from the sharpness, and from what the optimizer makes of the gradient.

Near a minimum, and along an eigenvector of eigenvalue λ, an optimizer whose step sizes stand still
is a linear recurrence; the rate is stable as long as both roots of it lie in the unit circle. That
is the local picture: a network that crosses the limit often finds its way to where the sharpness
is smaller, and one that keeps to it may still be too fast for the noise of small batches.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stepsize.errors import FieldError
from stepsize.finding.stability import stable_rate
from stepsize.schedules.fields import Bounds
from stepsize.torch.hessian import Loss
from stepsize.torch.known_rates import check_known, inside
from stepsize.torch.looking import Look, present
from stepsize.torch.ranks import scalar
from stepsize.torch.sharpness import Sharpness, sharpness

_OTHERWISE = ("ASGD", "Muon", "Rprop")  # of torch; their steps are no lr times a scaled gradient
_OTHERS = tuple(getattr(torch.optim, name) for name in _OTHERWISE if hasattr(torch.optim, name))
_MOMENTUM = Bounds(ge=0, lt=1)


def preconditioned_sharpness(loss: Loss, optimizer: Optimizer, **settings: Any) -> Sharpness:
    r"""Find the largest eigenvalue of $P^{-1}H$, the sharpness as the optimizer sees it.

    $P^{-1}$ is diagonal: the effective step size of every element, as `step_sizes` tells it, over
    the `lr` of the first param group. So a rate is stable or not by this number as it is by the
    sharpness itself for gradient descent: see `stability_limit`. Under SGD with one group it is the
    sharpness.

    An element whose gradient was 0 at every step so far stays where it is, and counts as constant.
    Weight decay is not in it.

    Args:
        loss: as `sharpness` takes it.
        optimizer: one that `step_sizes` knows, or with a method `sizes_of`; it has taken a step,
            unless it is SGD. Its state is read and stays as it is.
        **settings: as of `sharpness`.

    Raises:
        FieldError: as `sharpness`; and for an optimizer that is not known, whose steps are no
            multiples of lr and a scaled gradient (Rprop, Muon, ASGD), or that took no step yet.

    Source: Cohen et al. 2022 (arXiv 2207.14484), of which the abstract was read: under Adam the
    largest eigenvalue of the preconditioned Hessian "typically equilibrates" where this says that
    steps are no longer stable.

    >>> w = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    >>> def loss():
    ...     return 0.5 * (w[0] ** 2 + 100 * w[1] ** 2)
    >>> optimizer = torch.optim.RMSprop([w], lr=1e-9, alpha=0.0)
    >>> loss().backward()
    >>> optimizer.step()
    >>> found = preconditioned_sharpness(loss, optimizer)
    >>> round(sharpness(loss, [w]).value, 6), round(found.value, 6)
    (100.0, 1.0)
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    scales = preconditioner_of(optimizer)
    if scales is None:
        cure = "measure it after its first step"
        name = type(optimizer).__name__
        raise FieldError.of("optimizer", "one that has taken a step", name, cure)
    return sharpness(loss, params, preconditioner=scales, **settings)


def stability_limit(
    sharpness: Sharpness | float,
    optimizer: Optimizer | None = None,
    *,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> float:
    r"""Give the largest stable rate at a sharpness λ; infinite where that is not above 0.

    | optimizer | limit |
    | --- | --- |
    | gradient descent, RMSprop, Adagrad, Adadelta | 2/λ |
    | heavy ball with momentum β, dampening δ | 2(1+β) / ((1-δ)λ) |
    | Nesterov's momentum, as torch has it | 2(1+β) / ((1+2β)λ) |
    | Adam and those with its average of gradients | 2(1+β₁) / ((1-β₁)λ) |
    | NAdam, once its momentum stands still | 2(1+β₁) / ((1+2β₁)(1-β₁)λ) |

    Of an optimizer that scales elements, λ is the preconditioned sharpness. Adam's average is taken
    as corrected already: its very first step has the limit 2/λ.

    Args:
        sharpness: what was found, or a number.
        optimizer: tells its momentum; of several groups with different ones the least limit counts.
        momentum: as of torch.optim.SGD, in place of an optimizer; so are the others.
        dampening: what part of each gradient is left out.
        nesterov: whether the step looks ahead.

    Raises:
        FieldError: for numbers that are no momentum.

    Source: 2/λ, the heavy ball's limit and Nesterov's are said to stand in Cohen et al. 2021 (arXiv
    2103.00065), and 38/λ for Adam with β₁ = 0.9 in the abstract of Cohen et al. 2022 (arXiv
    2207.14484). Of the first nothing was read, of the second the abstract. All are derived here
    from the recurrence (see `stable_rate`), and the tests step torch's optimizers on both sides.

    >>> stability_limit(100.0), stability_limit(100.0, momentum=0.9)
    (0.02, 0.038)
    >>> w = torch.ones(1, requires_grad=True)
    >>> round(stability_limit(100.0, torch.optim.Adam([w])), 12)
    0.38
    """
    value = float(sharpness)
    if optimizer is not None:
        if momentum or dampening or nesterov:
            rule = "left out beside an optimizer, which tells them"
            raise FieldError.of(
                "momentum, dampening, nesterov", rule, (momentum, dampening, nesterov)
            )
        if isinstance(inside(optimizer), _OTHERS):
            rule = "one whose steps are lr times a gradient that is scaled element by element"
            raise FieldError.of("optimizer", rule, type(inside(optimizer)).__name__)
        return min(stable_rate(value, *momentum_of(optimizer, g)) for g in optimizer.param_groups)
    beta = float(_MOMENTUM.admit("stability_limit: momentum", momentum))
    less = float(_MOMENTUM.admit("stability_limit: dampening", dampening))
    return stable_rate(value, beta, less, nesterov=nesterov)


def momentum_of(optimizer: Any, group: dict[str, Any]) -> tuple[float, float, bool]:
    """Give a group's momentum, its dampening, and whether it is Nesterov's."""
    if "betas" in group:  # an average of gradients: each is damped by what the old ones keep
        beta = scalar(group["betas"][0])
        return beta, beta, isinstance(inside(optimizer), torch.optim.NAdam)
    beta = scalar(group.get("momentum", 0.0))
    return beta, scalar(group.get("dampening", 0.0)), bool(group.get("nesterov", False))


def preconditioner_of(optimizer: Optimizer) -> list[Tensor | float] | None:
    """Give what each element's step is multiplied with, relative to the first group's lr.

    None before the optimizer's first step, where it does not know yet.
    """
    check_known(optimizer)
    own = inside(optimizer)
    if isinstance(own, _OTHERS):
        rule = "one whose steps are lr times a gradient that is scaled element by element"
        raise FieldError.of("optimizer", rule, type(own).__name__)
    look = Look((own,), None, "parameter", (), None, scheduled=True)
    pairs = [(group, p) for group in own.param_groups for p in group["params"]]
    found = [look.rate(own, group, p, _ratio_to(own.param_groups[0])) for group, p in pairs]
    if all(rate is None for rate in found):
        return None
    return [_shaped(rate, p) for rate, (_, p) in zip(found, pairs, strict=True)]


def _ratio_to(first: dict[str, Any]) -> Any:
    """Give a function for a group's lr over the first one's; over base values where that is 0."""
    key = "lr" if scalar(present(first)) > 0 else "initial_lr"
    base = scalar(first.get(key, 0.0))

    def ratio(group: dict[str, Any]) -> float:
        if group is first or base == scalar(group.get(key, 0.0)):
            return 1.0
        if not base:
            cure = "order the param groups so that the first one moves"
            raise FieldError.of("optimizer: the lr of the first group", "above 0", base, cure)
        return scalar(group.get(key, 1.0)) / base

    return ratio


def _shaped(rate: Tensor | float | None, p: Tensor) -> Tensor | float:
    if rate is None:
        return 0.0
    if isinstance(rate, Tensor):
        rate = torch.nan_to_num(rate, nan=0.0)
        return rate.view_as(p) if rate.dim() else rate
    return rate if math.isfinite(rate) else 0.0
