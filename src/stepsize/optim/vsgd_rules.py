"""What vSGD does to lists of tensors: averages over a memory of changing length, and rates."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from stepsize.optim.formula import Tensors, evidence_of

STEEPEST = 1e12
"""The greatest curvature a finite difference may show: its square stays a float32."""


class Observed:
    """The element form with curvatures that were given: averages of g, of g^2 and of h."""

    memory: ClassVar[tuple[str, ...]] = ("g", "v", "h", "tau")
    rooms: ClassVar[int] = 2

    @classmethod
    def rates(
        cls,
        group: Mapping[str, Any],
        gradients: Tensors,
        memory: Mapping[str, Tensors],
        rooms: Sequence[Tensors],
    ) -> Tensors:
        """Take up the gradients; give the rates. The curvatures have been taken up before."""
        ratio, room = rooms
        torch._foreach_copy_(room, memory["tau"])
        torch._foreach_reciprocal_(room)
        average(memory, gradients, room, ratio)
        share(ratio, memory)
        lengthen(memory["tau"], ratio, group["least_tau"])
        cls.over_curvature(group, memory, ratio, room)
        return ratio

    @classmethod
    def sizes(cls, group: Mapping[str, Any], memory: Mapping[str, Tensors]) -> Tensors:
        """Give the rates that follow from what is remembered."""
        ratio, room = ([torch.empty_like(t) for t in memory["g"]] for _ in range(2))
        share(ratio, memory)
        cls.over_curvature(group, memory, ratio, room)
        return ratio

    @classmethod
    def over_curvature(
        cls, group: Mapping[str, Any], memory: Mapping[str, Tensors], ratio: Tensors, room: Tensors
    ) -> None:
        """Divide by the curvature."""
        torch._foreach_copy_(room, memory["h"])
        torch._foreach_clamp_min_(room, group["least_curvature"])
        torch._foreach_div_(ratio, room)


class Probed(Observed):
    """The element form with finite differences, which also averages h^2: h / E h^2 for 1 / h."""

    memory: ClassVar[tuple[str, ...]] = ("g", "v", "h", "vh", "tau")

    @classmethod
    def over_curvature(
        cls, group: Mapping[str, Any], memory: Mapping[str, Tensors], ratio: Tensors, room: Tensors
    ) -> None:
        """Multiply by h / E h^2."""
        least = group["least_curvature"]
        torch._foreach_copy_(room, memory["h"])
        torch._foreach_clamp_min_(room, least)
        torch._foreach_mul_(ratio, room)
        torch._foreach_copy_(room, memory["vh"])
        torch._foreach_clamp_min_(room, least * least)
        torch._foreach_div_(ratio, room)


def average(memory: Mapping[str, Tensors], gradients: Tensors, weight: Any, room: Tensors) -> None:
    """Take up gradients into the averages of g and g^2, by a number or an element's own weight."""
    _draw(memory["g"], gradients, weight)
    torch._foreach_copy_(room, gradients)
    torch._foreach_mul_(room, gradients)
    _draw(memory["v"], room, weight)


def _draw(means: Tensors, values: Tensors, weight: Any) -> None:
    if torch.compiler.is_compiling():  # lists of weights have no fused form
        for mean, value, own in zip(means, values, weight, strict=True):
            mean.lerp_(value, own)
    else:
        torch._foreach_lerp_(means, values, weight)


def share(ratio: Tensors, memory: Mapping[str, Tensors]) -> None:
    """Write (E g)^2 / E g^2; 0 where there has been no gradient."""
    torch._foreach_clamp_min_(memory["v"], torch.finfo(ratio[0].dtype).tiny)
    torch._foreach_copy_(ratio, memory["g"])
    torch._foreach_mul_(ratio, memory["g"])
    torch._foreach_div_(ratio, memory["v"])


def lengthen(tau: Tensors, ratio: Tensors, least: float) -> None:
    """Bring the length of the memory up to date: (1 - ratio) tau + 1, and no less than `least`."""
    torch._foreach_addcmul_(tau, ratio, tau, value=-1.0)
    torch._foreach_add_(tau, 1.0)
    torch._foreach_clamp_min_(tau, least)


# Finite differences -----------------------------------------------------------------------------

LOOK_ROOMS = 6

HIDDEN = 16
"""The variance that rounding hides, in units of the mean square and of the dtype's precision."""


def shift(
    group: Mapping[str, Any],
    params: Tensors,
    gradients: Tensors,
    means: Tensors,
    rooms: Sequence[Tensors],
) -> None:
    """Move parameters by the mean gradient; by the present one where that is 0, as at first."""
    own, way = rooms
    evidence = evidence_of(group, params, gradients, own)
    torch._foreach_copy_(way, means)
    torch._foreach_sign_(way)
    torch._foreach_abs_(way)
    torch._foreach_neg_(way)
    torch._foreach_add_(way, 1.0)
    torch._foreach_mul_(way, evidence)
    torch._foreach_add_(way, means)
    torch._foreach_add_(params, way)


def look(
    group: Mapping[str, Any],
    looks: tuple[Tensors, Tensors, Tensors, Tensors],
    memory: Mapping[str, Tensors],
    rooms: Sequence[Tensors],
    weight: float | None,
) -> None:
    """Take up what the second evaluation shows of the curvature.

    `looks`: parameters as shifted, as they were, second gradients, first ones. `weight`: of this
    look in the averages; None: 1 / tau, after a test for outliers. What the shift did not move (its
    mean gradient is 0, or lost beside the parameter) shows nothing, and is not taken up.
    """
    (shifted, places, seconds, firsts), (own, curvature, moved, *others) = looks, rooms
    evidence = evidence_of(group, places, firsts, own)
    second = evidence_of(group, shifted, seconds, curvature)
    if second is not curvature:
        torch._foreach_copy_(curvature, second)
    torch._foreach_sub_(curvature, evidence)
    torch._foreach_abs_(curvature)
    torch._foreach_copy_(moved, shifted)
    torch._foreach_sub_(moved, places)
    torch._foreach_abs_(moved)
    _divide(curvature, moved, others[0])
    torch._foreach_sign_(moved)
    if weight is None:
        if group["outliers"]:
            _doubt(group["outliers"], (evidence, curvature, moved), memory, others)
        torch._foreach_div_(moved, memory["tau"])
    else:
        torch._foreach_mul_(moved, weight)
    torch._foreach_lerp_(memory["h"], curvature, moved)
    torch._foreach_mul_(curvature, curvature)
    torch._foreach_lerp_(memory["vh"], curvature, moved)


def _divide(curvature: Tensors, moved: Tensors, room: Tensors) -> None:
    torch._foreach_copy_(room, moved)
    torch._foreach_clamp_min_(room, torch.finfo(room[0].dtype).tiny)
    torch._foreach_div_(curvature, room)
    torch._foreach_clamp_max_(curvature, STEEPEST)


def _doubt(
    level: float,
    seen: tuple[Tensors, Tensors, Tensors],
    memory: Mapping[str, Tensors],
    rooms: Sequence[Tensors],
) -> None:
    """Lengthen the memory by 1 where a gradient, or a curvature that shows, is an outlier."""
    (evidence, curvature, moved), (far, steep, room) = seen, rooms
    _outlying(level, evidence, memory["g"], memory["v"], (far, room))
    _outlying(level, curvature, memory["h"], memory["vh"], (steep, room))
    torch._foreach_mul_(steep, moved)
    torch._foreach_maximum_(far, steep)
    torch._foreach_add_(memory["tau"], far)


def _outlying(
    level: float,
    values: Tensors,
    means: Tensors,
    squares: Tensors,
    rooms: Sequence[Tensors],
) -> None:
    """Write 1 where a value is more than `level` standard deviations from the mean, else 0.

    A variance is no less than what rounding leaves of it: else, where a loss is quadratic, the last
    digits of its curvature would decide.
    """
    far, spread = rooms
    torch._foreach_copy_(far, squares)
    torch._foreach_mul_(far, HIDDEN * torch.finfo(far[0].dtype).eps)
    torch._foreach_copy_(spread, squares)
    torch._foreach_addcmul_(spread, means, means, value=-1.0)
    torch._foreach_maximum_(spread, far)
    torch._foreach_sqrt_(spread)
    torch._foreach_copy_(far, values)
    torch._foreach_sub_(far, means)
    torch._foreach_abs_(far)
    torch._foreach_sub_(far, spread, alpha=level)
    torch._foreach_sign_(far)
    torch._foreach_clamp_min_(far, 0.0)
